"""The rules that can be fitted, by name."""

from __future__ import annotations

from collections.abc import Callable

from fusion.fit import HybridFit
from fusion.fit_plain import ClasswiseFit, MeanFit, VoteFit, WeightedFit
from fusion.fitting import Fitting

FITS: dict[str, Callable[[], Fitting]] = {
    "mean": MeanFit,
    "weighted": WeightedFit,
    "vote": VoteFit,
    "classwise": ClasswiseFit,
    "hybrid": HybridFit,
}
