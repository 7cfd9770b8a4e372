"""Where classes lie, given their neighbours, and how unusual images are by that.

Points are complex numbers x + iy in the frame of all images, whose unit is the size of a layout. A
class's nearest neighbours are fitted from their usual places to where they are, by turn, scale and
shift, and say where the class is expected: a joint that bends moves that along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.audit.likeness import Likeness, cross_learned
from converters.audit.pose import fit_all, fit_to
from converters.audit.swaps import cycles
from fusion.arrays import Complex, Floats

Order = npt.NDArray[np.intp]

LEAST_IMAGES = 12
"""Fewer images do not say what is usual."""
_NEIGHBOURS = 6
_FEWEST_NEIGHBOURS = 3
# Of a layout's size: no class of real images keeps its place more exactly.
_LEAST_SCALE = 2e-3
# Classes are made comparable by what a tenth of their distances exceed. Of an image the worst class
# counts: one image in 200 has a worse one, or, of fewer images, none has. And some more, for an
# extreme of few images is not the last one.
_USUAL, _RARE, _SAFETY = 0.9, 0.995, 1.05
# An exchange makes its classes so much more usual (squared standard deviations), and leaves none
# that is beyond its limit, or more than half as unusual as the worst one was. Two that lie upon
# each other are within their limits in each other's place, and yet found so.
_GAIN, _LEFT = 30.0, 0.5
# Of a distance in a plane, the median of Rayleigh's distribution.
_RAYLEIGH = 1 / 1.1774


@dataclass(frozen=True)
class Place:
    """Where a class lies, given its neighbours. Lengths are in the size of a layout.

    Attributes:
        at: x, y in the frame of all images.
        spread: standard deviation of the place in that frame.
        neighbours: the nearest classes.
        middle: offset x, y from the place that the neighbours give, and logarithm of the width.
        scale: standard deviations of these three.
        covariance: of the three in standard deviations, row by row.
        limit: distance in standard deviations, of the offset alone, from which it is displaced.
        misfit: distance of all three, from which it is taken for another class.
        apart: of the true parts of the class, the farthest from the largest one, in its widths.
    """

    at: tuple[float, float]
    spread: float
    neighbours: tuple[str, ...]
    middle: tuple[float, float, float]
    scale: tuple[float, float, float]
    covariance: tuple[float, ...]
    limit: float
    misfit: float
    apart: float = 0.0


@dataclass(frozen=True)
class Neighbourhood:
    """The places of B classes as arrays.

    Attributes:
        names: (B,) of the classes.
        at: (B,) complex, the usual places.
        spread: (B,) their deviations.
        near: (B, M) numbers of the neighbours; a class's own number stands for none.
        likenesses: (B,) of offset x, y and logarithm of the width.
        limits: (B,) as in `Place`.
        misfits: (B,) as in `Place`.
    """

    names: tuple[str, ...]
    at: Complex
    spread: Floats
    near: Order
    likenesses: tuple[Likeness, ...]
    limits: Floats
    misfits: Floats

    @classmethod
    def of(cls, places: Mapping[str, Place]) -> Neighbourhood:
        """Return the arrays of places that are known by their classes."""
        names = tuple(places)
        most = max(len(p.neighbours) for p in places.values())
        # A class stands for neighbours that it lacks: it is left out of its own fit.
        near = np.repeat(np.arange(len(names))[:, None], most, axis=1)
        for k, place in enumerate(places.values()):
            near[k, : len(place.neighbours)] = [names.index(n) for n in place.neighbours]
        likenesses = tuple(
            Likeness(np.array(p.middle), np.array(p.scale), np.reshape(p.covariance, (3, 3)))
            for p in places.values()
        )
        values = list(places.values())
        return cls(
            names,
            np.array([complex(*p.at) for p in values]),
            np.array([p.spread for p in values]),
            near,
            likenesses,
            np.array([p.limit for p in values]),
            np.array([p.misfit for p in values]),
        )

    def to_frame(self, centres: Complex, areas: Floats) -> tuple[Complex, Floats]:
        """Return places and logarithms of widths (B,) in the frame of all images.

        Args:
            centres: (B,) in an image's pixels; NaN without the class.
            areas: (B,) in pixels; NaN without the class.
        """
        fit, is_mirrored = fit_to(centres[None], self.at, self.spread)
        a, b = fit[0]
        seen = centres.conj() if is_mirrored[0] else centres
        return a * seen + b, 0.5 * np.log(areas) + math.log(abs(a))

    def distances(self, points: Complex, sizes: Floats) -> Floats:
        """Return the standard deviations (..., B) from where, and how large, classes are expected.

        Args:
            points: complex (..., B); NaN is unknown.
            sizes: (..., B); all NaN to look at places alone.
        """
        offsets = _offsets(points, self.at, self.near)
        rows = np.stack([offsets.real, offsets.imag, np.broadcast_to(sizes, points.shape)], axis=-1)
        found = np.full(points.shape, np.nan)
        for k, likeness in enumerate(self.likenesses):
            row = rows[..., k, :].reshape(-1, 3)
            known = np.isfinite(row[:, 0])
            values = np.full(len(row), np.nan)
            values[known] = np.sqrt(likeness.distance2(row[known]))
            found[..., k] = values.reshape(points.shape[:-1])
        return found

    def strain(self, points: Complex, sizes: Floats) -> Floats:
        """Return how unusual images (K, B) are as wholes: (K,)."""
        times = np.nan_to_num(self.distances(points, sizes) / self.misfits)
        # The logarithm keeps one class that is far astray from deciding about all others.
        return np.log1p(times**4).sum(axis=-1)

    def best_order(self, points: Complex, sizes: Floats) -> Order:
        """Return the labels by which an image is most usual: (B,), whose mask each label gets.

        Starts from the labels as they are, or from the places in the frame, whichever is more
        usual, and goes on exchanging pairs. Exchanges that gain little are not made.
        """
        as_it_is = np.arange(len(points))
        if np.nan_to_num(self.distances(points, sizes)).max() ** 2 <= _GAIN / 2:
            return as_it_is
        order = self._assign(points)
        best = float(self.strain(points[order], sizes[order]))
        if (plain := float(self.strain(points, sizes))) <= best:
            order, best = as_it_is, plain
        while True:
            tries = _exchanges(order, np.flatnonzero(np.isfinite(points.real)))
            values = self.strain(points[tries], sizes[tries])
            if values.min() >= best - 1e-9:
                return self._kept(points, sizes, order)
            order, best = tries[values.argmin()], float(values.min())

    def _assign(self, points: Complex) -> Order:
        from scipy.optimize import linear_sum_assignment  # late: few images come to that

        present = np.flatnonzero(np.isfinite(points.real))
        far = np.abs(points[present][None] - self.at[present][:, None])
        cost = np.log1p((far / self.spread[present][:, None]) ** 2)
        order = np.arange(len(points))
        order[present] = present[linear_sum_assignment(cost)[1]]
        return order

    def _kept(self, points: Complex, sizes: Floats, order: Order) -> Order:
        """The order without cycles that leave much of what was unusual."""
        kept = order.copy()
        for cycle in cycles(order):
            without = kept.copy()
            without[cycle] = cycle
            was, left = (
                np.nan_to_num(self.distances(points[o], sizes[o]))[cycle] for o in (without, kept)
            )
            is_left = (left > np.minimum(self.misfits[cycle], _LEFT * was.max())).any()
            if is_left or (was**2 - left**2).sum() < _GAIN:
                kept = without
        return kept

    def displaced(self, points: Complex, sizes: Floats) -> list[tuple[int, float]]:
        """Return the numbers of classes out of place, and how far; the farthest first.

        A class astray makes its neighbours look astray: it is left out before they are judged.
        """
        points, nothing = points.copy(), np.full(len(points), np.nan)
        found: list[tuple[int, float]] = []
        while True:
            distances = self.distances(points, nothing)
            times = np.nan_to_num(distances / self.limits)
            worst = int(times.argmax())
            if times[worst] <= 1:
                return found
            found.append((worst, float(distances[worst])))
            points[worst] = np.nan


def learn_places(
    centres: Complex, areas: Floats, people: Sequence[str], names: Sequence[str]
) -> dict[str, Place]:
    """Return the places of classes.

    Args:
        centres: (N, B) in the pixels of each image; NaN without the class.
        areas: (N, B) in pixels; NaN without the class.
        people: (N,) whose images they are.
        names: (B,) of the classes.

    Raises:
        ValueError: a class that hardly any image shows beside its neighbours.
    """
    fit, is_mirrored = fit_all(centres)
    seen = np.where(is_mirrored[:, None], centres.conj(), centres)
    points = fit[:, :1] * seen + fit[:, 1:]
    sizes = 0.5 * np.log(areas) + np.log(np.abs(fit[:, :1]))
    at = np.nanmedian(points.real, axis=0) + 1j * np.nanmedian(points.imag, axis=0)
    spread = np.nanmedian(np.abs(points - at), axis=0) * _RAYLEIGH + _LEAST_SCALE
    far = np.abs(at[:, None] - at[None])
    near = np.argsort(far, axis=1, kind="stable")[:, 1 : 1 + min(_NEIGHBOURS, len(names) - 1)]
    offsets = _offsets(points, at, near)
    rows = np.stack([offsets.real, offsets.imag, sizes], axis=-1)
    for name, count in zip(names, np.isfinite(offsets).sum(axis=0).tolist(), strict=True):
        if count < LEAST_IMAGES:
            expected = f"{name} beside its neighbours in at least {LEAST_IMAGES} images"
            raise ValueError(f"adjacency: expected {expected}, found {count}")
    limits, misfits = _limits(rows, people)
    places = {}
    for k, name in enumerate(names):
        like = Likeness.learn(rows[:, k], _LEAST_SCALE)
        places[name] = Place(
            (short(at[k].real), short(at[k].imag)),
            short(spread[k]),
            tuple(names[n] for n in near[k].tolist()),
            _three(like.middle),
            _three(like.scale),
            tuple(short(v) for v in like.covariance.ravel()),
            short(limits[k]),
            short(misfits[k]),
        )
    return places


def _limits(rows: Floats, people: Sequence[str]) -> tuple[Floats, Floats]:
    """Distances (B,) that hardly any patient's classes exceed, by what the other patients taught.

    Those of the offsets alone, and those of offset and size.
    """
    plain = rows.copy()
    plain[..., 2] = np.nan
    found = []
    for values in (plain, rows):
        far = np.full(rows.shape[:2], np.nan)
        for k in range(rows.shape[1]):
            for like, held_out in cross_learned(rows[:, k], people):
                far[held_out, k] = np.sqrt(like.distance2(values[held_out, k]))
        far[np.isnan(rows[..., 0])] = np.nan
        usual = np.nanquantile(far, _USUAL, axis=0)
        worst = np.nan_to_num(far / usual).max(axis=1)
        found.append(usual * float(np.quantile(worst, _RARE, method="higher")) * _SAFETY)
    return found[0], found[1]


def _offsets(points: Complex, at: Complex, near: Order) -> Complex:
    """How far classes (..., B) are from where their neighbours (B, M) put them; NaN where unknown.

    The neighbours' usual places are fitted to where they are: z -> a z + b by least squares. What
    is left is turned and scaled back by a.
    """
    theirs, known = points[..., near], np.isfinite(points[..., near].real)
    known &= near != np.arange(len(at))[:, None]
    count = known.sum(axis=-1, keepdims=True)
    is_enough = count[..., 0] >= min(_FEWEST_NEIGHBOURS, near.shape[1])
    shown, usual = np.where(known, theirs, 0), np.where(known, at[near], 0)
    n = np.maximum(count, 1)
    shown_middle, usual_middle = (v.sum(axis=-1, keepdims=True) / n for v in (shown, usual))
    shown, usual = (
        np.where(known, v - m, 0) for v, m in ((shown, shown_middle), (usual, usual_middle))
    )
    reach = np.maximum((np.abs(usual) ** 2).sum(axis=-1), 1e-12)
    a = (usual.conj() * shown).sum(axis=-1) / reach
    expected = a * (at - usual_middle[..., 0]) + shown_middle[..., 0]
    # Neighbours that have fallen into one place give no direction.
    usable = is_enough & (np.abs(a) > 1e-3)
    return np.where(usable, (points - expected) / np.where(usable, a, 1), np.nan)


def _exchanges(order: Order, present: Order) -> Order:
    a, b = (present[i] for i in np.triu_indices(len(present), 1))
    tries = np.repeat(order[None], len(a), axis=0)
    k = np.arange(len(a))
    tries[k, a], tries[k, b] = order[b], order[a]
    return tries


def short(value: float) -> float:
    """Return a number with five digits, for files that people read."""
    return float(f"{value:.5g}")


def _three(values: Floats) -> tuple[float, float, float]:
    x, y, size = map(short, values.tolist())
    return x, y, size
