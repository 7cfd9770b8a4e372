"""Datumaro's files that others made: their pixels, their boxes, and what is not whole."""

from __future__ import annotations

import json
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from shapely.geometry import box

import converters
from converters import DataError
from converters.masks import encode_coco_rle, rasterize, rasterize_labels
from converters.types import LabelSpace

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 16)
SPACE = LabelSpace("some", ("a", "b"))
RECTANGLE = [1, 1, 6, 1, 6, 5, 1, 5]


def polygon(points, **more):
    return {"id": 1, "type": "polygon", "group": 0, "label_id": 0, "points": points, **more}


class Folder:
    """A data set that is made file by file."""

    def __init__(self, root):
        self.root = root
        (root / "annotations").mkdir()

    def image(self, name, subset="default"):
        path = self.root / "images" / subset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))

    def subset(self, name="default", **items):
        """Write a file whose items have an image each."""
        for stem in items:
            self.image(f"{stem}.png", name)
        self.file(
            name,
            [
                {"id": stem, "annotations": shapes, "image": {"path": f"{stem}.png"}}
                for stem, shapes in items.items()
            ],
        )

    def file(self, name, items):
        labels = [{"name": label} for label in SPACE.names]
        record = {"categories": {"label": {"labels": labels}}, "items": items}
        self.annotations(name).write_text(json.dumps(record))

    def annotations(self, name="default"):
        return self.root / "annotations" / f"{name}.json"

    def read(self, note=None):
        return converters.read(self.root, format="datumaro", subset="all", labels=SPACE, note=note)

    def problems(self):
        with pytest.raises(DataError) as error:
            self.read()
        return error.value.problems


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# --- pixels


def pixels(sample, label="a"):
    return rasterize_labels(sample.instances, SIZE)[label].full(SIZE)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 1), (0.5, 0.5), (9, 14)])
def test_a_rectangle_has_its_pixels_wherever_it_lies(x, y, folder):
    points = [x, y, x + 5, y, x + 5, y + 4, x, y + 4]
    folder.subset(i=[polygon(points)])
    (sample,) = folder.read()
    assert pixels(sample).sum() == 20


POLYGONS = {
    "rectangle": RECTANGLE,
    "triangle": [1.2, 1.9, 13.4, 3.3, 5.1, 17.7],
    "crosses itself": [2, 2, 12, 12, 12, 2, 2, 12],
    "beyond the border": [-3, 5, 12, -4, 22, 26],
}


@pytest.mark.parametrize("kind", POLYGONS)
def test_polygons_have_the_pixels_of_pycocotools(kind, folder):
    folder.subset(i=[polygon(POLYGONS[kind])])
    (sample,) = folder.read()
    wanted = coco_mask.decode(coco_mask.frPyObjects([POLYGONS[kind]], *SIZE))[..., 0]
    np.testing.assert_array_equal(pixels(sample), wanted)


def test_a_line_keeps_the_pixels_of_its_outline(folder):
    folder.subset(i=[polygon([3.5, 3.5, 9.5, 3.5, 3.5, 3.5])])
    (sample,) = folder.read()
    assert pixels(sample).sum() == 7


def test_parts_of_a_group_are_one_object(folder):
    folder.subset(i=[polygon(RECTANGLE, group=4), polygon([8, 8, 12, 8, 12, 12], group=4, id=2)])
    (sample,) = folder.read()
    assert len(sample.instances) == 1
    assert len(sample.instances[0].parts) == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([0.1, 0.1, 0.4, 0.1, 0.4, 0.35], "found all between 0 and 1: multiply x by the width"),
        ([40, 40, 60, 40, 60, 70], "they may be pixels of an image of another size"),
    ],
)
def test_points_that_are_no_pixels_of_the_image(points, message, folder):
    folder.subset(i=[polygon(points)])
    (problem,) = folder.problems()
    assert message in problem


def test_an_item_whose_annotations_are_null_is_no_image_without_objects(folder):
    folder.subset(i=None, j=[polygon(RECTANGLE)])
    (problem,) = folder.problems()
    assert "item 'i': expected a list of annotations, found None" in problem


# --- boxes and points beside outlines

