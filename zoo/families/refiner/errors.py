"""Examples to learn from: patches, turned and scaled, with more errors than the sources made.

Out-of-fold predictions of some dozen images show a network few errors. So each source is moved,
made surer or less sure, and given more or less of an object in a random spot, each by itself; what
was fused of them likewise; and sources are left out, whose place the mean of the others takes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from fusion.types import SoftMask
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.looks import Look, unpack
from zoo.families.refiner.patches import (
    LOG_ODDS,
    Place,
    Planes,
    Seen,
    claim_of_others,
    cut_image,
    render,
    stack,
    tile,
)

# Of patches: turned by so many degrees, scaled by so much in logarithms, moved by such a share.
_TURN, _ZOOM, _JITTER = 15.0, 0.15, 0.25
# Of sources, in deviations: cells of the finest one, and log odds.
_MOVED, _SURER, _BIAS = 0.7, 0.2, 0.3
_BUMP, _BUMP_PX = 4.0, (0.03, 0.12)
# How often a source is moved, and any is bumped; the fused answer is changed less often.
_OFTEN, _SELDOM, _MEAN = 0.5, 0.3, 0.1
_LOUDER, _BRIGHTER = 0.1, 0.1
_LIMIT = float(LOG_ODDS[-1])


class Example(NamedTuple):
    """What the network is given, and what it is to say.

    Attributes:
        planes: float32 (P, h, w), see `zoo.families.refiner.network`.
        truth: float32 (1, h, w), 0..1.
    """

    planes: Planes
    truth: Planes


def draw_example(
    look: Look, label: str, generator: np.random.Generator, config: RefinerConfig
) -> Example:
    """Draw a patch of a class in an image with truth.

    Args:
        look: the image.
        label: a class of which it knows.
        generator: all that is random is drawn from it.
        config: how.
    """
    known = look.classes[label]
    place, angle = _draw_place(look, label, generator, config)
    cell = look.cell_px * config.detail
    sources = np.zeros((len(known.sources), *place.size_hw), np.float32)
    for plane, held, is_heard in zip(sources, known.sources, known.speaks, strict=True):
        moved = _draw_move(generator, config.errors * cell, _OFTEN)
        if is_heard:
            plane[:] = _spoil(
                LOG_ODDS[render(unpack(held), place, moved)], generator, config.errors
            )
    fused = _fused(unpack(known.fused), place, generator, config, cell)
    speaks = _drop(known.speaks, generator, config.drop)
    if speaks != known.speaks or (any(speaks) and generator.random() < _MEAN):
        sources[~np.array(speaks)] = 0
        fused = sources.sum(0) / max(sum(speaks), 1)
    seen = Seen(fused, sources, speaks, claim_of_others(look, label, place))
    image = None
    if "image" in config.inputs:
        louder, brighter = generator.normal(0, (_LOUDER, _BRIGHTER))
        image = cut_image(look, place) * np.float32(math.exp(louder)) + np.float32(brighter)
    planes = stack(seen, image, config.inputs)
    truth = render(unpack(known.truth), place)
    turned = _turn(np.concatenate([planes, truth[None] / np.float32(255)]), angle, config.size)
    return Example(turned[:-1], turned[-1:])


def _draw_place(
    look: Look, label: str, generator: np.random.Generator, config: RefinerConfig
) -> tuple[Place, float]:
    """Draw a patch, so much larger that it can be turned, and by how many degrees it is."""
    points, zoom = look.classes[label].outline_px, math.exp(generator.uniform(-_ZOOM, _ZOOM))
    size = np.array(config.size)
    if config.places == "crops":
        only = tile(points, look.cell_px, config).places()[0]
        cell = only.cell_px * zoom
        middle = np.array([only.y, only.x]) + size * only.cell_px / 2
        jitter = 0.1
    else:
        cell = look.cell_px * zoom
        middle = points[generator.integers(len(points))][::-1].astype(np.float64)
        jitter = _JITTER
    middle = middle + generator.uniform(-jitter, jitter, 2) * size * cell
    angle = float(generator.uniform(-_TURN, _TURN))
    large = _room(config.size, angle)
    top, left = middle - np.array(large) * cell / 2
    return Place(float(left), float(top), float(cell), large), angle


def _room(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return height and width that hold a patch after it was turned."""
    sine, cosine = abs(math.sin(math.radians(angle))), math.cos(math.radians(angle))
    height, width = size
    return (
        height + 2 * math.ceil((height * cosine + width * sine - height) / 2 + 1),
        width + 2 * math.ceil((width * cosine + height * sine - width) / 2 + 1),
    )


def _turn(planes: Planes, angle: float, size: tuple[int, int]) -> Planes:
    """Turn planes, float32 (P, H, W), about their middle, and return that: (P, h, w)."""
    height, width = planes.shape[1:]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] -= (width - size[1]) / 2, (height - size[0]) / 2
    turned = [cv2.warpAffine(p, matrix, size[::-1], flags=cv2.INTER_LINEAR) for p in planes]
    return np.stack(turned)


def _draw_move(generator: np.random.Generator, cell_px: float, often: float) -> tuple[float, float]:
    right, down = generator.normal(0, _MOVED, 2) * cell_px
    return (float(right), float(down)) if generator.random() < often else (0.0, 0.0)


def _spoil(log_odds: Planes, generator: np.random.Generator, errors: float) -> Planes:
    """Return a source's log odds as another network might have given them."""
    surer, bias = generator.normal(0, (_SURER, _BIAS)) * errors
    changed = log_odds * np.float32(math.exp(surer)) + np.float32(bias)
    bump = _draw_bump(log_odds.shape, generator)
    if generator.random() < _SELDOM * min(errors, 1):
        changed = changed + bump * np.float32(errors)
    return np.clip(changed, -_LIMIT, _LIMIT)


def _draw_bump(shape: tuple[int, ...], generator: np.random.Generator) -> Planes:
    """Draw where there is more of an object, or less: log odds, a Gaussian bell."""
    height, width = shape
    middle = generator.uniform(0.1, 0.9, 2) * shape
    spread = generator.uniform(*_BUMP_PX) * math.sqrt(height * width)
    down = (np.arange(height) - middle[0]) / spread
    right = (np.arange(width) - middle[1]) / spread
    bell = np.exp(-0.5 * (down[:, None] ** 2 + right[None] ** 2))
    return (bell * generator.normal(0, _BUMP)).astype(np.float32)


def _fused(
    mask: SoftMask | None,
    place: Place,
    generator: np.random.Generator,
    config: RefinerConfig,
    cell: float,
) -> Planes:
    moved = _draw_move(generator, config.errors * cell, _SELDOM)
    found = LOG_ODDS[render(mask, place, moved)]
    bump = _draw_bump(found.shape, generator)
    if generator.random() < _SELDOM * min(config.errors, 1):
        found = np.clip(found + bump * np.float32(config.errors), -_LIMIT, _LIMIT)
    return found


def _drop(
    speaks: tuple[bool, ...], generator: np.random.Generator, share: float
) -> tuple[bool, ...]:
    """Leave out sources at random; one that speaks stays."""
    kept = generator.random(len(speaks)) >= share
    left = tuple(bool(s and k) for s, k in zip(speaks, kept, strict=True))
    return left if any(left) else speaks
