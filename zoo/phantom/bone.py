"""Thickness of compact bone along the rays through one bone.

A bone is drawn upright in a raster of its own, where its axis is vertical, and then turned into
the image. Its section is a rounded solid over the outline: a shell of compact bone around a core
of spongy bone, dense and rough at the ends of long bones and nearly empty in their shafts.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.phantom.anatomy import CARPAL, FOREARM, METACARPAL, Array, Hand
from zoo.phantom.annotation import clip_to_image

Image = NDArray[np.float32]

HAND_SCALE_MM = 90.0
"""Length that the hand size S stands for; it makes a third metacarpal about 65 mm long."""

_MOST_DEPTH_MM = 6.0
"""Half-depth of the distal radius, which is broader than it is deep."""
_CARPAL_SPONGY, _CARPAL_ROUGHNESS, _SHAFT_EMPTY = 1.45, 0.5, 0.85
_SHIFT_BITS = 4
_RIM_PX = 4


@dataclass(frozen=True)
class BoneQuality:
    """How the skeleton of one person is built.

    Attributes:
        cortex: thickness of the shell of the shafts, share of the half-width.
        shell_mm: thickness of the shell of carpals and of the ends of long bones.
        spongy: share of compact bone in the spongy core.
        roughness: contrast of the trabeculae, standard deviation over mean.
    """

    cortex: float
    shell_mm: float
    spongy: float
    roughness: float


def draw_quality(rng: np.random.Generator) -> BoneQuality:
    """Draw a skeleton between slender and dense."""
    return BoneQuality(
        cortex=float(rng.uniform(0.30, 0.46)),
        shell_mm=float(rng.uniform(0.50, 0.75)),
        spongy=float(rng.uniform(0.20, 0.30)),
        roughness=float(rng.uniform(0.25, 0.42)),
    )


def project_skeleton(hand: Hand, quality: BoneQuality, rng: np.random.Generator) -> Image:
    """Sum the compact bone of all bones along each ray: float32 (size, size), mm."""
    total = np.zeros((hand.size, hand.size), np.float32)
    for bone in range(len(hand.outlines)):
        _add_bone(total, hand, bone, quality, rng)
    for bone, (chance, count) in enumerate(_sesamoid_odds(hand)):
        if rng.random() < chance:
            _add_sesamoids(total, hand, bone, count, rng)
    return total


def _sesamoid_odds(hand: Hand) -> list[tuple[float, int]]:
    """Per bone how likely sesamoids lie at its head, and how many: two at the thumb's."""
    metacarpals = [bone for bone, kind in enumerate(hand.kind) if kind == METACARPAL]
    odds = {metacarpals[0]: (0.8, 2), metacarpals[1]: (0.3, 1), metacarpals[-1]: (0.5, 1)}
    return [odds.get(bone, (0.0, 0)) for bone in range(len(hand.kind))]


def _add_sesamoids(
    total: Image, hand: Hand, bone: int, count: int, rng: np.random.Generator
) -> None:
    """Small round bones, which nobody annotates, at the head of a metacarpal."""
    px_mm = HAND_SCALE_MM / hand.scale_px
    down = (hand.bases[bone] - hand.tips[bone]) / np.linalg.norm(hand.bases[bone] - hand.tips[bone])
    for side in (-1, 1)[:count]:
        across, along = side * rng.uniform(3.0, 4.6), rng.uniform(2.0, 4.0)
        offset = across * np.array([-down[1], down[0]]) + along * down
        x, y = hand.tips[bone] + offset / px_mm
        radius = float(rng.uniform(1.6, 2.5)) / px_mm
        left, top = max(int(x - radius), 0), max(int(y - radius), 0)
        part = total[top : int(y + radius) + 2, left : int(x + radius) + 2]
        rows, cols = np.ogrid[: part.shape[0], : part.shape[1]]
        far2 = ((cols + left - x) ** 2 + (rows + top - y) ** 2) / radius**2
        part += (1.2 * radius * px_mm * np.sqrt(np.maximum(1 - far2, 0))).astype(np.float32)


