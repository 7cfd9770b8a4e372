"""Thickness of the soft tissue along the rays: fingers, palm, webs, wrist and forearm.

The flesh is a union of balls, strung along the digits and spread between neighbouring rays of
the hand. A ball of radius r at c adds r^2 - |x - c|^2; the greatest of these is smooth across
the skin line, so it may be computed coarsely, and twice its square root is the thickness.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.phantom.anatomy import FOREARM, METACARPAL, Array, Hand
from zoo.phantom.bone import HAND_SCALE_MM, Image

_GRID = 512
_REACH_MM = 4.0
_OUTSIDE = -120.0


def project_flesh(hand: Hand, fat: float, rng: np.random.Generator) -> Image:
    """Thickness of flesh (bone included) along each ray: float32 (size, size), mm."""
    field = _ball_field(_flesh(hand, fat), hand)
    fine = cv2.resize(field, (hand.size, hand.size), interpolation=cv2.INTER_CUBIC)
    thickness = 2 * np.sqrt(np.maximum(fine, 0))
    return np.asarray(thickness * _muscle(rng, hand), np.float32)


def digit_chains(hand: Hand) -> list[list[int]]:
    """Bones of each digit from the metacarpal to the tip, thumb first."""
    child = {parent: bone for bone, parent in enumerate(hand.parent) if parent >= 0}
    chains = []
    for bone, kind in enumerate(hand.kind):
        if kind == METACARPAL:
            chain = [bone]
            while chain[-1] in child:
                chain.append(child[chain[-1]])
            chains.append(chain)
    return chains


def finger_line(hand: Hand, chain: list[int], fat: float = 1.0) -> Array:
    """Centres and radii of the flesh from knuckle to tip: (N, 3), x and y in px, radius in mm."""
    px_mm = HAND_SCALE_MM / hand.scale_px
    bones = chain[1:]
    length_mm = float(np.linalg.norm(hand.tips[bones[0]] - hand.bases[bones[0]])) * px_mm
    stout = fat * (length_mm / 40) ** 0.35
    joints = [(hand.tips[chain[0]] + hand.bases[bones[0]]) / 2]
    joints += [(hand.tips[a] + hand.bases[b]) / 2 for a, b in pairwise(bones)]
    end = hand.tips[bones[-1]]
    back = hand.bases[bones[-1]] - end
    tip_mm = 6.4 * stout
    end = end + back / np.linalg.norm(back) * (tip_mm - 3.2 * fat) / px_mm
    radii = np.linspace(9.6, 7.4, len(joints)) * stout
    knots: list[tuple[float, ...]] = []
    for i, joint in enumerate(joints):
        after = joints[i + 1] if i + 1 < len(joints) else end
        next_mm = radii[i + 1] if i + 1 < len(joints) else tip_mm
        swell = 0.96 if i + 1 < len(joints) else 1.02
        middle = (joint + after) / 2
        knots += [(*joint, radii[i]), (*middle, swell * (radii[i] + next_mm) / 2)]
    return _dense(np.array([*knots, (*end, tip_mm)]), 12)


def _flesh(hand: Hand, fat: float) -> Array:
    """All balls, (N, 3): centre in px, radius in mm."""
    chains = digit_chains(hand)
    balls = [finger_line(hand, chain, fat) for chain in chains]
    rays = [_ray(hand, chain, fat, webbed=i > 0) for i, chain in enumerate(chains)]
    balls += [_sheet(a, b, sag=0.08) for a, b in pairwise(rays[1:])]
    balls.append(_sheet(_thenar(rays[0]), rays[1][:17], sag=0.27))
    radius, ulna = (_forearm_line(hand, bone, fat) for bone in _forearm_bones(hand))
    balls.append(_sheet(radius, ulna))
    balls.append(_wrist(rays, radius, ulna))
    return np.vstack(balls)


def _ray(hand: Hand, chain: list[int], fat: float, *, webbed: bool) -> Array:
    """Balls along a metacarpal and, if webbed, on to the web beside its first phalanx."""
    base, head = hand.bases[chain[0]], hand.tips[chain[0]]
    knots = [(*base, 12.6 * fat), (*((base + head) / 2), 12.8 * fat), (*head, 11.0 * fat)]
    if webbed:
        first = hand.tips[chain[1]] - hand.bases[chain[1]]
        knots.append((*(hand.bases[chain[1]] + 0.38 * first), 5.5 * fat))
    return _dense(np.array(knots), 8)


def _thenar(thumb: Array) -> Array:
    """The muscles of the thumb: the ray of the thumb, thicker in its middle."""
    line = thumb[:15].copy()
    line[:, 2] *= np.interp(np.linspace(0, 1, len(line)), [0, 0.4, 1], [1.05, 1.12, 0.75])
    return line


def _forearm_bones(hand: Hand) -> tuple[int, int]:
    radius, ulna = (bone for bone, kind in enumerate(hand.kind) if kind == FOREARM)
    return radius, ulna


def _forearm_line(hand: Hand, bone: int, fat: float) -> Array:
    """Balls down one bone of the forearm, beyond the lower border of the image."""
    is_radius = bone == _forearm_bones(hand)[0]
    tip, down = hand.tips[bone], hand.bases[bone] - hand.tips[bone]
    near, far = (19.0, 23.0) if is_radius else (16.5, 21.0)
    start = 0.12 if is_radius else 0.05
    steps = np.linspace(start, 2.2, 28)[:, None]
    return np.hstack([tip + steps * down, fat * (near + (far - near) * steps / 2.2)])


def _wrist(rays: list[Array], radius: Array, ulna: Array) -> Array:
    """Balls from the metacarpals to the forearm, in rounded strings from one to the other."""
    shares = [0.0, *np.linspace(0, 1, len(rays) - 1)]
    ends = [radius[[0, 6]] + share * (ulna[[0, 6]] - radius[[0, 6]]) for share in shares]
    strings = [
        _dense(np.vstack([ray[len(ray) // 3], ray[0], end]), 8)
        for ray, end in zip(rays, ends, strict=True)
    ]
    return np.vstack([_sheet(a, b) for a, b in pairwise(strings)])


def _sheet(one: Array, other: Array, sag: float = 0.0, strings: int = 9) -> Array:
    """Balls between two strings of balls, which end early by ``sag`` halfway between them."""
    steps = max(len(one), len(other))
    a, b = (
        line[np.rint(np.linspace(0, len(line) - 1, steps)).astype(int)] for line in (one, other)
    )
    sheet = []
    for share in np.linspace(0, 1, strings):
        keep = round(steps * (1 - sag * (1 - (2 * share - 1) ** 2)))
        string = (a + share * (b - a))[:keep]
        string[-6:, 2] *= np.linspace(1, 0.55 if sag else 1, 6)
        sheet.append(string)
    return np.vstack(sheet)


def _dense(knots: Array, steps: int) -> Array:
    """Points between knots (N, 3), ``steps`` to a span, by monotone rounding of the corners."""
    at = np.linspace(0, len(knots) - 1, steps * (len(knots) - 1) + 1)
    line = np.stack([np.interp(at, np.arange(len(knots)), column) for column in knots.T], axis=1)
    kernel = np.ones(steps // 2 * 2 + 1) / (steps // 2 * 2 + 1)
    padded = np.pad(line, ((steps // 2, steps // 2), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)


def _ball_field(balls: Array, hand: Hand) -> Image:
    """Greatest r^2 - |x - c|^2 in mm^2 over a grid of at most 512 x 512 cells."""
    grid = min(_GRID, hand.size)
    pitch_mm = HAND_SCALE_MM / hand.scale_px * hand.size / grid
    centres = (balls[:, :2] + 0.5) * (grid / hand.size) - 0.5
    radii = balls[:, 2] / pitch_mm
    field = np.full((grid, grid), _OUTSIDE / pitch_mm**2, np.float32)
    for (x, y), radius in zip(centres, radii, strict=True):
        _raise_ball(field, float(x), float(y), float(radius), _REACH_MM / pitch_mm)
    return np.asarray(cv2.GaussianBlur(field * np.float32(pitch_mm**2), (0, 0), 1.6 / pitch_mm))


def _raise_ball(field: Image, x: float, y: float, radius: float, reach: float) -> None:
    far = radius + reach
    left, top = max(int(x - far), 0), max(int(y - far), 0)
    right, bottom = min(int(x + far) + 2, len(field)), min(int(y + far) + 2, len(field))
    if left >= right or top >= bottom:
        return
    dx2 = (np.arange(left, right, dtype=np.float32) - np.float32(x)) ** 2
    dy2 = (np.arange(top, bottom, dtype=np.float32) - np.float32(y)) ** 2
    part = field[top:bottom, left:right]
    np.maximum(part, np.float32(radius**2) - dx2 - dy2[:, None], out=part)


def _muscle(rng: np.random.Generator, hand: Hand) -> NDArray[np.float32]:
    """Slow changes of the attenuation of flesh (fat, muscle, tendons) around 1."""
    grid = 64
    white = rng.standard_normal((grid, grid), dtype=np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), 1.2)
    noise: Image = np.asarray(smooth / max(float(np.std(smooth)), 1e-6), np.float32)
    large = cv2.resize(noise, (hand.size, hand.size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(1 + 0.025 * large, np.float32)
