"""COCO's files of predictions, with images and categories of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_masks
from shapely.geometry import box

import converters
from converters.types import Instance, LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages

SIZE_HW = (40, 60)
LABELS = LabelSpace("tools", ("cup", "fork"), aliases={"mug": "cup"})
KEYS = ("a/one", "b/two", "b/three_2")
Record = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    samples = []
    for key in KEYS:
        image = root / "images" / f"{key}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.zeros(SIZE_HW, np.uint8))
        samples.append(Sample(key, image, SIZE_HW, (Instance("cup", box(1, 1, 9, 9)),)))
    converters.write(samples, root / "coco", format="coco", labels=LABELS)
    return root / "coco"


@pytest.fixture(scope="module")
def known(data: Path) -> KnownImages:
    samples = {sample.key: sample for sample in converters.read(data, labels=LABELS)}
    return KnownImages(samples, LABELS, dict(enumerate(LABELS.names)))


def plane() -> np.ndarray[Any, Any]:
    """An object with a hole that ends at the border."""
    pixels = np.zeros(SIZE_HW, np.uint8)
    pixels[30:, 10:25] = 1
    pixels[33:36, 14:18] = 0
    return pixels


def compressed() -> Record:
    code: Record = coco_masks.encode(np.asfortranarray(plane()))
    return {**code, "counts": code["counts"].decode()}


def uncompressed() -> Record:
    flat = plane().ravel(order="F")
    edges = np.flatnonzero(np.diff(np.r_[0, flat, 0]))
    return {"size": list(SIZE_HW), "counts": np.diff(np.r_[0, edges, flat.size]).tolist()}


def polygon() -> list[list[int]]:
    return [[2, 3, 22, 3, 22, 13, 2, 13]]


def record(*names: str, score: float | None = 0.75, shape: Any = None) -> Record:
    """Return a file of a cup in each image; the ids are others than those of the data set."""
    images = [
        {"id": 70 + n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(names)
    ]
    annotations = []
    for number, image in enumerate(images):
        own = {"id": number, "image_id": image["id"], "category_id": 9, "iscrowd": 0}
        annotations.append({**own, "segmentation": shape or polygon()})
        if score is not None:
            annotations[-1]["score"] = score
    categories = [{"id": 4, "name": "fork"}, {"id": 9, "name": "cup"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path: Path, content: Record) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("shape", [polygon, compressed, uncompressed])
@pytest.mark.parametrize("score", [0.75, None])
def test_objects_come_with_scores_and_classes_of_the_file(
    shape: Callable[[], Any], score: float | None, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    content = record("a/one.png", "two.jpg", score=score, shape=shape())
    path = write(tmp_path / "found.json", content)
    for place in (path, tmp_path):
        said: list[str] = []
        found = open_written(place, known, data, note=said.append)
        assert (found.form, found.kind, found.names_all) == ("a COCO file", "instance", True)
        assert found.gives_scores == (score is not None)
        assert (sorted(found.keys), said) == (["a/one", "b/two"], [])
        for key in found.keys:
            ((label, _, own, mask),) = found.predict(key).rows()
            assert (label, own) == ("cup", 0.75 if score else 1)
            pixels = mask.binary(SIZE_HW).full(SIZE_HW)
            if shape is polygon:
                assert pixels.sum() == 200 == pixels[3:13, 2:22].sum()
            else:
                np.testing.assert_array_equal(pixels, plane())


@pytest.mark.parametrize(
    "name",
    ["b/three_2.png", "three_2.jpg", "three_2", "C:\\set\\b\\three_2.png", "/x/b/three_2.tif"],
)
def test_images_are_known_by_path_or_name(
    name: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    path = write(tmp_path / "found.json", record(name))
    assert list(open_written(path, known, data).keys) == ["b/three_2"]


def test_what_a_command_has_written_is_known_by_its_key(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    content = record("0001.png")
    content["images"][0]["sample"] = {"key": "a/one", "group": ""}
    path = write(tmp_path / "found.json", content)
    assert list(open_written(path, known, data).keys) == ["a/one"]


def _other_image(content: Record) -> None:
    content["images"][0]["file_name"] = "four.png"


def _same_image(content: Record) -> None:
    content["images"][1]["file_name"] = "one.png"


def _other_size(content: Record) -> None:
    content["images"][0]["height"] = 80


def _other_classes(content: Record) -> None:
    content["categories"] = [{"id": 9, "name": "plate"}]


def _no_category(content: Record) -> None:
    content["annotations"][0]["category_id"] = 5


def _no_image(content: Record) -> None:
    content["annotations"][1]["image_id"] = 5


def _boxes(content: Record) -> None:
    for one in content["annotations"]:
        del one["segmentation"]
        one["bbox"] = [1, 2, 3, 4]


def _captions(content: Record) -> None:
    content["annotations"] = [{"image_id": 70, "caption": "a cup"}]


BROKEN = {
    _other_image: "image 'four.png': expected an image of the data set, found none of that name",
    _same_image: "image 'one.png': expected one image 'a/one', found 'a/one.png' too",
    _other_size: r"'a/one.png': expected height and width \(40, 60\), as in the data set",
    _other_classes: r"expected classes of 'tools' \(cup, fork\), found plate",
    _no_category: "annotation at place 0: expected a category of this file, found another id",
    _no_image: "annotation at place 1: expected an image of this file, found another id",
    _boxes: "found nothing but 2 boxes",
    _captions: "found captions",
}


@pytest.mark.parametrize("change", BROKEN)
def test_what_is_broken_is_told(
    change: Callable[[Record], None], data: Path, known: KnownImages, tmp_path: Path
) -> None:
    content = record("a/one.png", "two.png")
    change(content)
    path = write(tmp_path / "found.json", content)
    with pytest.raises(ValueError, match=BROKEN[change]) as error:
        open_written(path, known, data)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_classes_that_are_not_asked_for_are_left_out(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    content = record("one.png")
    content["categories"] = [{"id": 3, "name": "plate"}, {"id": 9, "name": "mug"}]
    said: list[str] = []
    path = write(tmp_path / "found.json", content)
    assert open_written(path, known, data, note=said.append).classes == ("cup",)
    assert said[0].startswith(f"{path}: left out plate")


def test_files_of_folds_are_joined(data: Path, known: KnownImages, tmp_path: Path) -> None:
    write(tmp_path / "fold_0/found.json", record("one.png"))
    write(tmp_path / "fold_1/found.json", record("two.png", "three_2.png"))
    found = open_written(tmp_path, known, data)
    assert sorted(found.keys) == sorted(KEYS)
    assert all(found.predict(key).masks for key in KEYS)
    write(tmp_path / "fold_2/found.json", record("two.png"))
    with pytest.raises(ValueError, match=r"expected none of 'b/two', which .*fold_1.* has"):
        open_written(tmp_path, known, data)


def test_the_data_sets_own_annotations_are_not_taken_for_predictions(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    truth = data / "annotations/instances_train.json"
    own = Path(shutil.copy(truth, tmp_path / "annotations.json"))
    path = write(tmp_path / "found.json", record("one.png", score=None))
    said: list[str] = []
    assert list(open_written(tmp_path, known, data, note=said.append).keys) == ["a/one"]
    assert said == [f"{own}: left out the data set's own annotations, as {path} has predictions"]
    # Alone they are, and that is said; beside their images, too.
    shutil.copytree(data, tmp_path / "copy")
    said = []
    open_written(tmp_path / "copy", known, data, note=said.append)
    place = tmp_path / "copy/annotations/instances_train.json"
    assert said[0] == f"{place}: the data set's own annotations are taken for predictions"
    for place in (own, truth):
        said = []
        open_written(place, known, data, note=said.append)
        assert said[0] == f"{place}: the data set's own annotations are taken for predictions"


def test_annotations_written_anew_are_left_out_beside_scores(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    path = write(tmp_path / "found.json", record("one.png"))
    write(tmp_path / "truth.json", record("one.png", "two.png", score=None))
    said: list[str] = []
    assert list(open_written(tmp_path, known, data, note=said.append).keys) == ["a/one"]
    assert f"truth.json: left out objects without scores, as {path} has predictions" in said[0]


@pytest.mark.parametrize("form", ["{name}.png", "cup/{name}.png"])
def test_masks_go_before_the_data_sets_own_annotations(
    form: str, data: Path, known: KnownImages, tmp_path: Path
) -> None:
    shutil.copy(data / "annotations/instances_train.json", tmp_path / "annotations.json")
    for key in KEYS:
        path = tmp_path / form.format(name=key.split("/")[1])
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), plane())
    said: list[str] = []
    found = open_written(tmp_path, known, data, note=said.append)
    assert found.form in ("index maps", "masks of classes")
    assert "annotations.json: left out the data set's own annotations" in said[0]


def test_scores_count_where_the_images_lie_beside_them(
    data: Path, known: KnownImages, tmp_path: Path
) -> None:
    """As FiftyOne exports them."""
    (tmp_path / "data").mkdir()
    for key in KEYS:
        shutil.copy(Path(str(known.samples[key].image)), tmp_path / "data")
    write(tmp_path / "labels.json", record("one.png", "two.png", "three_2.png"))
    said: list[str] = []
    found = open_written(tmp_path, known, data, note=said.append)
    assert (found.form, said) == ("a COCO file", [])
    assert [score for _, _, score, _ in found.predict("b/two").rows()] == [0.75]
