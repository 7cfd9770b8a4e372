"""Several sources' predictions in memory, fused by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from converters.types import LabelSpace
from fusion.rules.registry import FUSIONS
from fusion.types import Prediction, Rule


def fuse(
    sources: Sequence[Iterable[Prediction]], labels: LabelSpace, rule: Rule | str = "mean"
) -> list[Prediction]:
    """Fuse sources' predictions of the same images, image by image.

    Args:
        sources: of each its predictions, in the same order of images: lists, or
            `fusion.PredictionStore`s.
        labels: the classes.
        rule: a rule, or the name of one with its usual options. A rule that names its sources
            takes them in this order.

    Raises:
        ValueError: no source, an unknown rule, or sources of other images.
    """
    if not sources:
        raise ValueError("fuse: expected at least one source, found none")
    if isinstance(rule, str):
        if rule not in FUSIONS:
            raise ValueError(f"rule '{rule}': expected one of {', '.join(FUSIONS)}")
        rule = FUSIONS[rule]()
    listed = [list(source) for source in sources]
    keys = [[(p.key, tuple(p.size_hw)) for p in source] for source in listed]
    for number, other in enumerate(keys[1:], start=1):
        if other != keys[0]:
            differ = sorted(set(other) ^ set(keys[0]))
            what = f"such as {differ[0]}" if differ else "in another order"
            raise ValueError(
                f"fuse: expected the images of source 0 in source {number}, found others: {what}"
            )
    return [rule(predictions, labels) for predictions in zip(*listed, strict=True)]
