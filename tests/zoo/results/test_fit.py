"""The fit command: every method from stores to a config that fuses, the same by any processes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

import converters
from converters.masks import decode_rle
from fusion.fit import FITS
from fusion.rules.file import read_rule
from fusion.sources import submission
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.results import fit as fitting

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", FITS)
def test_a_method_is_fitted_printed_and_fuses(zoo, stores, work, tmp_path, capsys, method):
    given = (*stores, "--data", work / "data", "--method", method, "--refine", "none")
    rule, out = tmp_path / "fusion.yaml", tmp_path / "out.csv"
    zoo("fit", *given, "--out", rule)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("held-out Dice on 6 images of 3 patients")
    assert lines[1].split()[:6] == ["class", "a", "b", "c", "mean", "fused"]
    told = [line for line in lines if line.startswith("likely gain: ")]
    assert len(lines) == 2 + 9 + 3 + len(told)
    assert lines[-1].startswith(f"held-out mean Dice: fitted {method} 0.")
    assert lines[-2].startswith(f"{rule}: fitted on 6 images")
    # The mean of all classes is what the last line says.
    assert (
        lines[-1].split(f"fitted {method} ")[1].split(",")[0]
        == next(n for n in lines if n.startswith("all ")).split()[5]
    )
    assert read_rule(rule).sources == ("a", "b", "c")
    zoo("fuse", *stores, "--config", rule, "--out", out, "--data", work / "data")
    assert out.is_file()


@pytest.mark.parametrize(("method", "refine"), [("hybrid", "shape"), ("mean", "all")])
def test_processes_do_not_change_the_file(zoo, stores, work, tmp_path, capsys, method, refine):
    if refine == "all":
        pytest.importorskip("pydensecrf", reason="the extra crf is not installed")
    said = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs) / "fusion.yaml"
        given = (*stores, "--data", work / "data", "--method", method, "--refine", refine)
        zoo("fit", *given, "--jobs", jobs, "--out", out)
        said.append(capsys.readouterr().out.replace(str(out), ""))
    first, second = ((tmp_path / j / "fusion.yaml").read_bytes() for j in "12")
    assert first == second
    assert said[0] == said[1]


@pytest.mark.parametrize("objective", ["shared", "dice:.5,nsd:.5"])
def test_the_fit_is_told_what_to_win(zoo, stores, work, tmp_path, capsys, objective):
    said = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs) / "fusion.yaml"
        given = (*stores, "--data", work / "data", "--jobs", jobs, "--out", out)
        zoo("fit", *given, "--objective", objective)
        said.append(capsys.readouterr().out.replace(str(out), ""))
    assert said[0] == said[1]
    first, second = ((tmp_path / j / "fusion.yaml").read_text(encoding="utf-8") for j in "12")
    assert first == second
    name = objective.replace(".5", "0.5")
    assert first.startswith(f"# Fitted for {name}.\n# ")
    assert type(read_rule(tmp_path / "1" / "fusion.yaml").innermost()).__name__ == "Hybrid"
    lines = said[0].splitlines()
    assert lines[-2].startswith(f"held-out {name}: fitted hybrid 0.")
    assert lines[-1].startswith("held-out mean Dice: fitted hybrid 0.")
    chosen = [line for line in lines if "was chosen by it on held-out patients" in line]
    assert len(chosen) == ("nsd" in objective)
    assert ("likely gain over the best, shared [95 %]" in lines[1]) == (objective == "shared")


def test_a_pixel_of_one_label_shares_none(zoo, stores, toys, work, tmp_path, capsys):
    alone = replace(toys.labels, exclusive="large_first")
    for name in "ab":
        store = PredictionStore(work / name)
        manifest = replace(store.manifest, space=alone)
        with StoreWriter(tmp_path / name, manifest) as writer:
            for prediction in store:
                writer.append(prediction)
    given = (tmp_path / "a", tmp_path / "b", "--data", work / "data", "--out", tmp_path / "f.yaml")
    zoo("fit", *given, "--objective", "shared", code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--objective shared: a pixel has one label in 'toys'" in line
    zoo("fit", *given, "--objective", "nsd", "--refine", "none")
    assert "was chosen by it on held-out patients" in capsys.readouterr().out


def test_images_that_are_left_out_are_not_counted(zoo, stores, work, toys, tmp_path, capsys):
    edits = tmp_path / "edits.yaml"
    left_out = f"{{key: {toys.samples[0].key}, why: torn}}"
    edits.write_text(f"version: 1\nexclude_images: [{left_out}]\n", encoding="utf-8")
    given = (*stores, "--data", work / "data", "--edits", edits, "--method", "mean")
    zoo("fit", *given, "--out", tmp_path / "fusion.yaml")
    assert "on 5 images of 3 patients" in capsys.readouterr().out


REFUSED = [
    (("--method", "max"), "method 'max': expected one of mean, weighted, vote, classwise, hybrid"),
    (("--refine", "some"), "--refine: expected shape, all or none, found 'some'"),
    (("--jobs", "0"), "jobs: expected 1 or more, found 0"),
    (("--bent", "often"), "--bent: expected a share or a prediction store, found 'often'"),
    (("--bent", "0.5"), "--bent: the label space 'toys' tells no posture"),
    (("--objective", "iou"), "--objective: expected dice, shared, nsd, or weights above 0"),
    (
        ("--objective", "shared", "--method", "mean"),
        "--objective shared: expected --method hybrid, found mean: other rules are fitted for Dice",
    ),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_a_bad_option_is_one_line(zoo, stores, work, tmp_path, capsys, options, said):
    zoo("fit", *stores, "--data", work / "data", "--out", tmp_path / "f.yaml", *options, code=2)
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_somebody_s_file_is_kept(zoo, stores, work, tmp_path, capsys):
    mine, folder = tmp_path / "list.yaml", tmp_path / "folder"
    mine.write_text("shopping: [milk]\n", encoding="utf-8")
    folder.mkdir()
    for out, said in (
        (mine, "own fusion config, unchanged, to replace"),
        (folder, "found a folder"),
    ):
        zoo("fit", *stores, "--data", work / "data", "--out", out, code=2)
        assert f"{out}: expected" in (err := capsys.readouterr().err)
        assert said in err
    assert mine.read_text(encoding="utf-8") == "shopping: [milk]\n"
    assert not list(folder.iterdir())


def test_a_config_that_was_changed_by_hand_is_kept(zoo, stores, work, tmp_path, capsys):
    out = tmp_path / "fusion.yaml"
    given = (*stores, "--data", work / "data", "--method", "mean", "--refine", "none")
    zoo("fit", *given, "--out", out)
    fitted = out.read_text(encoding="utf-8")
    own = "method: mean\nthreshold: 0.4 # mine\n"
    for text in (f"# {fitted}", f"{fitted}# a word of mine\n", own):
        out.write_text(text, encoding="utf-8")
        zoo("fit", *given, "--out", out, code=2)
        assert "unchanged, to replace, found another file" in capsys.readouterr().err
        assert out.read_text(encoding="utf-8") == text


def test_a_fusion_config_is_replaced(zoo, stores, work, tmp_path):
    out = tmp_path / "fusion.yaml"
    given = (*stores, "--data", work / "data", "--refine", "none", "--out", out)
    for method in ("mean", "vote"):
        zoo("fit", *given, "--method", method)
    assert type(read_rule(out)).__name__ == "Vote"


def test_what_a_source_does_not_speak_of_is_a_dash(zoo, stores, work, tmp_path, capsys):
    """Nor does it count in the source's mean over all classes, which is marked."""
    whole, seen = PredictionStore(stores[0]), tmp_path / "few"
    spoken = frozenset({"sheet"})
    with StoreWriter(seen, replace(whole.manifest, classes=tuple(spoken))) as writer:
        for prediction in whole:
            masks = {n: m for n, m in prediction.masks.items() if n in spoken}
            writer.append(replace(prediction, masks=masks, classes=spoken))
    given = (seen, stores[1], "--data", work / "data", "--refine", "none", "--method", "mean")
    zoo("fit", *given, "--out", tmp_path / "fusion.yaml")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {
        line[0]: line[1] for line in lines if line and line[0] in [*whole.manifest.names, "all"]
    }
    assert [n for n, dice in rows.items() if dice != "-"] == ["sheet", "all"]
    assert rows["all"] == f"{rows['sheet']}*"


