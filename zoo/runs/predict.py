"""A run's predictions, as a store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.crops import chosen_classes
from converters.files.provenance import write_provenance
from converters.splits.grouping import known_groups
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.sources.manifest import FILE as MANIFEST
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction
from zoo.contract import PredictOptions
from zoo.progress import Report
from zoo.runs.run import Run, subset_samples
from zoo.source import DataSource


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
        ValueError: no such subset, or `out` is not a store, or the run's own of other images.
    """
    labels = run.config.labels
    samples = subset_samples(run, data, subset, labels)
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
        # Who reads the store relies on these.
        split=run.split.digest if run.split and not run.doubt else "",
        fold=None if run.doubt else run.fold,
        subset=subset,
        classes=cropped_classes(data, labels),
        domains=crop_windows(samples),
        groups=groups_of(run.split, samples),
        space=labels,
    )
    keep_others(run.path, out, manifest)
    with StoreWriter(out, manifest) as writer:
        todo = set(writer.remaining)
        rest = [s for s in samples if s.key in todo]
        start = len(samples) - len(rest)
        found = run.family.predict(run.path, run.config, rest, options)
        for sample, prediction in zip(rest, found, strict=True):
            writer.append(to_original_frame(prediction, sample, manifest.classes))
            start += 1
            report(start, len(samples), "")
        write_provenance(writer.folder, list(command), source, run.config.seed, manifest.split)
    return manifest


def keep_others(run: Path, out: Path, manifest: Manifest) -> None:
    """Make sure that what a run says of other images altogether is not replaced in its folder.

    Args:
        run: its folder, where `val` and `test` are what nobody named.
        out: where predictions will be.
        manifest: of them.

    Raises:
        ValueError: there are predictions of other images.
    """
    if out.absolute().parent != run.absolute() or not (out / MANIFEST).is_file():
        return
    there = PredictionStore(out).manifest.images
    if there and there.keys().isdisjoint(manifest.images):
        raise ValueError(
            f"{out}: expected predictions of these {len(manifest.images)} images, or none, found "
            f"those of {len(there)} others, such as '{next(iter(there))}': name another --out, or "
            "remove it"
        )


def full_size(sample: Sample) -> tuple[int, int]:
    """Return height and width of the image that a sample, or what it was cut from, is of."""
    return sample.frame.full_hw if sample.frame else sample.size_hw


def cropped_classes(data: DataSource, labels: LabelSpace) -> tuple[str, ...]:
    """Return the classes that a data set of crops is about; empty for whole images: all.

    Raises:
        ValueError: it was cropped around classes of another label space.
    """
    return chosen_classes(data.around, labels) if data.around else ()


def to_original_frame(
    prediction: Prediction, sample: Sample, classes: Collection[str] = ()
) -> Prediction:
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


def groups_of(split: Split | None, samples: Iterable[Sample]) -> dict[str, str]:
    """Return the patients of samples, as far as a run's folds know them: key -> patient."""
    known = known_groups(split.groups) if split else {}
    return {sample.key: known[sample.key] for sample in samples if sample.key in known}


def crop_windows(samples: Iterable[Sample]) -> dict[str, tuple[int, int, int, int]]:
    """Return key -> the part of the original, x, y, w, h, for samples that are cut from one."""
    return {
        s.key: s.frame.box_xywh
        for s in samples
        if s.frame and s.frame.box_xywh != (0, 0, s.frame.full_hw[1], s.frame.full_hw[0])
    }
