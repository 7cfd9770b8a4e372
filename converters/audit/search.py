"""The audit: one look at every image, then what only all of them together tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from converters.audit.arrangement import LEAST_IMAGES, Arrangement
from converters.audit.brightness import find_metal
from converters.audit.counts import (
    expected_labels,
    find_alike,
    find_double,
    find_missing,
    find_same_objects,
)
from converters.audit.duplicates import find_duplicates
from converters.audit.findings import KINDS, Finding
from converters.audit.forms import find_styles
from converters.audit.look import Look, look
from converters.audit.pose import align
from converters.audit.shapes import (
    find_inside,
    find_odd,
    find_odd_objects,
    find_tiny,
    usual_areas,
)
from converters.audit.swaps import find_swaps
from converters.errors import Problem
from converters.parallel import map_ordered
from converters.types import LabelSpace, Sample

# An image is compared with others by its structures if it has so many of them.
_LEAST_STRUCTURES = 3
_LEAST_SHARE = 0.5
# What explains that a structure looks odd, from the most to the least telling.
_EXPLAINS = ("swapped", "double", "crossing", "outside", "tiny", "inside")

# Kinds that are looked for where each class occurs once in an image, and nowhere else.
_OF_SINGLE_STRUCTURES = frozenset({"swapped", "style"})


def kinds_left_out(labels: LabelSpace) -> frozenset[str]:
    """Return the kinds of findings that nobody looks for with these classes."""
    return frozenset() if labels.once else _OF_SINGLE_STRUCTURES


def audit(
    samples: Sequence[Sample],
    problems: Sequence[Problem],
    labels: LabelSpace,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Find what looks wrong in a data set.

    Exchanged labels, surplus and odd structures are looked for where every class occurs once in an
    image (`LabelSpace.once`), and by comparison with the other images where there are 12 or more.
    Elsewhere objects are looked for that are annotated twice, or far from their class's usual size,
    and images without any object.

    Args:
        samples: what could be read, of all subsets: copies are looked for across them.
        problems: what could not be read (`converters.scan`).
        labels: the classes.
        jobs: processes; the result does not depend on their number.
        progress: called with (done, total).

    Returns:
        Findings by kind in the order of KINDS, the surest of each kind first.
    """
    looks: list[Look] = []
    for one in map_ordered(look, samples, jobs):
        looks.append(one)
        if progress:
            progress(len(looks), len(samples))
    broken = {problem.key for problem in problems}
    findings = [_unreadable(problem) for problem in problems]
    findings += [finding for one in looks for finding in one.findings]
    findings += find_inside(looks)
    findings += find_duplicates(looks)
    findings += find_alike(samples)
    if labels.once:
        # Thousands of products of small matrices: threads of BLAS cost more than they bring.
        with threadpool_limits(1, user_api="blas"):
            findings += _compare(looks, labels, broken)
    else:
        findings += find_missing(looks, (), broken)
        findings += [finding for one in looks for finding in find_same_objects(one)]
        findings += find_odd_objects(looks)
    return rank(_explained(findings))


def rank(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by kind in the order of KINDS, the surest of each kind first."""
    order = list(KINDS)
    return sorted(findings, key=lambda f: (order.index(f.kind), -f.score, f.key, f.labels))


def _unreadable(problem: Problem) -> Finding:
    exclude = {"key": problem.key, "why": problem.what}
    edit = {"exclude_images": exclude} if problem.key else None
    return Finding("unreadable", problem.key, str(problem), 1.0, edit=edit)


def _compare(looks: Sequence[Look], labels: LabelSpace, broken: set[str]) -> Iterator[Finding]:
    """What shows only beside the other images."""
    expected = expected_labels(looks, labels.names)
    yield from find_missing(looks, expected, broken)
    least = max(_LEAST_STRUCTURES, _LEAST_SHARE * len(expected))
    images = [one for one in looks if sum(name in one.structures for name in expected) >= least]
    arrangement = Arrangement(align(images, expected)) if len(images) >= LEAST_IMAGES else None
    number = {one.key: n for n, one in enumerate(images)}
    areas = _areas(looks, expected, arrangement)
    for one in looks:
        usual_px = areas.get(one.key, {})
        yield from find_tiny(one, usual_px)
        yield from find_double(one, number.get(one.key), arrangement, usual_px)
    if arrangement is not None:
        boxes = [
            {name: structure.box_xywh for name, structure in one.structures.items()}
            for one in images
        ]
        yield from find_swaps(arrangement, boxes)
        yield from find_styles(looks, arrangement.images)
        yield from find_odd(images, arrangement)
        yield from find_metal(images, expected)


def _areas(
    looks: Sequence[Look], expected: Sequence[str], arrangement: Arrangement | None
) -> dict[str, Mapping[str, float]]:
    """Key -> label -> the area in pixels that the structure should have in that image."""
    if arrangement is None:
        usual = usual_areas(looks, expected)
        return {one.key: usual for one in looks}
    images = arrangement.images
    middle = np.nanmedian(images.areas, axis=0)
    return {
        key: dict(zip(images.labels, (middle / scale**2).tolist(), strict=True))
        for key, scale in zip(images.keys, images.scales.tolist(), strict=True)
    }


def _explained(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what another finding about the same structure of the same image explains."""
    told: dict[tuple[str, str], int] = {}
    for finding in findings:
        if finding.kind in _EXPLAINS:
            for label in finding.labels:
                at = (finding.key, label)
                told[at] = min(told.get(at, len(_EXPLAINS)), _EXPLAINS.index(finding.kind))
    return [f for f in findings if not _is_explained(f, told)]


def _is_explained(finding: Finding, told: Mapping[tuple[str, str], int]) -> bool:
    known = [told.get((finding.key, label), len(_EXPLAINS)) for label in finding.labels]
    if finding.kind not in ("tiny", "inside", "outlier") or not known:
        return False
    own = (*_EXPLAINS, "outlier").index(finding.kind)
    # Inside which structure something lies means nothing where that one is drawn twice.
    return known[0] < own or min(known) <= _EXPLAINS.index("double") < own
