"""Structures that are far too small, inside another one, or of an unusual form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from converters.audit.arrangement import Arrangement
from converters.audit.findings import Finding
from converters.audit.forms import form_distance2
from converters.audit.likeness import Array
from converters.audit.look import Look
from converters.audit.pose import AlignedImages
from converters.audit.structures import Structure

# An area of less than this share of the usual one is no small structure but a mistake.
_TINY = 0.2
_SURELY_TINY = 0.05
# A structure lies wholly inside another one where so much of it does, and where the two of most
# other images do not nearly do so: one may usually lie in front of the other.
_WHOLLY = 0.98
# Of most, not of half of them: what may lie anywhere, as opacities do, is in one lung or in both.
_OFTEN, _MOST, _FEWEST = 0.5, 0.9, 3
# Form: robust deviations of the distance's logarithm. The oddest of 3480 sound structures of
# phantoms reach 5.9, tips that are cut off 6.6 to 11.
_ODD_FORM = 6.2
# Fewer images than these make sound structures look odd: in form, and in place beside the others.
_LEAST_FOR_FORM, _LEAST_FOR_PLACE = 16, 60
# Place, size and direction given the other structures (`Arrangement.misfit`): sound ones reach 4.
# Half as odd in form and nearly so in place is odd as well.
_ODD_PLACE = 6.0
# Size and elongation by themselves, robust deviations: sound structures reach 7.
_LEAST_FOR_SIZE = 40
_ODD_SIZE = 8.0
_SURE = 2.0
# Of so many objects it is known how large they are. One is odd if it is so many times larger or
# smaller than the median, and so many times more than nearly all others are; than all but one or
# two, where there are few, and by more.
_FEW_OBJECTS, _ENOUGH_OBJECTS = 10, 30
_FAR_FROM_USUAL, _BEYOND, _BEYOND_FEW, _NEARLY_ALL = 30.0, 3.0, 10.0, 0.95
_MAD = 1.4826


def usual_areas(looks: Sequence[Look], labels: Sequence[str]) -> dict[str, float]:
    """Return the median area in pixels that structures have, where images cannot be compared."""
    usual_px = {}
    for label in labels:
        areas = [one.structures[label].area_px for one in looks if label in one.structures]
        usual_px[label] = float(np.median(areas)) if areas else 0.0
    return usual_px


def find_tiny(one: Look, usual_px: Mapping[str, float]) -> Iterator[Finding]:
    """Yield structures that are far smaller than usual.

    Args:
        one: the image.
        usual_px: label -> area in this image's pixels that the structure usually has.
    """
    for label, structure in one.structures.items():
        share = structure.area_px / usual if (usual := usual_px.get(label, 0)) else 1.0
        if share >= _TINY:
            continue
        what = f"{label}: expected about {usual:.0f} px, found {structure.area_px}"
        score = min(1.0, 0.6 + 0.4 * (_TINY - share) / (_TINY - _SURELY_TINY))
        yield Finding("tiny", one.key, what, score, (label,), structure.box_xywh)


def find_odd_objects(looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield objects of another size than their class's, where an image may have several of it.

    Sizes are shares of the image's area, beside the median of all objects of the class.
    """
    sizes: dict[str, list[tuple[float, Look, Structure]]] = {}
    for one in looks:
        for label, structure in one.structures.items():
            parts = one.parts.get(label, (structure,))
            whole = one.size_hw[0] * one.size_hw[1]
            found = [(part.area_px / whole, one, part) for part in parts if part is not None]
            sizes.setdefault(label, []).extend(found)
    for label, objects in sizes.items():
        if len(objects) < _FEW_OBJECTS:
            continue
        shares = np.array([share for share, _, _ in objects])
        usual = float(np.median(shares))
        ratios = np.maximum(shares / usual, usual / shares)
        # Between two of them there is none: of a dozen the odd one would be among nearly all.
        most = float(np.quantile(ratios, _NEARLY_ALL, method="lower"))
        beyond = _BEYOND if len(objects) >= _ENOUGH_OBJECTS else _BEYOND_FEW
        limit = max(_FAR_FROM_USUAL, beyond * most)
        for (share, one, part), ratio in zip(objects, ratios.tolist(), strict=True):
            if ratio < limit:
                continue
            expected_px = usual * one.size_hw[0] * one.size_hw[1]
            what = f"{label}: expected objects of about {expected_px:.0f} px, found {part.area_px}"
            kind = "tiny" if share < usual else "outlier"
            score = 1 - limit / (2 * ratio)
            yield Finding(kind, one.key, what, score, (label,), part.box_xywh)