def test_images_without_truth_are_refused(zoo, stores, work, tmp_path, capsys):
    store = tmp_path / "a"
    store.mkdir()
    for path in stores[0].iterdir():
        (store / path.name).write_bytes(path.read_bytes())
    record = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    # So old a store has no checksums.
    record["version"], record["images"][0][0] = 1, "unknown_1"
    (store / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    zoo("fit", store, "--data", work / "data", "--out", tmp_path / "f.yaml", code=2)
    assert "expected truth of 'unknown_1', found none" in capsys.readouterr().err
    assert not (tmp_path / "f.yaml").exists()


CLAIMS = {
    "no split": ({"split": ""}, "that name their split"),
    "no fold": ({"fold": None, "source": {"run": "a"}}, "that name their fold"),
    "all images": ({"subset": "all"}, "found 'all'"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_what_no_run_vouches_for_is_not_held_out(zoo, stores, work, tmp_path, capsys, case):
    changes, said = CLAIMS[case]
    store = PredictionStore(stores[0])
    with StoreWriter(tmp_path / "a", replace(store.manifest, **changes)) as writer:
        for prediction in store:
            writer.append(prediction)
    out = tmp_path / "f.yaml"
    zoo("fit", tmp_path / "a", "--data", work / "data", "--out", out, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize("case", CLAIMS)
def test_what_the_user_vouches_for_is_held_out(zoo, stores, work, tmp_path, capsys, case):
    changes, _ = CLAIMS[case]
    store = PredictionStore(stores[0])
    with StoreWriter(tmp_path / "a", replace(store.manifest, **changes)) as writer:
        for prediction in store:
            writer.append(prediction)
    given = ("--data", work / "data", "--method", "mean", "--refine", "none")
    out, plain = tmp_path / "f.yaml", tmp_path / "plain.yaml"
    zoo("fit", tmp_path / "a", stores[1], *given, "--held-out", "a", "--out", out)
    assert "held out by your word alone: a\n" in capsys.readouterr().out
    zoo("fit", stores[0], stores[1], *given, "--held-out", "a", "--out", plain)
    # The record of this one says so itself: nothing is believed, nothing noted.
    assert "by your word" not in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    # But for the last line, by which it is recognised.
    assert text.startswith(plain.read_text(encoding="utf-8").rpartition("# ")[0])
    assert yaml.safe_load(text)["held_out_by_word"] == ["a"]
    assert read_rule(out) == read_rule(plain)


def test_a_submission_is_refused_in_one_line(zoo, files, stores, work, tmp_path, capsys):
    for sources in ((stores[1], files[0]), files[:1]):
        zoo("fit", *sources, "--data", work / "data", "--out", tmp_path / "f.yaml", code=2)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{files[0]}: expected predictions of held-out images, found a submission" in line
        assert line.endswith("say --held-out a")
    zoo(
        "fit", *files, "--data", work / "data", "--held-out", "a,d", "--out", tmp_path / "f", code=2
    )
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--held-out: expected names of the sources (a, b, c) or all, found 'd'" in line


@pytest.mark.parametrize("method", ["hybrid", "mean"])
def test_a_submission_is_fitted_like_a_store_of_its_masks(
    zoo, stores, files, toys, work, tmp_path, method
):
    manifest = PredictionStore(stores[0]).manifest
    with StoreWriter(tmp_path / "a", manifest) as writer:
        for sample in toys.samples:
            masks = {
                row.label: ((1.0, _whole(decode_rle(row.rle, sample.size_hw))),)
                for row in submission.read(files[0])
                if row.image_name == sample.file_name and row.rle
            }
            writer.append(Prediction(sample.key, sample.size_hw, "semantic", masks))
    given = ("--data", work / "data", "--refine", "none", "--method", method)
    as_store, as_file = tmp_path / "store.yaml", tmp_path / "file.yaml"
    zoo("fit", tmp_path / "a", stores[1], *given, "--out", as_store)
    zoo("fit", files[0], stores[1], *given, "--held-out", "a", "--out", as_file)
    assert read_rule(as_file) == read_rule(as_store)
    assert yaml.safe_load(as_file.read_text(encoding="utf-8"))["held_out_by_word"] == ["a"]
    fused = [tmp_path / "one.csv", tmp_path / "two.csv"]
    zoo("fuse", files[0], stores[1], "--config", as_file, "--out", fused[0])
    zoo("fuse", tmp_path / "a", stores[1], "--config", as_store, "--out", fused[1])
    assert fused[0].read_bytes() == fused[1].read_bytes()


def _whole(mask):
    height, width = mask.pixels.shape
    box = tuple(map(float, (mask.x, mask.y, width, height)))
    return SoftMask(box, mask.pixels * np.uint8(255))


def test_submissions_alone_are_fitted(zoo, files, work, tmp_path, capsys):
    out = tmp_path / "f.yaml"
    given = ("--data", work / "data", "--method", "vote", "--refine", "none")
    zoo("fit", *files, *given, "--held-out", "all", "--out", out)
    said = capsys.readouterr().out
    assert "held-out Dice on 6 images of 3 patients" in said
    assert "held out by your word alone: a, b, c\n" in said
    assert read_rule(out).sources == ("a", "b", "c")
    assert yaml.safe_load(out.read_text(encoding="utf-8"))["held_out_by_word"] == ["a", "b", "c"]


@pytest.mark.parametrize("method", FITS)
def test_the_order_of_the_stores_does_not_change_what_is_fitted(
    zoo, stores, work, tmp_path, method
):
    written = []
    for order in (stores, stores[::-1]):
        given = (*order, "--data", work / "data", "--method", method, "--refine", "none")
        zoo("fit", *given, "--out", tmp_path / "f.yaml")
        written.append((tmp_path / "f.yaml").read_bytes())
    assert written[0] == written[1]


def test_images_of_nobody_known_are_a_patient_each(zoo, stores, toys, tmp_path, capsys):
    alone = [replace(sample, group="") for sample in toys.samples]
    converters.write(alone, tmp_path / "data", format="coco", labels=toys.labels)
    given = ("--data", tmp_path / "data")
    zoo(
        "fit", *stores, *given, "--method", "mean", "--refine", "none", "--out", tmp_path / "f.yaml"
    )
    assert "held-out Dice on 6 images of 6 patients" in capsys.readouterr().out
    zoo("evaluate", stores[0], *given)
    assert "6 images of 6 patients" in capsys.readouterr().out


def test_one_patient_is_refused_before_the_work(zoo, stores, toys, tmp_path, capsys, monkeypatch):
    same = [replace(sample, group="one") for sample in toys.samples]
    converters.write(same, tmp_path / "data", format="coco", labels=toys.labels)
    monkeypatch.setattr(fitting, "_count", lambda *_: pytest.fail("pixels are counted"))
    out = tmp_path / "f.yaml"
    zoo("fit", *stores, "--data", tmp_path / "data", "--out", out, code=2)
    assert "at least two patients, found 1 in 6 images" in capsys.readouterr().err
    assert not out.exists()
