"""Runs: a trained model's folder, how it comes about, and what it predicts."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from converters.crops import chosen_classes
from converters.edits import Edits
from converters.files import atomic_write_text, read_provenance, write_provenance
from converters.splits import Split
from converters.types import LabelSpace, Sample
from fusion.store import Manifest, StoreWriter
from fusion.types import Prediction
from zoo.config import RunConfig, check_config, dump_config, load_config
from zoo.families import load_family
from zoo.families.base import Family, PredictOptions, TrainJob
from zoo.notices import noticed
from zoo.progress import Report
from zoo.source import DataSource
from zoo.tracking import is_first_process, tracked

SECONDS_TO_WAIT = 120.0


@dataclass(frozen=True)
class Run:
    """A trained model's folder.

    Attributes:
        path: the folder.
        name: the family's name.
        family: what trains and predicts.
        config: the family's config.
        split: the folds it was trained with, or None.
        fold: the fold it has not seen, or None.
    """

    path: Path
    name: str
    family: Family
    config: RunConfig
    split: Split | None
    fold: int | None

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run.

        Raises:
            ValueError: the folder is not a run.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise ValueError(f"{path}: expected a run with config.yaml, found none")
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or "family" not in raw:
            raise ValueError(f"{file}: expected the key 'family', found none")
        name = str(raw.pop("family"))
        family = load_family(name)
        config = check_config(family.Config, raw, str(file))
        split = path / "split.json"
        fold = read_provenance(path).get("config", {}).get("fold")
        found = Split.load(split) if split.is_file() else None
        return cls(path, name, family, config, found, fold)


def train(
    family_name: str,
    config_name: str,
    data: DataSource,
    out: Path,
    *,
    split_path: Path | None,
    fold: int | None,
    changes: Sequence[str],
    command: Sequence[str],
    report: Report,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a model, or continue where the run in `out` stopped; return its last scores.

    Args:
        family_name: the family.
        config_name: shipped config or YAML file.
        data: the data set.
        out: the run's folder.
        split_path: the folds; None takes those that the data set carries.
        fold: the one to hold out; None takes the one that the data set was written for, or 0.
        changes: `key.sub=value` texts.
        command: what the user called.
        report: moves the progress bar.
        say: takes a line to show before training, on a GPU: how much memory it will need.

    Raises:
        ValueError: bad config, data or split, or `out` holds a run with other settings.
    """
    family = load_family(family_name)
    config = load_config(family.Config, family_name, config_name, changes)
    labels = LabelSpace.load(config.labels)
    split, held_out, learn, score = divide(data, labels, split_path, fold, family.streams)
    is_new = _open_run(out, family_name, config, split, held_out, data.edits, command)
    job = TrainJob(
        out=out,
        labels=labels,
        train=learn,
        val=score,
        data=data.path,
        data_format=data.format,
        is_edited=data.edits is not None,
        split=split,
        fold=held_out,
        progress=report,
    )
    try:
        _tell_memory(config, family, out, say)
        with noticed(config, job), tracked(config, job, family) as told:
            family.train(config, told)
    except ValueError:
        # What the user is about to mend may be a setting: a run that never began is no run.
        if is_new and not any((out / "checkpoints").glob("*")):
            shutil.rmtree(out)
        raise
    return last_metrics(out)


def _tell_memory(config: RunConfig, family: Family, out: Path, say: Callable[[str], None]) -> None:
    """Say what the run will need, and keep it with the run; a run that seems too large is tried."""
    if not is_first_process() or getattr(config, "device", "auto") == "cpu":
        return
    # Late: what it imports is no business of runs on the CPU.
    from zoo.memory import advise_before
    from zoo.training.notes import add_note

    for line in filter(None, advise_before(config, family)):
        say(line)
        add_note(out, line)


def divide(
    data: DataSource,
    labels: LabelSpace,
    split_path: Path | None,
    fold: int | None,
    streams: str = "",
) -> tuple[Split, int, Sequence[Sample], Sequence[Sample]]:
    """Return the split, the fold, the samples to learn from, and those to score on.

    A data set that was written with a split carries it: `split.json`, and the fold in
    `provenance.json`.

    Args:
        data: the data set.
        labels: the classes.
        split_path: the folds; None takes those that the data set carries.
        fold: the one to hold out; None takes the one that the data set was written for, or 0.
        streams: the format that the family reads by itself: no samples then.

    Raises:
        ValueError: no split, another fold than the data set was written for, or a split of other
            images.
    """
    path = data.path
    inside = path / "split.json"
    if split_path is None and not inside.is_file():
        raise ValueError(f"{path}: expected --split split.json; make one with: zoo split {path}")
    split = Split.load(split_path or inside)
    written = read_provenance(path).get("fold") if inside.is_file() else None
    if written is not None and fold not in (None, written):
        raise ValueError(f"{path}: was written for fold {written}, found --fold {fold}")
    chosen = fold if fold is not None else written or 0
    if data.format == streams and data.edits is None:
        return split, chosen, (), ()  # the division is inside
    samples = data.read(labels)
    split.check(samples, data.excluded)
    held_out = set(split.val(chosen))
    learn = [s for s in samples if s.key not in held_out]
    return split, chosen, learn, [s for s in samples if s.key in held_out]


