"""How reliable a source is: what its probabilities mean, and what its detections are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from fusion.arrays import Floats
from fusion.rules.evidence import LOGIT_LIMIT, NEUTRAL

KNOTS = 7


@dataclass(frozen=True)
class Curve:
    """A function that never falls, linear between knots and constant beyond them.

    Attributes:
        at: increasing places of the knots, in 0..1.
        values: in 0..1, never falling.

    Raises:
        ValueError: another number of values than places, or values that fall or leave 0..1.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.at) != len(self.values) or not self.at:
            raise ValueError("curve: expected as many values as places, at least one")
        if list(self.at) != sorted(self.at) or list(self.values) != sorted(self.values):
            raise ValueError("curve: expected places and values that never fall")
        if not all(0 <= v <= 1 for v in (*self.at, *self.values)):
            raise ValueError("curve: expected places and values in 0..1")

    def __call__(self, place: float) -> float:
        """Return the value at a place."""
        return float(np.interp(place, self.at, self.values))

    @classmethod
    def fit(cls, places: Floats, values: Floats) -> Curve:
        """Fit by isotonic regression (Zadrozny and Elkan, KDD 2002, section 3.1).

        Args:
            places: float64 (n,), n >= 1.
            values: float64 (n,); what lies outside 0..1 is cut.
        """
        # Here and below: who fuses does not fit, and is not to wait for what fits.
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(places, np.clip(values, 0, 1))
        knots = np.unique(np.round(np.quantile(places, np.linspace(0, 1, KNOTS)), 4))
        found = np.maximum.accumulate(np.round(model.predict(knots), 4))
        return cls(tuple(knots.tolist()), tuple(found.tolist()))


SURE = Curve((1.0,), (1.0,))


@dataclass(frozen=True)
class Gate:
    """What a detection is worth: the part of its weight that it keeps, in 0..1.

    Attributes:
        score: the detection's score -> its expected Dice, as a share of the best one's.
        overlap: Dice of the detection with the mean of the semantic sources -> the share of that
            expectation that is left. A good score in the wrong place is worth nothing.
    """

    score: Curve = SURE
    overlap: Curve = SURE

    def __call__(self, score: float, overlap: float) -> float:
        """Return what a detection with that score and that overlap is worth."""
        return self.score(score) * self.overlap(overlap)

    @classmethod
    def fit(cls, scores: Floats, overlaps: Floats, dice: Floats) -> Gate:
        """Fit one curve after the other: Dice on the score, what is left of it on the overlap.

        Args:
            scores: float64 (n,), of detections.
            overlaps: float64 (n,).
            dice: float64 (n,), of the detections' masks with the truth.
        """
        score = Curve.fit(scores, dice)
        expected = np.maximum([score(s) for s in scores], 1e-3)
        return cls(_up_to_one(score), _up_to_one(Curve.fit(overlaps, dice / expected)))


def _up_to_one(curve: Curve) -> Curve:
    """Scale a curve so that the best is worth all of its weight."""
    top = curve.values[-1]
    return Curve(curve.at, tuple(round(v / top, 4) for v in curve.values)) if top else curve


@dataclass(frozen=True)
class Calibration:
    """What a source's probabilities mean: logit = a ln p - b ln (1 - p) + c.

    This is beta calibration (Kull, Silva Filho and Flach, AISTATS 2017, equation 3): with a = b it
    is Platt's temperature and offset, with a != b it bends the two ends apart. a = b = 1, c = 0
    leaves probabilities as they are.

    Attributes:
        a: slope of the evidence for, at least 0.
        b: slope of the evidence against, at least 0.
        c: offset of the log odds.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite([self.a, self.b, self.c]).all() or min(self.a, self.b) < 0:
            found = f"{self.a}, {self.b}, {self.c}"
            raise ValueError(f"calibration: expected a, b of at least 0 and a finite c: {found}")

    @cache  # noqa: B019 - a handful of small frozen objects, asked for in every image
    def table(self) -> npt.NDArray[np.float32]:
        """Return the log odds of the 256 byte values, float32 (256,), cut at +-LOGIT_LIMIT.

        Of an untouched source the neutral byte is exactly 0, whatever the sign beside it. The
        array is not to be written to.
        """
        table = self.logits(np.arange(256) / 255.0, self == Calibration()).astype(np.float32)
        table.setflags(write=False)
        return table

    def logits(self, prob: Floats, neutral_is_zero: bool = False) -> Floats:
        """Return the log odds of probabilities, of any shape."""
        p = np.clip(prob, 1e-6, 1 - 1e-6)
        found = np.clip(self.a * np.log(p) - self.b * np.log1p(-p) + self.c, *_LIMITS)
        return np.where(np.round(prob * 255) == NEUTRAL, 0.0, found) if neutral_is_zero else found

    @classmethod
    def fit(cls, prob: Floats, inside: Floats, other: Floats, prior: float = 1e-3) -> Calibration:
        """Fit by the likelihood of the pixels, drawn a little toward no change.

        Args:
            prob: float64 (n,), probabilities.
            inside: float64 (n,), weight of the pixels with that probability that are the object's.
            other: float64 (n,), weight of those that are not.
            prior: strength that draws the three numbers toward no change, as a share of the weight.
        """
        from scipy.optimize import minimize
        from scipy.special import expit

        p = np.clip(prob, 1e-3, 1 - 1e-3)
        features = np.stack([np.log(p), -np.log1p(-p), np.ones_like(p)], axis=1)
        start, total = np.array([1.0, 1.0, 0.0]), max(float((inside + other).sum()), 1e-9)

        def loss(values: Floats) -> tuple[float, Floats]:
            z = features @ values
            away = values - start
            nll = inside @ np.logaddexp(0, -z) + other @ np.logaddexp(0, z)
            slope = (inside + other) * expit(z) - inside
            value = float(nll) / total + prior * float(away @ away)
            return value, features.T @ slope / total + 2 * prior * away

        bounds = [(0.0, 5.0), (0.0, 5.0), (-LOGIT_LIMIT, LOGIT_LIMIT)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return cls(*(round(float(v), 4) for v in found))


_LIMITS = (-LOGIT_LIMIT, LOGIT_LIMIT)


@dataclass(frozen=True)
class SourceReliability:
    """What the sources' probabilities and detections are worth.

    Attributes:
        gates: one a source; None for what is no detector.
        calibrations: group of classes ("" for classes without one) -> one a source; a group that is
            absent is taken as it is.
    """

    gates: tuple[Gate | None, ...]
    calibrations: Mapping[str, tuple[Calibration, ...]] = field(default_factory=dict)

    def worth(self, scores: Floats, overlaps: Floats, silent: npt.NDArray[np.bool_]) -> Floats:
        """Return what each source is worth, float64 (K,): 1 without a gate, 0 where it is silent.

        Where that leaves nothing, those that are not silent count the same.
        """
        values = [
            g(s, o) if g else 1.0 for g, s, o in zip(self.gates, scores, overlaps, strict=True)
        ]
        found = np.where(silent, 0.0, values)
        return found if found.any() else (~silent).astype(np.float64)

    def of_group(self, group: str | None) -> tuple[Calibration, ...]:
        """Return the sources' calibrations for the classes of a group."""
        return self.calibrations.get(group or "", (Calibration(),) * len(self.gates))
