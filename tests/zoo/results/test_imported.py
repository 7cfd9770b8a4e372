"""Predictions of other programs as stores: scored, fused, and held to a split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters.splits.split import Split
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.store import PredictionStore
from fusion.types import Prediction

SIZE_HW = (40, 60)
LABELS = LabelSpace("tools", ("cup", "fork"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, zoo) -> Path:
    """A COCO data set of six images with its split, and another program's results."""
    root = tmp_path_factory.mktemp("imported")
    samples = []
    for number in range(6):
        image = root / f"{number}.png"
        cv2.imwrite(str(image), np.full(SIZE_HW, 20 * number, np.uint8))
        left = Instance("cup", box(1, 1, 9 + number, 9)), Instance("cup", box(30, 1, 40, 9))
        shapes = (*left, Instance("fork", box(20, 20, 30, 30)))
        samples.append(Sample(f"{number}", image, SIZE_HW, shapes))
    converters.write(samples, root / "data", format="coco", labels=LABELS)
    record = json.loads((root / "data/annotations/instances_train.json").read_text())
    results = [
        {name: entry[name] for name in ("image_id", "category_id", "segmentation")}
        for entry in record["annotations"]
    ]
    (root / "results.json").write_text(json.dumps([{**r, "score": 0.9} for r in results]))
    zoo("split", root / "data", "--out", root / "split.json", "--folds", 3)
    return root


