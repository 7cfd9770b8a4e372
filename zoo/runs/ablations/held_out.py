"""Dice of every image that a run held out, kept beside the run: what intervals are made of."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.files.provenance import atomic_write_text
from fusion.arrays import Floats
from fusion.metrics.annotated import score_prediction
from zoo.contract import PredictOptions
from zoo.runs.run import Run, subset_samples
from zoo.source import DataSource

FILE = "held_out.csv"
_HEAD = ("image", "patient")


@dataclass(frozen=True)
class HeldOut:
    """What a run reached on images that it held out.

    Attributes:
        dice: image -> Dice of every class, float64 (C,).
        patients: image -> whose it is.
    """

    dice: Mapping[str, Floats]
    patients: Mapping[str, str]


def score_held_out(path: Path, data: DataSource) -> None:
    """Predict what a finished run held out, as `zoo predict` does, and keep Dice of every image.

    Where that is there already, nothing is done.

    Args:
        path: the run.
        data: the data set that it learned from.

    Raises:
        ValueError: the run has no weights, or no image that it held out is annotated.
    """
    file = path / FILE
    if file.is_file():
        return
    run = Run.load(path)
    labels = run.config.labels
    samples = [s for s in subset_samples(run, data, "val", labels) if s.instances]
    if not samples:
        raise ValueError(f"{data.path}: expected annotated images to score on, found none")
    options = PredictOptions(device=run.config.workload.device)
    found = run.family.predict(path, run.config, samples, options)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEAD, *labels.names])
    for sample, prediction in zip(samples, found, strict=True):
        score = score_prediction(prediction, sample, labels)
        dice = (round(score.dice[name], 6) for name in labels.names)
        writer.writerow([sample.key, sample.patient, *dice])
    atomic_write_text(file, text.getvalue())


def read_held_out(path: Path) -> HeldOut | None:
    """Read what `score_held_out` has kept of a run; None where there is nothing."""
    file = path / FILE
    if not file.is_file():
        return None
    dice, patients = {}, {}
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        for image, patient, *values in reader:
            dice[image] = np.array(values, np.float64)
            patients[image] = patient
    return HeldOut(dice, patients)
