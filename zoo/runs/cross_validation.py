"""Cross-validation: a run for each fold, and predictions of each image by the run that held it out.

Out-of-fold predictions are what fusion weights are fitted on: no image's prediction comes from a
network that learned from it. Other images, such as those of the test set, are predicted by the
networks of all folds, whose mean is one opinion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from converters.files.provenance import require_provenance, write_provenance
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction
from zoo.config import load_run_config
from zoo.contract import PredictOptions
from zoo.families import load_family
from zoo.machine.processes import is_first_process
from zoo.progress import Report
from zoo.run_files.checkpoints import find_weights
from zoo.runs.fold_ensemble import mean_prediction
from zoo.runs.predict import (
    crop_windows,
    cropped_classes,
    full_size,
    groups_of,
    keep_others,
    to_original_frame,
)
from zoo.runs.run import Run, known_split, subset_samples
from zoo.runs.train import divide
from zoo.runs.train import train as train_run
from zoo.source import DataSource

OOF = "oof"
Predict = Callable[[Collection[str]], Iterator[tuple[Sample, Prediction]]]
"""Yields the predictions of images, by their keys, in the order of their store."""


def train_folds(
    family_name: str,
    config_name: str,
    data: DataSource,
    out: Path,
    *,
    split_path: Path | None,
    changes: Sequence[str],
    command: Sequence[str],
    report: Report,
    say: Callable[[str], None] = lambda line: None,
    store: Path | None = None,
    also: Sequence[DataSource] = (),
) -> Manifest:
    """Train a run for each fold in `OUT/fold-0`, ..., and assemble their out-of-fold store.

    What is done already is not done again: finished runs stay, a stopped one continues, and so do
    predictions.

    Args:
        family_name: the family.
        config_name: shipped config or YAML file.
        data: the data set.
        out: folder for the runs.
        split_path: the folds; None takes those that the data set carries.
        changes: `key.sub=value` texts.
        command: what the user called.
        report: moves the progress bar.
        say: as in `zoo.runs.train.train`.
        store: where the predictions go; `OUT/oof` by default. Fusion knows a source by the name of
            its store's folder.
        also: as in `zoo.runs.train.train`.

    Raises:
        ValueError: as `zoo.runs.train.train` and `assemble`.
    """
    family = load_family(family_name)
    data = data.of_split(split_path)
    config = load_run_config(family.Config, family_name, config_name, changes, data)
    labels = config.labels
    split = divide(data, labels, split_path, None, config.own_format)[0]
    written = require_provenance(data.path).get("fold")
    if written is not None:
        raise ValueError(
            f"{data.path}: was written for fold {written} alone; cross-validate on the data set "
            "that it was converted from"
        )
    paths = [fold_path(out, fold) for fold in range(len(split.folds))]
    for fold, path in enumerate(paths):
        train_run(
            family_name,
            config_name,
            data,
            path,
            split_path=split_path,
            fold=fold,
            changes=changes,
            command=command,
            report=_named(report, f"fold {fold + 1}/{len(paths)}"),
            say=say,
            also=also,
        )
    if not is_first_process():
        # Of those that a launcher has begun, one predicts.
        raise SystemExit(0)
    return assemble(paths, data, store or out / OOF, command=command, report=report)


def fold_path(out: Path, fold: int) -> Path:
    """Return a fold's run folder."""
    return out / f"fold-{fold}"


def find_folds(path: Path) -> list[Path]:
    """Return the runs in a folder that `train_folds` has filled; [] where it is another thing."""
    if (path / "config.yaml").is_file():
        return []
    return sorted(file.parent for file in path.glob("fold-*/config.yaml"))


