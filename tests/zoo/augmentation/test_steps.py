"""Every transform of the reports, on packed masks and on planes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from converters.masks import unpack
from converters.types import LabelSpace
from zoo.augmentation.layout import MaskChannels, class_numbers
from zoo.augmentation.pipeline import Augmentation

GEOMETRIC: list[dict[str, Any]] = [
    {"name": "HorizontalFlip"},
    {"name": "ElasticTransform", "alpha": 40, "sigma": 6},
    {"name": "GridDistortion"},
    {"name": "Rotate", "limit": 30},
    {"name": "Affine", "rotate": [-20, 20], "scale": [0.8, 1.2], "shear": [-5, 5]},
    {"name": "GridDropout", "fill_mask": 0},
]
PHOTOMETRIC: list[dict[str, Any]] = [
    {"name": "CLAHE"},
    {"name": "Sharpen"},
    {"name": "UnsharpMask"},
    {"name": "Emboss"},
    {"name": "Blur"},
    {"name": "BilateralFilter"},
    {"name": "ColorJitter"},
    {"name": "RandomBrightnessContrast"},
    {"name": "RandomGamma"},
    {"name": "Equalize"},
    {"name": "GridDropout", "fill": 0},
]
SIZE = (64, 48)


def _name(step: dict[str, Any]) -> str:
    return str(step["name"])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    return cv2.GaussianBlur(noise, (7, 7), 0)


@pytest.fixture(scope="module")
def packed() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 4)).astype(np.uint8)


@pytest.mark.parametrize("step", GEOMETRIC, ids=_name)
def test_geometry_moves_packed_bits_as_it_moves_planes(
    step: dict[str, Any], image: np.ndarray, packed: np.ndarray
) -> None:
    augment = Augmentation([{**step, "p": 1.0}])
    moved, together = augment(image, packed, (4, 2))
    assert not np.array_equal(moved, image)
    assert not np.array_equal(together, packed)
    for plane, expected in zip(unpack(packed, 29), unpack(together, 29), strict=True):
        assert np.array_equal(augment(image, plane[..., None], (4, 2))[1][..., 0], expected)


@pytest.mark.parametrize("step", PHOTOMETRIC, ids=_name)
def test_photometry_leaves_masks_alone(
    step: dict[str, Any], image: np.ndarray, packed: np.ndarray
) -> None:
    changed, mask = Augmentation([{**step, "p": 1.0}])(image, packed, (4, 2))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)
    assert np.array_equal(mask, packed)


@pytest.mark.parametrize("step", GEOMETRIC[:5], ids=_name)
def test_shares_move_with_the_bits(step: dict[str, Any], image: np.ndarray) -> None:
    labels = LabelSpace("nine", tuple("abcdefghi"))
    planes = np.zeros((*SIZE, 9), np.uint8)
    planes[20:44, 12:36, 8] = 255
    bits = np.zeros((*SIZE, 2), np.uint8)
    bits[20:44, 12:36, 1] = 1
    steps = [{**step, "p": 1.0}]
    soft = Augmentation(steps, labels, is_soft=True)(image, planes, (4, 2))[1]
    hard = Augmentation(steps, labels)(image, bits, (4, 2))[1]
    assert not soft[..., :8].any()
    different = (soft[..., 8] >= 128) != (hard[..., 1] > 0)
    # Only where the outline runs through a pixel.
    assert not (different & ((soft[..., 8] == 0) | (soft[..., 8] == 255))).any()


def test_bilateral_filter_is_opencv_and_keeps_edges() -> None:
    image = np.full((40, 40), 50, np.uint8)
    image[:, 20:] = 200
    image = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255)
    step = {
        "name": "BilateralFilter",
        "diameter": 7,
        "sigma_color_range": [40, 40],
        "sigma_space_range": [3, 3],
        "p": 1,
    }
    noisy = image.astype(np.uint8)
    smooth, _ = Augmentation([step])(noisy, np.zeros((40, 40, 1), np.uint8), (0,))
    assert np.array_equal(smooth, cv2.bilateralFilter(noisy, 7, 40, 3))
    assert smooth[:, :20].std() < 0.5 * noisy[:, :20].std()
    assert int(smooth[:, 21].mean()) - int(smooth[:, 18].mean()) > 140


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "WristBend"}, "the label space 'plain' has no posture"),
        ({"name": "WristBend", "beyond": ["thumb"]}, "beyond: expected classes.*found 'thumb'"),
        ({"name": "WristBend", "angle_range": [40, 20]}, "from low to high"),
        ({"name": "WristBend", "angle_range": [0, 90]}, "less than or equal to 60"),
        ({"name": "WristBend", "angle": 3}, "'angle' .*; known are angle_range"),
        ({"name": "CopyPaste"}, "classes"),
        ({"name": "CopyPaste", "classes": ["a", "b"]}, "at least 3 classes, found 2"),
        ({"name": "CopyPaste", "classes": ["carpal"]}, "groups: none.*found 'carpal'"),
        ({"name": "CutMix", "area_range": [0.5, 1.5]}, "less than 1"),
        ({"name": "BilateralFilter", "diameter": 1}, "greater than or equal to 3"),
    ],
)
def test_bad_parameters_of_our_own(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"augment\.0: {step['name']}: .*{message}") as caught:
        Augmentation([step], LabelSpace("plain", ("a", "b", "c")))
    assert "\n" not in str(caught.value)


def test_a_transform_that_names_classes_wants_a_label_space() -> None:
    with pytest.raises(ValueError, match=r"augment\.0: WristBend: expected a label space"):
        Augmentation([{"name": "WristBend"}])


def test_layout_finds_classes_in_bits_in_objects_and_in_planes(packed: np.ndarray) -> None:
    planes = unpack(packed, 29)
    expected = (planes[3] | planes[17]) > 0
    assert np.array_equal(MaskChannels().cover(packed, (3, 17)), expected)
    soft = np.moveaxis(planes, 0, 2) * np.uint8(255)
    assert np.array_equal(MaskChannels(is_soft=True).cover(soft, (3, 17)), expected)
    objects = MaskChannels(classes=(5, 9, 5))
    assert np.array_equal(objects.cover(packed, (5,)), (planes[0] | planes[2]) > 0)
    assert not objects.cover(packed, (4,)).any()


def test_classes_are_named_by_group_or_name() -> None:
    labels = LabelSpace("three", ("a", "b", "c"), {"both": ("a", "c")})
    assert class_numbers(["both"], labels) == {0, 2}
    assert class_numbers(["b", "both"], labels) == {0, 1, 2}
