"""The fuse and check commands: what they read, what they write, and what they leave."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from converters.types import LabelSpace
from fusion import Mean, Vote, submission
from fusion.certainty import certainty
from fusion.sources import Ensemble
from fusion.store import Manifest, PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask
from zoo import chunks, fuse
from zoo.cli import main


def zoo(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert (stop.value.code or 0) == code


def predict(sample, seed):
    """Blurred truth with holes that differ from source to source; half the resolution."""
    rng, (height, width) = np.random.default_rng(seed), sample.size_hw
    masks = {}
    for label, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        plane = cv2.blur(mask.full(sample.size_hw) * np.uint8(255), (5, 5))
        plane[rng.integers(0, height, 9), rng.integers(0, width, 9)] = 0
        plane = cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        masks[label] = ((1.0, SoftMask((0, 0, width, height), plane)),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


@pytest.fixture(scope="module")
def work(toys, tmp_path_factory):
    """A data set, three stores of its images, and a submission of each."""
    root = tmp_path_factory.mktemp("fuse")
    data = root / "data"
    converters.write(toys.samples, data, format="handbone", labels=toys.labels)
    images = {s.key: (*s.size_hw, s.file_name) for s in toys.samples}
    manifest = Manifest(
        "semantic", str(toys.labels_file), toys.labels.names, images, split="x", subset="val"
    )
    for seed, name in enumerate("abc"):
        with StoreWriter(root / name, manifest) as writer:
            for number, sample in enumerate(toys.samples):
                writer.append(predict(sample, (seed, number)))
        zoo("fuse", root / name, "--out", root / "csv" / f"{name}.csv", "--method", "mean")
    return root


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "IMAGES", 2)


def stores(work):
    return [work / name for name in "abc"]


def files(work):
    return [work / "csv" / f"{name}.csv" for name in "abc"]


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.suffix in (".fusing", ".partial", ".tmp")]


def fused(sources, out, *options, method="vote"):
    zoo("fuse", *sources, "--out", out, "--method", method, *options)
    assert leftovers(out.parent) == []
    return out.read_bytes()


@pytest.fixture(scope="module")
def voted(work, tmp_path_factory):
    return fused(stores(work), tmp_path_factory.mktemp("voted") / "out.csv")


def test_stores_and_submissions_mix_at_will(work, voted, tmp_path):
    given = stores(work), files(work), [stores(work)[0], *files(work)[1:]]
    for sources in given:
        assert fused(sources, tmp_path / "out.csv") == voted
    assert len(voted.splitlines()) == 1 + 6 * 9


def test_submissions_are_joined_by_name(work, voted, tmp_path):
    rows = list(submission.read(files(work)[1]))
    (tmp_path / "other").mkdir()
    shuffled = tmp_path / "other" / "b.csv"
    submission.write(shuffled, [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    assert fused([files(work)[0], shuffled, files(work)[2]], tmp_path / "out.csv") == voted


def test_processes_do_not_change_a_byte(work, voted, tmp_path):
    mixed = [stores(work)[0], *files(work)[1:]]
    assert fused(mixed, tmp_path / "out.csv", "--jobs", 2) == voted


@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunks_do_not_change_a_byte(work, voted, tmp_path, monkeypatch, size):
    monkeypatch.setattr(chunks, "IMAGES", size)
    assert fused(stores(work), tmp_path / "out.csv") == voted


RAY = """
import sys
from zoo import chunks
from zoo.cli import main
chunks.IMAGES = 2
main(sys.argv[1:])
"""


def test_a_cluster_does_not_change_a_byte(work, voted, tmp_path):
    pytest.importorskip("ray")
    command = ["fuse", *stores(work), "--out", tmp_path / "out.csv", "--method", "vote"]
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", RAY, *map(str, command), "--on", "ray"],
            capture_output=True,
            text=True,
            check=False,
        )
        # It gives its own processes thirty seconds, which a busy machine may not have.
        if "Ray did not start" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == voted


def test_without_ray_a_hint_says_how_to_get_it(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out.csv"
    zoo("fuse", *stores(work), "--out", out, "--method", "vote", "--on", "ray", code=2)
    assert "pip install 'segzoo[cluster]'" in capsys.readouterr().err
    assert not out.exists()


# --- killed and started again

KILLED = """
import os, signal, sys
from zoo import chunks
from zoo.cli import main
chunks.IMAGES = 2
save = chunks.ChunkFolder.save
def save_and_die(self, number, chunk):
    save(self, number, chunk)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
