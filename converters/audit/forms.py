"""How usual the form of each structure is, whichever way it is turned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from converters.audit.likeness import Array, cross_learned
from converters.audit.pose import AlignedImages
from converters.audit.structures import POINTS

_ROUNDS = 4
# Harmonics of the outline on either side: more are noise of the pixels and of the annotator.
_HARMONICS = 8

Contours = npt.NDArray[np.complex128]


def form_features(contours: Contours, areas: Array) -> Array:
    """Return size and form of one structure on many images: (N, 33), NaN where it is not there.

    Outlines are turned, and started at the point, so that they fit their mean best (generalised
    Procrustes analysis); the form is their lower Fourier coefficients.

    Args:
        contours: (N, 64) about their means, all in the same sense of rotation.
        areas: (N,) NaN where there is no such structure.
    """
    present = np.isfinite(areas)
    rows = np.full((len(areas), 4 * _HARMONICS + 1), np.nan)
    if not present.any():
        return rows
    shapes = contours[present]
    shapes = shapes / np.sqrt((np.abs(shapes) ** 2).mean(axis=1, keepdims=True))
    mean = shapes[0]
    for _ in range(_ROUNDS):
        aligned = _turn_to(shapes, mean)
        mean = np.median(aligned.real, axis=0) + 1j * np.median(aligned.imag, axis=0)
    waves = np.fft.fft(_turn_to(shapes, mean), axis=1) / POINTS
    chosen = waves[:, [*range(1, _HARMONICS + 1), *range(-_HARMONICS, 0)]]
    size = 0.5 * np.log(areas[present])
    rows[present] = np.hstack([size[:, None], chosen.real, chosen.imag])
    return rows


def _turn_to(shapes: Contours, mean: Contours) -> Contours:
    """Start and turn outlines (N, 64) so that they fit a mean (64,) best."""
    # The correlation at all starting points at once.
    spectrum = np.fft.fft(shapes, axis=1) * np.fft.fft(mean).conj()
    fits = np.fft.ifft(spectrum, axis=1)
    start = np.abs(fits).argmax(axis=1)
    best = fits[np.arange(len(shapes)), start]
    order = (np.arange(POINTS) + start[:, None]) % POINTS
    turned = np.take_along_axis(shapes, order, axis=1)
    return np.asarray(turned * (best.conj() / np.abs(best))[:, None], np.complex128)


def form_distance2(images: AlignedImages) -> Array:
    """Return how unusual each structure's form and size are: (N, B), squared Mahalanobis distance.

    Every image is judged by what was learned from other patients; NaN where a structure is not
    there.
    """
    out = np.full(images.areas.shape, np.nan)
    for k in range(len(images.labels)):
        rows = form_features(images.contours[:, k].astype(np.complex128), images.areas[:, k])
        for model, held_out in cross_learned(rows, images.groups):
            out[held_out, k] = model.distance2(rows[held_out])
    out[np.isnan(images.areas)] = np.nan
    return out