def _open_run(
    out: Path,
    family: str,
    config: RunConfig,
    split: Split,
    fold: int,
    edits: Edits | None,
    command: Sequence[str],
) -> bool:
    """Make the run's folder, or check that it is this run's; tell whether it was made."""
    file = out / "config.yaml"
    if not is_first_process():
        _wait_for(file)
    text = f"family: {family}\n{dump_config(config)}"
    wanted = yaml.safe_load(text)
    if file.is_file():
        record = read_provenance(out)
        if (kind := record.get("kind", "run")) != "run":
            raise ValueError(f"{out}: expected a run, found a {kind}; choose another --out")
        settings = record.get("config", {})
        learnt_from = (settings.get("fold"), settings.get("edits"), record.get("split"))
        expected = (fold, edits and edits.digest, split.digest)
        if _read_settings(file, type(config)) != wanted or learnt_from != expected:
            raise ValueError(f"{out}: expected the same settings to continue; choose another --out")
        return False
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: expected a run or an empty folder, found other files")
    out.mkdir(parents=True, exist_ok=True)
    split.save(out / "split.json")
    settings = {**wanted, "fold": fold, "edits": edits and edits.digest}
    write_provenance(out, list(command), settings, config.seed, split.digest)
    atomic_write_text(file, text)
    return True


def _wait_for(file: Path) -> None:
    """Wait until the first process of several has made the run's folder."""
    end = time.monotonic() + SECONDS_TO_WAIT
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.1)


def _read_settings(file: Path, model: type[RunConfig]) -> Any:
    """Read a run's config; keys that it is too old to have get the values that they stand for."""
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        return found
    try:
        own = check_config(model, {k: v for k, v in found.items() if k != "family"}, str(file))
    except ValueError:
        return found
    return {"family": found.get("family"), **yaml.safe_load(dump_config(own))}


def last_metrics(out: Path) -> dict[str, Any]:
    """Return the last row of a run's `metrics.csv`; empty where there is none."""
    file = out / "metrics.csv"
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return dict(rows[-1]) if rows else {}


def predict(
    run: Run,
    data: DataSource,
    out: Path,
    *,
    subset: str,
    options: PredictOptions,
    command: Sequence[str],
    report: Report,
) -> Manifest:
    """Write a prediction store; continue where a killed command stopped.

    Predictions on crops are placed in the originals: the store's frame is the original's, always.
    They speak of the classes that were cropped around; others are there in parts.

    Raises:
        ValueError: no such subset, or `out` is not a store.
    """
    labels = LabelSpace.load(run.config.labels)
    samples = select(run, data, subset, labels)
    source = {
        "family": run.name,
        "run": run.path.name,
        "seed": run.config.seed,
        "options": options.model_dump(mode="json"),
    }
    manifest = Manifest(
        kind=run.family.kind,
        labels=labels.name,
        names=labels.names,
        images={s.key: (*full_size(s), s.file_name) for s in samples},
        source=source,
        split=run.split.digest if run.split else "",
        fold=run.fold,
        subset=subset,
        classes=spoken(data, labels),
        domains=domains(samples),
    )
    with StoreWriter(out, manifest) as writer:
        todo = set(writer.remaining)
        rest = [s for s in samples if s.key in todo]
        start = len(samples) - len(rest)
        found = run.family.predict(run.path, run.config, rest, options)
        for sample, prediction in zip(rest, found, strict=True):
            writer.append(placed(prediction, sample, manifest.classes))
            start += 1
            report(start, len(samples), "")
        write_provenance(writer.folder, list(command), source, run.config.seed, manifest.split)
    return manifest


def full_size(sample: Sample) -> tuple[int, int]:
    """Return height and width of the image that a sample, or what it was cut from, is of."""
    return sample.frame.full_hw if sample.frame else sample.size_hw


def spoken(data: DataSource, labels: LabelSpace) -> tuple[str, ...]:
    """Return the classes that a data set of crops is about; empty for whole images: all.

    Raises:
        ValueError: it was cropped around classes of another label space.
    """
    return chosen_classes(data.around, labels) if data.around else ()


def placed(prediction: Prediction, sample: Sample, classes: Collection[str] = ()) -> Prediction:
    """Return what a prediction says about the image that its sample is, or was cut from.

    Args:
        prediction: in the sample's frame.
        sample: what was predicted.
        classes: what it speaks of; empty means all.
    """
    if sample.frame:
        prediction = prediction.placed(sample.frame)
    if not classes:
        return prediction
    masks = {label: found for label, found in prediction.masks.items() if label in classes}
    return replace(prediction, masks=masks, classes=frozenset(classes))


def domains(samples: Iterable[Sample]) -> dict[str, tuple[int, int, int, int]]:
    """Return key -> the part of the original, x, y, w, h, for samples that are cut from one."""
    return {
        s.key: s.frame.box_xywh
        for s in samples
        if s.frame and s.frame.box_xywh != (0, 0, s.frame.full_hw[1], s.frame.full_hw[0])
    }


def select(run: Run, data: DataSource, subset: str, labels: LabelSpace) -> list[Sample]:
    """Return the samples of a subset: `val` and `train` by the run's split, `test`, or `all`."""
    if subset == "test":
        found = data.read(labels, "test")
    else:
        found = data.read(labels)
        if subset in ("val", "train") and run.split is None:
            raise ValueError(f"{run.path}: the run has no split.json, so '{subset}' is unknown")
        if run.split is not None and run.fold is not None and subset in ("val", "train"):
            held_out = set(run.split.val(run.fold))
            found = [s for s in found if (s.key in held_out) == (subset == "val")]
    if not found:
        raise ValueError(f"{data.path}: expected images of the subset '{subset}', found none")
    return found
