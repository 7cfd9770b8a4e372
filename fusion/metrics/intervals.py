"""How far means can be trusted: confidence intervals by a bootstrap over people.

Images of one person resemble each other, so that whole people are drawn anew, not images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion.arrays import Floats

CONFIDENCE = 0.95
RESAMPLES = 2000
_RESAMPLES_AT_A_TIME = 100


@dataclass(frozen=True)
class Estimate:
    """A mean and how far it can be trusted.

    Attributes:
        mean: of what was observed.
        interval: lower and upper end of its 95 % confidence interval over people; None where
            there are fewer than two.
    """

    mean: float
    interval: tuple[float, float] | None

    @property
    def is_gain(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def is_sure(self) -> bool:
        """Whether the interval of a difference leaves out 0, on either side."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"mean": self.mean, "interval": self.interval}

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:+.4f} [one patient]"
        return f"{self.mean:+.4f} [{self.interval[0]:+.4f}, {self.interval[1]:+.4f}]"


def mean_over_people(
    values: Floats, people: Sequence[str], weights: Floats | None = None
) -> Estimate:
    """Return the mean over images, then over columns, with its bootstrap interval.

    Args:
        values: float (n,) or (n, columns), one row an image; NaN where nothing is defined, such
            as a class that shares no pixel there. Differences of two predictions give a paired
            comparison.
        people: whose images they are, one a row.
        weights: float (n,), above 0, how much each image counts; None for all alike.

    Raises:
        ValueError: no value is defined, or there are not as many people as rows.
    """
    table = values.reshape(len(values), -1)
    (found,) = means_over_people(table, people, [range(table.shape[1])], weights)
    if found is None:
        raise ValueError(f"interval: expected values, found none in {len(table)} rows")
    return found


def means_over_people(
    values: Floats,
    people: Sequence[str],
    selections: Sequence[Sequence[int]],
    weights: Floats | None = None,
) -> list[Estimate | None]:
    """Return what `mean_over_people` does for several selections of the columns.

    It is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13). People are drawn with replacement, each with all images; the draws are the same
    for all selections. A column that no drawn image has a value in does not count in that draw.

    Args:
        values: float (n, columns), one row an image; NaN where nothing is defined.
        people: whose images they are, one a row.
        selections: column numbers, at least one a selection.
        weights: float (n,), above 0, how much each image counts; None for all alike.

    Returns:
        One estimate a selection; None where it has no value at all.

    Raises:
        ValueError: there are not as many people as rows.
    """
    _check_people(people, len(values))
    sums, counts = _by_person(values, people, np.ones(len(values)) if weights is None else weights)
    chosen = _chosen(values.shape[1], selections)
    (found,) = _means(sums.sum(axis=0)[None], counts.sum(axis=0)[None], chosen)
    return _bootstrap(
        found, len(sums), lambda times: _means(times @ sums, times @ counts, chosen).T
    )


def ratios_over_people(
    parts: Sequence[tuple[Floats, Floats]],
    people: Sequence[str],
    selections: Sequence[Sequence[int]],
) -> list[Estimate | None]:
    """Return ratios of sums over all images, with intervals by the bootstrap over people.

    It is that of `means_over_people`, with the same draws. What is drawn is summed before it is
    divided, as pixels are for a Dice of all images together.

    Args:
        parts: numerators and denominators, float64 (n, columns) each, one row an image; of a second
            pair the ratio is subtracted from that of the first, draw by draw.
        people: whose images they are, one a row.
        selections: numbers of the columns that are summed, at least one a selection.

    Returns:
        One estimate a selection; None where a denominator is 0.

    Raises:
        ValueError: there are not as many people as rows.
    """
    for numerators, _ in parts:
        _check_people(people, len(numerators))
    columns = parts[0][0].shape[1]
    chosen, sums = _chosen(columns, selections), []
    for pair in parts:
        names, person = np.unique(np.asarray(people), return_inverse=True)
        both = np.zeros((2, len(names), columns))
        for total, values in zip(both, pair, strict=True):
            np.add.at(total, person, values)
        sums.append(both @ chosen)

    def ratios(times: Floats) -> Floats:
        first, *others = (_ratios(*(times @ each)) for each in sums)
        return np.asarray(first - others[0] if others else first)

    (found,) = ratios(np.ones((1, len(sums[0][0]))))
    return _bootstrap(found, len(sums[0][0]), lambda times: ratios(times).T)