def predict_folds(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    subset: str,
    options: PredictOptions,
    command: Sequence[str] = (),
    report: Report = lambda done, total, note: None,
) -> Manifest:
    """Predict a subset by the runs of all folds, into one store; a killed one continues.

    Images of `val` are predicted by the run that held them out, see `assemble`. Others, `test` or
    `all`, are predicted by each run, and their mean is written, see `zoo.runs.fold_ensemble`. All
    networks are on the device together, and one image's predictions are in memory at a time.

    Args:
        paths: a run for each fold of one split, in any order.
        data: the data set.
        out: the store.
        subset: which images.
        options: how to predict.
        command: what the user called.
        report: moves the progress bar.

    Raises:
        ValueError: as `assemble`, or the subset is `train`.
    """
    if subset == "val":
        return assemble(paths, data, out, options=options, command=command, report=report)
    if subset == "train":
        raise ValueError(
            "--subset train: every image was learned from by some folds and held out by one; "
            "expected val (each by the fold that held it out), test or all (the mean of all folds)"
        )
    folds = FoldRuns.load(paths)
    samples = subset_samples(folds.runs[0], data, subset, folds.labels)
    manifest = folds.manifest(samples, cropped_classes(data, folds.labels), options, subset)
    keep_others(paths[0].parent, out, manifest)
    predict = partial(folds.predict_mean, samples, options)
    named = _named(report, f"mean of {len(folds.runs)} folds")
    return _fill(out, manifest, predict, command, named)


def _named(report: Report, name: str) -> Report:
    def named(done: int, total: int, note: str) -> None:
        report(done, total, f"{name} {note}".rstrip())

    return named


def assemble(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    options: PredictOptions | None = None,
    command: Sequence[str] = (),
    report: Report = lambda done, total, note: None,
) -> Manifest:
    """Predict every image by the run that held it out, into one store; a killed one continues.

    Args:
        paths: a run for each fold of one split, in any order.
        data: the data set that the runs learned from.
        out: the store; its images are in the order of the folds, by key within a fold, so that
            stores of several families over one split match.
        options: how to predict.
        command: what the user called.
        report: moves the progress bar.

    Raises:
        ValueError: the runs are not one for each fold of one split, not of one kind, not trained,
            or the data set has other images than the split.
    """
    folds = FoldRuns.load(paths)
    samples = data.read(folds.labels)
    folds.split.check(samples, data.excluded)
    shares = divide_samples(samples, folds.split)
    chosen = options or PredictOptions()
    listed = [sample for share in shares for sample in share]
    manifest = folds.manifest(listed, cropped_classes(data, folds.labels), chosen, "val")
    predict = partial(folds.predict_held_out, shares, chosen)
    return _fill(out, manifest, predict, command, _named(report, "out of fold"))


def _fill(
    out: Path, manifest: Manifest, predict: Predict, command: Sequence[str], report: Report
) -> Manifest:
    """Write what is not there yet of a store."""
    is_there = (out / "manifest.json").is_file()
    if is_there and PredictionStore(out).manifest.dumps() == manifest.dumps():
        return manifest
    total = len(manifest.images)
    with StoreWriter(out, manifest) as writer:
        for sample, prediction in predict(frozenset(writer.remaining)):
            writer.append(to_original_frame(prediction, sample, manifest.classes))
            report(total - len(writer.remaining), total, "")
        source = dict(manifest.source)
        write_provenance(writer.folder, list(command), source, source["seed"], manifest.split)
    return manifest


