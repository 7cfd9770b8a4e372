"""The fit command: every method from stores to a config that fuses, the same by any processes."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import converters
from converters.masks import decode_rle
from converters.splits.split import make_split
from fusion.fit import FITS
from fusion.metrics.intervals import Estimate
from fusion.rules.file import read_rule
from fusion.sources import submission
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.results import fit as fitting

pytestmark = pytest.mark.slow


@pytest.fixture
def uncounted(monkeypatch):
    monkeypatch.setattr(fitting, "_count", lambda *_: pytest.fail("pixels are counted"))


@pytest.mark.parametrize("method", FITS)
def test_a_method_is_fitted_printed_and_fuses(zoo, stores, work, tmp_path, capsys, method):
    given = (*stores, "--data", work / "data", "--method", method, "--refine", "none")
    rule, out = tmp_path / "fusion.yaml", tmp_path / "out.csv"
    zoo("fit", *given, "--out", rule)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("held-out Dice on 6 images of 3 patients")
    assert lines[1].split()[:6] == ["class", "a", "b", "c", "mean", "fused"]
    told = [line for line in lines if line.startswith(("likely gain: ", "worse fused than "))]
    assert len(lines) == 2 + 9 + 5 + len(told)
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
    whole, seen = PredictionStore(stores[0]), only_of(stores[0], ["sheet"], tmp_path / "few")
    given = (seen, stores[1], "--data", work / "data", "--refine", "none", "--method", "mean")
    zoo("fit", *given, "--out", tmp_path / "fusion.yaml")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {
        line[0]: line[1] for line in lines if line and line[0] in [*whole.manifest.names, "all"]
    }
    assert [n for n, dice in rows.items() if dice != "-"] == ["sheet", "all"]
    assert rows["all"] == f"{rows['sheet']}*"


def only_of(store, spoken, out, **changes):
    """Write a store that says the same of some classes, and nothing of others."""
    whole = PredictionStore(store)
    manifest = replace(whole.manifest, classes=tuple(spoken), **changes)
    with StoreWriter(out, manifest) as writer:
        for prediction in whole:
            masks = {n: m for n, m in prediction.masks.items() if n in spoken}
            writer.append(replace(prediction, masks=masks, classes=frozenset(spoken)))
    return out


def test_what_no_source_speaks_of_is_not_counted(zoo, stores, work, tmp_path, capsys):
    few = [only_of(store, ["sheet"], tmp_path / store.name) for store in stores[:2]]
    given = ("--data", work / "data", "--refine", "none", "--method", "mean")
    zoo("fit", *few, *given, "--out", tmp_path / "fusion.yaml")
    said = capsys.readouterr()
    silent = [name for name in PredictionStore(stores[0]).manifest.names if name != "sheet"]
    assert f"no source says anything of {', '.join(silent)}: scores are of the other 1" in said.err
    rows = {line.split()[0]: line.split() for line in said.out.splitlines() if line.split()}
    assert not rows.keys() & set(silent)
    assert rows["all"][1:4] == rows["sheet"][1:4]
    zoo("report", *few, "--data", work / "data", "--out", tmp_path / "page")
    assert f"no source says anything of {silent[0]}" in (tmp_path / "page/report.html").read_text()
    assert capsys.readouterr().out.startswith(f"mean {rows['all'][3]} ")


def test_patients_of_the_split_beside_the_data_count(zoo, stores, toys, tmp_path, capsys):
    alone = [replace(sample, group="") for sample in toys.samples]
    converters.write(alone, tmp_path / "data", format="coco", labels=toys.labels)
    make_split(toys.samples, folds=2, seed=0).save(tmp_path / "data/split.json")
    given = ("--data", tmp_path / "data", "--method", "mean", "--refine", "none")
    zoo("fit", *stores, *given, "--out", tmp_path / "f.yaml")
    said = capsys.readouterr()
    assert "held-out Dice on 6 images of 3 patients" in said.out
    assert f"patients are those of {tmp_path / 'data/split.json'}" in said.err
    # What nobody has named may be of anything.
    (tmp_path / "data/split.json").write_text("{}")
    zoo("fit", *stores, *given, "--out", tmp_path / "f.yaml")
    said = capsys.readouterr()
    assert "held-out Dice on 6 images of 6 patients" in said.out
    assert "patients are" not in said.err


def test_all_that_are_not_held_out_are_named_at_once(zoo, stores, work, tmp_path, capsys):
    asked = [
        only_of(store, PredictionStore(store).manifest.names, tmp_path / store.name, subset="all")
        for store in stores[:2]
    ]
    given = ("--data", work / "data", "--out", tmp_path / "f.yaml")
    zoo("fit", *asked, stores[2], *given, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "nor are 1 more known to be" in line
    assert line.endswith("say --held-out a,b")
    # On images that somebody says are held out, a rule's scores are as good as on others.
    zoo("fit", *asked, stores[2], *given, "--held-out", "a,b", "--refine", "none")
    zoo("report", *asked, "--data", work / "data", "--out", tmp_path / "page")
    assert "scores are too good" not in capsys.readouterr().err
    fitted = ("--config", tmp_path / "f.yaml")
    zoo("report", *asked, stores[2], *given[:2], "--out", tmp_path / "page", *fitted)
    assert "on the images that it was fitted on, its scores are too good" in capsys.readouterr().err


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
    assert capsys.readouterr().out.startswith("6 images\n")


def test_one_patient_is_refused_before_the_work(zoo, stores, toys, tmp_path, capsys, uncounted):
    same = [replace(sample, group="one") for sample in toys.samples]
    converters.write(same, tmp_path / "data", format="coco", labels=toys.labels)
    out = tmp_path / "f.yaml"
    zoo("fit", *stores, "--data", tmp_path / "data", "--out", out, code=2)
    assert "at least two patients, found 1 in 6 images" in capsys.readouterr().err
    assert not out.exists()


def test_stores_of_one_fold_and_of_all_are_fitted_on_what_both_have(
    zoo, stores, work, tmp_path, capsys
):
    whole = PredictionStore(stores[1])
    images = {key: whole.manifest.images[key] for key in whole.keys()[:4]}
    few = tmp_path / "few"
    with StoreWriter(few, replace(whole.manifest, images=images, fold=0)) as writer:
        for key in images:
            writer.append(whole[key])
    data = ("--data", work / "data", "--refine", "none")
    zoo("fit", stores[0], few, *data, "--out", tmp_path / "common.yaml")
    said = capsys.readouterr()
    note = f"only the 4 images that all sources have are taken; left out are 2 of {stores[0]}"
    assert note in " ".join(said.err.split())
    zoo("fuse", stores[0], few, "--method", "mean", "--out", tmp_path / "s.csv", code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2 images differ" in line
    assert "predict the same images by both" in line
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("objective", ["shared", "dice:.5,shared:.5", "shared:.5,nsd:.5"])
def test_shared_pixels_of_classes_apart_are_refused_before_the_work(
    zoo, stores, toys, tmp_path, capsys, uncounted, objective
):
    """The truth alone tells that no class overlaps: one class of each image is left."""
    apart = [replace(s, instances=s.instances[:1]) for s in toys.samples]
    converters.write(apart, tmp_path / "data", format="coco", labels=toys.labels)
    out = tmp_path / "f.yaml"
    given = (*stores, "--data", tmp_path / "data", "--out", out)
    zoo("fit", *given, "--objective", objective, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "expected classes that overlap in the truth" in line
    assert line.endswith("found none in 'toys'")
    assert not out.exists()


def test_too_many_sources_are_refused_before_the_work(
    zoo, stores, work, tmp_path, capsys, uncounted
):
    many = []
    for number in range(13):
        many.append(tmp_path / f"s{number}")
        many[-1].symlink_to(stores[0], target_is_directory=True)
    zoo("fit", *many, "--data", work / "data", "--out", tmp_path / "f.yaml", code=2)
    assert "fit: expected at most 12 sources, found 13" in capsys.readouterr().err


def test_a_crf_that_is_not_installed_is_refused_before_the_work(
    zoo, stores, work, tmp_path, capsys, uncounted, monkeypatch
):
    for name in ("pydensecrf", "pydensecrf.densecrf"):
        monkeypatch.setitem(sys.modules, name, None)
    given = (*stores, "--data", work / "data", "--out", tmp_path / "f.yaml")
    zoo("fit", *given, "--refine", "all", code=2)
    assert "crf" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    zoo, stores, work, tmp_path, capsys, uncounted
):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = tmp_path / "file" / "new" / "fusion.yaml"
    zoo("fit", *stores, "--data", work / "data", "--out", out, code=2)
    assert f"{out}: expected a file in a folder, but {tmp_path / 'file'} is none" in (
        capsys.readouterr().err
    )


NOTHING_KEPT = """
import sys
from fusion.fit import spill
from zoo.__main__ import run
if __name__ == "__main__":
    spill.KEPT_TABLES = spill.KEPT_STACKS = 0
    sys.exit(run())