def _add_bone(
    total: Image, hand: Hand, bone: int, quality: BoneQuality, rng: np.random.Generator
) -> None:
    outline = clip_to_image(hand.outlines[bone], hand.size, margin=0.1 * hand.size)
    finer = 3.0 if hand.size <= 768 else 2.0
    to_local, shape_hw = _local_frame(outline, hand.tips[bone], hand.bases[bone], finer)
    mask = _fill(outline @ to_local[:, :2].T + to_local[:, 2], shape_hw)
    px_mm = HAND_SCALE_MM / hand.scale_px / finer
    thickness = _local_thickness(mask, px_mm, hand.kind[bone], quality, rng)
    thickness = _blur(thickness, 0.35 * finer)
    low = np.floor(outline.min(axis=0)).astype(int) - 2
    high = np.ceil(outline.max(axis=0)).astype(int) + 3
    low, high = np.clip(low, 0, hand.size), np.clip(high, 0, hand.size)
    crop = to_local.copy()
    crop[:, 2] += to_local[:, :2] @ low
    width, height = (int(side) for side in high - low)
    total[low[1] : high[1], low[0] : high[0]] += cv2.warpAffine(
        thickness, crop, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def _local_frame(
    outline: Array, tip: Array, base: Array, finer: float
) -> tuple[Array, tuple[int, int]]:
    """Map (2, 3) from image pixels to an upright raster of the bone, and its (rows, cols)."""
    down = (base - tip) / np.linalg.norm(base - tip)
    turn = finer * np.array([[down[1], -down[0]], [down[0], down[1]]])
    local = outline @ turn.T
    shift = _RIM_PX - local.min(axis=0)
    cols, rows = (int(side) for side in np.ceil(np.ptp(local, axis=0)) + 2 * _RIM_PX)
    return np.hstack([turn, shift[:, None]]), (rows, cols)


def _fill(outline: Array, shape_hw: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(shape_hw, np.uint8)
    points = np.rint(outline * 2**_SHIFT_BITS).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, lineType=cv2.LINE_8, shift=_SHIFT_BITS)
    return mask


def _local_thickness(
    mask: NDArray[np.uint8],
    px_mm: float,
    kind: int,
    quality: BoneQuality,
    rng: np.random.Generator,
) -> Image:
    """Compact bone in mm over an upright mask, whose pixels are ``px_mm`` wide."""
    depth = np.maximum(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5, 0)
    depth = depth.astype(np.float32) * np.float32(px_mm)
    if kind == CARPAL:
        radius = np.full((len(mask), 1), 0.85 * depth.max(), np.float32)
        shaft = np.zeros_like(radius)
    else:
        radius, shaft = _shaft_profile(mask, px_mm, is_cut=kind == FOREARM)
        radius = np.minimum(radius, np.float32(_MOST_DEPTH_MM))
    wobble = 1 + 0.04 * _noise(rng, (len(mask), 1), (4.0 / px_mm, 0.1))
    shell = quality.shell_mm + shaft * (quality.cortex * radius - quality.shell_mm) * wobble
    shell = np.clip(shell, 0.3, 0.8 * radius)
    outer = _rounded(depth, radius)
    core = _rounded(np.maximum(depth - shell, 0), radius - shell)
    core = np.minimum(_blur(core, max(0.18 / px_mm, 0.3)), outer)
    spongy = quality.spongy * (1 - _SHAFT_EMPTY * shaft)
    rough = quality.roughness * _trabeculae(rng, mask.shape, px_mm, kind)
    if kind == CARPAL:
        spongy, rough = _CARPAL_SPONGY * spongy, _CARPAL_ROUGHNESS * rough
    return np.asarray(outer - core * (1 - spongy * (1 + rough)), np.float32)


def _shaft_profile(mask: NDArray[np.uint8], px_mm: float, *, is_cut: bool) -> tuple[Image, Image]:
    """Half-width in mm and the share of shaft (0 ends, 1 mid-shaft) of each row, (rows, 1)."""
    half = mask.sum(axis=1, dtype=np.float32)[:, None] * np.float32(px_mm / 2)
    typical = float(np.median(half[half > 0]))
    smooth = cv2.GaussianBlur(half, (0, 0), sigmaX=0.1, sigmaY=max(0.5 * typical / px_mm, 0.5))
    radius = np.maximum(smooth, np.float32(0.75 * typical))
    rows = np.arange(len(mask), dtype=np.float32)[:, None] * np.float32(px_mm)
    reach = 1.9 * typical
    ends = np.exp(-((rows / reach) ** 2))
    if not is_cut:
        ends = ends + np.exp(-(((rows[-1] - rows) / reach) ** 2))
    return radius, np.asarray(1 - np.minimum(ends, 1), np.float32)


def _blur(image: Image, sigma_px: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)


def _rounded(depth: Image, radius: Image) -> Image:
    """Thickness of a solid with circular edges at ``depth`` mm inside its outline, mm."""
    inside = np.minimum(depth, radius)
    return np.asarray(2 * np.sqrt(np.maximum(inside * (2 * radius - inside), 0)), np.float32)


def _trabeculae(
    rng: np.random.Generator, shape_hw: tuple[int, ...], px_mm: float, kind: int
) -> Image:
    """Band-passed noise of unit deviation, drawn out along the axis of long bones."""
    long_mm, thin_mm = (0.32, 0.26) if kind == CARPAL else (0.8, 0.22)
    rows, cols = shape_hw[:2]
    fine = _noise(rng, (rows, cols), (long_mm / px_mm, thin_mm / px_mm))
    coarse = _noise(rng, (rows, cols), (3 * long_mm / px_mm, 4 * thin_mm / px_mm))
    return np.asarray(0.8 * fine + 0.5 * coarse, np.float32)


def _noise(
    rng: np.random.Generator, shape_hw: tuple[int, int], sigma_px: tuple[float, float]
) -> Image:
    """Gaussian noise of unit deviation, smooth over (vertical, horizontal) sigmas in pixels."""
    white = rng.standard_normal(shape_hw, dtype=np.float32)
    sigma_y, sigma_x = (max(sigma, 0.3) for sigma in sigma_px)
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y).reshape(shape_hw)
    return np.asarray((smooth - smooth.mean()) / max(float(smooth.std()), 1e-6), np.float32)
