"""Supervisely's projects: the pixels that its SDK draws, datasets, and what is refused."""

from __future__ import annotations

import base64
import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.masks import rasterize_labels

SIZE = (24, 40)
META = {
    "classes": [
        {"title": "dog", "shape": "any"},
        {"title": "cat", "shape": "polygon"},
        {"title": "box", "shape": "rectangle"},
    ]
}
OUTER = [[2, 3], [22, 3], [22.4, 17], [2, 17]]
INNER = [[6, 6], [12, 6], [12, 10], [6, 10]]


def packed(plane: np.ndarray, form: str = "L") -> str:
    """As the SDK does: a PNG with a palette or an alpha channel, compressed, in base64."""
    image = Image.fromarray(plane * np.uint8(255))
    if form == "P":
        image = Image.fromarray(plane).convert("P")
        image.putpalette([0, 0, 0, 255, 255, 255])
    elif form == "RGBA":
        grey = plane * np.uint8(255)
        image = Image.fromarray(np.dstack([grey * 0 + 9, grey * 0, grey * 0, grey]))
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def polygon(label: str = "cat", **more: Any) -> dict[str, Any]:
    points = {"exterior": OUTER, "interior": [INNER], **more}
    return {"classTitle": label, "geometryType": "polygon", "points": points}


def bitmap(data: str, origin: Any = (5, 4), label: str = "dog") -> dict[str, Any]:
    shape = {"data": data, "origin": list(origin)}
    return {"classTitle": label, "geometryType": "bitmap", "bitmap": shape}


def put(root: Path, dataset: str, name: str, *objects: Any, **more: Any) -> None:
    for folder in ("img", "ann"):
        (root / dataset / folder).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(root / dataset / "img" / name), np.full(SIZE, 99, np.uint8))
    size = {"height": SIZE[0], "width": SIZE[1]}
    content = {"description": "", "tags": [], "size": size, "objects": objects, **more}
    (root / dataset / f"ann/{name}.json").write_text(json.dumps(content))
    (root / "meta.json").write_text(json.dumps(META))


def planes(root: Path, **more: Any) -> dict[str, np.ndarray]:
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def test_a_polygon_has_the_pixels_that_the_sdk_draws(tmp_path):
    put(tmp_path, "ds", "a.png", polygon())
    assert converters.recognise(tmp_path) == "supervisely"
    assert converters.label_space(tmp_path).names == ("dog", "cat")
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.rint(OUTER).astype(np.int32)], 1)
    cv2.fillPoly(expected, [np.array(INNER, np.int32)], 0)
    np.testing.assert_array_equal(planes(tmp_path)["cat"], expected)


@pytest.mark.parametrize("form", ["L", "P", "RGBA"])
def test_a_bitmap_is_at_its_origin(form, tmp_path):
    plane = np.zeros((8, 10), np.uint8)
    plane[1:6, 2:9], plane[3, 4] = 1, 0
    put(tmp_path, "ds", "a.png", bitmap(packed(plane, form)), polygon())
    expected = np.zeros(SIZE, np.uint8)
    expected[4:12, 5:15] = plane
    np.testing.assert_array_equal(planes(tmp_path)["dog"], expected)


def test_datasets_are_parts_of_keys_and_may_lie_in_others(tmp_path):
    put(tmp_path, "train", "a.png", polygon())
    put(tmp_path, "train", "a.jpg", polygon())
    put(tmp_path, "test", "b.png", polygon())
    put(tmp_path, "train/datasets/more", "c.png", polygon())
    keys = {p: [s.key for s in converters.read(tmp_path, subset=p)] for p in ("train", "test")}
    assert keys == {
        "train": ["train/a.jpg", "train/a.png", "train/datasets/more/c"],
        "test": ["test/b"],
    }
    assert [s.key for s in converters.read(tmp_path / "train/datasets/more")] == ["c"]


def test_classes_without_a_meta_json_are_those_of_the_objects(tmp_path):
    put(tmp_path, "ds", "a.png", polygon("b"), polygon("a"))
    (tmp_path / "meta.json").unlink()
    assert converters.label_space(tmp_path).names == ("a", "b")


