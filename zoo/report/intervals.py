"""Differences with their confidence intervals, as text and as marks on an axis around 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fusion.metrics.intervals import Estimate
from zoo.report.numbers import signed

MARK_WH = (132, 14)
_ROOM = 5
# Between these, in Dice, is what the axis of a table's marks can reach to.
LEAST_REACH, MOST_REACH = 0.005, 0.2


@dataclass(frozen=True)
class Mark:
    """A difference as a table draws it.

    Attributes:
        mean: where its dot is, from the left edge.
        low: where its interval begins; at the axis' end where it reaches farther.
        high: where its interval ends.
        sure: whether the interval leaves out 0.
        is_loss: whether the difference is below 0.
        said: the numbers.
    """

    mean: float
    low: float
    high: float
    sure: bool
    is_loss: bool
    said: str


def say(estimate: Estimate) -> str:
    """Return a difference and its interval as text.

    >>> say(Estimate(0.0123, (0.01, 0.02)))
    '+0.0123 [+0.0100, +0.0200]'
    """
    if estimate.interval is None:
        return f"{signed(estimate.mean)} [one patient]"
    low, high = map(signed, estimate.interval)
    return f"{signed(estimate.mean)} [{low}, {high}]"


def reach_of(estimates: Iterable[Estimate | None]) -> float:
    """Return how far an axis has to reach to both sides for all means and nearly all intervals."""
    known = [e for e in estimates if e is not None]
    means = [abs(e.mean) for e in known]
    ends = sorted(abs(v) for e in known if e.interval for v in e.interval)
    # A few wide intervals do not squeeze all the others.
    usual = ends[int(0.9 * (len(ends) - 1))] if ends else 0.0
    return min(MOST_REACH, max(LEAST_REACH, usual, *means, 0.0))


def mark(estimate: Estimate | None, reach: float) -> Mark | None:
    """Place a difference on an axis from -reach to reach; None where there is none."""
    if estimate is None:
        return None
    low, high = estimate.interval or (estimate.mean, estimate.mean)
    return Mark(
        _place(estimate.mean, reach),
        _place(low, reach),
        _place(high, reach),
        estimate.is_sure,
        estimate.mean < 0,
        say(estimate),
    )


def _place(value: float, reach: float) -> float:
    half = MARK_WH[0] / 2
    inside = max(-1.0, min(1.0, value / reach))
    return round(half + inside * (half - _ROOM), 1)
