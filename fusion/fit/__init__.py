"""The rules that can be fitted, by name."""

from __future__ import annotations

from collections.abc import Callable

from fusion.fit.base import Fitting
from fusion.fit.hybrid import HybridFit
from fusion.fit.plain import ClasswiseFit, MeanFit, VoteFit, WeightedFit

FITS: dict[str, Callable[[], Fitting]] = {
    "mean": MeanFit,
    "weighted": WeightedFit,
    "vote": VoteFit,
    "classwise": ClasswiseFit,
    "hybrid": HybridFit,
}
