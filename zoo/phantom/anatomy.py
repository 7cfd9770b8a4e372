"""Sampling of hand shapes from the statistical shape model in ``hand_shape_model.npz``.

The recipe, step by step, is in the README beside the model file. Coordinates are pixel
centres, x right, y down; angles are radians, positive clockwise on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MODEL_PATH = Path(__file__).with_name("hand_shape_model.npz")
MODEL_SIDE = 2048
"""Side in pixels of the images that the model was fitted on."""
NEUTRAL, BENT = 0, 1
CARPAL, METACARPAL, PHALANX, FOREARM = 0, 1, 2, 3

_POSE = 4
_UPSAMPLE = 4
_MAX_DRAWS = 200
_HAND_DRAWS = 20
_MODE_JITTER = 0.2
_RESIDUAL_JITTER = 0.3


@dataclass(frozen=True)
class ShapeModel:
    """The arrays of the model file as float64 and integers; see the README for each."""

    outline_mean: Array
    outline_modes: Array
    param_mean: Array
    param_modes: Array
    param_mode_sd: Array
    param_resid_sd: Array
    place_mean: Array
    place_by_mode: Array
    place_cov: Array
    kind: tuple[int, ...]
    parent: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def bones(self) -> int:
        """Number of bones."""
        return len(self.kind)


@dataclass(frozen=True)
class Person:
    """What both hands of a person share: posture (0 neutral, 1 bent) and standard scores.

    ``modes`` is (40,) and ``residual`` (406,), both in units of standard deviations.
    """

    posture: int
    modes: Array
    residual: Array


@dataclass(frozen=True)
class Hand:
    """One hand in an image of ``size`` x ``size`` pixels.

    Attributes:
        outlines: per bone a closed outline (N, 2) in pixels, upsampled; those of the forearm
            run beyond the lower border of the image.
        tips: (B, 2) distal points of the bones, pixels.
        bases: (B, 2) proximal points of the bones, pixels.
        kind: per bone 0 carpal, 1 metacarpal, 2 phalanx, 3 forearm.
        parent: per bone the proximal neighbour, -1 for none.
        scale_px: hand size S, the square root of the summed area of all but the forearm.
        posture: 0 neutral, 1 bent wrist.
        mirrored: False has the thumb on the left (a right hand seen from its back).
        vector: (406,) pose and outline parameters the hand was built from.
    """

    size: int
    outlines: tuple[Array, ...]
    tips: Array
    bases: Array
    kind: tuple[int, ...]
    parent: tuple[int, ...]
    scale_px: float
    posture: int
    mirrored: bool
    vector: Array


@lru_cache(maxsize=1)
def load_model() -> ShapeModel:
    """Read the model file of the package."""
    with np.load(MODEL_PATH, allow_pickle=False) as data:
        floats = {
            name: data[name].astype(np.float64)
            for name in ShapeModel.__dataclass_fields__
            if name not in {"kind", "parent", "order"}
        }
        integers = {
            name: tuple(int(value) for value in data[name]) for name in ("kind", "parent", "order")
        }
    return ShapeModel(**floats, **integers)  # type: ignore[arg-type]


def truncated_normal(rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` standard normals, each redrawn while beyond 3 standard deviations."""
    values = rng.standard_normal(count)
    while (far := np.abs(values) > 3).any():
        values[far] = rng.standard_normal(int(far.sum()))
    return values


def draw_person(rng: np.random.Generator, posture: int) -> Person:
    """Draw the scores that both hands of one person share."""
    model = load_model()
    modes = truncated_normal(rng, model.param_modes.shape[1])
    return Person(posture, modes, truncated_normal(rng, model.param_mean.shape[1]))


def draw_hands(
    rng: np.random.Generator, hand_rngs: tuple[np.random.Generator, ...], posture: int, size: int
) -> tuple[Hand, ...]:
    """Draw the hands of one person: a right one, then a left one, and so on in turn.

    The person is drawn anew when one of the hands does not find room in the image.

    Raises:
        ValueError: no person with room for all hands was found.
    """
    for _ in range(_MAX_DRAWS):
        person = draw_person(rng, posture)
        hands = [
            draw_hand(person, hand_rng, mirrored=index % 2 == 1, size=size)
            for index, hand_rng in enumerate(hand_rngs)
        ]
        found = tuple(hand for hand in hands if hand is not None)
        if len(found) == len(hands):
            return found
    raise ValueError(f"expected a hand inside the image, found none in {_MAX_DRAWS} draws")


def draw_hand(
    person: Person, rng: np.random.Generator, *, mirrored: bool, size: int
) -> Hand | None:
    """Draw one hand of a person with small changes in shape and pose, and its placement.

    The scores keep unit variance, so hands of many persons have the statistics of the model.

    Returns:
        The hand, or None if in each of 20 draws a bone other than the forearm left the image.
    """
    model = load_model()
    for _ in range(_HAND_DRAWS):
        modes = _jitter(person.modes, rng, _MODE_JITTER)
        residual = _jitter(person.residual, rng, _RESIDUAL_JITTER)
        placing = truncated_normal(rng, model.place_mean.shape[1])
        vector = _hand_vector(model, person.posture, modes, residual)
        place = _placement(model, person.posture, modes, placing)
        hand = build_hand(vector, place, posture=person.posture, mirrored=mirrored, size=size)
        if _fits(hand):
            return hand
    return None


