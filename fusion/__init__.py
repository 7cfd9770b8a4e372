"""Predictions: their types, their store, and the rules that fuse them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converters.types import LabelSpace
from fusion.hybrid import Hybrid
from fusion.types import Prediction, SoftMask
from fusion.voting import Mean, Vote

Rule = Callable[[Sequence[Prediction], LabelSpace], Prediction]
FUSIONS: dict[str, Any] = {"mean": Mean, "vote": Vote, "hybrid": Hybrid}

__all__ = ["FUSIONS", "Hybrid", "Mean", "Prediction", "Rule", "SoftMask", "Vote"]
