"""What an audit remembers of one structure: where it is, how large, and its form."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.audit.likeness import Array
from converters.masks import Box, CropMask, Mask

POINTS = 64
# A ring covers a tenth of its structure, a screw less; single bright pixels are noise.
_BRIGHT = 0.97


@dataclass(frozen=True)
class Structure:
    """One structure of one image.

    Attributes:
        area_px: number of its pixels.
        centre: (2,) x, y of their mean, in the image's pixels.
        spread: (2, 2) their covariance, square pixels.
        contour: complex64 (64,), x + iy at even steps along the outline of the largest part,
            about its own mean, in pixels, clockwise on the screen.
        box_xywh: the smallest box of its pixels.
        is_cut: it reaches the image's border.
        bright: grey value that 3 % of its pixels exceed; NaN where the image cannot be read.
    """

    area_px: int
    centre: Array
    spread: Array
    contour: npt.NDArray[np.complex64]
    box_xywh: Box
    is_cut: bool
    bright: float


def measure_structure(mask: CropMask, size_hw: tuple[int, int], image: Mask | None) -> Structure:
    """Measure a structure by its pixels.

    Args:
        mask: with at least one pixel.
        size_hw: of the image.
        image: grey uint8 (H, W), where it can be read.
    """
    moments = cv2.moments(mask.pixels, binaryImage=True)
    area = moments["m00"]
    centre = np.array([moments["m10"], moments["m01"]]) / area + [mask.x, mask.y]
    mixed = moments["mu11"] / area
    # A pixel is a square, not a point: its own variance keeps the matrix of a line regular.
    spread = np.array([[moments["mu20"] / area, mixed], [mixed, moments["mu02"] / area]])
    spread += np.eye(2) / 12
    dx, dy, width, height = cv2.boundingRect(mask.pixels)
    x, y = mask.x + dx, mask.y + dy
    is_cut = x == 0 or y == 0 or x + width == size_hw[1] or y + height == size_hw[0]
    box_xywh = (x, y, width, height)
    bright = _bright(mask, image) if image is not None else float("nan")
    return Structure(int(area), centre, spread, contour(mask.pixels), box_xywh, is_cut, bright)


def _bright(mask: CropMask, image: Mask) -> float:
    x, y, width, height = mask.box_xywh
    inside = image[y : y + height, x : x + width][mask.pixels > 0]
    rank = min(len(inside) - 1, int(_BRIGHT * len(inside)))
    return float(np.partition(inside, rank)[rank])


def contour(pixels: Mask) -> npt.NDArray[np.complex64]:
    """Return the outline of the largest part, complex64 (64,), at even steps, about its mean."""
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    ring = max(outlines, key=len)[:, 0, :]
    line = ring[:, 0] + 1j * ring[:, 1]
    if _signed_area(line) < 0:
        line = line[::-1]
    closed = np.append(line, line[0])
    reach = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(closed)))])
    # A pixel's staircase makes steps uneven; the mean over some pixels is smooth.
    at = np.linspace(0, reach[-1], POINTS, endpoint=False)
    even = np.interp(at, reach, closed.real) + 1j * np.interp(at, reach, closed.imag)
    return np.asarray(even - even.mean(), np.complex64)


def _signed_area(line: npt.NDArray[np.complex128]) -> float:
    return float((line.conj() * np.roll(line, -1)).imag.sum())
