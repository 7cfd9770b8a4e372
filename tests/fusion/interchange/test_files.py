"""Predictions that other programs have written."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from shapely.geometry import box

import converters
from converters.types import Instance, LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.types import Prediction

SIZE_HW = (40, 60)
LABELS = LabelSpace("tools", ("cup", "fork"), aliases={"mug": "cup"})
NUMBERS = dict(enumerate(LABELS.names))
# Of two images: class, score, x, y, width, height; the second image has an object, too.
FOUND = {
    "a/one": [("cup", 0.75, 2, 3, 20, 10), ("cup", 0.5, 30, 5, 12, 20), ("fork", 1.0, 10, 8, 9, 9)],
    "b/two": [("fork", 0.25, 0, 0, 60, 4)],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of three images; the third has no prediction."""
    root = tmp_path_factory.mktemp("data")
    samples = []
    for key in (*FOUND, "b/three"):
        image = root / "images" / f"{key}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.zeros(SIZE_HW, np.uint8))
        shapes = (Instance("cup", box(1, 1, 9, 9)), Instance("fork", box(20, 20, 30, 30)))
        samples.append(Sample(key, image, SIZE_HW, shapes))
    converters.write(samples, root / "coco", format="coco", labels=LABELS)
    return root / "coco"


@pytest.fixture(scope="module")
def known(data: Path) -> KnownImages:
    samples = {sample.key: sample for sample in converters.read(data, labels=LABELS)}
    assert list(samples) == ["a/one", "b/three", "b/two"]
    return KnownImages(samples, LABELS, NUMBERS)


def plane(x: int, y: int, width: int, height: int) -> np.ndarray[Any, Any]:
    pixels = np.zeros(SIZE_HW, np.uint8)
    pixels[y : y + height, x : x + width] = 1
    return pixels


def check(prediction: Prediction, key: str, has_scores: bool = True) -> None:
    """Compare a prediction with what was found: the same objects, to the pixel."""
    expected = [
        (label, score if has_scores else 1.0, plane(*place)) for label, score, *place in FOUND[key]
    ]
    for label in LABELS.names:
        wanted = [(score, pixels) for own, score, pixels in expected if own == label]
        found = prediction.masks.get(label, ())
        assert [score for score, _ in found] == pytest.approx([score for score, _ in wanted])
        for (_, mask), (_, pixels) in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mask.binary(SIZE_HW).full(SIZE_HW), pixels)


def ids(data: Path) -> tuple[dict[str, int], dict[str, int]]:
    record = json.loads((data / "annotations/instances_train.json").read_text())
    images = {entry["sample"]["key"]: entry["id"] for entry in record["images"]}
    return images, {entry["name"]: entry["id"] for entry in record["categories"]}


def write_results(
    data: Path, path: Path, change: Callable[[list[Any]], None] | None = None
) -> None:
    images, classes = ids(data)
    results = []
    for key, objects in FOUND.items():
        for label, score, *place in objects:
            code = coco_masks.encode(np.asfortranarray(plane(*place)))
            code["counts"] = code["counts"].decode()
            entry = {"image_id": images[key], "category_id": classes[label], "score": score}
            results.append({**entry, "segmentation": code})
    if change:
        change(results)
    path.write_text(json.dumps(results))


def opened(path: Path, known: KnownImages, data: Path, **options: Any) -> WrittenPredictions:
    return open_written(path, known, data, **options)


