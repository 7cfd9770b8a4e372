"""Patches: where the network looks, what it sees there, and how its answers become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels
from fusion.arrays import Bytes
from fusion.rules.evidence import NEUTRAL
from fusion.types import SoftMask, Window
from zoo.families.refiner.looks import Held, Look, unpack

Planes = npt.NDArray[np.float32]
Input = Literal["image", "sources", "others", "class"]
Places = Literal["outlines", "crops"]
STRIDE = 8
"""What the sides of patches are multiples of: halved twice, and half of one in cells."""
# Log odds of 255 are about six; what a network is given is about one.
SCALE = 3.0
# An object that takes no more than this share of a patch is seen in a single one.
_WHOLE = 0.75
# How much more than a class's extent a crop around it shows.
_AROUND = 1.25
# A patch counts fully up to the middle half, and fades out toward its edges.
_LEAST = 0.25
# From such a ratio on an image is shrunk by area before a patch is cut from it.
_COARSER = 1.5


def _log_odds() -> npt.NDArray[np.float32]:
    p = (np.arange(256) + 0.5) / 256
    found: npt.NDArray[np.float32] = np.log(p / (1 - p)).astype(np.float32)
    return found


LOG_ODDS = _log_odds()
"""Of the 256 byte values, float32 (256,): at least 128 is above 0; `to_bytes` is the way back."""


def to_bytes(log_odds: Planes) -> Bytes:
    """Return log odds as bytes, 255 = 1; those of `LOG_ODDS` become what they were.

    >>> bool((to_bytes(LOG_ODDS) == np.arange(256)).all())
    True
    """
    # A little more: what should be a whole number may end just below it.
    found = np.floor(256 / (1 + np.exp(-log_odds)) + 1e-3)
    # Above 0 it is more likely than not, whatever the last digits are.
    found = np.where(log_odds >= 0, np.maximum(found, NEUTRAL), np.minimum(found, NEUTRAL - 1))
    return np.clip(found, 0, 255).astype(np.uint8)


class PatchSetting(Protocol):
    """How images are looked at; see `zoo.families.refiner.config.RefinerConfig`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a patch."""

    @property
    def places(self) -> Places:
        """Where patches lie."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the network is given beside the fused log odds."""

    @property
    def sources(self) -> tuple[str, ...]:
        """What is fused."""

    @property
    def in_channels(self) -> int:
        """Of images."""

    @property
    def detail(self) -> float:
        """Pixels of a patch along a cell of the finest source."""


def count_planes(setting: PatchSetting) -> int:
    """Return how many planes the network is given."""
    given = set(setting.inputs)
    planes = 1 + ("image" in given) * setting.in_channels + ("others" in given)
    return planes + ("sources" in given) * 2 * len(setting.sources)


def count_told(setting: PatchSetting, classes: int) -> int:
    """Return how many classes the network is told apart; 0: it is not told."""
    return classes if "class" in setting.inputs else 0


class Place(NamedTuple):
    """A patch in an image: its upper left corner and its pixels' side, in pixels of the image."""

    x: float
    y: float
    cell_px: float
    size_hw: tuple[int, int]


# --- where


@dataclass(frozen=True)
class Tiling:
    """Patches of one class, on one grid.

    Attributes:
        origin_xy: the grid's upper left corner, in pixels of the image.
        cell_px: a cell's side.
        size_hw: of a patch, in cells.
        corners: int (n, 2), row and column of each patch's first cell.
    """

    origin_xy: tuple[float, float]
    cell_px: float
    size_hw: tuple[int, int]
    corners: npt.NDArray[np.intp]

    def places(self) -> list[Place]:
        """Return the patches."""
        (x, y), cell = self.origin_xy, self.cell_px
        return [Place(x + c * cell, y + r * cell, cell, self.size_hw) for r, c in self.corners]

    def join(self, changes: Planes, window: Window) -> Planes:
        """Return patches' changes as one, float32 (h, w), at the pixels of a window of the image.

        Where patches overlap they are blended; away from their middles they fade out.

        Args:
            changes: float32 (n, side, side).
            window: of the image.
        """
        height, width = (int(side) for side in self.corners.max(0) + np.array(self.size_hw))
        total, weight = np.zeros((2, height, width), np.float32)
        is_one = len(self.corners) == 1
        share = np.ones(self.size_hw, np.float32) if is_one else np.outer(*map(_hat, self.size_hw))
        for (row, col), change in zip(self.corners.tolist(), changes, strict=True):
            part = slice(row, row + self.size_hw[0]), slice(col, col + self.size_hw[1])
            total[part] += share * change
            weight[part] += share
        total /= np.maximum(weight, _LEAST)
        return _enlarge(total, self.origin_xy, self.cell_px, window)


