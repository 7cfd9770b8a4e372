"""From held-out predictions to a fitted fusion rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from converters.files import atomic_write_text
from converters.masks import CropMask
from fusion.fit import Fit, HybridFit
from fusion.rule_file import dump_rule
from fusion.store import read_together
from fusion.types import Prediction
from zoo.evaluate import check_sizes, store_labels, truth_masks
from zoo.fuse import open_stores
from zoo.progress import Report, track
from zoo.source import DataSource


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
    atomic_write_text(out, dump_rule(fitted.rule, fitted.notes()))
    return fitted


def describe(fitted: Fit) -> str:
    """Return what cross-validation said, as a table: who is how good, and what each source adds."""
    sources = fitted.rule.sources
    width = max(len(name) for name in [*fitted.report, "class"])
    head = [f"{'class':{width}s}", *(f"{name:>10.10s}" for name in [*sources, "mean", "fused"])]
    head += [
        f"{'gain over the best [95 %]':>27s}",
        "  takes",
        *(f"{'-' + n:>11.11s}" for n in sources),
    ]
    lines = [
        f"held-out Dice on {fitted.images} images of {fitted.patients} patients;"
        " in the last columns what the fusion loses without a source",
        " ".join(head),
    ]
    for label, r in fitted.report.items():
        values = [*(r.single[name] for name in sources), r.mean, r.fused]
        cells = [f"{label:{width}s}", *(f"{v:10.4f}" for v in values), f"{r.likely_gain!s:>27s}"]
        cells += [f"  {r.keeps or 'fusion'}".ljust(9), *(f"{r.worth[n]:+10.4f}" for n in sources)]
        lines.append(" ".join(cells))
    totals = [*([r.single[n] for r in fitted.report.values()] for n in sources)]
    totals += [[r.mean for r in fitted.report.values()], [r.fused for r in fitted.report.values()]]
    means = (f"{sum(column) / len(column):10.4f}" for column in totals)
    lines.append(" ".join([f"{'all':{width}s}", *means]))
    return "\n".join(lines)