def build_hand(vector: Array, place: Array, *, posture: int, mirrored: bool, size: int) -> Hand:
    """Place the 29 outlines of a hand vector (406,) by a placement (4,) in a square image."""
    model = load_model()
    pose = vector[: model.bones * _POSE].reshape(model.bones, _POSE)
    coefs = vector[model.bones * _POSE :].reshape(model.bones, -1)
    shapes = model.outline_mean + np.einsum("bm,bmkc->bkc", coefs, model.outline_modes)
    scale_px = MODEL_SIDE * float(np.exp(place[3]))
    outlines, tips, bases = _place_bones(model, pose, shapes, place, scale_px)
    dense = [
        _close_forearm(outline, bases[b] - tips[b])
        if model.kind[b] == FOREARM
        else smooth_closed(outline)
        for b, outline in enumerate(outlines)
    ]
    return Hand(
        size=size,
        outlines=tuple(_to_image(line, size, mirrored) for line in dense),
        tips=_to_image(tips, size, mirrored),
        bases=_to_image(bases, size, mirrored),
        kind=model.kind,
        parent=model.parent,
        scale_px=scale_px * size / MODEL_SIDE,
        posture=posture,
        mirrored=mirrored,
        vector=vector,
    )


def smooth_closed(points: Array, times: int = _UPSAMPLE) -> Array:
    """Upsample a closed line (N, 2) by uniform Catmull-Rom splines to (N * times, 2)."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    return _catmull_rom(before, points, after, np.roll(points, -2, axis=0), times)


def smooth_open(points: Array, times: int = _UPSAMPLE) -> Array:
    """Upsample an open line (N, 2) by uniform Catmull-Rom splines; its ends are kept."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    curve = _catmull_rom(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], times)
    return np.vstack([curve, points[-1:]])


def _catmull_rom(p0: Array, p1: Array, p2: Array, p3: Array, times: int) -> Array:
    t = (np.arange(times) / times)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = b + 0.5 * t * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * (b - c) + d - a)))
    return np.asarray(curve.reshape(-1, 2))


def _jitter(scores: Array, rng: np.random.Generator, share: float) -> Array:
    return float(np.sqrt(1 - share**2)) * scores + share * truncated_normal(rng, len(scores))


def _hand_vector(model: ShapeModel, posture: int, modes: Array, residual: Array) -> Array:
    joint = (modes * model.param_mode_sd[posture]) @ model.param_modes[posture]
    return np.asarray(model.param_mean[posture] + joint + model.param_resid_sd[posture] * residual)


def _placement(model: ShapeModel, posture: int, modes: Array, placing: Array) -> Array:
    lower = np.linalg.cholesky(model.place_cov[posture])
    mean = model.place_mean[posture] + modes @ model.place_by_mode[posture]
    return np.asarray(mean + lower @ placing)


def _rotation(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _place_bones(
    model: ShapeModel, pose: Array, shapes: Array, place: Array, scale_px: float
) -> tuple[Array, Array, Array]:
    """Outlines (B, K, 2), distal and proximal points (B, 2) in pixels of the model's images."""
    frame = float(place[2] - pose[model.kind.index(FOREARM), 2])
    outlines = np.zeros_like(shapes)
    tips, bases, turns = (
        np.zeros((model.bones, 2)),
        np.zeros((model.bones, 2)),
        np.zeros(model.bones),
    )
    for b in model.order:
        kind, parent = model.kind[b], model.parent[b]
        tip = np.array([0.0, shapes[b, :, 1].min()])
        base = np.array([0.0, shapes[b, :, 1].max()])
        around, start = (turns[parent], tips[parent]) if kind == PHALANX else (frame, None)
        origin = MODEL_SIDE * place[:2] if start is None else start
        turns[b] = around + float(pose[b, 2])
        anchor = origin + scale_px * _rotation(around) @ pose[b, :2]
        reference = {CARPAL: np.zeros(2), FOREARM: tip}.get(kind, base)
        turn = scale_px * np.exp(pose[b, 3]) * _rotation(turns[b])
        centre = anchor - turn @ reference
        outlines[b] = centre + shapes[b] @ turn.T
        tips[b], bases[b] = centre + turn @ tip, centre + turn @ base
    return outlines, tips, bases


def _close_forearm(outline: Array, down: Array) -> Array:
    """Extend both cut ends (README, step 5) far below the image and close the outline."""
    direction = down / np.linalg.norm(down)
    ends = []
    for end, inner in ((outline[0], outline[5]), (outline[-1], outline[-6])):
        tangent = (end - inner) / np.linalg.norm(end - inner)
        ends.append(end + 1.5 * MODEL_SIDE * (0.35 * tangent + 0.65 * direction))
    return np.vstack([ends[0], smooth_open(outline), ends[1]])


def _to_image(points: Array, size: int, mirrored: bool) -> Array:
    """Scale from the model's pixel grid to that of the image, pixel areas aligned."""
    scaled = (points + 0.5) * (size / MODEL_SIDE) - 0.5
    if mirrored:
        scaled[:, 0] = size - 1 - scaled[:, 0]
    return scaled


def _fits(hand: Hand) -> bool:
    inner = [line for line, kind in zip(hand.outlines, hand.kind, strict=True) if kind != FOREARM]
    points = np.vstack(inner)
    return bool((points >= 0).all() and (points <= hand.size - 1).all())