def _ratios(parts: Floats, wholes: Floats) -> Floats:
    return np.where(wholes > 0, parts / np.where(wholes > 0, wholes, 1), np.nan)


def _check_people(people: Sequence[str], images: int) -> None:
    if len(people) != images:
        raise ValueError(
            f"interval: expected a person for each image, found {len(people)} people "
            f"for {images} images"
        )


def _chosen(columns: int, selections: Sequence[Sequence[int]]) -> Floats:
    """Which columns (rows) are in which selection: float64, 0 or 1."""
    chosen = np.zeros((columns, len(selections)))
    for i, selected in enumerate(selections):
        chosen[list(selected), i] = 1
    return chosen


def _bootstrap(
    found: Floats, people: int, draw: Callable[[Floats], Floats]
) -> list[Estimate | None]:
    """Return what was found with intervals.

    Args:
        found: float64 (selections,).
        people: their number.
        draw: how often each draw has each person (draws, people) -> (selections, draws).
    """
    if people < 2:
        return [None if np.isnan(mean) else Estimate(float(mean), None) for mean in found]
    # Late: who measures images, perhaps in many processes, is not to wait for it.
    from scipy.stats import DegenerateDataWarning, bootstrap

    def statistic(drawn: npt.NDArray[np.int64], axis: int = -1) -> Floats:
        return draw(_times_drawn(drawn.reshape(-1, drawn.shape[axis]), people))

    with warnings.catch_warnings():
        # Of draws without any value: the interval below leaves them out.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        resampled = bootstrap(
            (np.arange(people),),
            statistic,
            vectorized=True,
            batch=_RESAMPLES_AT_A_TIME,
            method="percentile",
            n_resamples=RESAMPLES,
            random_state=np.random.default_rng(0),
        )
    return [
        None if np.isnan(mean) else Estimate(float(mean), _span(draws))
        for mean, draws in zip(found, resampled.bootstrap_distribution, strict=True)
    ]


def _span(draws: Floats) -> tuple[float, float]:
    # SciPy's own interval becomes NaN by a single draw in which nothing is defined.
    known = draws[np.isfinite(draws)]
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _by_person(values: Floats, people: Sequence[str], weights: Floats) -> tuple[Floats, Floats]:
    """Sums and weights of the defined values of each person (rows) and column."""
    names, person = np.unique(np.asarray(people), return_inverse=True)
    known = np.isfinite(values)
    sums, counts = np.zeros((2, len(names), values.shape[1]))
    np.add.at(sums, person, weights[:, None] * np.where(known, values, 0))
    np.add.at(counts, person, weights[:, None] * known)
    return sums, counts


def _times_drawn(drawn: npt.NDArray[np.int64], people: int) -> Floats:
    """How often each draw (rows) has each person (columns)."""
    rows = np.arange(len(drawn))[:, None] * people
    return (
        np.bincount((drawn + rows).ravel(), minlength=len(drawn) * people)
        .reshape(len(drawn), people)
        .astype(np.float64)
    )


def _means(sums: Floats, counts: Floats, chosen: Floats) -> Floats:
    """Mean of each selection's columns that have values (draws, selections); else NaN."""
    known = counts > 0
    means = np.where(known, sums / np.where(known, counts, 1), 0)
    columns = known @ chosen
    return np.where(columns > 0, means @ chosen / np.maximum(columns, 1), np.nan)
