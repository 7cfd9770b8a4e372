"""Folders of predictions as people have them: folds, and what lies between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks

import converters
from converters.types import LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions

SIZE_HW = (40, 60)
LABELS = LabelSpace("tools", ("cup", "fork"))
NAMES = ("one", "two", "three", "four")
Write = Callable[[Path, str], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    samples = []
    for name in NAMES:
        cv2.imwrite(str(root / f"{name}.png"), np.zeros(SIZE_HW, np.uint8))
        samples.append(Sample(name, root / f"{name}.png", SIZE_HW))
    converters.write(samples, root / "coco", format="coco", labels=LABELS)
    return root / "coco"


@pytest.fixture(scope="module")
def known(data: Path) -> KnownImages:
    samples = {sample.key: sample for sample in converters.read(data, labels=LABELS)}
    return KnownImages(samples, LABELS, dict(enumerate(LABELS.names)))


def truth(name: str) -> Any:
    """Return where a cup and a fork were found, bool (2, H, W)."""
    found = np.zeros((2, *SIZE_HW), bool)
    at = 3 * NAMES.index(name)
    found[0, 2:12, 2 + at : 20 + at] = found[1, 20:30, 30:50] = True
    return found


def array(folder: Path, name: str) -> None:
    np.save(folder / f"{name}.npy", truth(name).astype(np.float32))


def labels(folder: Path, name: str) -> None:
    lines = []
    for number, plane in enumerate(truth(name)):
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        (top, bottom), (left, right) = (rows[0], rows[-1]), (columns[0], columns[-1])
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
        shares = (f"{x / SIZE_HW[1]:.6f} {y / SIZE_HW[0]:.6f}" for x, y in points)
        lines.append(f"{number} {' '.join(shares)}")
    (folder / f"{name}.txt").write_text("\n".join(lines))


def entries(data: Path, *names: str) -> list[dict[str, Any]]:
    record = json.loads((data / "annotations/instances_train.json").read_text())
    ids = {image["sample"]["key"]: image["id"] for image in record["images"]}
    found = []
    for name in names:
        for number, plane in enumerate(truth(name), start=1):
            code = coco_masks.encode(np.asfortranarray(plane.astype(np.uint8)))
            code["counts"] = code["counts"].decode()
            entry = {"image_id": ids[name], "category_id": number, "score": 0.9}
            found.append({**entry, "segmentation": code})
    return found


def table(*names: str) -> str:
    lines = ["ImageId,ClassId,EncodedPixels"]
    for name in names:
        for label, plane in zip(LABELS.names, truth(name), strict=True):
            edges = np.flatnonzero(np.diff(np.r_[0, plane.ravel(order="F").astype(int), 0]))
            runs = " ".join(f"{a + 1} {b - a}" for a, b in edges.reshape(-1, 2))
            lines.append(f"{name}.png,{label},{runs}")
    return "\n".join(lines)


def check(found: WrittenPredictions, *names: str) -> None:
    """Compare what is found with what was written."""
    assert set(names) <= set(found.keys)
    for name in names:
        prediction = found.predict(name)
        for label, plane in zip(LABELS.names, truth(name), strict=True):
            np.testing.assert_array_equal(prediction.binary(label).full(SIZE_HW), plane)


def folds(root: Path, *below: str) -> list[tuple[Path, tuple[str, ...]]]:
    """Make a folder for each of two folds, and say which images it holds."""
    made = []
    for fold, place in enumerate(below):
        (root / place).mkdir(parents=True, exist_ok=True)
        made.append((root / place, NAMES[2 * fold : 2 * fold + 2]))
    return made


PLACES = {
    "files": ("f0.json", "f1.json"),
    "detectron2": ("fold_0/inference/coco_results.json", "fold_1/inference/coco_results.json"),
    "one deeper": ("fold_0/results.json", "fold_1/inference/results.json"),
    "one above": ("fold0.json", "fold_1/results.json"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_lists_are_found_at_any_depth_among_other_files(
    kind: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    for place, names in zip(PLACES[kind], (NAMES[:2], NAMES[2:]), strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps(entries(data, *names)))
    (tmp_path / "args.json").write_text("{}")
    (tmp_path / "classes.json").write_text(json.dumps(LABELS.names))
    (tmp_path / "train_log.txt").write_text("epoch 1")
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,2")
    cv2.imwrite(str(tmp_path / "loss.png"), np.zeros((9, 9), np.uint8))
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *NAMES)
    assert not said


BROKEN = {
    "empty file": ("", "expected JSON, found an empty file"),
    "mapping": ('{"results": []}', "expected COCO's results, a list of detections"),
    "lines": ('{"image_id": 1}\n{"image_id": 2}', "expected JSON, found a broken file"),
    "boxes": ('[{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4]}]', "found only a box"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_no_fold_is_left_out_because_it_is_broken(
    kind: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    text, message = BROKEN[kind]
    (tmp_path / "fold0.json").write_text(json.dumps(entries(data, *NAMES[:2])))
    (tmp_path / "fold1.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_written(tmp_path, known, data).predict("three")
    # That nothing was found is a result.
    (tmp_path / "fold1.json").write_text("[ ]\n")
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *NAMES[:2])
    assert said == [f"{tmp_path / 'fold1.json'}: an empty list: nothing was found"]


def test_tables_of_folds_are_one(data: Path, known: KnownImages, tmp_path: Path) -> None:
    # Beside each other they are no data set of images and a table.
    for fold, names in enumerate((NAMES[:2], NAMES[2:])):
        (tmp_path / f"fold{fold}.csv").write_text(table(*names))
    (tmp_path / "results.csv").write_text("epoch,loss\n1,2")
    check(open_written(tmp_path, known, data), *NAMES)
    (tmp_path / "fold1.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *NAMES[:2])
    assert f"{tmp_path / 'fold1.csv'}: no row of an image: nothing was found" in said


def test_what_names_columns_counts_for_all_folds(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "rle_table.yaml").write_text("image: photo\nclass: what\nrle: code\n")
    for folder, names in folds(tmp_path, "fold_0", "fold_1"):
        text = table(*names).replace("ImageId,ClassId,EncodedPixels", "photo,what,code")
        (folder / "oof.csv").write_text(text)
    check(open_written(tmp_path, known, data), *NAMES)


@pytest.mark.parametrize("write", [array, labels])
def test_names_of_classes_lie_with_the_folds(
    write: Write, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    swapped = KnownImages(known.samples, LABELS, {0: "fork", 1: "cup"})
    for folder, names in folds(tmp_path, "fold_0/labels", "fold_1/labels"):
        for name in names:
            write(folder, name)
        (folder.parent / "classes.txt").write_text("cup\nfork\n")
    said: list[str] = []
    check(open_written(tmp_path, swapped, data, note=said.append), *NAMES)
    assert not said
    (tmp_path / "fold_1/classes.txt").write_text("fork\ncup\n")
    with pytest.raises(ValueError, match=r"fold_1/classes\.txt: expected the same as in .*fold_0"):
        open_written(tmp_path, swapped, data)
    (tmp_path / "fold_1/classes.txt").unlink()
    with pytest.raises(ValueError, match=r"fold_1/labels: expected a classes\.txt"):
        open_written(tmp_path, swapped, data)


def test_files_of_another_form_are_said(data: Path, known: KnownImages, tmp_path: Path) -> None:
    (first, names), (second, others) = folds(tmp_path, "fold_0", "fold_1")
    (first / "results.json").write_text(json.dumps(entries(data, *names)))
    for name in others:
        array(second, name)
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *names)
    (note,) = said
    assert "lists of COCO results are read; left out what may be predictions, too" in note
    assert f"(files: 2, such as {second / 'four.npy'})" in note


def test_pictures_beside_arrays_are_no_predictions(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "plots").mkdir()
    cv2.imwrite(str(tmp_path / "plots/loss.png"), np.zeros((9, 9), np.uint8))
    for name in NAMES:
        array(tmp_path, name)
    (tmp_path / "._one.npy").write_bytes(b"x")
    check(open_written(tmp_path, known, data), *NAMES)
    # A preview of the same image is less than its probabilities.
    cv2.imwrite(str(tmp_path / "one.png"), np.ones(SIZE_HW, np.uint8))
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *NAMES)
    assert "arrays are read; left out" in said[0]


def test_labels_count_where_a_list_has_other_ids(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "labels").mkdir()
    for name in NAMES:
        labels(tmp_path / "labels", name)
    own = [{**entry, "image_id": "one"} for entry in entries(data, "one")]
    (tmp_path / "predictions.json").write_text(json.dumps(own))
    said: list[str] = []
    check(open_written(tmp_path, known, data, note=said.append), *NAMES)
    assert "left out a list of COCO results" in said[0]


def test_a_link_to_a_fold_is_followed(data: Path, known: KnownImages, tmp_path: Path) -> None:
    for folder, names in folds(tmp_path / "a", "fold_0", "../b"):
        for name in names:
            array(folder, name)
    (tmp_path / "a/fold_1").symlink_to(tmp_path / "b", target_is_directory=True)
    # One that leads around in a circle does no harm.
    (tmp_path / "b/up").symlink_to(tmp_path / "a", target_is_directory=True)
    # Nor does one that leads nowhere.
    (tmp_path / "a/results.json").symlink_to(tmp_path / "gone.json")
    check(open_written(tmp_path / "a", known, data), *NAMES)


def test_planes_that_lie_on_their_side_are_told(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", np.swapaxes(truth("one"), 1, 2))
    found = open_written(tmp_path, known, data)
    with pytest.raises(ValueError, match=r"found \(60, 40\): transpose them"):
        found.predict("one")
