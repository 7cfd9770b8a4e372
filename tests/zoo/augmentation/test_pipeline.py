from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.masks import unpack
from zoo.augmentation.pipeline import Augmentation

STEPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "rotate": [-20, 20], "scale": [0.8, 1.2], "p": 0.7},
    {"name": "GridDistortion", "p": 0.5},
    {"name": "RandomBrightnessContrast", "p": 0.5},
]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 32), np.uint8)


@pytest.fixture
def packed() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (48, 32, 4), np.uint8)


def test_depends_on_the_seed_alone(image: np.ndarray, packed: np.ndarray) -> None:
    first, second = Augmentation(STEPS), Augmentation(STEPS)
    for seed in ((0, 3, 1), (5, 5, 5), (0, 0, 0)):
        second(image, packed, seed)
    for seed in ((0, 0, 0), (0, 3, 1)):
        for a, b in zip(first(image, packed, seed), second(image, packed, seed), strict=True):
            assert np.array_equal(a, b)


def test_seeds_differ(image: np.ndarray, packed: np.ndarray) -> None:
    augment = Augmentation(STEPS)
    seeds = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (0, 2, 0)]
    assert len({augment(image, packed, seed)[0].tobytes() for seed in seeds}) > 4


def test_decisions_of_transforms_are_independent() -> None:
    image = np.zeros((2, 2), np.uint8)
    image[0, 0] = 1
    augment = Augmentation([{"name": n, "p": 0.5} for n in ("HorizontalFlip", "VerticalFlip")])
    empty = np.zeros((2, 2, 1), np.uint8)
    outcomes = {augment(image, empty, (0, 0, i))[0].tobytes() for i in range(30)}
    assert len(outcomes) == 4


def test_packed_masks_move_like_unpacked_ones(image: np.ndarray, packed: np.ndarray) -> None:
    augment = Augmentation(STEPS)
    together = unpack(augment(image, packed, (0, 1, 2))[1], 29)
    alone = unpack(packed, 29)
    for c in (0, 9, 28):
        plane = np.repeat(alone[c][..., None], 4, axis=2)
        assert np.array_equal(augment(image, plane, (0, 1, 2))[1][..., 0], together[c])


def test_one_byte_a_pixel_keeps_its_axis(image: np.ndarray, packed: np.ndarray) -> None:
    out = Augmentation(STEPS)(image, packed[..., :1], (0, 0, 0))
    assert out[1].shape == (48, 32, 1)
    assert out[0].dtype == out[1].dtype == np.uint8


def test_choice_of_transforms(image: np.ndarray, packed: np.ndarray) -> None:
    step = {"name": "OneOf", "p": 1.0, "transforms": [{"name": "VerticalFlip", "p": 1.0}]}
    assert np.array_equal(Augmentation([step])(image, packed, (0,))[0], image[::-1])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "HorizontalFlop"}, r"augment\.1: .* 'HorizontalFlop' .*mean 'HorizontalFlip'\?"),
        ({"name": "Nothing"}, r"augment\.1: unknown transform 'Nothing'; names are those"),
        ({"name": "Compose"}, r"augment\.1: Compose: .*transforms"),
        ({"name": "Affine", "rotation": 5}, r"1: Affine: .*'rotation' .*'rotate'\?\); known are"),
        ({"name": "CopyPaste"}, r"augment\.1: CopyPaste: 'classes': expected a value, found none$"),
        (
            {"name": "HorizontalFlip", "p": 2},
            r"HorizontalFlip: 'p': .*equal to 1, found 2$",
        ),
        ({"p": 0.5}, r"augment\.1: expected 'name' and parameters"),
        (
            {"name": "OneOf", "transforms": [{"name": "Nothing"}]},
            r"augment\.1\.transforms\.0: unknown transform 'Nothing'",
        ),
    ],
)
def test_bad_steps(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Augmentation([{"name": "HorizontalFlip"}, step])
    assert "\n" not in str(caught.value)


def test_a_transform_that_changes_the_size(image: np.ndarray, packed: np.ndarray) -> None:
    augment = Augmentation([{"name": "CenterCrop", "height": 16, "width": 16}])
    with pytest.raises(ValueError, match=r"keep the size, found \(16, 16\) instead of \(48, 32\)"):
        augment(image, packed, (0, 0, 0))