def test_coco_results_come_in_with_their_scores(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    write_results(data, tmp_path / "results.json")
    truth = data / "annotations/instances_train.json"
    assert len(COCO(truth).loadRes(str(tmp_path / "results.json")).anns) == 4
    found = opened(tmp_path / "results.json", known, data)
    # COCO's results are of all images of the file; those without an object are not named.
    assert sorted(found.keys) == ["a/one", "b/three", "b/two"]
    assert found.names_all
    for key in FOUND:
        check(found.predict(key), key)
    assert not found.predict("b/three").masks
    # A folder with nothing else in it is the file.
    assert opened(tmp_path, known, data).form == found.form


def test_of_boxes_and_outlines_of_mmdetection_the_outlines_are_read(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    found = tmp_path / "found"
    found.mkdir()
    write_results(data, found / "out.segm.json")

    def change(results: list[Any]) -> None:
        for entry in results:
            del entry["segmentation"]
            entry["bbox"] = [1, 2, 3, 4]

    write_results(data, found / "out.bbox.json", change)
    check(opened(found, known, data).predict("a/one"), "a/one")
    # Of two with outlines nobody knows which is meant.
    write_results(data, found / "again.segm.json")
    with pytest.raises(ValueError, match="expected"):
        opened(found, known, data)


def _of(data: Path, *keys: str) -> Callable[[list[Any]], None]:
    """Leave the results of some images alone."""
    numbers = {ids(data)[0][key] for key in keys}

    def change(results: list[Any]) -> None:
        results[:] = [entry for entry in results if entry["image_id"] in numbers]

    return change


@pytest.mark.parametrize("places", [("f0.json", "f1.json"), ("fold_0/r.json", "fold_1/r.json")])
def test_lists_of_folds_are_one(
    places: tuple[str, str], data: Path, known: KnownImages, tmp_path: Path
) -> None:
    for place, key in zip(places, FOUND, strict=True):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write_results(data, tmp_path / place, _of(data, key))
    said: list[str] = []
    found = opened(tmp_path, known, data, note=said.append)
    assert sorted(found.keys) == ["a/one", "b/three", "b/two"]
    for key in FOUND:
        check(found.predict(key), key)
    assert not found.predict("b/three").masks
    # The second knows forks alone; both together know all.
    assert not found.classes
    assert not said
    write_results(data, tmp_path / places[1])
    with pytest.raises(ValueError, match=r"folds.*expected none of 'a/one', which .* has"):
        opened(tmp_path, known, data)


def test_lists_of_folds_have_an_annotation_file_each(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    other, results = tmp_path / "data", tmp_path / "results"
    (other / "annotations").mkdir(parents=True)
    (other / "images").symlink_to(data / "images" / "train")
    results.mkdir()
    record = json.loads((data / "annotations/instances_train.json").read_text())
    for name, keys in (("a", {"a/one", "b/three"}), ("b", {"b/two"})):
        entries = [image for image in record["images"] if image["sample"]["key"] in keys]
        own = {**record, "images": entries, "annotations": []}
        (other / f"annotations/{name}.json").write_text(json.dumps(own))
        write_results(data, results / f"{name}.json", _of(data, *keys))
    found = opened(results, known, other)
    assert found.form == "COCO results with the ids of a.json, b.json"
    assert sorted(found.keys) == ["a/one", "b/three", "b/two"]
    for key in FOUND:
        check(found.predict(key), key)


def test_classes_are_chosen_and_renamed(data: Path, known: KnownImages, tmp_path: Path) -> None:
    write_results(data, tmp_path / "results.json")
    few = KnownImages(known.samples, LABELS.only(["fork"]), NUMBERS)
    found = opened(tmp_path / "results.json", few, data)
    assert set(found.predict("a/one").masks) == {"fork"}


def test_an_object_without_pixels_is_none(data: Path, known: KnownImages, tmp_path: Path) -> None:
    nothing = coco_masks.encode(np.asfortranarray(np.zeros(SIZE_HW, np.uint8)))

    def change(results: list[Any]) -> None:
        counts = nothing["counts"].decode()
        results.append({**results[0], "segmentation": {"size": [*SIZE_HW], "counts": counts}})

    write_results(data, tmp_path / "results.json", change)
    check(opened(tmp_path / "results.json", known, data).predict("a/one"), "a/one")


def _set(name: str, value: Any) -> Callable[[list[Any]], None]:
    return lambda results: results[0].update({name: value})


BROKEN: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "image": (_set("image_id", 77), "instances_train.json lacks 1 of the images, such as 77"),
    "category": (_set("category_id", 9), "lacks 1 of the categories, such as 9"),
    "id": (_set("image_id", None), "detection at place 0: expected 'image_id' to be an id"),
    "score": (
        _set("score", 7),
        "detection at place 0 .'cup'.: expected 'score' to be a number from 0 to 1, found 7: ",
    ),
    "nan": (_set("score", float("nan")), "expected 'score' to be a number from 0 to 1, found nan"),
    "box": (_set("segmentation", None), "found only a box"),
    "size": (
        _set("segmentation", {"size": [2, 2], "counts": "04"}),
        r"expected a run-length code of size \(40, 60\)",
    ),
    "nothing": (list.clear, "expected COCO's results, a list of detections, found an empty list"),
    "texts": (lambda results: results.insert(1, "no"), "expected detections, found 'no' at place"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_results_is_said(
    kind: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    change, message = BROKEN[kind]
    write_results(data, tmp_path / "results.json", change)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "results.json", known, data).predict("a/one")


def test_ids_of_several_annotation_files_need_the_file_that_is_meant(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    other = tmp_path / "data"
    (other / "annotations").mkdir(parents=True)
    (other / "images").symlink_to(data / "images")
    text = (data / "annotations/instances_train.json").read_text()
    for name in ("train", "val"):
        (other / f"annotations/instances_{name}.json").write_text(text)
    write_results(data, tmp_path / "results.json")
    with pytest.raises(ValueError, match=r"several have them: .*: say which one is meant: --data"):
        opened(tmp_path / "results.json", known, other, images=other / "images/train")
    named = other / "annotations/instances_val.json"
    found = opened(
        tmp_path / "results.json", known, other, images=other / "images/train", annotations=named
    )
    check(found.predict("a/one"), "a/one")


def test_results_need_a_data_set_with_ids(known: KnownImages, tmp_path: Path, data: Path) -> None:
    write_results(data, tmp_path / "results.json")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="expected a COCO data set, found none in"):
        opened(tmp_path / "results.json", known, tmp_path / "other")


def test_label_files_may_have_scores(data: Path, known: KnownImages, tmp_path: Path) -> None:
    folder = tmp_path / "predict/labels"
    folder.mkdir(parents=True)
    for key, objects in FOUND.items():
        lines = []
        for label, score, x, y, width, height in objects:
            right, low = x + width - 1, y + height - 1
            corners = [(x, y), (right, y), (right, low), (x, low)]
            shares = [f"{a / SIZE_HW[1]:.6g} {b / SIZE_HW[0]:.6g}" for a, b in corners]
            lines.append(f"{LABELS.index[label]} {' '.join(shares)} {score}")
        (folder / f"{key.split('/')[1]}.txt").write_text("\n".join(lines))
    found = opened(tmp_path / "predict", known, data)
    assert not found.names_all
    assert sorted(found.keys) == sorted(FOUND)
    for key in FOUND:
        check(found.predict(key), key)
    assert not found.predict("b/three").masks
    (folder / "one.txt").write_text("5 .1 .1 .2 .1 .2 .2")
    with pytest.raises(ValueError, match=r"one\.txt: line 1: expected the number of a class, 0 to"):
        opened(tmp_path / "predict", known, data).predict("a/one")
    (folder / "four.txt").write_text("")
    with pytest.raises(ValueError, match=r"four\.txt: expected a file called as an image"):
        opened(tmp_path / "predict", known, data)


def test_index_maps_and_probabilities_of_nnunet(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    values = np.zeros(SIZE_HW, np.uint8)
    values[3:13, 2:22], values[20:30, 30:50] = 1, 2
    cv2.imwrite(str(tmp_path / "one.png"), values)
    found = opened(tmp_path, known, data)
    assert (list(found.keys), found.kind) == (["a/one"], "semantic")
    prediction = found.predict("a/one")
    for number, label in enumerate(LABELS.names, 1):
        mask = prediction.binary(label).full(SIZE_HW)
        np.testing.assert_array_equal(mask, values == number)
    # As nnU-Net says it, the numbers are others, and a name is an alias of ours.
    record = {"labels": {"background": 0, "fork": 1, "mug": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    swapped = opened(tmp_path, known, data).predict("a/one")
    np.testing.assert_array_equal(swapped.binary("fork").full(SIZE_HW), values == 1)
    planes = np.zeros((3, 1, *SIZE_HW), np.float32)
    planes[2, 0] = 0.4 * (values == 2)
    planes[1, 0] = 0.8 * (values == 1)
    np.savez(tmp_path / "one.npz", probabilities=planes)
    soft = opened(tmp_path, known, data).predict("a/one")
    np.testing.assert_array_equal(soft.binary("fork").full(SIZE_HW), values == 1)
    assert not soft.binary("cup").area
    evidence = soft.evidence("cup", once=True)
    assert evidence is not None
    assert evidence[1].render((0, 0, SIZE_HW[1], SIZE_HW[0])).max() == round(0.4 * 255)
    np.savez(tmp_path / "one.npz", probabilities=planes[:2])
    with pytest.raises(ValueError, match=r"one\.npz: expected probabilities of shape \(3, 40"):
        opened(tmp_path, known, data).predict("a/one")
    np.savez(tmp_path / "one.npz", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"one\.npz: expected"):
        opened(tmp_path, known, data).predict("a/one")
    (tmp_path / "one.npz").unlink()
    cv2.imwrite(str(tmp_path / "one.png"), values + 5)
    with pytest.raises(
        ValueError, match=r"one\.png: expected numbers of classes, 0 to 2, found 5$"
    ):
        opened(tmp_path, known, data).predict("a/one")
    # Without it another one may have been meant.
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"found 5: beside nnU-Net's maps has to lie the dataset"):
        opened(tmp_path, known, data).predict("a/one")


def test_a_table_of_another_competition(data: Path, known: KnownImages, tmp_path: Path) -> None:
    lines = ["ImageId,ClassId,EncodedPixels"]
    for key, objects in FOUND.items():
        for label, _, *place in objects:
            flat = np.concatenate([[0], plane(*place).ravel(order="F"), [0]])
            edges = np.flatnonzero(np.diff(flat.astype(int)))
            runs = " ".join(f"{a + 1} {b - a}" for a, b in edges.reshape(-1, 2))
            lines.append(f"{key.split('/')[1]}.png,{label},{runs}")
    (tmp_path / "sub.csv").write_text("\n".join([*lines, "three.png,,"]))
    said: list[str] = []
    found = opened(tmp_path / "sub.csv", known, data, note=said.append)
    assert sorted(found.keys) == ["a/one", "b/three", "b/two"]
    for key in FOUND:
        check(found.predict(key), key, has_scores=False)
    # Tables of folds are one.
    for name in FOUND:
        part = [line for line in lines[1:] if line.startswith(name.split("/")[1])]
        folder = tmp_path / "folds" / name.replace("/", "_")
        folder.mkdir(parents=True)
        (folder / "sub.csv").write_text("\n".join([lines[0], *part]))
    both = opened(tmp_path / "folds", known, data)
    assert sorted(both.keys) == ["a/one", "b/two"]
    for key in FOUND:
        check(both.predict(key), key, has_scores=False)
    (folder / "again.csv").write_text("\n".join([lines[0], lines[1]]))
    with pytest.raises(ValueError, match=r"expected none of 'a/one', which .*sub\.csv has"):
        opened(tmp_path / "folds", known, data)


def test_a_data_set_is_a_prediction_of_its_images(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    found = opened(data, known, data)
    assert sorted(found.keys) == sorted(known.samples)
    assert {label: len(own) for label, own in found.predict("a/one").masks.items()} == {
        "cup": 1,
        "fork": 1,
    }


def test_the_background_is_known_without_objects(known: KnownImages) -> None:
    labels = LabelSpace("scene", ("ground", "cup", "fork"), background="ground")
    scene = KnownImages(known.samples, labels, {})
    said: list[str] = []
    assert scene.spoken(Path("p"), {"cup", "fork"}, said.append) == ()
    assert scene.spoken(Path("p"), {}, said.append) == ()
    assert said == []
    assert scene.spoken(Path("p"), {"cup"}, said.append) == ("ground", "cup")
    assert "p: no object of fork anywhere" in said[0]


def test_of_label_files_all_are_found_and_other_texts_are_none(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "labels/a").mkdir(parents=True)
    (tmp_path / "labels/b").mkdir()
    (tmp_path / "args.txt").write_text("not a label")
    (tmp_path / "labels/a/one.TXT").write_text("0 .1 .1 .3 .1 .3 .3\r\n")
    (tmp_path / "labels/b/three.txt").write_text("\n1 .1 .1 .3 .1 .3 .3 .25")
    found = opened(tmp_path, known, data)
    assert sorted(found.keys) == ["a/one", "b/three"]
    ((score, _),) = found.predict("b/three").masks["fork"]
    assert score == 0.25
    (tmp_path / "labels/one.txt").write_text("")
    with pytest.raises(ValueError, match=r"one\.txt: expected one file of 'a/one'"):
        opened(tmp_path, known, data)


def test_numbers_are_those_of_the_data_set(data: Path, known: KnownImages, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("7 .1 .1 .3 .1 .3 .3")
    gaps = KnownImages(known.samples, LABELS, {3: "cup", 7: "fork"})
    assert set(opened(tmp_path, gaps, data).predict("a/one").masks) == {"fork"}
    (tmp_path / "one.txt").write_text("5 .1 .1 .3 .1 .3 .3")
    with pytest.raises(ValueError, match="expected the number of a class, 3 to 7, found 5"):
        opened(tmp_path, gaps, data).predict("a/one")


def test_the_folds_of_a_network_that_nnunet_has_trained(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    values = np.zeros(SIZE_HW, np.uint8)
    values[3:13, 2:22], values[20:30, 30:50] = 1, 2
    trained = tmp_path / "Dataset001_toys" / "nnUNetTrainer__nnUNetPlans__2d"
    for fold, name in enumerate(("one", "three")):
        folder = trained / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"{name}.png"), values)
        # The curve of its losses, and what it was called with.
        cv2.imwrite(str(folder.parent / "progress.png"), np.zeros((9, 9, 3), np.uint8))
        (folder.parent / "debug.json").write_text("{}")
        (folder / "summary.json").write_text("{}")
    record = {"labels": {"background": 0, "fork": 1, "mug": 2}}
    (trained / "dataset.json").write_text(json.dumps(record))
    keys = ["a/one", "b/three"]
    folds = [trained / "fold_0", trained / "fold_1"]
    for folder, expected in (
        (trained, keys),
        (folds[0], keys[:1]),
        (folds[1] / "validation", keys[1:]),
    ):
        found = opened(folder, known, data)
        assert sorted(found.keys) == expected
        mask = found.predict(expected[0]).binary("fork").full(SIZE_HW)
        np.testing.assert_array_equal(mask, values == 1)
    cv2.imwrite(str(folds[1] / "validation" / "one.png"), values)
    with pytest.raises(
        ValueError, match=r"expected one file of 'a/one', found fold_0/validation/one\.png too"
    ):
        opened(trained, known, data)
    # Those of all folds together, and with smaller parts left out.
    gathered = tmp_path / "crossval_results_folds_0_1"
    (gathered / "postprocessed").mkdir(parents=True)
    (gathered / "dataset.json").write_text(json.dumps(record))
    cv2.imwrite(str(gathered / "one.png"), values)
    cv2.imwrite(str(gathered / "postprocessed" / "one.png"), values * 0)
    assert opened(gathered, known, data).predict("a/one").binary("fork").area == 200
    (gathered / "postprocessed" / "dataset.json").write_text(json.dumps(record))
    assert not opened(gathered / "postprocessed", known, data).predict("a/one").masks


def test_maps_of_another_kind_are_no_maps(data: Path, known: KnownImages, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.jpg"), np.ones(SIZE_HW, np.uint8))
    with pytest.raises(ValueError, match=r"expected COCO results .*, found none of them"):
        opened(tmp_path, known, data)
    cv2.imwrite(str(tmp_path / "b.png"), np.ones(SIZE_HW, np.uint8))
    (tmp_path / "b.png").rename(tmp_path / "two.PNG")
    assert list(opened(tmp_path, known, data).keys) == ["b/two"]


def test_maps_of_one_class_may_number_its_objects(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    few = KnownImages(known.samples, LABELS.only(["cup"]), {0: "cup"})
    values = np.zeros(SIZE_HW, np.uint16)
    values[3:9, 3:9], values[3:9, 9:30], values[20:30, 5:9] = 1, 7, 300
    cv2.imwrite(str(tmp_path / "one.png"), values)
    said: list[str] = []
    found = opened(tmp_path, few, data, note=said.append)
    assert "numbers up to 300 are taken for those of objects" in said[0]
    planes = [m.binary(SIZE_HW).full(SIZE_HW) for _, m in found.predict("a/one").masks["cup"]]
    assert len(planes) == 3
    for number, plane in zip((1, 7, 300), planes, strict=True):
        np.testing.assert_array_equal(plane, values == number)
    # Of several classes it is a number that is none.
    with pytest.raises(ValueError, match="expected numbers of classes, 0 to 2, found 7"):
        opened(tmp_path, known, data).predict("a/one")
    cv2.imwrite(str(tmp_path / "one.png"), np.where(values, 255, 0).astype(np.uint8))
    found = opened(tmp_path, few, data, note=said.append)
    assert "maps of 0 and 255 alone are taken for masks" in said[-1]
    assert found.kind == "semantic"
    mask = found.predict("a/one").binary("cup").full(SIZE_HW)
    np.testing.assert_array_equal(mask, values > 0)


def test_what_is_left_out_of_maps_is_said(data: Path, known: KnownImages, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.ones(SIZE_HW, np.uint8))
    record = {"labels": {"background": 0, "cup": 1, "spoon": 2, "ignore": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    said: list[str] = []
    found = opened(tmp_path, known, data, note=said.append)
    assert found.classes == ("cup",)
    assert "left out spoon, not known to 'tools'" in said[0]
    # There is no channel of what is ignored.
    np.savez(tmp_path / "one.npz", probabilities=np.full((3, *SIZE_HW), 1.001, np.float32))
    assert found.predict("a/one").binary("cup").area == SIZE_HW[0] * SIZE_HW[1]
    np.savez(tmp_path / "one.npz", probabilities=np.full((3, *SIZE_HW), 2.5, np.float32))
    with pytest.raises(ValueError, match="apply the sigmoid first"):
        found.predict("a/one")


def test_regions_share_pixels_in_probabilities(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    values = np.zeros(SIZE_HW, np.uint8)
    values[2:9], values[9:12], values[12:20] = 1, 3, 2
    cv2.imwrite(str(tmp_path / "one.png"), values)
    record = {"labels": {"background": 0, "mug": [1, 3], "fork": [2, 3], "ignore": 4}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    said: list[str] = []
    hard = opened(tmp_path, known, data, note=said.append).predict("a/one")
    assert "regions without probabilities" in said[0]
    np.testing.assert_array_equal(hard.binary("cup").full(SIZE_HW), np.isin(values, (1, 3)))
    np.testing.assert_array_equal(hard.binary("fork").full(SIZE_HW), np.isin(values, (2, 3)))
    # nnU-Net's networks of regions have no channel of the background.
    planes = np.zeros((2, 1, *SIZE_HW), np.float32)
    planes[0, 0, 2:12], planes[1, 0, 5:20] = 0.9, 0.8
    np.savez(tmp_path / "one.npz", probabilities=planes)
    said.clear()
    soft = opened(tmp_path, known, data, note=said.append).predict("a/one")
    assert said == []
    for label, plane in zip(("cup", "fork"), planes[:, 0], strict=True):
        np.testing.assert_array_equal(soft.binary(label).full(SIZE_HW), plane > 0.5)
    np.savez(tmp_path / "one.npz", probabilities=np.zeros((3, *SIZE_HW), np.float32))
    with pytest.raises(ValueError, match=r"one\.npz: expected probabilities of shape \(2, 40"):
        soft = opened(tmp_path, known, data).predict("a/one")


def test_two_names_of_one_class_are_joined(data: Path, known: KnownImages, tmp_path: Path) -> None:
    values = np.zeros(SIZE_HW, np.uint8)
    values[2:9], values[9:12] = 1, 2
    cv2.imwrite(str(tmp_path / "one.png"), values)
    record = {"labels": {"background": 0, "mug": 1, "cup": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    hard = opened(tmp_path, known, data).predict("a/one")
    np.testing.assert_array_equal(hard.binary("cup").full(SIZE_HW), values > 0)
    planes = np.stack([values == number for number in range(3)])
    np.savez(tmp_path / "one.npz", probabilities=planes)
    soft = opened(tmp_path, known, data).predict("a/one")
    np.testing.assert_array_equal(soft.binary("cup").full(SIZE_HW), values > 0)


def test_the_background_of_a_description_is_the_class_of_it(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    labels = LabelSpace("tools", ("rest", "cup"), background="rest", exclusive="by_class")
    known = KnownImages(known.samples, labels, {0: "rest", 1: "cup"}, has_background=True)
    values = np.zeros(SIZE_HW, np.uint8)
    values[2:9] = 1
    cv2.imwrite(str(tmp_path / "one.png"), values)
    record = {"labels": {"background": 0, "cup": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    found = opened(tmp_path, known, data).predict("a/one")
    np.testing.assert_array_equal(found.binary("rest").full(SIZE_HW), values == 0)


def damaged() -> dict[str, bytes]:
    """Files of probabilities that nobody can read."""
    whole = io.BytesIO()
    np.savez_compressed(whole, probabilities=np.random.default_rng(0).random((3, *SIZE_HW)))
    stream = bytearray(whole.getvalue())
    middle = len(stream) // 2
    stream[middle : middle + 40] = bytes(40)
    one, words = io.BytesIO(), io.BytesIO()
    np.save(one, np.zeros(3))
    np.savez(words, probabilities=np.full((3, *SIZE_HW), "x"))
    cut, huge = io.BytesIO(), io.BytesIO()
    for file, header in (
        (cut, b"{'descr': '<f4', 'fortran_order'"),
        (huge, b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4000000, 50000000), }"),
    ):
        head = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
        with zipfile.ZipFile(file, "w") as content:
            content.writestr("probabilities.npy", head)
    files = {"stream": bytes(stream), "one array": one.getvalue(), "words": words.getvalue()}
    return {**files, "cut header": cut.getvalue(), "huge": huge.getvalue()}


@pytest.mark.parametrize("what", damaged())
def test_damaged_probabilities_are_named(
    what: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros(SIZE_HW, np.uint8))
    (tmp_path / "one.npz").write_bytes(damaged()[what])
    with pytest.raises(ValueError, match=r"one\.npz: expected"):
        opened(tmp_path, known, data).predict("a/one")


def test_names_that_were_written_for_nnunet_come_first(known: KnownImages, tmp_path: Path) -> None:
    raw = tmp_path / "Dataset101_x"
    first = known.samples["a/one"]
    twins = [replace(first, key=key) for key in ("p/one", "q/one", "one_0000")]
    converters.write(twins, raw, format="nnunet", labels=LABELS)
    written = KnownImages({s.key: s for s in converters.read(raw)}, LABELS, NUMBERS)
    names = [tmp_path / f"{name}.png" for name in ("one", "one-2", "one_0000")]
    found = match_files(tmp_path, names, written)
    assert {path.stem: key for key, path in found.items()} == {
        "one": "p/one",
        "one-2": "q/one",
        "one_0000": "one_0000",
    }


@pytest.mark.parametrize(
    "labels",
    [None, [], {"cup": "1"}, {"cup": [1, None]}, {"cup": []}, {"background": 0}, {"cup": [0, 0]}],
)
def test_a_description_without_numbers_is_refused(
    labels: object, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros(SIZE_HW, np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(ValueError, match=r"dataset\.json: expected 'labels' with names"):
        opened(tmp_path, known, data)


def test_a_table_has_to_say_its_classes(data: Path, known: KnownImages, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ImageId,EncodedPixels\none.png,5 9\n")
    with pytest.raises(ValueError, match=r"t\.csv: expected a column of classes, found none"):
        opened(tmp_path / "t.csv", known, data)
    few = KnownImages(known.samples, LABELS.only(["fork"]), NUMBERS)
    found = opened(tmp_path / "t.csv", few, data)
    assert set(found.predict("a/one").masks) == {"fork"}
    (tmp_path / "t.csv").write_text("ImageId,ClassId,EncodedPixels\none.png,2,5 9\n")
    with pytest.raises(ValueError, match=r"say in rle_table.yaml .* 'classes: \{2: cup\}"):
        opened(tmp_path / "t.csv", known, data)


def test_two_images_of_one_name_are_refused(data: Path, known: KnownImages, tmp_path: Path) -> None:
    images, objects = [], []
    for number, folder in enumerate("pq"):
        path = tmp_path / folder / "one.png"
        path.parent.mkdir()
        cv2.imwrite(str(path), np.zeros(SIZE_HW, np.uint8))
        images.append({"id": number, "file_name": f"{folder}/one.png"})
        polygon = [[1, 1, 9, 1, 9, 9, 1, 9]]
        objects.append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": polygon}
        )
    categories = [{"id": 1, "name": "cup"}]
    record = {"images": images, "annotations": objects, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="expected one image of 'a/one', found 'p/one' and"):
        opened(tmp_path, known, data)


@pytest.mark.parametrize("name", ["a.txt", "gone"])
def test_other_files_are_refused(name: str, data: Path, known: KnownImages, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=f"{name}: expected "):
        opened(tmp_path / name, known, data)


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", "data.yaml"])
def test_label_files_have_the_numbers_that_their_folder_states(
    place: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/one.txt").write_text("0 .1 .1 .3 .1 .3 .3\n2 .5 .5 .7 .5 .7 .7 .8")
    said: list[str] = []
    with pytest.raises(ValueError, match="expected the number of a class, 0 to 1, found 2"):
        opened(tmp_path, known, data, note=said.append).predict("a/one")
    assert "numbers are taken for the data set's classes, 0 cup, 1 fork: a classes.txt" in said[0]
    names = ["fork", "knife", "mug"]
    text = f"names: {names}" if place == "data.yaml" else "\n".join(names)
    (tmp_path / place).write_text(text)
    said.clear()
    found = opened(tmp_path, known, data, note=said.append).predict("a/one")
    # The mug is a cup by an alias.
    assert {label: own[0][0] for label, own in found.masks.items()} == {"fork": 1.0, "cup": 0.8}
    assert said == [f"{tmp_path / place}: left out knife, not known to '{known.labels.name}'"]
    (tmp_path / place).write_text(text.replace("fork", "pan").replace("mug", "pot"))
    with pytest.raises(ValueError, match="found pan, knife, pot"):
        opened(tmp_path, known, data)


@pytest.mark.parametrize("score", ["", " .75"])
def test_numbers_of_tracked_objects_are_left_out(
    score: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    lines = [f"0 .1 .1 .3 .1 .3 .3{score} {number}\n" for number in (1, 2)]
    (tmp_path / "one.txt").write_text(lines[0])
    (tmp_path / "two.txt").write_text("".join(lines))
    found = opened(tmp_path, known, data)
    for key, count in (("a/one", 1), ("b/two", 2)):
        own = found.predict(key).masks["cup"]
        assert [one for one, _ in own] == [float(score or 1)] * count
        assert found.gives_scores == bool(score)
        # The triangle alone: a number is no corner.
        assert all(mask.box_xywh[2] <= 0.2 * SIZE_HW[1] + 2 for _, mask in own)


@pytest.mark.parametrize("form", ["results", "label files"])
@pytest.mark.parametrize("score", [None, 1.0, 0.5])
def test_a_score_of_1_is_not_a_missing_one(
    form: str, score: float | None, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    def change(results: list[Any]) -> None:
        for one in results:
            del one["score"]
            if score is not None:
                one["score"] = score

    if form == "results":
        write_results(data, tmp_path / "found.json", change)
    else:
        last = "" if score is None else f" {score}"
        (tmp_path / "one.txt").write_text(f"0 .1 .1 .3 .1 .3 .3{last}\n")
    assert opened(tmp_path, known, data).gives_scores == (score is not None)


def without(label: str) -> Callable[[list[Any]], None]:
    """Leave out the detections of a class, by its number."""

    def change(results: list[Any]) -> None:
        results[:] = [one for one in results if one["category_id"] != label]

    return change


@pytest.mark.parametrize("form", ["results", "table", "label files", "labels with names", "maps"])
def test_who_never_finds_a_class_has_no_say_there(
    form: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    path = tmp_path / "found"
    path.mkdir()
    if form == "results":
        write_results(data, path / "r.json", without(ids(data)[1]["fork"]))
    elif form == "table":
        (path / "t.csv").write_text("ImageId,ClassId,EncodedPixels\none.png,cup,1 5\n")
        path = path / "t.csv"
    elif form.startswith("label"):
        (path / "one.txt").write_text("0 .1 .1 .3 .1 .3 .3\n")
        if "names" in form:
            (path / "classes.txt").write_text("cup\nfork\n")
    else:
        cv2.imwrite(str(path / "one.png"), np.ones(SIZE_HW, np.uint8))
    said: list[str] = []
    found = opened(path, known, data, note=said.append)
    # Whose classes are stated knows those that it has not found.
    knows_all = form in ("labels with names", "maps")
    assert found.classes == (() if knows_all else ("cup",))
    told = "no object of fork anywhere: taken as not known to who predicted"
    assert any(told in text for text in said) != knows_all
    assert set(found.predict("a/one").masks) == {"cup"}
