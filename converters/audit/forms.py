"""How usual the form of each structure is, whichever way it is turned; classes in two styles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set

import numpy as np
import numpy.typing as npt

from converters.audit.findings import Finding
from converters.audit.likeness import Array, cross_learned
from converters.audit.look import Look
from converters.audit.pose import AlignedImages
from converters.audit.structures import POINTS

_ROUNDS = 4
# Harmonics of the outline on either side: more are noise of the pixels and of the annotator.
_HARMONICS = 8

# A class is in two styles where each has so much of the images, of so many or more.
_LEAST_PART, _LEAST_FOR_STYLE = 0.2, 20
# Two sizes: they leave so little of the variance, and widths differ by so much (logarithm). Sound
# classes of phantoms leave .14 and more; ends cut off by a quarter leave .04 to .13.
_WITHIN, _LEAST_STEP = 0.13, 0.08
_NEIGHBOURS = 6
# What is right is for people to say: it never goes into a draft of corrections.
_STYLE_SCORE = 0.7
_SHOWN = 3

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


# --- one class in two styles


def find_styles(looks: Sequence[Look], images: AlignedImages) -> Iterator[Finding]:
    """Yield classes that part of the images have in another style: smaller, in parts, not at all.

    Only where there are 20 images or more, and a fifth of them or more on each side.

    Args:
        looks: of all images; what is not annotated at all, and crops, do not count.
        images: those of them that can be compared.
    """
    whole = [one for one in looks if one.structures and not one.is_crop]
    sizes = _relative_sizes(images)
    for label in sorted({label for one in whole for label in one.structures}):
        having = [one for one in whole if label in one.structures]
        among = [one.key for one in having]
        several = {one.key for one in having if len(one.parts.get(label, ())) > 1}
        yield from _style(whole, label, set(among), [one.key for one in whole], "annotated")
        yield from _style(whole, label, several, among, "drawn of several parts")
        if label in images.labels:
            k = images.labels.index(label)
            known = np.isfinite(sizes[:, k]) & ~images.is_cut[:, k]
            keys = [key for key, is_known in zip(images.keys, known, strict=True) if is_known]
            small, step = two_sizes(sizes[known, k])
            chosen = {key for key, is_small in zip(keys, small, strict=True) if is_small}
            what = f"drawn narrower by {100 * (1 - np.exp(-step)):.0f} % beside its neighbours"
            yield from _style(whole, label, chosen, keys, what)


def two_sizes(sizes: Array) -> tuple[npt.NDArray[np.bool_], float]:
    """Tell whether sizes are of two kinds; return which are small, and how far the means differ.

    The two means are those that leave least variance within (exactly: values are sorted). Of one
    normal distribution they leave .36 of the variance, of a uniform one .25; two kinds it is from
    .13 down, the means apart by .08.

    Args:
        sizes: (N,) logarithms.

    Returns:
        (N,), none of them small where there is but one kind; and the difference.
    """
    none = np.zeros(len(sizes), np.bool_)
    least = max(1, math.ceil(_LEAST_PART * len(sizes)))
    if len(sizes) < max(_LEAST_FOR_STYLE, 2 * least):
        return none, 0.0
    order = np.argsort(sizes, kind="stable")
    ranked = sizes[order] - sizes.mean()
    count = np.arange(least, len(sizes) - least + 1)
    below = np.cumsum(ranked)[count - 1]
    # What the two means explain of the sum of squares; the mean of all is 0.
    explained = below**2 / count + below**2 / (len(sizes) - count)
    cut = int(count[explained.argmax()])
    left = 1 - explained.max() / max(float((ranked**2).sum()), 1e-12)
    step = float(ranked[cut:].mean() - ranked[:cut].mean())
    if left > _WITHIN or step < _LEAST_STEP:
        return none, step
    none[order[:cut]] = True
    return none, step


def _relative_sizes(images: AlignedImages) -> Array:
    """The logarithm of each structure's width beside that of its neighbours: (N, B)."""
    sizes = 0.5 * np.log(images.areas)
    sizes = sizes - np.nanmedian(sizes, axis=0)
    centres = np.nanmedian(images.centres.real, axis=0)
    centres = centres + 1j * np.nanmedian(images.centres.imag, axis=0)
    relative = np.full_like(sizes, np.nan)
    for k, centre in enumerate(centres):
        near = np.argsort(np.abs(centres - centre))[1 : 1 + _NEIGHBOURS]
        known = np.isfinite(sizes[:, near]).any(axis=1)
        relative[known, k] = sizes[known, k] - np.nanmedian(sizes[known][:, near], axis=1)
    return relative


def _style(
    looks: Sequence[Look], label: str, chosen: Set[str], among: Sequence[str], what: str
) -> Iterator[Finding]:
    """One finding, where the chosen images are neither few nor nearly all."""
    share = len(chosen) / max(1, len(among))
    if len(among) < _LEAST_FOR_STYLE or not _LEAST_PART <= share <= 1 - _LEAST_PART:
        return
    others = [key for key in among if key not in chosen]
    first = next(one for one in looks if one.key in chosen)
    text = (
        f"{label}: expected one style, found it {what} in {len(chosen)} of {len(among)} images "
        f"({_some([key for key in among if key in chosen])}), unlike {_some(others)}"
    )
    drop = {"label": label, "keys": sorted(chosen), "why": f"{label}: {what}"}
    box = first.structures[label].box_xywh
    yield Finding(
        "style",
        first.key,
        text,
        _STYLE_SCORE,
        (label,),
        box,
        tuple(others[:1]),
        edit={"drop_class": drop},
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
