"""Predictions: their types, their store, and the rules that fuse them. No torch.

`fuse`, `score` and `show` are for notebooks and programs; an example stands in `converters`. To and
from dense planes, supervision's `Detections` and FiftyOne's labels: `fusion.interchange`.
"""

from __future__ import annotations

from converters.display import register
from fusion.metrics.annotated import score
from fusion.pictures import show
from fusion.rules.classwise import Classwise
from fusion.rules.fusing import fuse
from fusion.rules.hybrid import Hybrid
from fusion.rules.pooling import Max, Mean, Weighted
from fusion.rules.registry import FUSIONS
from fusion.rules.staple import Staple
from fusion.rules.voting import Vote
from fusion.sources.store import PredictionStore
from fusion.types import Prediction, Rule, SoftMask

__all__ = [
    "FUSIONS",
    "Classwise",
    "Hybrid",
    "Max",
    "Mean",
    "Prediction",
    "PredictionStore",
    "Rule",
    "SoftMask",
    "Staple",
    "Vote",
    "Weighted",
    "fuse",
    "score",
    "show",
]

register("Prediction", lambda prediction: show(prediction)._repr_html_())