"""


@pytest.fixture
def fit_by_files(stores, work, tmp_path, monkeypatch):
    """Return a function: start a fit that keeps nothing in memory, in a process of its own."""
    script, folder = tmp_path / "fit.py", tmp_path / "temporary"
    script.write_text(NOTHING_KEPT, encoding="utf-8")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(Path(fitting.__file__).parents[2]))

    def start(*options):
        given = [*stores, "--data", work / "data", *options]
        command = [sys.executable, script, "fit", *map(str, given)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_hear_signals,
        )
        return process, folder

    return start


def _hear_signals():
    # pytest may have been started with some of them ignored, as nohup does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.long
@pytest.mark.parametrize("jobs", [1, 2])
def test_files_in_place_of_memory_do_not_change_the_result(
    zoo, stores, work, tmp_path, fit_by_files, jobs
):
    kept, filed = tmp_path / "kept.yaml", tmp_path / "filed.yaml"
    zoo("fit", *stores, "--data", work / "data", "--out", kept)
    process, folder = fit_by_files("--out", filed, "--jobs", jobs)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert filed.read_bytes() == kept.read_bytes()
    assert not list(folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_fit_that_is_told_to_end_leaves_no_file(tmp_path, fit_by_files, number):
    process, folder = fit_by_files("--out", tmp_path / "f.yaml")
    until = time.monotonic() + 120
    while not any(folder.glob("zoo-fit-*")) and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode not in (0, -number)
    assert not list(folder.iterdir())
    assert not (tmp_path / "f.yaml").exists()


def test_the_best_source_alone_is_told_beside_the_fusion(zoo, stores, work, tmp_path, capsys):
    given = (*stores, "--data", work / "data", "--refine", "none")
    for method in FITS:
        zoo("fit", *given, "--method", method, "--out", tmp_path / f"{method}.yaml")
        lines = capsys.readouterr().out.splitlines()
        (told,) = (line for line in lines if line.startswith("held-out Dice of the best source"))
        everything = next(line for line in lines if line.startswith("all ")).split()
        best, fused = max(map(float, everything[1:4])), float(everything[5])
        name = "abc"[[float(value) for value in everything[1:4]].index(best)]
        assert f"alone, {name}: {best:.4f}" in told
        if abs(fused - best) > 1.5e-4:
            assert ("take it alone" in told) == (fused < best)
        assert any(line.startswith("3 patients are few: with fewer than") for line in lines)
        assert lines[-1].startswith("held-out mean Dice: fitted")
        (over,) = re.findall(rf"; gain over the .*, over {name} alone ([+-][.\d]+)", lines[-1])
        assert float(over) == pytest.approx(fused - best, abs=1.5e-4)


def test_classes_that_are_worse_fused_are_named():
    surely, unsure = Estimate(-0.1, (-0.2, -0.05)), Estimate(-0.1, (-0.2, 0.05))
    kept = {"surely": (surely, ""), "kept": (surely, "b"), "unsure": (unsure, "")}
    report = {
        name: SimpleNamespace(
            is_seen=True, single={"a": 0.1, "b": 0.2}, likely_gain=gain, keeps=keeps
        )
        for name, (gain, keeps) in kept.items()
    }
    found = SimpleNamespace(method="vote", comparison=SimpleNamespace(report=report))
    assert fitting._worse_classes(found) == (
        "worse fused than by the best source alone: surely (b); "
        "--method hybrid takes the source there"
    )
    del report["surely"]
    assert fitting._worse_classes(found) == ""
