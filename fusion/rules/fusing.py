"""Several sources' predictions in memory, fused by a rule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from converters.types import LabelSpace
from fusion.rules.file import read_rule
from fusion.rules.registry import FUSIONS
from fusion.sources.store import PredictionStore
from fusion.types import Prediction, Rule

_CONFIGS = (".yaml", ".yml")


def fuse(
    sources: Sequence[Iterable[Prediction]] | Mapping[str, Iterable[Prediction]],
    labels: LabelSpace,
    rule: Rule | str | Path = "mean",
) -> list[Prediction]:
    """Fuse sources' predictions of the same images, image by image.

    Args:
        sources: of each its predictions, in the same order of images: lists, or
            `fusion.PredictionStore`s; or name -> predictions.
        labels: the classes.
        rule: a rule; the name of one, with its usual options; or a file of `zoo fit`. A rule that
            names its sources finds stores, and those of a mapping, by their names; lists it takes
            in its order.

    Raises:
        ValueError: no source, an unknown rule, sources that the rule does not name, or of other
            images or classes.
    """
    if not isinstance(sources, Mapping | Sequence) or isinstance(sources, PredictionStore):
        raise ValueError("fuse: expected a list of sources, or their names with them")
    if not sources:
        raise ValueError("fuse: expected at least one source, found none")
    chosen = _rule_of(rule)
    listed = [list(source) for source in _ordered(sources, chosen)]
    keys = [[(p.key, tuple(p.size_hw)) for p in source] for source in listed]
    for number, other in enumerate(keys[1:], start=1):
        if other != keys[0]:
            differ = sorted(set(other) ^ set(keys[0]))
            what = f"such as {differ[0]}" if differ else "in another order"
            raise ValueError(
                f"fuse: expected the images of source 0 in source {number}, found others: {what}"
            )
    for prediction in (p for source in listed for p in source):
        prediction.check_classes(labels)
    return [chosen(predictions, labels) for predictions in zip(*listed, strict=True)]


def _rule_of(rule: Rule | str | Path) -> Rule:
    if isinstance(rule, os.PathLike) or (isinstance(rule, str) and rule.endswith(_CONFIGS)):
        return read_rule(Path(rule))
    if isinstance(rule, str):
        if rule not in FUSIONS:
            known = ", ".join(FUSIONS)
            raise ValueError(
                f"rule '{rule}': expected one of {known}, or a file of zoo fit (.yaml)"
            )
        return FUSIONS[rule]()
    if isinstance(rule, type):
        raise ValueError(f"rule: expected {rule.__name__}(), found the class")
    return rule


def _ordered(
    sources: Sequence[Iterable[Prediction]] | Mapping[str, Iterable[Prediction]], rule: Rule
) -> Sequence[Iterable[Prediction]]:
    """The sources in the order of a rule that names them."""
    if isinstance(sources, Mapping):
        named = dict(sources)
    elif all(isinstance(source, PredictionStore) for source in sources):
        stores = cast("Sequence[PredictionStore]", sources)
        named = {store.name: store for store in stores}
    else:
        return sources
    if not rule.sources or len(named) < len(sources):
        return list(sources.values()) if isinstance(sources, Mapping) else sources
    if set(named) != set(rule.sources):
        expected, found = ", ".join(rule.sources), ", ".join(named)
        raise ValueError(
            f"fuse: the rule expects the sources {expected}; given are {found}: name them by a "
            "mapping, name -> predictions"
        )
    return [named[name] for name in rule.sources]