@pytest.mark.slow
def test_the_data_set_that_is_taken_is_said_and_not_the_predictions_themselves(
    here, zoo, capsys, monkeypatch
):
    monkeypatch.chdir(here / "data")
    zoo("convert", here / "results.json", "--to", "store", "--out", here / "said")
    assert capsys.readouterr().out.splitlines()[0] == "taken: data ."
    zoo("convert", ".", "--to", "store", "--out", here / "never", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "found the predictions alone: give it, --data DATA" in line
    assert not (here / "never").exists()


@pytest.mark.slow
def test_results_are_scored_and_fused(here, zoo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo("convert", here / "results.json", "--to", "store", "--data", here / "data")
    said = capsys.readouterr().out
    assert "taken: out results" in said
    assert "score" not in said
    store = PredictionStore(tmp_path / "results")
    assert (store.manifest.kind, store.manifest.subset) == ("instance", "all")
    zoo("evaluate", "results", "--data", here / "data", "--json", "scores.json")
    said = capsys.readouterr().out
    assert json.loads(Path("scores.json").read_text())["dice"] == 1.0
    assert "objects" in said
    zoo("fuse", "results", "--method", "mean", "--out", "fused.csv")
    zoo("evaluate", "fused.csv", "--data", here / "data", "--subset", "train")


@pytest.mark.slow
def test_a_fold_is_what_it_holds_out(here, zoo, tmp_path, capsys):
    split = here / "split.json"
    zoo("convert", here / "results.json", "--to", "store", "--data", here / "data",
        "--split", split, "--fold", 1, "--out", tmp_path / "one")  # fmt: skip
    assert "left out 4 images that are not held out" in capsys.readouterr().out
    manifest = PredictionStore(tmp_path / "one").manifest
    assert list(manifest.images) == list(Split.load(split).val(1))
    held_out = (manifest.split, manifest.fold, manifest.subset)
    assert held_out == (Split.load(split).digest, 1, "val")


def _objects(prediction: Prediction) -> list[tuple[str, float, bytes]]:
    return [
        (label, score, mask.binary(SIZE_HW).full(SIZE_HW).tobytes())
        for label, found in prediction.masks.items()
        for score, mask in found
    ]


@pytest.mark.slow
def test_results_of_folds_are_held_out_together(here, zoo, tmp_path, capsys):
    given = ("--to", "store", "--data", here / "data", "--split", here / "split.json")
    results = json.loads((here / "results.json").read_text())
    (tmp_path / "folds").mkdir()
    for fold in range(3):
        own = [entry for entry in results if entry["image_id"] % 3 == fold]
        (tmp_path / f"folds/fold{fold}.json").write_text(json.dumps(own))
    zoo("convert", here / "results.json", *given, "--out", tmp_path / "one")
    zoo("convert", tmp_path / "folds", *given, "--out", tmp_path / "folds-store")
    one, folds = PredictionStore(tmp_path / "one"), PredictionStore(tmp_path / "folds-store")
    assert folds.manifest.split == Split.load(here / "split.json").digest
    assert list(folds.manifest.images) == list(one.manifest.images)
    for key in one.manifest.images:
        assert _objects(folds[key]) == _objects(one[key])


@pytest.mark.slow
def test_logits_are_activated(here, zoo, tmp_path, capsys):
    (tmp_path / "logits").mkdir()
    logits = np.full((2, 10, 15), -4, np.float32)
    logits[0, 2:5, 2:5] = 3
    for number in range(6):
        np.save(tmp_path / f"logits/{number}.npy", logits)
    given = ("--to", "store", "--data", here / "data", "--out", tmp_path / "out")
    zoo("convert", tmp_path / "logits", *given, code=2)
    assert "found -4 to 3: where these are logits, --activation" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    zoo("convert", tmp_path / "logits", *given, "--activation", "sigmoid")
    ((score, _),) = PredictionStore(tmp_path / "out")["0"].masks["cup"]
    assert score == pytest.approx(1 / (1 + np.exp(-3)), abs=0.01)
    zoo("convert", here / "results.json", *given, "--activation", "softmax", code=2)
    assert "--activation softmax: expected arrays (NPY, NPZ)" in capsys.readouterr().err
    zoo("convert", here / "data", "--to", "masks", "--out", tmp_path / "m", "--activation",
        "softmax", code=2)  # fmt: skip
    assert "--activation softmax: expected --to store with it" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_read_leaves_nothing(here, zoo, tmp_path, capsys, leftovers):
    results = json.loads((here / "results.json").read_text())
    results[1]["score"] = results[4]["score"] = 3
    (tmp_path / "bad.json").write_text(json.dumps(results))
    given = ("--to", "store", "--data", here / "data", "--out", tmp_path / "out")
    zoo("convert", tmp_path / "bad.json", *given, code=2)
    said = capsys.readouterr().err
    assert "found 2 problems" in said
    assert said.count("expected 'score' to be a number from 0 to 1, found 3") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]
    zoo("convert", here / "results.json", *given, "--layout", "rle", code=2)
    assert "--layout: expected a data set format with it" in capsys.readouterr().err
    zoo("convert", "--to", "store", "--data", here / "data", code=2)
    assert "expected PREDICTIONS" in capsys.readouterr().err


@pytest.mark.slow
def test_commands_that_take_stores_say_how_to_make_one(here, zoo, tmp_path, capsys):
    for path in (here / "results.json", here / "data"):
        zoo("evaluate", path, "--data", here / "data", code=2)
        assert f"`zoo convert {path} --to store --data DATA`" in capsys.readouterr().err
    zoo("fuse", here / "data", "--method", "mean", "--out", tmp_path / "a.csv", code=2)
    assert "--to store --data DATA" in capsys.readouterr().err


@pytest.mark.slow
def test_the_data_set_is_named_once(here, zoo, tmp_path, capsys):
    out = ("--to", "masks", "--out", tmp_path / "masks")
    zoo("convert", "--data", here / "data", *out)
    capsys.readouterr()
    zoo("convert", here / "data", "--data", here / "data", *out, code=2)
    assert "--data: expected one data set, found" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fusion_is_written_in_a_layout(here, zoo, tmp_path, capsys):
    zoo("convert", here / "data", "--to", "store", "--data", here / "data", "--out",
        tmp_path / "truth")  # fmt: skip
    given = ("fuse", tmp_path / "truth", "--method", "mean", "--data", here / "data")
    zoo(*given, "--format", "rle_table", "--layout", "severstal", "--out", tmp_path / "table")
    rows = (tmp_path / "table/train.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("ImageId_ClassId,EncodedPixels", 13)
    zoo(*given, "--format", "rle_table", "--layout", "severe", "--out", tmp_path / "no", code=2)
    assert "did you mean 'severstal'" in capsys.readouterr().err
    zoo(*given, "--layout", "rle", "--out", tmp_path / "no.csv", code=2)
    assert "--layout: expected --format with a data set format" in capsys.readouterr().err
    zoo(*given, "--out", tmp_path / "fused.coco", code=2)
    assert "or --format coco" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_of_other_images_are_no_empty_ones(here, zoo, tmp_path, capsys):
    split = Split.load(here / "split.json")
    results = json.loads((here / "results.json").read_text())
    record = json.loads((here / "data/annotations/instances_train.json").read_text())
    keys = {entry["id"]: entry["sample"]["key"] for entry in record["images"]}
    other = [one for one in results if keys[one["image_id"]] in split.val(1)]
    (tmp_path / "one.json").write_text(json.dumps(other))
    given = ("--to", "store", "--data", here / "data", "--split", here / "split.json")
    zoo("convert", tmp_path / "one.json", *given, "--fold", 0, "--out", tmp_path / "a", code=2)
    assert "expected an object in one of these 2 images at least" in capsys.readouterr().err
    zoo("convert", tmp_path / "one.json", *given, "--out", tmp_path / "b")
    assert "4 of 6 images have no object: nothing was found there" in capsys.readouterr().out
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["b", "one.json"]


@pytest.mark.slow
def test_an_annotation_file_is_a_data_set_too(here, zoo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(here / "data/annotations")
    given = ("--to", "store", "--out", tmp_path / "a", "--data")
    zoo("convert", here / "results.json", *given, "instances_train.json")
    assert list(PredictionStore(tmp_path / "a").manifest.images) == list("012345")
    zoo("convert", here / "results.json", *given, here / "0.png", code=2)
    assert "expected a data set's folder or its annotation file" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_crop_shows_lies_in_the_whole_image(here, zoo, tmp_path):
    crops, wide = tmp_path / "crops", tmp_path / "wide"
    zoo("convert", here / "data", "--to", "coco", "--crop", "fork", "--margin", 2, "--out", crops)
    zoo("convert", crops, "--to", "store", "--data", crops, "--out", wide)
    store = PredictionStore(wide)
    assert store.manifest.images["0"][:2] == SIZE_HW
    assert store.manifest.classes == ("fork",)
    for prediction in store:
        assert prediction.binary("fork").box_xywh == (20, 20, 11, 11)
    zoo("evaluate", wide, "--data", here / "data", "--json", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["dice"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", [("--subset", "test"), ("--margin", 3), ("--suggest",), ("--from", "coco")]
)
def test_options_of_data_sets_are_refused(option, here, zoo, tmp_path, capsys):
    given = ("--to", "store", "--data", here / "data", "--out", tmp_path / "a")
    zoo("convert", here / "results.json", *given, *option, code=2)
    assert f"{option[0]}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.3, "18 of 18 objects have a score below 0.5: they stay in the store"),
        (None, "no scores are given: each object counts as sure"),
        (1.0, "all scores are 1: each object counts as sure"),
    ],
)
def test_what_scores_mean_is_said(score, said, here, zoo, tmp_path, capsys):
    results = json.loads((here / "results.json").read_text())
    for one in results:
        one["score"] = score
        if score is None:
            del one["score"]
    (tmp_path / "r.json").write_text(json.dumps(results))
    zoo("convert", tmp_path / "r.json", "--to", "store", "--data", here / "data", "--out",
        tmp_path / "a")  # fmt: skip
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_an_annotation_file_beside_its_images_names_its_own_folder(
    here, zoo, tmp_path, monkeypatch
):
    """The folder above is a project, in which the data set is one of several things."""
    project = tmp_path / "project"
    shutil.copytree(here / "data", project / "data")
    (project / "data/annotations/instances_train.json").rename(project / "data/annotations.json")
    (project / "data/annotations").rmdir()
    shutil.copy(here / "results.json", project / "results.json")
    monkeypatch.chdir(project)
    for data in ("data", "data/annotations.json"):
        out = tmp_path / data.replace("/", "-")
        zoo("convert", "results.json", "--to", "store", "--data", data, "--out", out)
        assert list(PredictionStore(out).manifest.images) == list("012345")


@pytest.mark.slow
def test_what_a_form_cannot_say_of_scores_is_not_said_to_be_missing(here, zoo, tmp_path, capsys):
    rows = "ImageId,ClassId,EncodedPixels,score\n0.png,fork,1 5,0.2\n"
    (tmp_path / "t.csv").write_text(rows)
    given = ("--to", "store", "--data", here / "data", "--out", tmp_path / "a")
    zoo("convert", tmp_path / "t.csv", *given)
    told = "no scores are read of a table of run-length codes: each object counts as sure"
    assert told in capsys.readouterr().out


@pytest.mark.slow
def test_a_class_that_nobody_finds_is_told_where_it_is_not_scored(here, zoo, tmp_path, capsys):
    results = json.loads((here / "results.json").read_text())
    first = results[0]["category_id"]
    few = [one for one in results if one["category_id"] == first]
    (tmp_path / "r.json").write_text(json.dumps(few))
    zoo("convert", tmp_path / "r.json", "--to", "store", "--data", here / "data", "--out",
        tmp_path / "a")  # fmt: skip
    (silent,) = {"cup", "fork"}.difference(PredictionStore(tmp_path / "a").manifest.classes)
    assert f"no object of {silent} anywhere" in capsys.readouterr().out
    zoo("evaluate", tmp_path / "a", "--data", here / "data")
    assert f"says nothing of {silent}: scores are of the other 1 classes" in capsys.readouterr().err
    zoo("fuse", tmp_path / "a", "--method", "mean", "--out", tmp_path / "f.csv")
    assert f"no source says anything of {silent}" in capsys.readouterr().err


@pytest.mark.slow
def test_masks_that_lie_elsewhere_are_told(here, zoo, tmp_path, capsys):
    results = json.loads((here / "results.json").read_text())
    given = ("--to", "store", "--data", here / "data", "--out", tmp_path / "a")
    zoo("convert", here / "results.json", *given)
    assert "the masks lie on the annotations" not in capsys.readouterr().out
    classes = sorted({one["category_id"] for one in results})
    turned = dict(zip(classes, reversed(classes), strict=True))
    for one in results:
        one["category_id"] = turned[one["category_id"]]
    (tmp_path / "r.json").write_text(json.dumps(results))
    zoo("convert", tmp_path / "r.json", *given)
    told = capsys.readouterr().out
    assert "the masks lie on the annotations with a Dice of 0." in told
    assert "annotations of others, by their Dice: cup on fork (" in told
    assert "fork on cup (" in told


@pytest.mark.slow
def test_two_exchanged_classes_of_several_are_told(zoo, tmp_path, capsys):
    names = ("cup", "fork", "lamp", "plate", "spoon")
    samples = []
    for number in range(3):
        image = tmp_path / f"{number}.png"
        cv2.imwrite(str(image), np.full((40, 100), 20 * number, np.uint8))
        shapes = [
            Instance(name, box(20 * place + 2, 5 + number, 20 * place + 15, 30))
            for place, name in enumerate(names)
        ]
        samples.append(Sample(f"{number}", image, (40, 100), shapes))
    labels = LabelSpace("table", names)
    converters.write(samples, tmp_path / "data", format="coco", labels=labels)
    (tmp_path / "found").mkdir()
    for sample in samples:
        planes = np.zeros((5, 40, 100), np.float32)
        for place in range(5):
            planes[place, 6:30, 20 * place + 2 : 20 * place + 15] = 0.9
        np.save(tmp_path / f"found/{sample.key}.npy", planes)
    given = (tmp_path / "found", "--to", "store", "--data", tmp_path / "data")
    (tmp_path / "found/classes.txt").write_text("\n".join(names))
    zoo("convert", *given, "--out", tmp_path / "a")
    assert "the masks" not in capsys.readouterr().out
    (tmp_path / "found/classes.txt").write_text("\n".join(("fork", "cup", *names[2:])))
    zoo("convert", *given, "--out", tmp_path / "b")
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "the masks" in line)
    assert "annotations of others, by their Dice: cup on fork (" in told
    assert "lamp" not in told
