"""How usual numbers are: a normal distribution learned from the data set that is audited.

Among the examples are the faults that are looked for. Therefore columns are scaled by median and
median absolute deviation, far values are pulled in before covariances are taken, and each image is
judged by a distribution that was learned from the other patients only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_FOLDS = 5
_FAR = 3.0
# What the median absolute deviation of a normal distribution is multiplied by to be its deviation.
_MAD = 1.4826


@dataclass(frozen=True)
class Likeness:
    """A normal distribution of rows of numbers.

    Attributes:
        middle: (D,) medians.
        scale: (D,) robust standard deviations.
        covariance: (D, D) of the standardised columns.
    """

    middle: Array
    scale: Array
    covariance: Array
    _precisions: dict[bytes, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def learn(cls, rows: Array, least_scale: float = 1e-6) -> Likeness:
        """Learn from rows (N, D), in which NaN is not known.

        Columns are shrunk toward independence as far as there are too few rows (Ledoit and Wolf,
        A well-conditioned estimator for large-dimensional covariance matrices, 2004).
        """
        from sklearn.covariance import ledoit_wolf  # late: who only judges does not learn

        middle = np.nanmedian(rows, axis=0)
        scale = _MAD * np.nanmedian(np.abs(rows - middle), axis=0)
        scale = np.maximum(scale, least_scale)
        near = np.clip((rows - middle) / scale, -_FAR, _FAR)
        covariance, _ = ledoit_wolf(np.nan_to_num(near), assume_centered=True)
        return cls(middle, scale, np.asarray(covariance))

    def standardise(self, rows: Array) -> Array:
        """Return rows (..., D) in robust standard deviations from the median."""
        return (rows - self.middle) / self.scale

    def distance2(self, rows: Array) -> Array:
        """Return squared Mahalanobis distances (N,) of rows (N, D), NaN left out of account."""
        standard = self.standardise(rows)
        known = np.isfinite(standard)
        out = np.empty(len(rows))
        left = np.ones(len(rows), np.bool_)
        while left.any():
            # Nearly always all rows lack the same columns, or none.
            pattern = known[left.argmax()]
            chosen = left & (known == pattern).all(axis=1)
            some = standard[chosen][:, pattern]
            out[chosen] = ((some @ self._precision(pattern)) * some).sum(axis=1)
            left &= ~chosen
        return out

    def _precision(self, known: npt.NDArray[np.bool_]) -> Array:
        """The inverse covariance of some columns; the same ones are asked for again and again."""
        key = known.tobytes()
        if key not in self._precisions:
            inverse = np.linalg.inv(self.covariance[np.ix_(known, known)])
            self._precisions[key] = np.asarray(inverse, np.float64)
        return self._precisions[key]


def cross_learned(
    rows: Array, groups: Sequence[str]
) -> Iterator[tuple[Likeness, npt.NDArray[np.intp]]]:
    """Yield distributions of all but a fifth of the groups, and the rows' numbers of that fifth.

    Args:
        rows: (N, D).
        groups: (N,) of the rows; without groups every row is its own.
    """
    own = [group or f"\n{n}" for n, group in enumerate(groups)]
    number = {group: i for i, group in enumerate(dict.fromkeys(own))}
    fold = np.array([number[group] % _FOLDS for group in own])
    for f in range(_FOLDS):
        if (held_out := fold == f).any() and not held_out.all():
            yield Likeness.learn(rows[~held_out]), np.flatnonzero(held_out)
