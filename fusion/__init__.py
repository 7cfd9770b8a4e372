"""Predictions: their types, their store, and the rules that fuse them. No torch."""

from __future__ import annotations

from typing import Any

from fusion.classwise import Classwise
from fusion.hybrid import Hybrid
from fusion.pooling import Max, Mean, Weighted
from fusion.staple import Staple
from fusion.types import Prediction, Rule, SoftMask
from fusion.voting import Vote

FUSIONS: dict[str, Any] = {
    "mean": Mean,
    "weighted": Weighted,
    "vote": Vote,
    "max": Max,
    "classwise": Classwise,
    "staple": Staple,
    "hybrid": Hybrid,
}

__all__ = [
    "FUSIONS",
    "Classwise",
    "Hybrid",
    "Max",
    "Mean",
    "Prediction",
    "Rule",
    "SoftMask",
    "Staple",
    "Vote",
    "Weighted",
]
