"""Boxes that a first stage's predictions give to the crops of a second one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.crops import chosen_classes
from converters.masks import Box, enclose, tight_box
from converters.types import LabelSpace
from fusion.store import PredictionStore


def read_boxes(store: Path, around: Sequence[str], labels: LabelSpace) -> dict[str, Box]:
    """Read where a prediction store sees some bones: key -> x, y, width, height, in pixels.

    These are the `boxes` of `converters.crops.crop` and `suggest_margin`. An image in which the
    store sees none of the bones has no box.

    Args:
        store: folder of a prediction store.
        around: classes, or groups of them.
        labels: the classes; must be the store's.

    Raises:
        ValueError: not a store, one of other classes, or an unknown class.
    """
    names = chosen_classes(around, labels)
    predictions = PredictionStore(store)
    if predictions.manifest.names != labels.names:
        found = predictions.manifest.labels
        raise ValueError(f"{store}: expected classes of '{labels.name}', found those of '{found}'")
    boxes = ((p.key, enclose(tight_box(p.binary(name)) for name in names)) for p in predictions)
    return {key: box for key, box in boxes if box[2]}
