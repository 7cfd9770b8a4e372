from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

import converters
from converters import DataError, masks_dir
from converters.masks import crop, pack, unpack
from converters.splits import Split, make_split
from converters.types import Instance, LabelSpace, Sample


@pytest.fixture
def folder(samples, labels, tmp_path):
    masks_dir.write(samples, tmp_path / "out", labels)
    return tmp_path / "out"


@pytest.mark.parametrize("classes", [1, 8, 11, 24, 29, 32])
def test_pillow_reads_the_bits_as_rgba(classes):
    space = LabelSpace("some", tuple(f"c{i}" for i in range(classes)))
    stack = np.random.default_rng(0).integers(0, 2, (classes, 7, 5)).astype(np.uint8)
    stack[-1, :, :2] = 0
    packed = pack({f"c{i}": crop(p) for i, p in enumerate(stack)}, space, (7, 5))
    png = masks_dir.encode_mask(packed)
    np.testing.assert_array_equal(unpack(masks_dir.decode_mask(png, "x"), classes), stack)
    with_pillow = np.asarray(Image.open(io.BytesIO(png)))
    assert with_pillow.shape == (7, 5, 4)
    for c in range(classes):
        np.testing.assert_array_equal(with_pillow[..., c // 8] >> (c % 8) & 1, stack[c])


def test_transparent_pixels_keep_their_colour():
    packed = np.zeros((2, 2, 4), np.uint8)
    packed[..., 0] = 255
    np.testing.assert_array_equal(masks_dir.decode_mask(masks_dir.encode_mask(packed), "x"), packed)


def test_more_than_32_classes_are_refused(tmp_path, draw):
    space = LabelSpace("many", tuple(f"c{i}" for i in range(33)))
    sample = draw("empty")
    with pytest.raises(ValueError, match="at most 32 classes"):
        masks_dir.write([sample], tmp_path / "out", space)


def test_read_mask(folder, samples, labels):
    packed = masks_dir.read_mask(folder / "masks" / (samples[3].key + ".png"), labels)
    assert packed.shape == (48, 48, 4)
    assert set(np.flatnonzero(unpack(packed, 29).any(axis=(1, 2)))) == {25, 26}


def test_files_it_leaves(folder, samples, labels):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    pictures = {f"{kind}/{s.key}.png" for s in samples for kind in ("images", "masks")}
    assert names == pictures | {"labels.yaml", "images.json", "provenance.json"}
    assert LabelSpace.load(str(folder / "labels.yaml")) == labels


def test_split_lies_beside(samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    masks_dir.write(samples, tmp_path / "out", labels, split=split)
    assert Split.load(tmp_path / "out" / "split.json") == split


def test_subsets(draw, labels, tmp_path):
    train = draw("plain")
    test = Sample("test/DCM/ID9/a", train.image, (48, 48), (Instance("Ulna", box(1, 1, 5, 5)),))
    masks_dir.write([train, test], tmp_path / "out", labels)
    for subset, keys in {"train": [train.key], "test": [test.key]}.items():
        found = converters.read(tmp_path / "out", subset=subset, labels=labels)
        assert [s.key for s in found] == keys


def test_other_classes_are_refused(folder):
    with pytest.raises(ValueError, match="expected the classes of 'waste'"):
        converters.read(folder, labels=LabelSpace("waste", ("paper", "glass")))


def test_all_problems_come_in_one_error(folder, samples, labels):
    keys = [s.key for s in samples]
    (folder / "masks" / f"{keys[0]}.png").unlink()
    (folder / "masks" / f"{keys[1]}.png").write_bytes(b"?")
    cv2.imwrite(str(folder / "masks" / f"{keys[2]}.png"), np.zeros((48, 48, 3), np.uint8))
    cv2.imwrite(str(folder / "masks" / f"{keys[3]}.png"), np.zeros((9, 9, 4), np.uint8))
    (folder / "images" / f"{keys[4]}.png").unlink()
    with pytest.raises(DataError) as error:
        converters.read(folder, labels=labels)
    expected = ["No such file", "RGBA image", "RGBA image", "mask of (48, 48)", "found 0"]
    assert len(error.value.problems) == 5
    for problem, words in zip(error.value.problems, expected, strict=True):
        assert words in problem


def test_broken_index(folder, labels):
    (folder / "images.json").write_text("[")
    with pytest.raises(ValueError, match=r"images\.json: expected keys"):
        converters.read(folder, labels=labels)
