"""How good masks are, measured on crops: no dense planes of all classes are ever made."""

from fusion.metrics.scores import (
    Counts,
    ImageScore,
    Pair,
    Scores,
    count,
    dice,
    intersection,
    iou,
    score_image,
    shared_parts,
)

__all__ = [
    "Counts",
    "ImageScore",
    "Pair",
    "Scores",
    "count",
    "dice",
    "intersection",
    "iou",
    "score_image",
    "shared_parts",
]
