"""Small worlds for the fusion's tests: few classes, non-square images, sources that err."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from converters.masks import CropMask, crop
from converters.types import LabelSpace
from fusion.types import Prediction, SoftMask

# A name with an underscore, one with a hyphen, one that YAML reads as a number.
LABELS = LabelSpace(
    "shapes",
    ("finger-1", "wrist_2", "3", "Ulna"),
    {"long": ("finger-1", "Ulna"), "carpals": ("wrist_2",)},
)
SIZE_HW = (90, 130)


@pytest.fixture(scope="session")
def labels() -> LabelSpace:
    return LABELS


def draw_prediction(masks, kind="semantic", size_hw=SIZE_HW, key="ID001/image_1_R"):
    """Masks: label -> whole-image plane, or (score, plane), or a SoftMask."""
    found = {}
    for label, mask in masks.items():
        score, plane = mask if isinstance(mask, tuple) else (1.0, mask)
        if not isinstance(plane, SoftMask):
            plane = SoftMask((0, 0, size_hw[1], size_hw[0]), plane)
        found[label] = ((score, plane),)
    return Prediction(key, size_hw, kind, found)


@pytest.fixture(scope="session")
def predict() -> Callable[..., Prediction]:
    return draw_prediction


def smooth_noise(rng, shape=SIZE_HW, sigma=6.0):
    noise = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), sigma)
    return noise / noise.std()


@pytest.fixture(scope="session")
def soft_plane():
    """Return a function: a random smooth probability, uint8 (H, W), with values of both sides."""

    def draw(seed, shape=SIZE_HW, contrast=2.0):
        rng = np.random.default_rng(seed)
        return np.rint(255 / (1 + np.exp(-contrast * smooth_noise(rng, shape)))).astype(np.uint8)

    return draw


@dataclass(frozen=True)
class Flaw:
    """How a source errs: noise of its outline in pixels, blind in overlaps, kind."""

    noise: float
    blind: bool = False
    kind: str = "semantic"
    useless: bool = False
    misses: float = 0.0


def ellipses(rng):
    """Return each class's true plane; the first two overlap, and so do the last two."""
    height, width = SIZE_HW
    planes = {}
    for i, label in enumerate(LABELS.names):
        x = width * (0.3 + 0.4 * (i > 1)) + (i % 2) * 15 + rng.uniform(-3, 3)
        y = height * 0.5 + (i % 2) * 12 + rng.uniform(-4, 4)
        axes = (int(rng.uniform(14, 20)), int(rng.uniform(12, 18)))
        plane = np.zeros(SIZE_HW, np.uint8)
        cv2.ellipse(plane, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        planes[label] = plane
    return planes


def distance(plane):
    inside = cv2.distanceTransform(plane, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - plane, cv2.DIST_L2, 5)
    return inside - outside


def see(planes, flaw, rng, key):
    claims = sum(plane.astype(int) for plane in planes.values())
    masks = {}
    for label, plane in planes.items():
        if rng.random() < flaw.misses:
            continue
        if flaw.useless:
            logit = 3 * smooth_noise(rng)
        else:
            logit = distance(plane) + flaw.noise * smooth_noise(rng)
            logit -= flaw.blind * 4.0 * ((claims > 1) & (plane > 0))
        prob = np.rint(255 / (1 + np.exp(-logit))).astype(np.uint8)
        masks[label] = (float(rng.uniform(0.5, 1)), prob)
    return draw_prediction(masks, flaw.kind, key=key)


Seen = tuple[tuple[Prediction, ...], dict[str, CropMask], str]


@pytest.fixture(scope="session")
def world() -> Callable[..., list[Seen]]:
    """Return a function: images as the fit wants them, two a patient."""

    def draw(flaws, count=24, seed=0) -> list[Seen]:
        images = []
        for i in range(count):
            rng = np.random.default_rng((seed, i))
            planes, key = ellipses(rng), f"ID{i // 2:03d}/image_{i}"
            truth = {label: crop(plane) for label, plane in planes.items()}
            images.append((tuple(see(planes, f, rng, key) for f in flaws), truth, f"ID{i // 2}"))
        return images

    return draw


@pytest.fixture(scope="session")
def flaw() -> type[Flaw]:
    return Flaw
