"""Cityscapes' tree: index maps of objects and of classes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import converters
from converters import DataError

SIZE = (10, 12)


def put(root, subset, name, **maps):
    image = root / "leftImg8bit" / subset / "town" / f"{name}_leftImg8bit.png"
    masks = root / "gtFine" / subset / "town"
    for folder in (image.parent, masks):
        folder.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(image), np.full((*SIZE, 3), 99, np.uint8))
    for end, values in maps.items():
        assert cv2.imwrite(str(masks / f"{name}_gtFine_{end}.png"), values)
    return root


def objects():
    values = np.full(SIZE, 7, np.uint16)
    values[2:4, 2:4], values[2:4, 6:8], values[6:, :3], values[0] = 26000, 26001, 24, 3
    return values


def test_objects_are_told_apart_and_classes_are_named(tmp_path):
    colours = np.full((*SIZE, 3), 7, np.uint8)
    put(tmp_path, "train", "a_1", instanceIds=objects(), labelIds=colours, color=colours)
    put(tmp_path, "val", "b_1", labelIds=(objects() % 256).astype(np.uint8) // 255 * 255 + 8)
    put(tmp_path, "test", "c_1", instanceIds=objects())
    assert converters.recognise(tmp_path) == "cityscapes"
    first, second = converters.read(tmp_path)
    assert (first.key, second.key) == ("train/town/a_1", "val/town/b_1")
    assert [one.label for one in first.instances] == ["road", "person", "car", "car"]
    assert [one.label for one in second.instances] == ["sidewalk"]
    (test,) = converters.list_images(tmp_path, subset="test")
    assert test.key == "test/town/c_1"


def test_what_is_broken_or_missing_is_said(tmp_path):
    put(tmp_path, "train", "a_1", labelIds=np.full(SIZE, 90, np.uint8))
    put(tmp_path, "train", "b_1", labelIds=np.full((5, 5), 7, np.uint8))
    put(tmp_path, "train", "d_1", labelIds=np.full(SIZE, 7, np.uint8))
    (tmp_path / "leftImg8bit/train/town/d_1_leftImg8bit.png").unlink()
    put(tmp_path, "train", "c_1")
    notes = []
    samples, problems = converters.scan(tmp_path, note=notes.append)
    assert not samples
    assert sorted(problem.key for problem in problems) == [f"train/town/{name}_1" for name in "abd"]
    assert notes == [f"{tmp_path}: left out 1 images without index map (train/town/c_1, ...)"]
    with pytest.raises(DataError, match="up to 33, found 90"):
        converters.read(tmp_path)


def test_masks_without_images_say_what_is_missing(tmp_path):
    (tmp_path / "gtFine" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="Cityscapes needs leftImg8bit/ with its images"):
        converters.recognise(tmp_path)


def test_linked_parts_are_read(tmp_path):
    root = tmp_path / "data"
    for subset in ("train", "val"):
        put(root, subset, f"{subset}_1", instanceIds=objects())
    for home in ("leftImg8bit", "gtFine"):
        (root / home / "train").rename(tmp_path / home)
        (root / home / "train").symlink_to(tmp_path / home)
    assert len(converters.read(root)) == 2
