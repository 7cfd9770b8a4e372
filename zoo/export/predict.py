"""An exported model's predictions, as a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.files.provenance import write_provenance
from converters.types import Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from zoo.contract import PredictOptions
from zoo.export.description import FILE, digest_of
from zoo.export.exported import Exported
from zoo.progress import Report
from zoo.runs.predict import crop_windows, cropped_classes, full_size, to_original_frame
from zoo.source import DataSource


def predict_exported(
    folder: Path,
    data: DataSource,
    out: Path,
    *,
    subset: str,
    options: PredictOptions,
    is_apart: bool = False,
    command: Sequence[str],
    report: Report,
) -> Manifest:
    """Write a prediction store; continue where a killed command stopped. Needs no torch.

    Args:
        folder: of `zoo export`.
        data: the images.
        out: the store.
        subset: `test` or `all`.
        options: how to predict.
        is_apart: single objects, where an image may have several of a class.
        command: what the user called, for the record.
        report: moves the progress bar.

    Raises:
        ValueError: the folder is broken, `out` is not a store, a subset that needs the folds,
            single objects where each class occurs once, or a bad table of metadata.
    """
    exported = Exported.open(folder, options.device)
    labels = exported.labels
    if is_apart and labels.once:
        raise ValueError("--objects: each class occurs once in an image here: leave it out")
    samples = _subset(folder, data, subset, exported)
    classes = cropped_classes(data, labels)
    splits = {source.entry.split for source in exported.sources}
    folds = {source.entry.fold for source in exported.sources}
    manifest = Manifest(
        kind="instance" if is_apart else exported.description.kind,
        labels=labels.name,
        names=labels.names,
        images={s.key: (*full_size(s), s.file_name) for s in samples},
        source={
            "exported": folder.resolve().name,
            # Predictions of another model of this name are not continued.
            "digest": digest_of((folder / FILE).read_bytes()),
            "options": options.model_dump(mode="json"),
            **({"objects": True} if is_apart else {}),
        },
        split=splits.pop() if len(splits) == 1 else "",
        fold=folds.pop() if len(folds) == 1 else None,
        subset=subset,
        classes=classes,
        domains=crop_windows(samples),
        space=labels,
    )
    with StoreWriter(out, manifest) as writer:
        todo = set(writer.remaining)
        rest = [sample for sample in samples if sample.key in todo]
        done = len(samples) - len(rest)
        known = exported.read_metadata(rest, options, data.path)
        found = exported.predict(rest, options, is_apart, known)
        for sample, prediction in zip(rest, found, strict=True):
            writer.append(to_original_frame(prediction, sample, classes))
            done += 1
            report(done, len(samples), "")
        write_provenance(
            writer.folder, list(command), dict(manifest.source), None, manifest.split or None
        )
    return manifest


def _subset(folder: Path, data: DataSource, subset: str, exported: Exported) -> Sequence[Sample]:
    if subset not in ("test", "all"):
        raise ValueError(
            f"{folder}: expected --subset test or all, found {subset}: the folds, which name "
            "patients, are not exported with a model"
        )
    found = data.read(exported.labels, subset)
    if not found:
        raise data.nothing_in(subset)
    return found
