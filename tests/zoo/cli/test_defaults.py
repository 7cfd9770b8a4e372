"""What a user types first works, and says what was taken; what is missing is said all at once."""

import json
import shutil
from pathlib import Path

import pytest

import converters
from converters.files.provenance import source_of
from converters.splits.split import Split
from fusion.sources import submission
from fusion.sources.submission import RleRow
from zoo.cli import main
from zoo.cli.defaults import for_fit, for_fuse, for_view, nearest_data, split_beside
from zoo.viewer.places import Places

pytestmark = pytest.mark.slow

SMALL = ("size=[64,64]", "epochs=1", "batch=4", "device=cpu")


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defaults") / "hands"
    with pytest.raises(SystemExit):
        main(["phantom", str(folder), "--people", "6", "--test-people", "1", "--size", "256"])
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert (ended.value.code or 0) == code
    return capsys.readouterr()


def zoo(capsys, *words, code=0):
    said = run(capsys, *words, code=code)
    return said.err if code else said.out


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("convert", "--to", "yolo"), ["a data set", "zoo phantom"]),
        (("convert",), ["a data set", "--to FORMAT"]),
        (("split",), ["a data set"]),
        (("audit",), ["a data set"]),
        (("train", "smp", "--config", "demo"), ["a data set", "zoo phantom"]),
        (("predict",), ["a data set", "a run in runs/", "zoo train yolo"]),
        (("fit",), ["a data set", "predictions of held-out images", "zoo predict"]),
        (("evaluate",), ["a data set", "PREDICTIONS", "zoo predict", "zoo fuse"]),
        (("report",), ["a data set", "predictions of annotated images", "zoo predict"]),
        (("check",), ["a data set", "SUBMISSION.csv", "zoo fuse"]),
        (("fuse",), ["predictions", "zoo predict", "a data set", "zoo phantom"]),
    ],
)
def test_an_empty_folder_says_all_that_is_missing(words, missing, here, capsys):
    error = zoo(capsys, *words, code=2)
    assert all(words in error for words in missing)
    assert all(line.startswith("zoo: ") for line in error.splitlines())
    assert not list(here.iterdir())


def test_the_nearest_data_set_is_taken(hands, here, capsys):
    shutil.copytree(hands, here / "mine")
    said = zoo(capsys, "convert", "--to", "coco")
    assert said.splitlines()[0] == "taken: data mine; out coco"
    # What was made of it does not count as another one.
    assert list(map(str, nearest_data())) == ["mine"]
    assert zoo(capsys, "convert", "--to", "coco").startswith("taken: data mine; out coco")


def test_results_in_a_data_set_s_own_folder_are_no_part_of_it(hands, here, capsys):
    zoo(capsys, "convert", str(hands), "--to", "coco", "--out", str(here / "set"))
    (here / "set" / "provenance.json").unlink()
    import os

    os.chdir(here / "set")
    for target in ("yolo", "masks"):
        assert zoo(capsys, "convert", "--to", target).startswith("taken: data .; out ")


def test_a_folder_of_the_data_set_s_own_is_no_place_for_a_result(hands, here, capsys, monkeypatch):
    zoo(capsys, "convert", str(hands), "--to", "masks", "--out", str(here / "set"))
    (here / "set" / "provenance.json").unlink()
    monkeypatch.chdir(here / "set")
    said = zoo(capsys, "convert", "--to", "masks").splitlines()[0]
    assert said == "taken: data .; out masks-converted"


def test_what_was_made_of_a_neighbour_is_left_out_though_that_was_made_too(hands, here, capsys):
    zoo(capsys, "convert", str(hands), "--to", "coco", "--out", str(here / "data"))
    for target in ("yolo", "yolo", "masks"):
        assert zoo(capsys, "convert", "--to", target).startswith("taken: data data; out ")
    assert source_of(here / "yolo") == (here / "data").resolve()
    assert zoo(capsys, "split", "--folds", "2").startswith("taken: data data")
    # Moved together they stay what they were.
    (here / "moved").mkdir()
    for name in ("data", "yolo", "masks"):
        (here / name).rename(here / "moved" / name)
    assert nearest_data() == [Path("moved/data")]