BOX = {"type": "bbox", "bbox": [1, 1, 5, 4], "group": 1, "label_id": 0, "id": 1}
STROKE = encode_coco_rle(rasterize(box(1, 1, 5, 4), SIZE), SIZE)
MASK = {"type": "mask", "rle": STROKE, "group": 1, "label_id": 0, "id": 1}
BESIDE = {
    "of its group": ([polygon(RECTANGLE, group=1), BOX], 1),
    "of its id": ([polygon(RECTANGLE), {**BOX, "group": 0}], 1),
    "of another label": ([polygon(RECTANGLE, group=1), {**BOX, "label_id": 1}], 1),
    "of a mask": ([BOX, MASK], 1),
    "around its pixels, without a group": (
        [polygon(RECTANGLE, id=0), {**BOX, "group": 0, "id": 0}],
        1,
    ),
    "key points": (
        [polygon(RECTANGLE, group=1), {**BOX, "type": "points", "points": [2, 2], "id": 2}],
        1,
    ),
    "around two parts": (
        [
            polygon([1, 1, 2, 1, 2, 5, 1, 5], group=1),
            polygon([5, 1, 6, 1, 6, 5, 5, 5], group=1, id=2),
            BOX,
        ],
        1,
    ),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_beside_an_outline_is_left_out_and_said(kind, folder):
    shapes, objects = BESIDE[kind]
    folder.subset(i=shapes)
    said = []
    (sample,) = folder.read(said.append)
    assert len(sample.instances) == objects
    assert said == [
        "annotations: 1 boxes and points left out that lie beside the polygons or masks of the "
        "same objects"
    ]


ALONE = {
    "box": [BOX],
    "points": [{**BOX, "type": "points", "points": [2, 2]}],
    "of another group": [polygon(RECTANGLE, group=2, id=2), {**BOX, "bbox": [8, 8, 4, 9]}],
    "elsewhere in its group": [polygon(RECTANGLE, group=1), {**BOX, "bbox": [8, 12, 6, 6]}],
    "without a group": [
        polygon(RECTANGLE, id=0),
        {**BOX, "group": 0, "id": 0, "bbox": [4, 4, 9, 9]},
    ],
    "points without a group": [polygon(RECTANGLE), {**BOX, "type": "points", "group": 0}],
    "beside a box": [BOX, {**BOX, "id": 2}],
}


@pytest.mark.parametrize("kind", ALONE)
def test_what_lies_alone_is_refused(kind, folder):
    folder.subset(i=ALONE[kind])
    assert "expected a polygon or a mask, found a shape of type" in folder.problems()[0]


# --- what is not whole

SPOILED = {
    "empty": (
        b"",
        "annotations/train.json: expected Datumaro's JSON: expected JSON, found an",
    ),
    "UTF-16": ("{}".encode("utf-16"), "expected Datumaro's JSON: expected UTF-8, found byte 0xff"),
    "a list": (b"[]", "expected an object with 'categories' and 'items', found []"),
    "null": (b"null", "expected an object with 'categories' and 'items', found None"),
    "cut": (b'{"categories": {}, "items": [', "expected JSON, found a broken file"),
    "no items": (b'{"categories": {}}', "expected a list 'items', found None"),
    "items elsewhere": (b'{"categories": {}, "items": {}}', "expected a list 'items', found {}"),
    "no names": (
        b'{"categories": {"label": {"x": 1}}, "items": []}',
        "expected 'categories' to have",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_file_beside_a_whole_one(kind, folder):
    content, message = SPOILED[kind]
    folder.subset("train", i=[polygon(RECTANGLE)])
    folder.subset("val", j=[polygon(RECTANGLE)])
    folder.annotations("train").write_bytes(content)
    (problem,) = folder.problems()
    assert message in problem


def test_a_file_that_is_gone_while_its_images_are_there(folder):
    folder.subset("train", i=[polygon(RECTANGLE)], k=[])
    folder.subset("val", j=[polygon(RECTANGLE)])
    folder.annotations("train").unlink()
    assert folder.problems() == (
        "images/train: expected items of its 2 images in annotations/train.json, found none: put "
        "the file back, or take the images away",
    )


def test_a_file_without_items_while_its_images_are_there(folder):
    folder.subset("train", i=[polygon(RECTANGLE)])
    folder.subset("val", j=[polygon(RECTANGLE)])
    folder.file("train", [])
    assert "images/train: expected items of its 1 images" in folder.problems()[0]


def test_single_images_without_an_item_are_said(folder):
    folder.subset(i=[polygon(RECTANGLE)])
    folder.image("other.png")
    said = []
    assert len(folder.read(said.append)) == 1
    assert said == ["images/default: 1 images left out that have no item (default/other.png, ...)"]


def test_hidden_files_are_no_annotations(folder):
    folder.subset(i=[polygon(RECTANGLE)])
    (folder.root / "annotations" / "._default.json").write_bytes(b"\0\5\x16\7")
    assert len(folder.read()) == 1


def test_a_file_of_coco_is_left_out_and_said(folder):
    folder.subset(i=[polygon(RECTANGLE)])
    folder.annotations("instances_x").write_text('{"images": [], "annotations": []}')
    said = []
    assert len(folder.read(said.append)) == 1
    assert said == ["annotations/instances_x.json: left out, it is in COCO's form"]


def test_no_file_at_all(folder):
    with pytest.raises(ValueError, match=r"expected annotations/\*.json in Datumaro's form"):
        folder.read()


def test_a_size_before_the_turn_is_refused(folder):
    folder.image("i.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder.root / "images" / "default" / "i.jpg"
    Image.open(path).save(path, exif=exif)
    item = {"id": "i", "annotations": [], "image": {"path": "i.jpg", "size": [16, 20]}}
    folder.file("default", [item])
    assert len(folder.read()) == 1
    folder.file("default", [{**item, "image": {"path": "i.jpg", "size": list(SIZE)}}])
    (problem,) = folder.problems()
    assert "found (16, 20), because an EXIF tag turns the image: save it upright" in problem


# --- names


def test_names_that_look_the_same_are_the_same(folder):
    composed = unicodedata.normalize("NFC", "\u00e4\uc190")
    decomposed = unicodedata.normalize("NFD", composed)
    folder.subset(**{composed: [polygon(RECTANGLE)]})
    images = folder.root / "images" / "default"
    (images / f"{composed}.png").rename(images / f"{decomposed}.png")
    assert len(folder.read()) == 1


def test_two_images_that_an_item_may_mean(folder):
    folder.image("i.png")
    folder.image("i.jpg")
    folder.file("default", [{"id": "i", "annotations": []}])
    (problem, *_) = folder.problems()
    assert "expected one image 'default/i', found default/i.jpg and default/i.png" in problem


def test_an_image_of_two_items(folder):
    folder.subset(i=[])
    items = [{"id": name, "annotations": [], "image": {"path": "i.png"}} for name in "ij"]
    folder.file("default", items)
    (problem,) = folder.problems()
    assert "expected an image of its own, found that of item 'i': images/default/i.png" in problem