@dataclass(frozen=True)
class FoldRuns:
    """A run for each fold of one split, none of which has learned from what it holds out.

    Attributes:
        runs: in the order of the folds.
        split: the folds.
        labels: the classes of all runs.
    """

    runs: tuple[Run, ...]
    split: Split
    labels: LabelSpace

    @classmethod
    def load(cls, paths: Sequence[Path]) -> FoldRuns:
        """Open the runs, given in any order; make sure that nothing leaks.

        Raises:
            ValueError: a run has no split, another one than it learned with, or another than the
                others have; a fold is missing or there twice; kinds or classes differ; no weights.
        """
        given = [Run.load(path) for path in paths]
        if not given:
            raise ValueError("expected a run for each fold, found none")
        split = known_split(given[0])[0]
        home: dict[int | None, Run] = {}
        for run in given:
            known_split(run)
            _check_same(run, given[0])
            find_weights(run.path)
            other = home.setdefault(run.fold, run)
            if other is not run:
                raise ValueError(f"{run.path}: holds out fold {run.fold}, and so does {other.path}")
        numbers = range(len(split.folds))
        if missing := [fold for fold in numbers if fold not in home]:
            raise ValueError(
                f"expected a run for each of {len(numbers)} folds, found none that holds out fold "
                f"{missing[0]}"
            )
        runs = tuple(home[fold] for fold in numbers)
        return cls(runs, split, runs[0].config.labels)

    def manifest(
        self,
        samples: Sequence[Sample],
        classes: tuple[str, ...],
        options: PredictOptions,
        subset: str,
    ) -> Manifest:
        """Return the manifest of a store of these samples, predicted by these runs.

        Args:
            samples: in the store's order.
            classes: what the predictions speak of; empty means all.
            options: how they are predicted.
            subset: which samples they are.
        """
        first = self.runs[0]
        return Manifest(
            kind=first.family.kind,
            labels=self.labels.name,
            names=self.labels.names,
            images={s.key: (*full_size(s), s.file_name) for s in samples},
            source={
                "family": first.name,
                "runs": [run.path.name for run in self.runs],
                # Predictions of weights that have changed since are not continued.
                "weights": [_digest(find_weights(run.path)) for run in self.runs],
                "seed": first.config.seed,
                "options": options.model_dump(mode="json"),
            },
            split=self.split.digest,
            fold=None,
            subset=subset,
            classes=classes,
            domains=crop_windows(samples),
            groups=groups_of(self.split, samples),
            space=self.labels,
        )

    def predict_held_out(
        self, shares: Sequence[Sequence[Sample]], options: PredictOptions, todo: Collection[str]
    ) -> Iterator[tuple[Sample, Prediction]]:
        """Yield samples with what the run says of them that held them out, fold after fold.

        Args:
            shares: what each fold holds out.
            options: how to predict.
            todo: keys of the samples that are still to be predicted.
        """
        for run, share in zip(self.runs, shares, strict=True):
            rest = [sample for sample in share if sample.key in todo]
            if rest:
                predictions = run.family.predict(run.path, run.config, rest, options)
                yield from zip(rest, predictions, strict=True)

    def predict_mean(
        self, samples: Sequence[Sample], options: PredictOptions, todo: Collection[str]
    ) -> Iterator[tuple[Sample, Prediction]]:
        """Yield samples with the mean of what all runs say of them.

        Args:
            samples: which.
            options: how to predict.
            todo: keys of the samples that are still to be predicted.
        """
        rest = [sample for sample in samples if sample.key in todo]
        sources = (run.family.predict(run.path, run.config, rest, options) for run in self.runs)
        for sample, *predictions in zip(rest, *sources, strict=True):
            yield sample, mean_prediction(predictions, self.labels)


def _check_same(run: Run, first: Run) -> None:
    pairs = {
        "split": (first.split and first.split.digest, run.split and run.split.digest),
        "kind": (first.family.kind, run.family.kind),
        "labels": (first.config.labels, run.config.labels),
    }
    for name, (expected, found) in pairs.items():
        if found != expected:
            raise ValueError(
                f"{run.path}: expected the same {name} as {first.path}, found another: "
                f"{found!s:.12} instead of {expected!s:.12}"
            )


def divide_samples(samples: Sequence[Sample], split: Split) -> list[list[Sample]]:
    """Return the samples that each fold holds out, by key."""
    known = {sample.key: sample for sample in samples}
    return [[known[k] for k in sorted(keys) if k in known] for keys in split.folds]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
