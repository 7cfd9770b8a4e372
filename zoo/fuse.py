"""From prediction stores to the submission."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from converters.types import LabelSpace
from fusion import Hybrid, Rule, submission
from fusion.store import PredictionStore, check_match, read_together
from fusion.types import Prediction
from zoo.evaluate import store_labels
from zoo.progress import Report, track


def open_stores(paths: Sequence[Path]) -> list[PredictionStore]:
    """Open prediction stores that speak of the same images.

    Raises:
        ValueError: none given, two of the same name, or they differ; says where.
    """
    if not paths:
        raise ValueError("expected at least one prediction store, found none")
    stores = [PredictionStore(path) for path in paths]
    names = [store.name for store in stores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"stores are known by their folder's name; these come twice: {twice}")
    check_match(stores)
    return stores


def order_sources(stores: Sequence[PredictionStore], rule: Rule) -> list[PredictionStore]:
    """Return the stores in the order in which the rule names its sources.

    Raises:
        ValueError: the rule names a source that is not given, or not all given are named.
    """
    if not isinstance(rule, Hybrid) or not rule.sources:
        return list(stores)
    given = {store.name: store for store in stores}
    if set(given) != set(rule.sources):
        expected, found = ", ".join(rule.sources), ", ".join(given)
        raise ValueError(f"the fusion config expects the sources {expected}; given are {found}")
    return [given[name] for name in rule.sources]


def fused(
    stores: Sequence[PredictionStore], rule: Rule, labels: LabelSpace
) -> Iterator[Prediction]:
    """Yield each image's fused prediction; one image in memory at a time."""
    for predictions in read_together(order_sources(stores, rule)):
        yield rule(predictions, labels)


def write_submission(
    paths: Sequence[Path], rule: Rule, out: Path, report: Report
) -> tuple[int, int]:
    """Fuse stores into a submission; return the numbers of images and rows."""
    stores = open_stores(paths)
    labels = store_labels(stores[0])
    images = stores[0].manifest.images
    predictions = track(fused(stores, rule, labels), len(images), report)
    rows = (
        row
        for prediction in predictions
        for row in submission.encode(prediction, images[prediction.key][2], labels)
    )
    return len(images), submission.write(out, rows)