def find_inside(looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield structures that lie wholly inside a structure that they do not usually lie in."""
    pairs = {pair for one in looks for pair, share in one.inside.items() if share >= _WHOLLY}
    for inner, outer in sorted(pairs):
        both = [one for one in looks if inner in one.structures and outer in one.structures]
        shares = np.array([one.inside.get((inner, outer), 0.0) for one in both])
        for n in np.flatnonzero(shares >= _WHOLLY).tolist():
            others = np.delete(shares, n)
            # A few images do not tell what is usual.
            usual = float(np.quantile(others, _MOST)) if len(others) >= _FEWEST else 1.0
            if usual >= _OFTEN:
                continue
            structure = both[n].structures[inner]
            what = f"{inner}: expected beside {outer}, found {100 * shares[n]:.0f} % of it inside"
            labels = (inner, outer)
            yield Finding("inside", both[n].key, what, 1.0 - usual, labels, structure.box_xywh)


def find_odd(looks: Sequence[Look], arrangement: Arrangement) -> Iterator[Finding]:
    """Yield structures whose form or size is unlike that of other images, or whose place is.

    Nothing is found among fewer than 16 images, and places are not judged among fewer than 60.

    Args:
        looks: the images of the arrangement, in its order.
        arrangement: of the images.
    """
    if len(looks) < _LEAST_FOR_FORM:
        return
    labels = arrangement.images.labels
    form = _deviations(form_distance2(arrangement.images))
    place = np.stack([_misfits(arrangement, n) for n in range(len(looks))])
    # One structure in a wrong place makes its neighbours unusual too: the worst one only.
    worst = place == np.nanmax(place, axis=1, keepdims=True)
    worst &= len(looks) >= _LEAST_FOR_PLACE
    times = np.hypot(
        np.maximum(form, 0) / _ODD_FORM, np.where(worst, np.maximum(place, 0) / _ODD_PLACE, 0)
    )
    size = _odd_sizes(arrangement.images)
    times = np.fmax(times, size / _ODD_SIZE)
    for n, k in np.argwhere(times >= 1).tolist():
        one, label = looks[n], labels[k]
        in_place = place[n, k] / _ODD_PLACE > form[n, k] / _ODD_FORM
        in_form = size[n, k] >= _ODD_SIZE or form[n, k] >= _ODD_FORM or not in_place
        odd = "form or size" if in_form else "place or direction"
        what = f"{label}: expected the structure as on other images, found an unusual {odd}"
        score = min(1.0, 0.5 + 0.5 * (float(times[n, k]) - 1) / (_SURE - 1))
        yield Finding("outlier", one.key, what, score, (label,), one.structures[label].box_xywh)


def _odd_sizes(images: AlignedImages) -> Array:
    """Robust deviations of size or elongation, whichever is odder: (N, B), 0 where unknown."""
    if len(images.keys) < _LEAST_FOR_SIZE:
        return np.zeros(images.areas.shape)
    deviations = []
    for values in (np.log(images.areas), np.arctanh(np.minimum(np.abs(images.stretch), 1 - 1e-6))):
        far = np.abs(values - np.nanmedian(values, axis=0))
        deviations.append(far / np.maximum(_MAD * np.nanmedian(far, axis=0), 1e-3))
    # The image's border decides how much of a structure there is.
    return np.where(images.is_cut, 0.0, np.nan_to_num(np.maximum(*deviations)))


def _deviations(distance2: Array) -> Array:
    """Robust deviations of the logarithms, column by column."""
    logs = np.log(np.maximum(distance2, 1e-9))
    middle = np.nanmedian(logs, axis=0)
    return (logs - middle) / np.maximum(_MAD * np.nanmedian(np.abs(logs - middle), axis=0), 1e-3)


def _misfits(arrangement: Arrangement, n: int) -> Array:
    row = arrangement.rows[n]
    whole = arrangement.distance2(n, row[None])[0]
    rests = np.repeat(row[None], len(row), axis=0)
    rests[np.arange(len(row)), np.arange(len(row))] = np.nan
    usual = np.array([arrangement.usual2([k]) for k in range(len(row))])
    misfits = (whole - arrangement.distance2(n, rests)) / np.maximum(usual, 1e-9)
    return np.where(np.isfinite(row[:, 0]), misfits, np.nan)