def test_a_split_beside_the_data_set_is_taken_from_elsewhere(hands, here, capsys, monkeypatch):
    shutil.copytree(hands, here / "sets/hands")
    zoo(capsys, "split", "sets/hands", "--folds", "2", "--out", "sets/split.json")
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    said = zoo(capsys, "train", "smp", "--config", "demo", "--data", "../sets/hands", *SMALL)
    assert "split ../sets/split.json" in said.splitlines()[0]
    assert not Path("split.json").exists()
    # One in this folder goes before it.
    zoo(capsys, "split", "../sets/hands", "--folds", "3")
    assert split_beside(Path("../sets/hands")) == Path("split.json")


def test_several_are_named(hands, here, capsys):
    for name in ("a", "b"):
        shutil.copytree(hands, here / name)
    assert "one data set, found 2 (a, b): name one of them" in zoo(capsys, "split", code=2)


def test_a_folder_below_is_taken_from_above(hands, here, capsys, monkeypatch):
    shutil.copytree(hands, here / "mine")
    (here / "mine" / "work").mkdir()
    monkeypatch.chdir(here / "mine" / "work")
    assert zoo(capsys, "split", "--folds", "2").startswith(f"taken: data {here / 'mine'}")


def test_of_a_run_one_store_of_held_out_images_is_taken(here):
    for place in ("a/fold-0", "b/fold-0", "c"):
        (here / "runs" / place).mkdir(parents=True)
        (here / "runs" / place / "config.yaml").write_text("")
    for place in ("a/oof", "a/val", "b/oof", "c/val"):
        (here / "runs" / place).mkdir()
        (here / "runs" / place / "manifest.json").write_text("{}")
    given = {"data": here, "predictions": None, "out": here / "f.yaml"}
    for_fit(given)
    assert given["predictions"] == [Path("runs", place) for place in ("a/val", "b/oof", "c/val")]


def test_stores_that_lie_by_themselves_are_taken_too(here):
    def make(folder, *stores):
        for store in stores:
            (here / folder / store).mkdir(parents=True)
            for name in ("manifest.json", "SHA256SUMS"):
                (here / folder / store / name).write_text("{}")

    for run_name in ("a", "b"):
        (here / "runs" / run_name).mkdir(parents=True)
        (here / "runs" / run_name / "config.yaml").write_text("")
    make("runs", "a/val", "a/test")
    make("val", "a", "b", "other")
    make("test", "b")
    (here / "val" / "images").mkdir()
    (here / "val" / "images" / "manifest.json").write_text("[]")
    given = {"predictions": None, "data": "mine", "out": "f.yaml"}
    for_fit(given)
    expected = ["runs/a/val", "val/b", "val/other"]
    assert given["predictions"] == [Path(place) for place in expected]
    fused = {"sources": None, "method": "mean", "config": None, "out": Path("x.csv"), "to": "csv"}
    given = {**fused, "data": None, "subset": None, "split": None, "fold": None}
    for_fuse(given)
    assert given["sources"] == [Path("runs/a/test"), Path("test/b")]


def test_what_the_viewer_takes_is_said_once(here, capsys):
    for name in ("a", "b"):
        (here / "runs" / name).mkdir(parents=True)
        (here / "runs" / name / "config.yaml").write_text("")
    given = {"paths": None, "data_format": "coco"}
    for_view(given)
    assert given["paths"] == [Path(), Path("runs/a"), Path("runs/b")]
    assert capsys.readouterr().out == "taken: data .; runs runs/a, runs/b\n"


