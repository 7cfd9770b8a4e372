"""SCR's masks and the JSRT's radiographs, as they are handed out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.audit.images import check_content
from converters.files.images import is_image, read_pixels
from converters.masks import rasterize_labels
from converters.recognition.registry import recognise_folder
from converters.splits.split import Split
from converters.types import LabelSpace
from zoo.datasets.split import split
from zoo.source import DataSource

HEART, LUNG = "heart", "left lung"
RAW_HW = (2048, 2048)


def plane_of(number, label, side=32):
    plane = np.zeros((side, side), np.uint8)
    top = number + (label == LUNG) * side // 2
    plane[top : top + side // 4, 3 : side // 2] = 1
    return plane


def put_mask(root, number, label, plane=None, fold=None):
    fold = fold or f"fold{2 - number % 2}"
    path = root / fold / "masks" / label / f"JPCLN{number:03d}.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = plane_of(number, label) if plane is None else plane
    Image.fromarray(plane * 255).save(path)
    return path


def put_image(root, number, size_hw=(32, 32), folder="images"):
    path = root / folder / f"JPCLN{number:03d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, size_hw, np.uint8))
    return path


def put_raw(path, seed=0):
    """Write a radiograph as the JSRT has it: 12 bits, big-endian, the least is white."""
    rng = np.random.default_rng(seed)
    grey = np.tile(np.linspace(4095, 0, RAW_HW[1]), (RAW_HW[0], 1)) + rng.integers(0, 2, RAW_HW)
    np.clip(grey, 0, 4095).astype(">u2").tofile(path)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "SCR"
    for number in range(1, 5):
        put_image(root, number)
        for label in (HEART, LUNG):
            put_mask(root, number, label)
    return root


def masks_of(sample):
    found = rasterize_labels(sample.instances, sample.size_hw)
    return {label: mask.full(sample.size_hw) for label, mask in found.items()}


def test_structures_of_both_folds_come_back_to_the_pixel(root):
    assert recognise_folder(root) == "scr"
    data = DataSource(root, "scr")
    assert data.labels().names == (HEART, LUNG)
    samples = data.read(data.labels())
    assert [s.key for s in samples] == [f"images/JPCLN{n:03d}" for n in range(1, 5)]
    for number, sample in enumerate(samples, 1):
        for label, mask in masks_of(sample).items():
            np.testing.assert_array_equal(mask, plane_of(number, label))


@pytest.mark.parametrize("times", [2, 3])
def test_masks_of_a_part_of_the_size_are_enlarged_and_that_is_said(root, times):
    for number in range(1, 5):
        put_image(root, number, (32 * times, 32 * times))
    notes: list[str] = []
    samples = converters.read(root, note=notes.append)
    assert notes == [f"{root}: 8 masks of 32 x 32 pixels are brought to their images' size"]
    large = np.kron(plane_of(1, HEART), np.ones((times, times), np.uint8))
    np.testing.assert_array_equal(masks_of(samples[0])[HEART], large)


def test_the_half_decides_in_smaller_images(root):
    for number in range(1, 5):
        put_image(root, number, (16, 16))
    found = masks_of(converters.read(root)[0])[HEART]
    shares = plane_of(1, HEART).reshape(16, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(found, shares >= 0.5)


@pytest.mark.parametrize("size_hw", [(48, 48), (32, 30), (64, 32)])
def test_images_of_other_sides_are_refused(root, size_hw):
    put_image(root, 1, size_hw)
    with pytest.raises(DataError, match="scale the images to the masks' size"):
        converters.read(root)


def test_what_has_no_partner_is_said(root):
    put_mask(root, 9, HEART)
    put_image(root, 8)
    with pytest.raises(DataError, match=r"JPCLN009\.gif: expected an image of this name"):
        converters.read(root)


def test_an_image_twice_is_refused(root):
    put_image(root, 1, folder="png")
    with pytest.raises(DataError, match="expected one image of this name"):
        converters.read(root)


def test_grey_masks_are_refused(root):
    path = root / "fold1/masks/heart/JPCLN001.gif"
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).save(path)
    with pytest.raises(DataError, match="expected a black and white mask"):
        converters.read(root)


def test_its_own_folds_are_kept(root, tmp_path):
    out = tmp_path / "split.json"
    said = split(DataSource(root, "scr"), out, None, 5, "given", 0, describe=False)
    assert "its own folds hold out 2, 2" in said
    made = Split.load(out)
    assert made.folds == (
        ("images/JPCLN001", "images/JPCLN003"),
        ("images/JPCLN002", "images/JPCLN004"),
    )
    assert made.train(0) == made.val(1)
    dealt = split(DataSource(root, "scr"), tmp_path / "b.json", None, 2, "group", 0, describe=False)
    assert "own parts fold1, fold2 are dealt anew" in dealt


def test_raw_radiographs_are_read_as_they_are_shown(tmp_path):
    root = tmp_path / "JSRT"
    (root / "All247images").mkdir(parents=True)
    image = put_raw(root / "All247images" / "JPCLN001.IMG")
    small = np.zeros((1024, 1024), np.uint8)
    small[100:500, 300:700] = 1
    put_mask(root, 1, HEART, small)
    assert is_image(image)
    check_content(image)
    (sample,) = converters.read(root)
    assert sample.size_hw == RAW_HW
    np.testing.assert_array_equal(masks_of(sample)[HEART], np.kron(small, np.ones((2, 2))))
    pixels = read_pixels(sample)
    assert pixels.dtype == np.uint8
    # The greatest value, at the left, is black.
    assert pixels[:, 0].max() == 0
    assert pixels[:, -1].min() == 255
    assert read_pixels(sample, grey=False).shape == (*RAW_HW, 3)
    converters.write([sample], tmp_path / "out", format="coco", labels=LabelSpace("x", (HEART,)))
    (written,) = (tmp_path / "out").rglob("*.png")
    np.testing.assert_array_equal(cv2.imread(str(written), cv2.IMREAD_GRAYSCALE), pixels)


def test_a_structure_without_a_mask_or_with_two_is_refused(root):
    path = root / "fold1/masks/heart/JPCLN001.gif"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(
        DataError, match="expected one mask of 'heart', as of other images, found none"
    ):
        converters.read(root)
    path.write_bytes(content)
    put_mask(root, 1, HEART, fold="fold2")
    with pytest.raises(DataError, match=r"found several: .*fold1.*, .*fold2"):
        converters.read(root)


def test_other_files_of_that_suffix_are_no_images(tmp_path):
    assert is_image(tmp_path / "JPCNN012.img")
    assert not is_image(tmp_path / "brain.img")  # a volume's, beside its .hdr
    assert not is_image(tmp_path / "disk.IMG")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (bytes(1000), "found a file without a readable header"),
        (b"", "found an empty file"),
        (
            bytes(1000) + b"\xff" * (2 * 2048 * 2048 - 1000),
            "12 bits of grey, big-endian, found 65535",
        ),
    ],
)
def test_broken_radiographs_are_named(root, content, found):
    (root / "images/JPCLN001.png").unlink()
    image = root / "images/JPCLN001.IMG"
    image.write_bytes(content)
    with pytest.raises(ValueError, match=found):
        read_pixels(next(s for s in converters.list_images(root) if s.image == image))
