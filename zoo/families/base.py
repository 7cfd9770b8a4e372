"""The interface of a family, and what it is given to work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from converters.splits import VERSION, Split
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo.config import RunConfig, StrictModel


class PredictOptions(StrictModel):
    """How to predict.

    Attributes:
        tta: test-time augmentation: any of `hflip`.
        batch: images at a time; 0 lets the family choose.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
    """

    tta: tuple[str, ...] = ()
    batch: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class TrainJob:
    """What a family trains on, and where it leaves the run.

    Attributes:
        out: the run folder; exists. A family writes checkpoints, `metrics.csv` and logs there; the
            config, the split and `provenance.json` are written by the command.
        labels: the classes.
        train: samples to learn from.
        val: samples to score on, never to learn from.
        data: the data set's folder as given, for families that read their own format.
        data_format: the format's name, such as `handbone` or `segformer`.
        is_edited: the samples are not what the files in `data` say, but corrected.
        split: the folds, or None where the data set brings its own division.
        fold: the fold that is held out.
        resume: continue from the run's last checkpoint where there is one.
        progress: call with (done, total, note) for a progress bar.
    """

    out: Path
    labels: LabelSpace
    train: Sequence[Sample]
    val: Sequence[Sample]
    data: Path
    data_format: str
    is_edited: bool = False
    split: Split | None = None
    fold: int = 0
    resume: bool = True
    progress: Callable[[int, int, str], None] = field(default=lambda done, total, note: None)


def division(job: TrainJob) -> Split | None:
    """Return a split whose fold 0 holds out what the job scores on; None where that is nothing.

    It is of the job's samples alone, wherever their division comes from.
    """
    train, val = (tuple(sample.key for sample in part) for part in (job.train, job.val))
    return Split(VERSION, 0, "given", (val, train), {k: k for k in val + train}) if val else None


class Family(Protocol):
    """A family of models: what is a vendor's becomes ours in here and nowhere else.

    Attributes:
        name: in the registry.
        kind: of its predictions.
        Config: its settings.
        streams: the format whose data sets it reads by itself, with the division inside; its job
            holds no samples then. "" is none.
    """

    name: str
    kind: Kind
    streams: str
    Config: type[RunConfig]

    def train(self, config: Any, job: TrainJob) -> None:
        """Train a model and leave it in `job.out`; a killed run continues."""

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame."""
