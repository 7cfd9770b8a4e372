"""Transforms that spoil images or masks are refused where a config names them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from zoo.augmentation.pipeline import Augmentation

CLASSES = "found classes that were not there"
BYTES = "of uint8, 0 to 255, found "
HOLES = {"num_holes_range": [2, 2], "hole_height_range": [30, 30], "hole_width_range": [30, 30]}
SPOIL = {
    "holes of all classes": (
        {"name": "CoarseDropout", "fill": 0, "fill_mask": 255, **HOLES},
        f"{CLASSES}.*; set fill_mask: 0",
    ),
    "holes of one bit": ({"name": "GridDropout", "fill_mask": 1}, f"{CLASSES}.*set fill_mask: 0"),
    "corners": ({"name": "Affine", "rotate": [30, 30], "fill_mask": 255}, CLASSES),
    "corners now and then": ({"name": "Rotate", "limit": 9, "fill_mask": 4}, CLASSES),
    "borders": (
        {"name": "Pad", "padding": 5, "fill_mask": 7, "border_mode": 0},
        f"{CLASSES}.*set fill_mask: 0",
    ),
    "perspective": ({"name": "Perspective", "fit_output": True, "fill_mask": 255}, CLASSES),
    "pixels": ({"name": "PixelDropout", "mask_drop_value": 255, "dropout_prob": 0.1}, CLASSES),
    "larger byte": ({"name": "Morphological"}, f"{CLASSES}.*; leave it out"),
    "objects of numbers": ({"name": "MaskDropout"}, "fails on images with masks"),
    "normalised": ({"name": "Normalize"}, f"{BYTES}float32"),
    "minus one to one": ({"name": "Normalize", "normalization": "min_max"}, BYTES),
    "floats": ({"name": "ToFloat"}, f"{BYTES}float32"),
    "tensors": ({"name": "ToTensorV2"}, f"{BYTES}torch.uint8"),
    "colours": ({"name": "ToRGB"}, "an image of 1 channels to keep them, found 3"),
    "black": (
        {"name": "RandomBrightnessContrast", "brightness_limit": [-1, -1]},
        "found black ones",
    ),
    "needs another image": ({"name": "FDA"}, "fails on images with masks: FDA requires"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SPOIL)
@pytest.mark.parametrize("chance", [0.01, 1.0])
def test_what_spoils_images_or_masks_is_refused(case: str, chance: float) -> None:
    step, said = SPOIL[case]
    name = step["name"]
    with pytest.raises(ValueError, match=rf"^augment\.1: {name}: .*{said}") as error:
        Augmentation([{"name": "HorizontalFlip"}, {**step, "p": chance}])
    assert "\n" not in str(error.value)


def test_its_place_within_a_choice_is_named() -> None:
    inner = [{"name": "VerticalFlip"}, {"name": "Normalize"}]
    with pytest.raises(ValueError, match=re.escape("augment.0.transforms.1: Normalize: expected")):
        Augmentation([{"name": "OneOf", "p": 0.1, "transforms": inner}])


GOOD: list[dict[str, Any]] = [
    {"name": "CoarseDropout", "fill": 0, "fill_mask": 0, **HOLES},
    # Of a small image it would leave nothing.
    {"name": "CoarseDropout", "fill": 0, "fill_mask": 0, "num_holes_range": [1, 1],
     "hole_height_range": [300, 300], "hole_width_range": [300, 300]},
    {"name": "GridDropout"},
    {"name": "Affine", "rotate": [-30, 30], "fill": 255, "fill_mask": 0},
    {"name": "RandomCrop", "height": 1500, "width": 1500},
    {"name": "CenterCrop", "height": 4000, "width": 4000},
    {"name": "RandomResizedCrop", "size": [64, 64]},
    {"name": "PadIfNeeded", "min_height": 200, "min_width": 200},
    {"name": "GridDistortion"}, {"name": "ElasticTransform"}, {"name": "RandomGridShuffle"},
    {"name": "InvertImg"}, {"name": "Posterize"}, {"name": "Solarize"}, {"name": "CLAHE"},
    # Of colours alone.
    {"name": "ISONoise"}, {"name": "ChannelDropout"},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("step", GOOD, ids=lambda step: str(step["name"]))
def test_what_moves_clears_or_changes_greys_is_taken(step: dict[str, Any]) -> None:
    Augmentation([{**step, "p": 0.5}])


def test_to_be_asked_changes_nothing_that_comes_after() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 32), np.uint8)
    empty, step = np.zeros((48, 32, 1), np.uint8), {"name": "Affine", "rotate": [-90, 90], "p": 0.5}
    first = [Augmentation([step])(image, empty, (0, i))[0] for i in range(5)]
    Augmentation([{"name": "Rotate", "limit": 45}])
    again = [Augmentation([step])(image, empty, (0, i))[0] for i in range(5)]
    assert np.array_equal(first, again)
