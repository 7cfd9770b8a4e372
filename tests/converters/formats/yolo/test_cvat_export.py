"""CVAT's export "Ultralytics YOLO Segmentation", laid out as its manual shows it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import converters
from converters import DataError
from converters.masks import rasterize_labels

SIZE = (40, 60)
HEAD = "path: ./ # dataset root dir\n"
NAMES = "\n# Classes\nnames:\n  0: person\n  1: bicycle\n"
# A square of 12 x 8 pixels from (6, 4) on, as corners in parts of the sides.
LINE = "1 0.100000 0.100000 0.300000 0.100000 0.300000 0.300000 0.100000 0.300000\n"


@pytest.fixture
def export(tmp_path):
    """Write images, label files, lists and data.yaml; returns the folder."""

    def build(subsets, *, begin="", with_images=True):
        root = tmp_path / "export"
        config = HEAD
        for subset, names in subsets.items():
            config += f"{subset}: {subset}.txt # {subset} images (relative to 'path')\n"
            places = [f"images/{subset}/{name}" for name in names]
            root.mkdir(exist_ok=True)
            lines = "".join(f"{begin}{place}\n" for place in places)
            (root / f"{subset}.txt").write_text(lines, encoding="utf-8")
            for place in places:
                image, text = root / place, (root / f"labels{place[6:]}").with_suffix(".txt")
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text(LINE)
                if with_images:
                    image.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(image), np.zeros(SIZE, np.uint8))
        (root / "data.yaml").write_text(config + NAMES, encoding="utf-8")
        return root

    return build


@pytest.fixture(params=["from outside", "from inside"])
def stand(request, monkeypatch):
    """Give the path by which a folder is called, from where one stands."""

    def go(root):
        if request.param == "from outside":
            return root
        monkeypatch.chdir(root)
        return Path()

    return go


def test_a_task(export, stand):
    place = stand(export({"train": ["a.png", "b c.png", "ü.png"]}))
    assert converters.recognise(place) == "yolo"
    assert converters.label_space(place).names == ("person", "bicycle")
    notes = []
    found = converters.read(place, note=notes.append)
    keys = ["images/train/a", "images/train/b c", "images/train/ü"]
    assert ([sample.key for sample in found], notes) == (keys, [])
    masks = rasterize_labels(found[0].instances, SIZE)
    # Lines in parts of the sides say nothing of whether a corner's pixel is inside.
    assert masks["bicycle"].full(SIZE)[4:12, 6:18].all()
    assert masks["bicycle"].area <= 13 * 9


@pytest.mark.parametrize("begin", ["data/", "./", "/home/someone/export/"])
def test_lists_as_other_versions_write_them(begin, export, stand):
    place = stand(export({"train": ["a.png"]}, begin=begin))
    assert [sample.key for sample in converters.read(place)] == ["images/train/a"]


def test_images_in_folders(export, stand):
    place = stand(export({"train": ["x/1.png", "y/1.png"]}))
    found = [(sample.key, len(sample.instances)) for sample in converters.read(place)]
    assert found == [("images/train/x/1", 1), ("images/train/y/1", 1)]


SUBSETS = [
    ("train", "val", "test"),
    ("train", "validation", "test"),
    ("train", "valid", "test"),
    ("Train", "Validation", "Test"),
    ("TRAIN", "Val", "test"),
]


@pytest.mark.parametrize("names", SUBSETS, ids="-".join)
def test_the_subsets_of_a_project(names, export, stand):
    place = stand(export({name: ["1.png"] for name in names}))
    train, val, test = (f"images/{name}/1" for name in names)
    notes = []
    assert [s.key for s in converters.read(place, note=notes.append)] == sorted([train, val])
    assert [s.key for s in converters.read(place, subset="test", note=notes.append)] == [test]
    assert len(converters.read(place, subset="all", note=notes.append)) == 3
    assert notes == []


def test_a_subset_that_is_not_for_training_is_said(export, stand):
    notes = []
    place = stand(export({"train": ["1.png"], "later": ["2.png"]}))
    assert len(converters.read(place, note=notes.append)) == 1
    assert "1 images with labels that the YAML file does not name (images/later/2.png)" in notes[0]


def test_an_export_without_images_says_what_is_missing(export, stand):
    place = stand(export({"train": ["1.png", "2.png"]}, with_images=False))
    with pytest.raises(DataError, match=r"train\.txt: expected images .*: put the images there"):
        converters.read(place)