def _hat(side: int) -> npt.NDArray[np.float32]:
    """Weights that sum to 1 with those of the next patch, half a side away."""
    half = (np.arange(side // 2) + 0.5) / (side // 2)
    return np.concatenate([half, half[::-1]]).astype(np.float32)


def _enlarge(cells: Planes, origin_xy: tuple[float, float], cell: float, window: Window) -> Planes:
    x, y, width, height = window
    step = 1 / cell
    shift = [(o + 0.5 - at) * step - 0.5 for o, at in zip((x, y), origin_xy, strict=True)]
    matrix = np.array([[step, 0, shift[0]], [0, step, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(
        cells, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT
    )
    return found.astype(np.float32, copy=False)


def tile(points: npt.NDArray[np.float32], cell: float, config: PatchSetting) -> Tiling:
    """Return where to look at a class, so that each point lies in the middle of a patch.

    Args:
        points: on its outlines, float32 (n, 2), at least one.
        cell: side of a patch's pixel, in pixels of the image.
        config: says how large patches are, and whether it is outlines or crops that are looked at.
    """
    size = np.array(config.size, np.float64)
    low, high = points.min(0)[::-1].astype(np.float64), points.max(0)[::-1].astype(np.float64)
    extent, middle = high - low, (low + high) / 2
    if config.places == "crops":
        cell = max(cell, float((extent * _AROUND / size).max()))
    if config.places == "crops" or (extent <= _WHOLE * size * cell).all():
        top, left = middle - size * cell / 2
        return Tiling((left, top), cell, config.size, np.zeros((1, 2), np.intp))
    half = size / 2
    counts = np.ceil(extent / (half * cell) + 1e-6)
    first = middle - counts * half * cell / 2
    at = np.floor((points[:, ::-1] - first) / (half * cell)).astype(np.intp)
    at = np.clip(at, 0, counts.astype(np.intp) - 1)
    corners = np.unique(at, axis=0) * half.astype(np.intp)
    # The middle half of the first patch begins where the points do.
    top, left = first - half / 2 * cell
    return Tiling((float(left), float(top)), cell, config.size, corners)


# --- what is seen


def render(mask: SoftMask | None, place: Place, moved_px: tuple[float, float] = (0, 0)) -> Bytes:
    """Return a mask's probability in a patch, uint8 (h, w); 0 of none.

    Args:
        mask: in the image.
        place: the patch.
        moved_px: how far the mask is moved first, to the right and down, in pixels of the image.
    """
    height, width = place.size_hw
    if mask is None:
        return np.zeros((height, width), np.uint8)
    x, y, w, h = mask.box_xywh
    cell = place.cell_px
    left, top = (x + moved_px[0] - place.x) / cell, (y + moved_px[1] - place.y) / cell
    return SoftMask((left, top, w / cell, h / cell), mask.prob).render((0, 0, width, height))


def touches(held: Held, place: Place) -> bool:
    """Tell whether a mask has cells in a patch."""
    x, y, width, height = held.box_xywh
    down, across = (side * place.cell_px for side in place.size_hw)
    return (
        x < place.x + across and place.x < x + width and y < place.y + down and place.y < y + height
    )


def cut_image(look: Look, place: Place) -> Planes:
    """Return an image's values in a patch, float32 (c, h, w): about 0, about 1 in deviation.

    Mean and deviation are the whole image's. Beyond its edges its last pixels are repeated.
    """
    image = look.image
    scale = np.array([look.size_hw[1] / image.shape[1], look.size_hw[0] / image.shape[0]])
    ratio = place.cell_px / scale
    if ratio.min() > _COARSER:
        size = tuple(max(round(n / r), 1) for n, r in zip(image.shape[1::-1], ratio, strict=True))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scale = np.array([look.size_hw[1] / image.shape[1], look.size_hw[0] / image.shape[0]])
        ratio = place.cell_px / scale
    shift = np.array([place.x, place.y]) / scale + 0.5 * ratio - 0.5
    matrix = np.array([[ratio[0], 0, shift[0]], [0, ratio[1], shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(
        image, matrix, place.size_hw[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return _standardized(part, look.image)


def _standardized(part: Pixels, whole: Pixels) -> Planes:
    mean, deviation = cv2.meanStdDev(whole)
    planes = part[None] if part.ndim == 2 else np.moveaxis(part, 2, 0)
    shape = (len(planes), 1, 1)
    found = (planes - mean.reshape(shape)) / np.maximum(deviation.reshape(shape), 1)
    return found.astype(np.float32)


class Seen(NamedTuple):
    """The log odds in a patch: of the fused answer, of each source, of the other classes.

    Attributes:
        fused: float32 (h, w).
        sources: float32 (K, h, w); 0 of one that does not speak.
        speaks: one a source.
        others: float32 (h, w), the highest of the other classes' fused ones.
    """

    fused: Planes
    sources: Planes
    speaks: tuple[bool, ...]
    others: Planes


def see(look: Look, label: str, place: Place) -> Seen:
    """Return what is said of a class in a patch."""
    known = look.classes[label]
    fused = LOG_ODDS[render(unpack(known.fused), place)]
    sources = np.zeros((len(known.sources), *place.size_hw), np.float32)
    for plane, held, speaks in zip(sources, known.sources, known.speaks, strict=True):
        if speaks:
            plane[:] = LOG_ODDS[render(unpack(held), place)]
    return Seen(fused, sources, known.speaks, claim_of_others(look, label, place))


def claim_of_others(look: Look, label: str, place: Place) -> Planes:
    """Return the highest fused log odds of all other classes in a patch, float32 (h, w)."""
    highest = np.zeros(place.size_hw, np.uint8)
    for name, other in look.classes.items():
        if name != label and other.fused is not None and touches(other.fused, place):
            np.maximum(highest, render(unpack(other.fused), place), out=highest)
    return LOG_ODDS[highest]


def stack(seen: Seen, image: Planes | None, inputs: Sequence[str]) -> Planes:
    """Return what the network is given, float32 (P, h, w), see `zoo.families.refiner.network`."""
    planes = [seen.fused[None] / SCALE]
    if "image" in inputs and image is not None:
        planes.append(image)
    if "sources" in inputs:
        flags = np.array(seen.speaks, np.float32)[:, None, None]
        planes += [seen.sources / SCALE, np.broadcast_to(flags, seen.sources.shape)]
    if "others" in inputs:
        planes.append(seen.others[None] / SCALE)
    return np.concatenate(planes).astype(np.float32)
