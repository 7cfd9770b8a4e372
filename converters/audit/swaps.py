"""Labels that look exchanged: the image would be far more usual with other ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.audit.arrangement import SIZE, Arrangement, Order
from converters.audit.findings import Finding
from converters.masks import Box, enclose

# An exchange must make an image so much more usual (squared Mahalanobis distance).
_LEAST_GAIN = 30.0
# With it the structures are at most so many times as unusual as in the worst twentieth of the
# images; or somewhat more, if hardly anything is left of what was unusual. On phantoms exchanges
# leave .02 and 5 at most; where other faults make one look better, 3 and .48, or 20 and .03.
_MISFIT = 2.0
_CLEAR_MISFIT, _LEFT = 10.0, 0.05
# Of few people it is hardly known what is usual. There an exchange must leave less than this share
# of what was unusual: in sound phantoms of 6 to 10 people false ones left .7 and more, in images
# beside one with a real exchange nearly always .45; of 106 real ones 101 left less.
_FEW_PEOPLE, _LEFT_OF_FEW = 20, 0.4
# A structure of less than this share of the area that the other label usually has is not it.
_TINY = 0.2
# The gain from which one is as sure as can be: on sound images the best exchange loses 200.
_SURE_GAIN = 100.0
# Of structures that the image's border cuts, place and form depend on where it does: sound ones of
# phantoms have been taken for exchanged. Such findings are for people, never for a draft.
_CUT_SCORE = 0.8


def find_swaps(arrangement: Arrangement, boxes: list[dict[str, Box]]) -> Iterator[Finding]:
    """Yield labels that look exchanged: pairs, or each structure of a longer cycle.

    Args:
        arrangement: of the images.
        boxes: per image label -> the structure's place in it.
    """
    images = arrangement.images
    for n, key in enumerate(images.keys):
        order = best_order(arrangement, n)
        for cycle in cycles(order):
            names = tuple(images.labels[k] for k in cycle)
            if gain := _gain(arrangement, n, order, cycle):
                surest = _CUT_SCORE if images.is_cut[n, cycle].any() else 1.0
                yield from _report(key, names, min(surest, gain / _SURE_GAIN), boxes[n])


def best_order(arrangement: Arrangement, n: int) -> Order:
    """Find the labels by which an image is most usual.

    Starts from the best assignment of structures to labels one by one, or from the labels as they
    are, whichever is more usual, and goes on exchanging pairs.
    """
    row = arrangement.rows[n]
    present = np.flatnonzero(np.isfinite(row[:, 0]))
    as_it_is = np.arange(len(row))
    start = as_it_is.copy()
    start[present] = present[_assign(arrangement, n, present)]
    before, after = arrangement.distance2(n, row[np.stack([as_it_is, start])])
    order, best = (start, after) if after < before else (as_it_is, before)
    while True:
        tries = _exchanges(order, present)
        values = arrangement.distance2(n, row[tries])
        if not len(values) or values.min() >= best - 1e-6:
            return _kept(arrangement, n, order)
        order, best = tries[values.argmin()], values.min()


def _assign(arrangement: Arrangement, n: int, present: Order) -> Order:
    """The structures that fit labels best one by one, by place, size and direction."""
    from scipy.optimize import linear_sum_assignment  # late: who fuses needs no more of this file

    row, middle = arrangement.rows[n, present], arrangement.middles[n, present]
    scale = arrangement.scales(n)[present]
    cost = (((row[None] - middle[:, None]) / scale[:, None]) ** 2).sum(axis=2)
    return np.asarray(linear_sum_assignment(cost)[1])


def _exchanges(order: Order, present: Order) -> Order:
    a, b = (present[i] for i in np.triu_indices(len(present), 1))
    tries = np.repeat(order[None], len(a), axis=0)
    k = np.arange(len(a))
    tries[k, a], tries[k, b] = order[b], order[a]
    return tries


def _kept(arrangement: Arrangement, n: int, order: Order) -> Order:
    """The order without cycles that hardly gain anything."""
    row = arrangement.rows[n]
    kept = order.copy()
    for cycle in cycles(order):
        without = kept.copy()
        without[cycle] = cycle
        with_it, as_it_was = arrangement.distance2(n, row[np.stack([kept, without])])
        if as_it_was - with_it < _LEAST_GAIN:
            kept = without
    return kept


def cycles(order: Order) -> list[list[int]]:
    """Return the cycles of two and more of a permutation.

    >>> cycles(np.array([1, 0, 2, 4, 5, 3]))
    [[0, 1], [3, 4, 5]]
    """
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(order)):
        cycle = []
        at = start
        while at not in seen:
            seen.add(at)
            cycle.append(at)
            at = int(order[at])
        if len(cycle) > 1:
            found.append(cycle)
    return found


def _gain(arrangement: Arrangement, n: int, order: Order, cycle: list[int]) -> float:
    """What the structures gain by each other's labels; 0 where they do not fit them."""
    before = order.copy()
    before[cycle] = cycle
    row = arrangement.rows[n]
    smaller = row[order][cycle, SIZE] - arrangement.middles[n, cycle, SIZE]
    if np.exp(2 * smaller.min()) < _TINY:
        return 0.0
    was, left = arrangement.parted2(n, row[np.stack([before, order])], cycle).tolist()
    if left > _LEFT_OF_FEW * was and arrangement.images.people < _FEW_PEOPLE:
        return 0.0
    misfit = max(
        float(arrangement.parted2(n, row[order][None], structures)[0])
        / arrangement.usual2(structures)
        for structures in (cycle, *([structure] for structure in cycle))
    )
    is_clear = left <= _LEFT * was and misfit <= _CLEAR_MISFIT
    return float(was - left) if is_clear or misfit <= _MISFIT else 0.0


def _report(
    key: str, names: tuple[str, ...], score: float, boxes: dict[str, Box]
) -> Iterator[Finding]:
    if len(names) == 2:
        what = f"{names[0]} and {names[1]}: expected each in the other's place"
        edit = {"swap_labels": {"key": key, "labels": list(names), "why": what}}
        box = enclose(boxes[name] for name in names)
        yield Finding("swapped", key, what, score, names, box, edit=edit)
        return
    # Label `name` fits the polygons that `source` has.
    for name, source in zip(names, (*names[1:], names[0]), strict=True):
        what = f"{source}: expected {name} in this place"
        relabel = {"key": key, "label": source, "to": name, "why": what}
        yield Finding(
            "swapped", key, what, score, (source, name), boxes[source], edit={"relabel": relabel}
        )
