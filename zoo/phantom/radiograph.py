"""One synthetic radiograph: a hand, what it wears, and how it was exposed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.phantom.anatomy import FOREARM, Hand
from zoo.phantom.bone import HAND_SCALE_MM, BoneQuality, draw_quality, project_skeleton
from zoo.phantom.exposure import BONE_PER_MM, SOFT_PER_MM, draw_exposure, expose
from zoo.phantom.tissue import project_flesh
from zoo.phantom.wear import Wear, wear_attenuation

_SHUTTER_SHARE = 0.15


@dataclass(frozen=True)
class Build:
    """What both hands of a person share inside: the bones' quality and the amount of flesh."""

    quality: BoneQuality
    fat: float


def draw_build(rng: np.random.Generator) -> Build:
    """Draw a person between slender and stout."""
    return Build(draw_quality(rng), float(rng.uniform(0.92, 1.10)))


def render_hand(
    hand: Hand, build: Build, wear: Wear, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Take a radiograph of a hand: grey (size, size), uint8, bone bright on a dark ground."""
    bone_mm = project_skeleton(hand, build.quality, rng)
    flesh_mm = project_flesh(hand, build.fat, rng)
    attenuation = np.float32(SOFT_PER_MM) * flesh_mm + np.float32(BONE_PER_MM) * bone_mm
    if wear.kind:
        attenuation += wear_attenuation(hand, wear, flesh_mm, rng)
    px_mm = HAND_SCALE_MM / hand.scale_px
    image = expose(attenuation, draw_exposure(rng), px_mm, rng)
    return _shut(image, hand, rng) if rng.random() < _SHUTTER_SHARE else image


def _shut(image: NDArray[np.uint8], hand: Hand, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Darken what the collimator's left, right and upper leaves cover; never a bone."""
    inner = [line for line, kind in zip(hand.outlines, hand.kind, strict=True) if kind != FOREARM]
    points = np.vstack(inner)
    free = (points[:, 0].min(), hand.size - points[:, 0].max(), points[:, 1].min())
    left, right, top = (round(float(rng.uniform(0.1, 0.7) * max(room, 0))) for room in free)
    open_field = np.zeros((hand.size, hand.size), np.float32)
    open_field[top:, left : hand.size - right] = 1
    soft = cv2.GaussianBlur(open_field, (0, 0), hand.size / 700 + 0.3)
    return np.asarray(np.rint(image * (0.06 + 0.94 * soft)), np.uint8)