chunks.ChunkFolder.save = save_and_die
main(sys.argv[1:])
"""


@pytest.fixture
def killed(work, tmp_path):
    command = ["fuse", *stores(work), "--out", tmp_path / "out.csv", "--method", "vote"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, command)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.csv").exists()
    return tmp_path / "out.csv"


@pytest.fixture
def counted(monkeypatch):
    """Take down which chunks are fused in this process."""
    done = []
    fuse_chunk = chunks.fuse

    def count(rule, labels, chunk):
        done.append(chunk.number)
        return fuse_chunk(rule, labels, chunk)

    monkeypatch.setattr(chunks, "fuse", count)
    return done


def test_a_killed_fusion_goes_on(work, killed, voted, counted):
    assert fused(stores(work), killed) == voted
    assert counted == [2]


@pytest.mark.parametrize("change", ["rule", "source", "order", "floor"])
def test_another_fusion_starts_anew(work, killed, counted, change):
    given, options, method = stores(work), (), "vote"
    if change == "rule":
        method = "mean"
    elif change == "source":
        given = [*stores(work)[:2], files(work)[2]]
    elif change == "order":
        given = given[::-1]
    else:
        options = ("--floor", 0.9)
    fused(given, killed, *options, method=method)
    assert counted == [0, 1, 2]


def test_somebody_s_folder_is_left_alone(work, tmp_path, capsys):
    (tmp_path / "out.csv.fusing").mkdir()
    (tmp_path / "out.csv.fusing" / "photo.jpg").write_bytes(b"1")
    out = tmp_path / "out.csv"
    zoo("fuse", *stores(work), "--out", out, "--method", "vote", code=2)
    assert "expected an unfinished fusion" in capsys.readouterr().err
    assert (tmp_path / "out.csv.fusing" / "photo.jpg").exists()


# --- formats


@pytest.mark.parametrize("form", ["handbone", "coco", "masks", "yolo", "datumaro"])
def test_a_fusion_becomes_labels(work, toys, voted, tmp_path, form):
    out = tmp_path / "labels"
    zoo("fuse", *stores(work), "--out", out, "--method", "vote", "--format", form,
        "--data", work / "data")  # fmt: skip
    assert leftovers(tmp_path) == []
    back = converters.read(out, format=form, subset="all", labels=toys.labels)
    (tmp_path / "voted.csv").write_bytes(voted)
    sizes = {s.file_name: s.size_hw for s in toys.samples}
    expected = dict(submission.read_masks(tmp_path / "voted.csv", sizes))
    assert [s.key for s in back] == [s.key for s in toys.samples]
    for sample in back:
        masks = rasterize_labels(sample.instances, sample.size_hw)
        for label, mask in expected[sample.file_name].items():
            full = mask.full(sample.size_hw)
            differ = np.count_nonzero(masks[label].full(sample.size_hw) != full)
            # YOLO's polygons have no holes.
            assert differ <= (0.1 * full.sum() if form == "yolo" else 0), (label, differ)
    record = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert record["command"][0] == "zoo"
    assert "Vote" in record["config"]["rule"]


def test_uncertain_objects_do_not_become_labels(work, toys, tmp_path, capsys):
    out, floor = tmp_path / "labels", 0.93
    zoo("fuse", *stores(work), "--out", out, "--method", "mean", "--format", "coco",
        "--data", work / "data", "--floor", floor)  # fmt: skip
    expected, left_out = {}, Counter()
    for heard in Ensemble.open(stores(work)):
        prediction = Mean()(heard, toys.labels)
        sure = {n for n in toys.labels.names if certainty(prediction, n) >= floor}
        left_out.update(set(toys.labels.names) - sure)
        expected[prediction.key] = sure
    back = converters.read(out, subset="all", labels=toys.labels)
    assert {s.key: {i.label for i in s.instances} for s in back} == expected
    assert 0 < left_out.total() < 54
    said = capsys.readouterr().out
    assert f"left out as uncertain: {left_out.total()} (" in said
    assert all(f"{label} {n}" in said for label, n in left_out.items())


def test_a_fusion_becomes_a_store_that_fuses_again(work, toys, tmp_path, voted):
    out = tmp_path / "mean"
    zoo("fuse", *stores(work), "--out", out, "--method", "mean", "--format", "store")
    store = PredictionStore(out)
    assert (store.manifest.subset, store.manifest.split) == ("val", "x")
    assert store.label_space().names == toys.labels.names
    for found, heard in zip(store, Ensemble.open(stores(work)), strict=True):
        expected = Mean()(heard, toys.labels)
        for label in toys.labels.names:
            window = (0, 0, *found.size_hw[::-1])
            masks = (p.best(label)[1].render(window) for p in (found, expected))
            assert np.array_equal(*masks)
    direct = fused(stores(work), tmp_path / "a.csv", method="mean")
    assert fused([out], tmp_path / "b.csv", method="max") == direct


def test_a_store_from_submissions_needs_the_data_set(work, toys, tmp_path):
    out, given = tmp_path / "store", (*files(work), "--method", "vote", "--format", "store")
    zoo("fuse", *given, "--out", out, code=2)
    data = ("--data", work / "data", "--labels", toys.labels_file)
    zoo("fuse", *given, "--out", out, *data)
    assert PredictionStore(out).manifest.subset == "all"
    assert list(PredictionStore(out).manifest.images) == [s.key for s in toys.samples]
    assert leftovers(tmp_path) == []


def test_a_store_killed_half_way_goes_on(work, tmp_path, counted):
    out = tmp_path / "store"
    options = ("--method", "mean", "--format", "store")
    zoo("fuse", *stores(work), "--out", out, *options)
    expected = {p.name: p.read_bytes() for p in out.iterdir()}
    partial = tmp_path / "store.partial"
    os.rename(out, partial)
    (partial / "part-00002.parquet").unlink()
    counted.clear()
    zoo("fuse", *stores(work), "--out", out, *options)
    assert counted == [2]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == expected


# --- sizes


@pytest.mark.parametrize("method", ["hybrid", "staple"])
def test_rules_that_look_around_ask_for_sizes(work, toys, tmp_path, capsys, method):
    out = tmp_path / "out.csv"
    zoo("fuse", *files(work), "--out", out, "--method", method, code=2)
    assert "looks at neighbours" in capsys.readouterr().err
    data = ("--data", work / "data", "--labels", toys.labels_file)
    zoo("fuse", *files(work), "--out", out, "--method", method, *data)
    assert len(list(submission.read(out))) == 54


@pytest.mark.parametrize(
    ("rule", "expected"), [(Mean(), False), (Vote(), False), (lambda p, labels: p[0], True)]
)
def test_rules_tell_whether_they_look_around(rule, expected):
    assert fuse.looks_around(rule) is expected


# --- bad input


def broken_store(work, folder, change):
    store = folder / "bad"
    store.mkdir()
    for path in (work / "a").iterdir():
        (store / path.name).write_bytes(path.read_bytes())
    change(store)
    return store


def edit_manifest(change):
    def edit(store):
        record = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
        change(record)
        (store / "manifest.json").write_text(json.dumps(record), encoding="utf-8")

    return edit


def cut_off(store):
    part = store / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])


BAD_STORES = {
    "other labels": (edit_manifest(lambda r: r["names"].reverse()), "order of the classes"),
    "other images": (edit_manifest(lambda r: r["images"].pop()), "images differ"),
    "other sizes": (edit_manifest(lambda r: r["images"][0].__setitem__(1, 7)), "is (7, 64), not"),
    "other order": (edit_manifest(lambda r: r["images"].reverse()), "order differs"),
    "cut off": (cut_off, "expected a whole Parquet file"),
    "no manifest": (lambda s: (s / "manifest.json").unlink(), "without manifest.json"),
}


def assert_refused(sources, tmp_path, capsys, said, *options):
    out = tmp_path / "out.csv"
    out.write_text("before", encoding="utf-8")
    zoo("fuse", *sources, "--out", out, *(options or ("--method", "vote")), code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert out.read_text(encoding="utf-8") == "before"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("case", BAD_STORES)
def test_a_store_that_does_not_fit_is_one_line(case, work, tmp_path, capsys):
    change, said = BAD_STORES[case]
    bad = broken_store(work, tmp_path, change)
    assert_refused([*stores(work), bad], tmp_path, capsys, said)


def with_last(**changes):
    return lambda rows: [*rows[:-1], rows[-1]._replace(**changes)]


BAD_FILES = {
    "foreign image": (with_last(image_name="x.png"), "such as 'x.png'", "no row of"),
    "other class": (with_last(label="cup"), "no row of", "no row of"),
    "twice": (lambda rows: [*rows, rows[0]], "comes twice", "comes twice"),
    "overlap": (with_last(rle="5 9 6 2"), "do not overlap", "do not overlap"),
    "unsorted": (with_last(rle="50 2 6 2"), "sorted runs", "sorted runs"),
    "outside": (with_last(rle="6144 2"), "pixels up to 6144 (96 x 64)", ""),
    "no code": (with_last(rle="what"), "whole numbers", "whole numbers"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_submission_that_does_not_fit_is_one_line(case, alone, work, tmp_path, capsys):
    change, beside_stores, by_itself = BAD_FILES[case]
    said = by_itself if alone else beside_stores
    if not said:
        pytest.skip("submissions alone do not know where their images end")
    bad = tmp_path / "bad.csv"
    submission.write(bad, change(list(submission.read(files(work)[1]))))
    rest = files(work) if alone else stores(work)
    # The fault of a whole class, and of a pair, is told by the index.
    expected = "no row of" if case == "foreign image" else said
    assert_refused([*rest, bad], tmp_path, capsys, expected)


def test_a_config_of_other_sources_is_one_line(work, tmp_path, capsys):
    config = tmp_path / "fusion.yaml"
    config.write_text("method: hybrid\nsources: [a, x]\nclasses: {}\n", encoding="utf-8")
    said = "expects the sources a, x; given are a, b, c"
    assert_refused(stores(work), tmp_path, capsys, said, "--config", config)


BAD_OPTIONS = [
    (("--jobs", "0"), "--jobs: expected 1 or more"),
    (("--floor", "2"), "--floor: expected 0 to 1"),
    (("--on", "moon"), "--on moon: expected ray"),
    (("--format", "coco"), "--format coco: expected --data"),
    (("--format", "store"), "expected a folder to write, found a file"),
    (("--labels", "waste"), "its classes are not those of 'waste'"),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
def test_a_bad_option_is_one_line(work, tmp_path, capsys, options, said):
    assert_refused(stores(work), tmp_path, capsys, said, "--method", "vote", *options)


def test_an_unknown_format_is_one_line(work, tmp_path, capsys):
    given = (*stores(work), "--method", "vote", "--data", work / "data", "--format", "png")
    zoo("fuse", *given, "--out", tmp_path / "out", code=2)
    assert "format 'png': expected one of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_not_replaced(work, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_bytes(b"1")
    given = (*stores(work), "--method", "vote", "--data", work / "data", "--format", "coco")
    zoo("fuse", *given, "--out", tmp_path / "out", code=2)
    assert "expected nothing there" in capsys.readouterr().err
    zoo("fuse", *given[:-1], "csv", "--out", tmp_path / "out", code=2)
    assert "found a folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "photo.jpg").exists()


# --- check


def test_a_fused_submission_is_valid(work, toys, voted, tmp_path, capsys):
    path = tmp_path / "out.csv"
    path.write_bytes(voted)
    options = ("--data", work / "data", "--subset", "all", "--labels", toys.labels_file)
    zoo("check", path, *options)
    assert f"{path}: valid" in capsys.readouterr().out
    submission.write(path, list(submission.read(path))[1:])
    zoo("check", path, *options, code=2)
    said = capsys.readouterr().err
    assert "expected 54 rows, found 53" in said
    assert "missing: toy_0_L.png sheet" in said


def test_labels_load_from_the_file_that_a_store_names(work, toys):
    assert PredictionStore(work / "a").label_space() == LabelSpace.load(str(toys.labels_file))
