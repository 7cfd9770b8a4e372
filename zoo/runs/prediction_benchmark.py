"""Ways to predict with one run, measured on its validation fold: which of them pays?

Windows and test-time augmentation are a choice per model: a network that has learned whole images
may lose by windows what another gains, so each choice is measured beside the plain prediction of
the same run on the same images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import score_prediction
from fusion.metrics.intervals import CONFIDENCE, Estimate, mean_over_people
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import describe_overlapping
from fusion.types import Prediction
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.machine.devices import choose_device
from zoo.progress import Report
from zoo.runs.run import Run, subset_samples
from zoo.source import DataSource

PLAIN = "plain"


@dataclass(frozen=True)
class Measurement:
    """One way to predict, measured.

    Attributes:
        choice: as it was given.
        options: what it comes to.
        scores: of every image.
        seconds: an image, without loading the model.
        peak_bytes: the most memory that was taken: on a GPU by tensors, else by the process; None
            where the system does not tell.
        against_plain: `all` and each group of classes -> difference; empty for the plain choice.
    """

    choice: str
    options: PredictOptions
    scores: Scores
    seconds: float
    peak_bytes: int | None
    against_plain: Mapping[str, Estimate]

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        differences = {group: found.record() for group, found in self.against_plain.items()}
        return {
            "choice": self.choice,
            "options": self.options.model_dump(mode="json"),
            "seconds_per_image": self.seconds,
            "peak_bytes": self.peak_bytes,
            "difference_to_plain": differences,
            **self.scores.record(),
        }


@dataclass(frozen=True)
class PredictionComparison:
    """Ways to predict with one run, the plain one first.

    Attributes:
        run: the run's name.
        images: how many were predicted.
        patients: whose they are.
        rows: one a choice.
    """

    run: str
    images: int
    patients: int
    rows: tuple[Measurement, ...]

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            "run": self.run,
            "images": self.images,
            "patients": self.patients,
            "confidence": CONFIDENCE,
            "choices": [row.record() for row in self.rows],
        }


def parse_choice(text: str, base: PredictOptions) -> PredictOptions:
    """Return the options of a choice such as `hflip,scale:0.75` or `window=1024,size=2048`.

    Args:
        text: names of `zoo.tta` and `key=value` of `PredictOptions`, with commas between;
            `plain` is neither.
        base: what is the same for all choices, such as the device.

    Raises:
        ValueError: an unknown key, or a bad value.
    """
    changes: dict[str, Any] = {}
    names = []
    for part in re.split(r"[\s,]+", "" if text == PLAIN else text.strip()):
        key, found, value = part.partition("=")
        if key in changes:
            raise ValueError(f"compare '{text}': expected each key once, found '{key}' twice")
        if found:
            changes[key] = value
        elif part:
            names.append(part)
    raw = base.model_dump() | changes
    if names:
        raw["tta"] = names
    return check_config(PredictOptions, raw, f"compare '{text}'")


def compare(
    run: Run,
    data: DataSource,
    choices: Sequence[str],
    *,
    options: PredictOptions,
    report: Report,
) -> PredictionComparison:
    """Predict a run's validation fold in several ways and score each; no prediction is kept.

    Args:
        run: whose held-out images are predicted.
        data: the data set that they are in.
        choices: as `parse_choice` reads them; `plain` is always there, first.
        options: what is the same for all choices; no test-time augmentation or windows.
        report: for a progress bar.

    Raises:
        ValueError: a bad choice, one that this run cannot do, or no image with truth.
    """
    same = {key: getattr(options, key) for key in ("batch", "device", "metadata")}
    if options != PredictOptions(**same):
        raise ValueError(
            "compare: expected tta, size, window and the like within the choices, such as "
            "'hflip,scale:0.75' or 'window=1024,size=2048'; found them beside"
        )
    texts = [PLAIN, *(text for text in choices if text != PLAIN)]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ValueError(f"compare '{twice[0]}': expected each choice once")
    parsed = {text: parse_choice(text, options) for text in texts}
    labels = run.config.labels
    samples = [s for s in subset_samples(run, data, "val", labels) if s.instances]
    if not samples:
        raise ValueError(f"{data.path}: expected annotated images to score on, found none")
    # Also finds out, before anything is computed, whether the run can do all of it.
    loading = {text: _time_to_load(run, chosen) for text, chosen in parsed.items()}
    rows: list[Measurement] = []
    for number, (text, chosen) in enumerate(parsed.items()):
        taken = _Taken(chosen.device)
        images = []
        for done, score in enumerate(_scores(run, samples, chosen, labels, taken), 1):
            images.append(score)
            report(number * len(samples) + done, len(parsed) * len(samples), text)
        scores = Scores(labels, images)
        against = differences(scores, rows[0].scores, samples) if rows else {}
        seconds = max(taken.seconds - loading[text], 0) / len(samples)
        rows.append(Measurement(text, chosen, scores, seconds, taken.peak_bytes(), against))
    return PredictionComparison(
        run.path.name, len(samples), len(set(_people(samples))), tuple(rows)
    )


def _time_to_load(run: Run, options: PredictOptions) -> float:
    # Twice: the first time may import the vendor's library, or start the device.
    for _ in range(2):
        started = time.perf_counter()
        for _ in run.family.predict(run.path, run.config, [], options):
            pass
        seconds = time.perf_counter() - started
    return seconds


class _Taken:
    """Time and memory that predictions take, without what is done with them in between."""

    def __init__(self, device: str) -> None:
        self._device = choose_device(device)
        self.seconds = 0.0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _forget_peak()

    def watch(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        while True:
            started = time.perf_counter()
            prediction = next(predictions, None)
            self.seconds += time.perf_counter() - started
            if prediction is None:
                return
            yield prediction

    def peak_bytes(self) -> int | None:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _peak_of_process()


# Linux counts anew from where it is told to; elsewhere a process only knows its peak since it
# began, which says nothing about one of several choices. (proc(5), clear_refs and VmHWM.)
def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_of_process() -> int | None:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _scores(
    run: Run,
    samples: Sequence[Sample],
    options: PredictOptions,
    labels: LabelSpace,
    taken: _Taken,
) -> Iterator[ImageScore]:
    found = run.family.predict(run.path, run.config, samples, options)
    for sample, prediction in zip(samples, taken.watch(found), strict=True):
        yield score_prediction(prediction, sample, labels)


def differences(scores: Scores, plain: Scores, samples: Sequence[Sample]) -> dict[str, Estimate]:
    """Return how much better scores are than the plain ones: of all classes, and of each group.

    Args:
        scores: of the samples, in order.
        plain: of the same.
        samples: `group` is the patient, whose images go together when they are drawn anew.
    """
    labels = scores.labels
    of_classes = np.array(
        [
            [new.dice[n] - old.dice[n] for n in labels.names]
            for new, old in zip(scores.images, plain.images, strict=True)
        ]
    )
    groups = {"all": labels.names, **labels.groups}
    people = _people(samples)
    found = {}
    for group, names in groups.items():
        columns = [labels.names.index(name) for name in names]
        found[group] = mean_over_people(of_classes[:, columns].mean(axis=1), people)
    return found


def _people(samples: Sequence[Sample]) -> list[str]:
    return [sample.patient for sample in samples]


def describe(comparison: PredictionComparison) -> str:
    """Return a comparison as a table, one line a choice."""
    groups = list(comparison.rows[0].scores.labels.groups)
    width = max(len(name) for name in ["choice", *(row.choice for row in comparison.rows)])
    head = [f"{'choice':{width}s}", f"{'Dice':>6s}", f"{'to plain [95 %]':>26s}"]
    head += [f"{name:>9s}" for name in [*groups, "shared", "pooled"]]
    head += [f"{'s/image':>8s}", f"{'GB':>6s}"]
    lines = [
        f"{comparison.run}: {comparison.images} images of {comparison.patients} patients",
        " ".join(head),
    ]
    for row in comparison.rows:
        shared = row.scores.shared(), row.scores.shared_pooled()
        values = [*row.scores.per_group().values(), *shared]
        gain = str(row.against_plain.get("all", ""))
        cells = [f"{row.choice:{width}s}", f"{row.scores.mean():6.4f}", f"{gain:>26s}"]
        cells += ["        -" if value is None else f"{value:9.4f}" for value in values]
        peak = "     -" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:6.2f}"
        lines.append(" ".join([*cells, f"{row.seconds:8.3f}", peak]))
    lines.append(describe_overlapping(comparison.rows[0].scores))
    return "\n".join(lines)
