"""From held-out predictions to a fitted fusion rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.files import atomic_write_text
from converters.images import read_pixels
from converters.masks import CropMask
from converters.types import LabelSpace, Sample
from fusion.adjacency import Adjacency
from fusion.fit import Fit, HybridFit
from fusion.neighbours import LEAST_IMAGES
from fusion.refine import Refined
from fusion.refine_fit import Choice, choose_refinement
from fusion.rule_file import dump_rule
from fusion.store import PredictionStore, read_together
from fusion.types import Prediction, Rule
from fusion.watch import Watched
from zoo.evaluate import check_sizes, truth_masks
from zoo.fuse import open_stores
from zoo.progress import Report, track
from zoo.source import DataSource


class Refinement(StrEnum):
    """Which refinements are tried."""

    none = "none"
    shape = "shape"
    all = "all"


@dataclass(frozen=True)
class Fitted:
    """What was fitted: the weights, and what stands around the rule.

    Attributes:
        fit: the weights and why they are as they are.
        choice: the refinements that were tried; None where none were.
        rule: the rule as its file has it.
    """

    fit: Fit
    choice: Choice | None
    rule: Rule


@dataclass(frozen=True)
class _HeldOut:
    """Stores of held-out predictions, and their truth."""

    stores: Sequence[PredictionStore]
    samples: Mapping[str, Sample]
    left_out: Mapping[str, Sample]
    data: Path

    def images(
        self, report: Report
    ) -> Iterator[tuple[tuple[Prediction, ...], dict[str, CropMask], str]]:
        """Yield each image's predictions, true masks and patient; one image in memory at a time."""
        total = len(self.stores[0].manifest.images)
        for predictions in track(read_together(self.stores), total, report):
            key = predictions[0].key
            if key in self.left_out:
                continue
            if key not in self.samples:
                raise ValueError(f"{self.data}: expected truth of '{key}', found none")
            yield predictions, truth_masks(self.samples[key]), self.samples[key].group


def fit(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    report: Report,
    refinement: Refinement = Refinement.shape,
) -> Fitted:
    """Fit the hybrid rule on held-out predictions and write it as YAML.

    Refinements are switched on where they help the rules of the folds on what those held out. Where
    every class occurs once in an image, the file also learns how they lie to each other.

    Args:
        paths: stores of predictions for images that the models did not learn from.
        data: the data set with their truth.
        out: the rule's file.
        report: for a progress bar.
        refinement: which refinements to try: all, all but the CRF, or none.

    Raises:
        ValueError: the stores differ, hold images the models learnt from, or have no truth.
    """
    stores = open_stores(paths)
    _check_held_out(stores)
    labels = stores[0].label_space()
    held_out = _HeldOut(stores, data.annotated(labels), data.left_out(labels), data.path)
    for store in stores:
        check_sizes(store, held_out.samples)
    names, total = [store.name for store in stores], len(stores[0].manifest.images)

    def note(text: str) -> None:
        report(total, total, text)

    fitted = HybridFit()(held_out.images(report), names, labels, note)
    choice = _refine(fitted, held_out, labels, refinement, report)
    rule: Rule = fitted.rule
    if choice is not None and (choice.refine.groups or not choice.refine.all.is_off):
        rule = Refined(rule, choice.refine)
    if labels.once and fitted.images >= LEAST_IMAGES:
        truth = ((masks, patient) for _, masks, patient in held_out.images(report))
        rule = Watched(rule, Adjacency.learn(truth, labels))
    atomic_write_text(out, dump_rule(rule, fitted.notes()))
    return Fitted(fitted, choice, rule)


def _check_held_out(stores: Sequence[PredictionStore]) -> None:
    for store in stores:
        if store.manifest.subset != "val":
            raise ValueError(
                f"{store.path}: expected predictions of held-out images (--subset val), found "
                f"'{store.manifest.subset}': weights fitted on what a model has learnt from, or is "
                "to be tested on, do not hold"
            )
    if len({store.manifest.split for store in stores}) > 1:
        raise ValueError("expected stores of one split, found several; predict with the same folds")


def _refine(
    fitted: Fit, held_out: _HeldOut, labels: LabelSpace, wanted: Refinement, report: Report
) -> Choice | None:
    if wanted is Refinement.none:
        return None

    def images() -> Iterator[tuple[Prediction, dict[str, CropMask], str]]:
        for predictions, truth, patient in held_out.images(_named(report, "refining")):
            # Not the rule itself: it was fitted on these very images.
            yield fitted.held_out[patient](predictions, labels), truth, patient

    def read_grey(key: str) -> npt.NDArray[np.uint8]:
        return read_pixels(held_out.samples[key])

    grey = read_grey if wanted is Refinement.all else None
    return choose_refinement(images, labels, read_grey=grey)


def _named(report: Report, name: str) -> Report:
    def named(done: int, total: int, note: str) -> None:
        report(done, total, f"{name} {note}".rstrip())

    return named


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


def describe_refinement(choice: Choice | None) -> str:
    """Return what refinements were tried, those that are on, as lines for a terminal."""
    if choice is None:
        return ""
    chosen = [str(trial) for trial in choice.trials if trial.is_on]
    head = f"refinements: {len(choice.trials)} tried on {choice.images} held-out images, "
    return "\n".join([head + (f"{len(chosen)} help" if chosen else "none helps"), *chosen])
