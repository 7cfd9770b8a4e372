"""All images in one frame: turned, mirrored, scaled and moved onto each other.

Points are complex numbers x + iy, so that a similarity is z -> a z + b, of the mirrored image
z -> a conj(z) + b. Structures that do not fit hardly count, so that a few wrong ones move no image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.audit.likeness import Array
from converters.audit.look import Look
from converters.audit.structures import POINTS

Complex = npt.NDArray[np.complex128]

_ROUNDS = 6
_STEPS = 8
# Residuals beyond this many standard deviations count less and less (Cauchy's weights).
_TOLERANCE = 2.0
# What a normal distribution's median absolute deviation is multiplied by to be its deviation; of
# the distance in a plane, the median of Rayleigh's distribution.
_RAYLEIGH = 1 / 1.1774
_FLOOR = 1e-3


@dataclass(frozen=True)
class AlignedImages:
    """Structures of many images in one frame; the unit is about their spread.

    Attributes:
        keys: (N,) of the images.
        groups: (N,) of the images.
        labels: (B,) of the structures.
        centres: (N, B) complex; NaN where there is no such structure.
        areas: (N, B); NaN where there is no such structure.
        stretch: (N, B) complex, the direction of the long axis, twice its angle, and by its
            length how elongated the structure is, 0 to 1.
        contours: (N, B, 64) complex64, about their means.
        is_cut: (N, B), whether the structure reaches its image's border.
        scales: (N,) units a pixel.
        fit: (N, 2) complex, a and b of each image.
        is_mirrored: (N,).
    """

    keys: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    centres: Complex
    areas: Array
    stretch: Complex
    contours: npt.NDArray[np.complex64]
    is_cut: npt.NDArray[np.bool_]
    fit: Complex
    is_mirrored: npt.NDArray[np.bool_]

    @property
    def people(self) -> int:
        """Of how many the images are; without a group each image is of its own."""
        own = [group or f"\n{key}" for key, group in zip(self.keys, self.groups, strict=True)]
        return len(set(own))

    @property
    def scales(self) -> Array:
        """Units a pixel, (N,)."""
        return np.abs(self.fit[:, 0])


def align(looks: Sequence[Look], labels: Sequence[str]) -> AlignedImages:
    """Bring images into one frame by the centres of their structures.

    Args:
        looks: images that have at least three of the structures each.
        labels: structures that most of the images have.
    """
    shape = (len(looks), len(labels))
    centres = np.full(shape, np.nan, np.complex128)
    areas = np.full(shape, np.nan)
    stretch = np.full(shape, np.nan, np.complex128)
    contours = np.zeros((*shape, POINTS), np.complex64)
    is_cut = np.zeros(shape, np.bool_)
    for n, one in enumerate(looks):
        for k, label in enumerate(labels):
            if (structure := one.structures.get(label)) is None:
                continue
            centres[n, k] = complex(*structure.centre)
            areas[n, k] = structure.area_px
            xx, yy, xy = structure.spread[0, 0], structure.spread[1, 1], structure.spread[0, 1]
            stretch[n, k] = complex(xx - yy, 2 * xy) / (xx + yy)
            contours[n, k] = structure.contour
            is_cut[n, k] = structure.is_cut
    fit, is_mirrored = fit_all(centres)
    turn = fit[:, :1] / np.abs(fit[:, :1])
    flip = is_mirrored[:, None]
    # A mirrored outline runs the other way round.
    turned = np.where(flip[..., None], contours.conj()[..., ::-1], contours)
    return AlignedImages(
        keys=tuple(one.key for one in looks),
        groups=tuple(one.group for one in looks),
        labels=tuple(labels),
        centres=_apply(centres, fit, is_mirrored),
        areas=areas * np.abs(fit[:, :1]) ** 2,
        stretch=np.where(flip, stretch.conj(), stretch) * turn**2,
        contours=(turned * fit[:, :1, None]).astype(np.complex64),
        is_cut=is_cut,
        fit=fit,
        is_mirrored=is_mirrored,
    )


def _apply(points: Complex, fit: Complex, is_mirrored: npt.NDArray[np.bool_]) -> Complex:
    seen = np.where(is_mirrored[:, None], points.conj(), points)
    return np.asarray(fit[:, :1] * seen + fit[:, 1:], np.complex128)


def fit_all(centres: Complex) -> tuple[Complex, npt.NDArray[np.bool_]]:
    """Fit all images to their own median by turning, scaling, moving and mirroring them.

    Args:
        centres: complex128 (N, B), structures' centres x + iy; NaN where there is none.

    Returns:
        complex128 (N, 2), of each image a and b of a z + b; bool (N,), whether z is mirrored first.
    """
    present = np.isfinite(centres.real)
    first = int(present.sum(axis=1).argmax())
    model = np.where(present[first], centres[first], np.nanmean(centres[first]))
    model = (model - model.mean()) / np.abs(model - model.mean()).mean()
    spread = np.full(len(model), 0.2)
    for _ in range(_ROUNDS):
        fit, is_mirrored = fit_to(centres, model, spread)
        aligned = _apply(centres, fit, is_mirrored)
        model = np.nanmedian(aligned.real, axis=0) + 1j * np.nanmedian(aligned.imag, axis=0)
        spread = _RAYLEIGH * np.nanmedian(np.abs(aligned - model), axis=0) + _FLOOR
    return fit, is_mirrored


def fit_to(
    centres: Complex, model: Complex, spread: Array
) -> tuple[Complex, npt.NDArray[np.bool_]]:
    """Fit images to a model, robustly; takes and returns what `fit_all` does.

    Args:
        centres: complex128 (N, B).
        model: complex128 (B,), where the structures are expected.
        spread: float64 (B,), how far from there each is found, in the model's unit.
    """
    straight, straight_cost = _fit_one_way(centres, model, spread)
    mirrored, mirrored_cost = _fit_one_way(centres.conj(), model, spread)
    is_mirrored = mirrored_cost < straight_cost
    return np.where(is_mirrored[:, None], mirrored, straight), is_mirrored


def _fit_one_way(centres: Complex, model: Complex, spread: Array) -> tuple[Complex, Array]:
    """Iteratively reweighted least squares of a z + b to the model, and what is left over."""
    present = np.isfinite(centres.real)
    points = np.where(present, centres, 0)
    weights = present / spread**2
    for _ in range(_STEPS):
        total = weights.sum(axis=1, keepdims=True)
        from_ = (weights * points).sum(axis=1, keepdims=True)
        to = (weights * model).sum(axis=1, keepdims=True)
        off, wanted = points - from_ / total, model - to / total
        a = (weights * off.conj() * wanted).sum(axis=1, keepdims=True)
        a /= (weights * np.abs(off) ** 2).sum(axis=1, keepdims=True)
        b = (to - a * from_) / total
        error = np.abs(a * points + b - model) / (_TOLERANCE * spread)
        weights = present / spread**2 / (1 + error**2)
    cost = (present * np.log1p(error**2)).sum(axis=1) / present.sum(axis=1)
    return np.hstack([a, b]), cost