def test_from_data_to_a_submission(hands, here, capsys):
    shutil.copytree(hands, here / "mine")
    (here / "tiny.yaml").write_text(
        "size: [64, 64]\nepochs: 1\nbatch: 4\narchitecture: unet\n"
        "encoder: tu-mobilenetv3_small_050\nencoder_weights: null\n"
        "options: {decoder_channels: [8, 8, 8, 8, 8]}\nloss: {bce: 1}\n"
    )
    for seed in ("0", "1"):
        words = ("--config", "tiny.yaml", "--out", f"runs/net{seed}", f"seed={seed}")
        assert "data mine" in zoo(capsys, "train", "smp", *words).splitlines()[0]
    assert (here / "split.json").is_file()
    said = zoo(capsys, "predict")
    assert said.splitlines()[0] == "taken: data mine; runs runs/net0, runs/net1"
    assert {p.parent.name for p in here.glob("runs/*/val/manifest.json")} == {"val"}
    assert {p.parent.name for p in here.glob("runs/*/test/manifest.json")} == {"test"}
    said = zoo(capsys, "fit")
    assert "predictions runs/net0/val, runs/net1/val; out fusion.yaml" in said.splitlines()[0]
    said = zoo(capsys, "fuse")
    assert said.splitlines()[0] == (
        "taken: sources runs/net0/test, runs/net1/test; config fusion.yaml; out submission.csv"
    )
    assert "for 2 images" in said
    said = zoo(capsys, "fuse", "runs/net0/test", "--out", "one.csv", code=2)
    assert "expects the sources net0, net1; given are net0" in said
    assert "--method mean" in said
    look_at_what_was_held_out(capsys)
    answer_mere_images(here, capsys)
    shutil.rmtree(here / "runs" / "net1" / "test")
    said = zoo(capsys, "fuse", code=2)
    assert said.rstrip().endswith(
        "runs/net1/test, as fusion.yaml fuses it: zoo predict runs/net1 --subset test"
    )


@pytest.mark.parametrize("fold", [0, 1, None])
def test_a_split_that_is_named_does_as_one_beside_the_data(hands, here, fold, capsys):
    (here / "far").mkdir()
    zoo(capsys, "split", str(hands), "--out", "far/folds.json", "--folds", "2")
    split = Split.load(here / "far" / "folds.json")
    keys = split.keys if fold is None else split.folds[fold]
    labels = converters.label_space(hands)
    rows = [RleRow(f"{key.rpartition('/')[2]}.png", n, "") for key in keys for n in labels.names]
    submission.write(here / "val.csv", rows)
    said = zoo(capsys, "evaluate", "val.csv", "--data", str(hands), "--split", "far/folds.json")
    taken = "taken: subset val" + ("" if fold is None else f"; fold {fold}")
    assert said.splitlines()[0] == taken
    assert f"{len(keys)} images" in said


def look_at_what_was_held_out(capsys):
    """Which images these are, and that the rule was fitted on them, is said."""
    caution = "on the images that it was fitted on, its scores are too good"
    held_out = ("runs/net0/val", "runs/net1/val")
    assert caution in run(capsys, "fuse", *held_out, "--out", "val.csv").err
    Path("own.yaml").write_text("method: weighted\nweights: {net0: 2, net1: 1}\n")
    said = run(capsys, "fuse", *held_out, "--config", "own.yaml", "--out", "own.csv")
    assert caution not in said.err
    said = run(capsys, "report", *held_out, "--out", "page")
    assert said.out.splitlines()[0] == "taken: data mine; config fusion.yaml"
    assert caution in Path("page/report.html").read_text()
    for command in ("check", "evaluate"):
        first = zoo(capsys, command, "val.csv").splitlines()[0]
        assert first == "taken: data mine; subset val; split split.json; fold 0"
        assert zoo(capsys, command, "submission.csv").splitlines()[0] == "taken: data mine"


def answer_mere_images(here, capsys):
    """A folder of images without annotations is answered by every run."""
    stores = [here / "runs" / name / "test" for name in ("net0", "net1")]
    (here / "more").mkdir()
    for number, image in enumerate(sorted((here / "mine" / "test").rglob("*.png"))):
        shutil.copy(image, here / "more" / f"{number}.png")
    before = (stores[0] / "manifest.json").read_bytes()
    for run in ([], ["runs/net0"]):
        said = zoo(capsys, "predict", *run, "--data", "more", code=2)
        assert "runs/net0/test: expected predictions of these 2 images, or none, found" in said
        assert (stores[0] / "manifest.json").read_bytes() == before
    zoo(capsys, "predict", "runs/net0", "--data", "more", "--out", "else")
    for store in stores:
        store.rename(store.with_name("kept"))
    said = zoo(capsys, "predict", "--data", "more")
    assert "runs/net1/test: semantic predictions of 2 images" in said
    for store in stores:
        shutil.rmtree(store)
        store.with_name("kept").rename(store)


