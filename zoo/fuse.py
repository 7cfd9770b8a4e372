"""From prediction stores to a fitted rule, and to the submission."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from converters.files import atomic_write_text
from converters.masks import CropMask
from converters.types import LabelSpace
from fusion import FUSIONS, Hybrid, Rule, submission
from fusion.fit import Fit, HybridFit
from fusion.store import PredictionStore, check_match, read_together
from fusion.types import Prediction
from zoo.evaluate import check_sizes, store_labels, truth_masks
from zoo.progress import Report, track
from zoo.source import DataSource


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


def fit(paths: Sequence[Path], data: DataSource, out: Path, report: Report) -> Fit:
    """Fit the hybrid rule on held-out predictions and write it as YAML.

    Raises:
        ValueError: the stores differ, hold images the models learnt from, or have no truth.
    """
    stores = open_stores(paths)
    for store in stores:
        if store.manifest.subset != "val":
            raise ValueError(
                f"{store.path}: expected predictions of held-out images (--subset val), found "
                f"'{store.manifest.subset}': weights fitted on what a model has learnt from, or is "
                "to be tested on, do not hold"
            )
    if len({store.manifest.split for store in stores}) > 1:
        raise ValueError("expected stores of one split, found several; predict with the same folds")
    labels = store_labels(stores[0])
    samples, left_out = data.annotated(labels), data.left_out(labels)
    for store in stores:
        check_sizes(store, samples)
    total = len(stores[0].manifest.images)

    def images() -> Iterator[tuple[tuple[Prediction, ...], dict[str, CropMask], str]]:
        for predictions in track(read_together(stores), total, report):
            key = predictions[0].key
            if key in left_out:
                continue
            if key not in samples:
                raise ValueError(f"{data.path}: expected truth of '{key}', found none")
            yield predictions, truth_masks(samples[key]), samples[key].group

    names = [store.name for store in stores]
    fitted = HybridFit()(images(), names, labels, lambda note: report(total, total, note))
    atomic_write_text(out, fitted.rule.dump(fitted.notes()))
    return fitted


def load_rule(method: str | None, config: Path | None) -> Rule:
    """Return the rule that a method's name or a fusion config means.

    Raises:
        ValueError: an unknown method, both or neither given, or a bad config.
    """
    if (method is None) == (config is None):
        raise ValueError("expected either --method or --config")
    if config is not None:
        return read_rule(config)
    if method not in FUSIONS:
        raise ValueError(f"method '{method}': expected one of {', '.join(FUSIONS)}")
    rule: Rule = FUSIONS[method]()
    return rule


def read_rule(path: Path) -> Rule:
    """Read a fusion config: `method:` and the method's options.

    Raises:
        ValueError: no such file, an unknown method or option.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a fusion config, found no such file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    method = raw.pop("method", None) if isinstance(raw, dict) else None
    if method not in FUSIONS:
        raise ValueError(
            f"{path}: 'method': expected one of {', '.join(FUSIONS)}, found {method!r}"
        )
    if method == "hybrid":
        return Hybrid.load(path)
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    try:
        rule: Rule = FUSIONS[method](**options)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
    return rule


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
