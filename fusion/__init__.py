"""Predictions: their types, their store, and the rules that fuse them. No torch."""

from __future__ import annotations

from fusion.rules.classwise import Classwise
from fusion.rules.hybrid import Hybrid
from fusion.rules.pooling import Max, Mean, Weighted
from fusion.rules.registry import FUSIONS
from fusion.rules.staple import Staple
from fusion.rules.voting import Vote
from fusion.types import Prediction, Rule, SoftMask

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