def test_what_has_no_pixels_is_left_out_and_said(tmp_path):
    line = {"classTitle": "cat", "geometryType": "line", "points": {"exterior": OUTER}}
    box = {"classTitle": "box", "geometryType": "rectangle", "points": {"exterior": OUTER[::2]}}
    put(tmp_path, "ds", "a.png", polygon(), line, box, box)
    (tmp_path / "ds/img/b.png").write_bytes((tmp_path / "ds/img/a.png").read_bytes())
    notes: list[str] = []
    assert set(planes(tmp_path, note=notes.append)) == {"cat"}
    assert "left out 1 shapes that enclose nothing (line)" in notes[0]
    assert "left out 2 boxes (rectangle)" in notes[1]
    assert "left out 1 images without a file in ann (ds/img/b.png)" in notes[2]
    put(tmp_path, "ds", "a.png", box)
    with pytest.raises(DataError, match="expected outlines of objects, found nothing but 1 boxes"):
        converters.read(tmp_path)


BOMB = base64.b64encode(zlib.compress(bytes(10_000_000))).decode()


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (polygon("wolf"), "object 0: expected a class of"),
        (polygon(exterior=OUTER[:2]), "object 0: expected 'points' with 'exterior'"),
        (polygon(exterior=[["a", 1]] * 3), "object 0: expected 'points' with 'exterior'"),
        (polygon(exterior=[[1e300, 1]] * 3), "object 0: expected 'points' with 'exterior'"),
        (polygon(interior=[[[1, 1]]]), "object 0: expected 'points' with 'exterior'"),
        (polygon() | {"points": None}, "object 0: expected 'points' with 'exterior'"),
        (polygon() | {"geometryType": "alpha_mask"}, "expected a polygon or a bitmap"),
        (5, "object 0: expected a polygon or a bitmap"),
        (bitmap("?"), "object 0: expected a compressed PNG in base64"),
        (bitmap(base64.b64encode(b"abc").decode()), "expected a compressed PNG in base64"),
        (bitmap(base64.b64encode(zlib.compress(b"abc")).decode()), "expected a PNG"),
        (bitmap(BOMB), "found more in 'bitmap.data'"),
        (bitmap(packed(np.ones((8, 10), np.uint8)), (35, 4)), "expected a bitmap within"),
        (bitmap(packed(np.ones((8, 10), np.uint8)), (-1, 4)), "expected a bitmap within"),
        (bitmap(packed(np.ones((8, 10), np.uint8)), ("a", 4)), "with 'data' and 'origin'"),
    ],
)
def test_broken_objects_are_told(broken, expected, tmp_path):
    put(tmp_path, "ds", "a.png", broken)
    put(tmp_path, "ds", "b.png", polygon())
    with pytest.raises(DataError, match=r"ds/ann/a\.png\.json: ") as error:
        converters.read(tmp_path)
    assert expected in str(error.value)
    assert [s.key for s in converters.read(tmp_path, skips_broken=True)] == ["ds/b"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"size": {"height": 24, "width": 41}},
            r"expected an image of \(24, 41\), found \(24, 40\)",
        ),
        ({"size": None}, "expected an image of"),
        ({"objects": {}}, "expected 'objects', a list"),
    ],
)
def test_broken_files_are_told(more, expected, tmp_path):
    put(tmp_path, "ds", "a.png", polygon(), **more)
    with pytest.raises(DataError, match=expected):
        converters.read(tmp_path, format="supervisely")


def test_an_image_that_is_missing_is_told(tmp_path):
    put(tmp_path, "ds", "a.png", polygon())
    (tmp_path / "ds/img/a.png").unlink()
    with pytest.raises(DataError, match=r"img/a\.png"):
        converters.read(tmp_path)


@pytest.mark.parametrize("classes", [None, [], [{"title": ""}], [{"title": "a"}] * 2, [5]])
def test_a_meta_json_that_names_no_classes_is_refused(classes, tmp_path):
    put(tmp_path, "ds", "a.png", polygon())
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes}))
    with pytest.raises(ValueError, match=r"meta\.json: expected"):
        converters.label_space(tmp_path)


def test_linked_datasets_are_read_and_images_beside_are_counted(tmp_path):
    root = tmp_path / "project"
    for dataset in ("one", "two"):
        put(root, dataset, "a.png", polygon())
    (root / "two").rename(tmp_path / "two")
    (root / "two").symlink_to(tmp_path / "two")
    (root / "test/img").mkdir(parents=True)
    cv2.imwrite(str(root / "test/img/b.png"), np.zeros((9, 9), np.uint8))
    notes: list[str] = []
    assert len(converters.read(root, note=notes.append)) == 2
    assert any("left out 1 images that are no part of a pair" in note for note in notes)
