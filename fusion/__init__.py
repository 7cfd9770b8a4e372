"""Predictions: their types, their store, and the rules that fuse them. No torch.

`fuse`, `score` and `show` are for notebooks and programs; an example stands in `converters`. Single
objects: `split_prediction` divides what was fused, `objects_of` lists a prediction's objects, and
`predict_objects` makes a prediction of some. To and from dense planes, supervision's `Detections`
and FiftyOne's labels: `fusion.interchange`. `read_rule` opens a file of `zoo fit`.
"""

from __future__ import annotations

from converters.display import register
from fusion.interchange.objects import MaskObject, objects_of, predict_objects
from fusion.metrics.annotated import score
from fusion.objects import split_prediction
from fusion.pictures import show
from fusion.rules.classwise import Classwise
from fusion.rules.file import read_rule
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
    "MaskObject",
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
    "objects_of",
    "predict_objects",
    "read_rule",
    "score",
    "show",
    "split_prediction",
]

register("Prediction", lambda prediction: show(prediction)._repr_html_())
