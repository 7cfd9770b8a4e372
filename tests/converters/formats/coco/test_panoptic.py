"""COCO's panoptic annotations, held against panopticapi's rule, and what is wrong with them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.formats.coco.panoptic import segment_numbers
from converters.masks import rasterize
from converters.types import LabelSpace

SIZE = (20, 30)


def id2rgb(numbers):
    """As panopticapi/utils.py has it."""
    rest, colours = numbers.copy(), np.zeros((*numbers.shape, 3), np.uint8)
    for channel in range(3):
        colours[..., channel] = rest % 256
        rest //= 256
    return colours


def rgb2id(colours):
    """As panopticapi/utils.py has it."""
    colours = colours.astype(np.int32)
    return colours[..., 0] + 256 * colours[..., 1] + 256 * 256 * colours[..., 2]


# A person, another one in two parts, a crowd of them, sky, and nothing.
PERSON, OTHER, CROWD, SKY = 7, 256 * 3 + 2, 256**2 * 9 + 1, 256**2 * 255 + 256 * 255 + 255


def numbers():
    found = np.zeros(SIZE, np.int64)
    found[:6] = SKY
    found[8:15, 2:9] = PERSON
    found[10:12, 4:6] = 0
    found[8:12, 12:15], found[14:18, 12:15] = OTHER, OTHER
    found[9:19, 20:30] = CROWD
    return found


class Panoptic:
    """A small panoptic data set, written by hand."""

    def __init__(self, root, json_place, mask_place, image_place):
        self.root, self.json_place, self.mask_place = root, json_place, mask_place
        image = root / image_place
        image.parent.mkdir(parents=True)
        Image.fromarray(np.full(SIZE, 9, np.uint8)).save(image)
        segments = [(PERSON, 1, 0), (OTHER, 1, 0), (CROWD, 1, 1), (SKY, 187, 0)]
        self.content = {
            "images": [{"id": 42, "file_name": image.name, "height": 20, "width": 30}],
            "annotations": [
                {
                    "image_id": 42,
                    "file_name": "000042.png",
                    "segments_info": [
                        {"id": n, "category_id": c, "iscrowd": crowd, "area": area(n)}
                        for n, c, crowd in segments
                    ],
                }
            ],
            "categories": [
                {"id": 1, "name": "person", "supercategory": "person", "isthing": 1, "color": [2]},
                {"id": 187, "name": "sky", "supercategory": "sky", "isthing": 0, "color": [3]},
            ],
        }
        self.pixels = id2rgb(numbers())

    def save(self):
        path = self.root / self.mask_place / "000042.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path)
        place = self.root / self.json_place
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(self.content))
        return self.root


def area(number):
    return int((numbers() == number).sum())


@pytest.fixture
def panoptic(tmp_path):
    return Panoptic(
        tmp_path / "data",
        "annotations/panoptic_val2017.json",
        "annotations/panoptic_val2017",
        "val2017/000042.jpg",
    )


def test_numbers_are_panopticapis():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 11, 3), np.uint8)

    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    np.testing.assert_array_equal(segment_numbers(file.getvalue(), (9, 11)), rgb2id(colours))
    np.testing.assert_array_equal(rgb2id(id2rgb(numbers())), numbers())


@pytest.mark.parametrize(
    "places",
    [
        ("annotations/panoptic_val2017.json", "annotations/panoptic_val2017", "val2017/000042.jpg"),
        ("annotations/panoptic_val2017.json", "panoptic_val2017", "images/val2017/000042.jpg"),
        ("panoptic_val2017.json", "panoptic_val2017", "val2017/000042.png"),
        ("panoptic.json", "panoptic", "images/000042.png"),
    ],
)
def test_every_segment_is_an_object(places, tmp_path):
    root = Panoptic(tmp_path / "data", *places).save()
    assert converters.recognise(root) == "coco"
    assert converters.label_space(root).names == ("person", "sky")
    notes = []
    (sample,) = converters.read(root, note=notes.append)
    assert sample.key == places[2].rpartition(".")[0]
    assert [one.label for one in sample.instances] == ["person", "person", "person", "sky"]
    for one, number in zip(sample.instances, (PERSON, OTHER, CROWD, SKY), strict=True):
        mask = rasterize(one.geometry, SIZE).full(SIZE)
        np.testing.assert_array_equal(mask, rgb2id(id2rgb(numbers())) == number)
    assert [note.split(": ")[2] for note in notes] == ["1 crowd regions (iscrowd"]


def test_some_classes(panoptic):
    (sample,) = converters.read(panoptic.save(), labels=LabelSpace("mine", ("sky",)))
    assert [one.label for one in sample.instances] == ["sky"]


def test_outlines_count_where_there_are_both(panoptic):
    root = panoptic.save()
    content = {**panoptic.content, "annotations": []}
    square = [[2, 2, 9, 2, 9, 9, 2, 9]]
    content["annotations"] = [{"id": 1, "image_id": 42, "category_id": 1, "segmentation": square}]
    (root / "annotations" / "objects_val2017.json").write_text(json.dumps(content))
    notes = []
    (sample,) = converters.read(root, note=notes.append)
    assert len(sample.instances) == 1
    assert "panoptic_val2017.json: left out, this is COCO panoptic" in notes[0]


def drop_segment(data):
    del data.content["annotations"][0]["segments_info"][1]


def add_segment(data):
    data.content["annotations"][0]["segments_info"].append({"id": 5, "category_id": 1})


def same_id(data):
    data.content["annotations"][0]["segments_info"][1]["id"] = PERSON


def grey(data):
    data.pixels = data.pixels[..., 0]


def other_size(data):
    data.pixels = data.pixels[:10]


def other_category(data):
    data.content["annotations"][0]["segments_info"][1]["category_id"] = 3


def other_file(data):
    data.content["annotations"][0]["file_name"] = "../000042.png"


def no_file(data):
    data.content["annotations"][0]["file_name"] = "gone.png"


def long_name(data):
    data.content["annotations"][0]["file_name"] = "x" * 9999 + ".png"


def wrong_area(data):
    data.content["annotations"][0]["segments_info"][3]["area"] = 90_000


def no_list(data):
    data.content["annotations"][0]["segments_info"] = {}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_segment, rf"000042.jpg': 000042.png: .*found {OTHER} only in the PNG"),
        (add_segment, r"000042.jpg': 000042.png: .*found 5 only in segments_info"),
        (same_id, r"segment 7: expected an id of its own, found it twice"),
        (grey, r"000042.png: expected 8-bit RGB, found 8-bit grey"),
        (other_size, r"000042.png: expected a mask of \(20, 30\), found \(10, 30\)"),
        (other_category, r"expected a category of this file, found 3"),
        (other_file, r"expected 'file_name' of the annotation to be a PNG"),
        (no_file, r"expected its mask gone.png in panoptic_val2017, found none"),
        (long_name, r"expected its mask x{80} in panoptic_val2017, found none"),
        (wrong_area, r"segment \d+ \('sky'\): expected about 90000 pixels as 'area' says"),
        (no_list, r"expected 'segments_info' to be a list of objects"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_broken_ones(spoil, message, panoptic):
    spoil(panoptic)
    root = panoptic.save()
    with pytest.raises(DataError, match=message) as error:
        converters.read(root, labels=LabelSpace("mine", ("person", "sky")))
    (problem,) = error.value.problems
    assert problem.startswith("annotations/panoptic_val2017.json: ")