def test_broken_images_are_refused_or_skipped_and_listed(hands, here, capsys):
    shutil.copytree(hands, here / "mine")
    files = sorted((here / "mine" / "train" / "outputs_json").rglob("*.json"))
    files[0].write_text(files[0].read_text().replace("finger-1", "fingr-1", 1))
    files[1].write_bytes(b"")
    error = zoo(capsys, "convert", "--to", "coco", code=2)
    assert error.splitlines()[0].endswith("problems; --broken skip goes on without 2 images")
    assert not (here / "coco").exists()
    with pytest.raises(SystemExit):
        main(["convert", "--to", "coco", "--broken", "skip"])
    said = capsys.readouterr()
    assert "coco: 10 images" in said.out
    assert "left out 2 broken images: " in said.err
    assert f"{files[0].stem}.json: annotation" in said.err


def test_what_is_broken_as_a_whole_is_not_skipped(hands, here, capsys):
    shutil.copytree(hands, here / "mine")
    (here / "mine" / "meta_data.xlsx").write_bytes(b"?")
    error = zoo(capsys, "convert", "--to", "coco", "--broken", "skip", code=2)
    assert "meta_data.xlsx" in error
    assert "--broken" not in error


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "--to", "coco"),
        ("augment", "smp", "--config", "demo", "--preview", "sheet.png"),
    ],
)
def test_a_fold_is_one_of_the_split_that_is_found(hands, here, capsys, words):
    shutil.copytree(hands, here / "mine")
    assert "--split SPLIT.json, found none in mine and here" in zoo(
        capsys, *words, "--fold", "1", code=2
    )
    zoo(capsys, "split")
    said = zoo(capsys, *words, "--fold", "1")
    assert "split split.json" in said.splitlines()[0]
    assert "split" not in zoo(capsys, *words).splitlines()[0]
    if words[0] == "convert":
        zoo(capsys, *words, "--fold", "1")
        assert json.loads((here / "coco" / "provenance.json").read_text())["fold"] == 1


def test_a_data_set_may_be_named_by_its_file(hands, here, capsys):
    zoo(capsys, "convert", str(hands), "--to", "yolo")
    zoo(capsys, "split", "yolo/data.yaml", "--folds", "2")
    assert len(Split.load(here / "split.json").keys) == 12
    zoo(capsys, "train", "smp", "--config", "laptop", "--data", "yolo/data.yaml", *SMALL)
    zoo(capsys, "predict", "runs/smp-laptop", "--data", "yolo/data.yaml")
    said = zoo(capsys, "evaluate", "runs/smp-laptop/val", "--data", "yolo/data.yaml")
    assert "Ulna" in said
    told = zoo(capsys, "run", "yolo/data.yaml", "--dry-run")
    assert "taken: data yolo" in told
    assert Places.sort([here / "yolo" / "data.yaml"]).data == here / "yolo" / "data.yaml"


def test_a_pipeline_is_of_whole_data_sets(hands, here, capsys):
    zoo(capsys, "convert", str(hands), "--to", "coco")
    file = here / "coco" / "annotations" / "instances_train.json"
    shutil.copy(file, file.with_name("instances_more.json"))
    error = zoo(capsys, "run", str(file), "--dry-run", code=2)
    assert "found one of several annotation files: zoo convert" in error
    zoo(capsys, "convert", str(file), "--to", "masks")
    assert len(converters.read(here / "masks")) == 12


def test_folders_that_compare_and_export_write_by_default(hands, here, capsys):
    pytest.importorskip("onnxruntime")
    zoo(capsys, "split", str(hands), "--folds", "2")
    words = ("--config", "laptop", "--data", str(hands), *SMALL)
    zoo(capsys, "train", "smp", *words)
    zoo(capsys, "predict", "runs/smp-laptop", "--data", str(hands), "--subset", "val")
    store = "runs/smp-laptop/val"
    for command in ("evaluate", "report"):
        told = zoo(capsys, command, "--data", str(hands))
        assert f"predictions {store}" in told.splitlines()[0]
    zoo(capsys, "compare", store, store)
    assert (here / "compare" / "compare.html").is_file()
    zoo(capsys, "export", "runs/smp-laptop")
    assert (here / "model" / "model.json").is_file()


def test_a_data_set_is_no_submission(hands, here, capsys):
    told = zoo(capsys, "check", str(hands), code=2)
    assert "expected a submission (CSV), found a data set: zoo audit looks into it" in told
    (here / "empty").mkdir()
    assert "found a folder" in zoo(capsys, "check", "empty", "--data", str(hands), code=2)
