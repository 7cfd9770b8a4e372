"""The interface of a family, and what it is given to work on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from converters.splits.split import VERSION, Split
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo.config import RunConfig, StrictModel
from zoo.tta import parse_variants


class DivergedError(ValueError):
    """Loss, weights or what a network gives are NaN or infinite; what was saved before is whole."""


def read_size(value: Any) -> Any:
    """Return height and width that are given as one number, as `1024x768`, or as they are.

    >>> read_size(1024), read_size("1024x768"), read_size("[96, 64]"), read_size([1024, 768])
    ((1024, 1024), (1024, 768), (96, 64), [1024, 768])

    Raises:
        ValueError: a text that is none of these.
    """
    if not isinstance(value, str | int):
        return value
    sides = re.fullmatch(r"[\[(]?\s*(\d+)(?:\s*[x,]\s*(\d+))?\s*[\])]?", str(value).strip())
    if sides is None:
        raise ValueError("expected pixels, or height x width, such as 1024 or 1024x768")
    return int(sides[1]), int(sides[2] or sides[1])


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if min(size) < 1:
        raise ValueError("expected a positive height and width")
    return size


def _check_variants(names: tuple[str, ...]) -> tuple[str, ...]:
    parse_variants(names)
    return names


Size = Annotated[tuple[int, int], BeforeValidator(read_size), AfterValidator(_check_size)]


class PredictOptions(StrictModel):
    """How to predict.

    Attributes:
        tta: test-time augmentation, see `zoo.tta`: forms beside the plain one in which the
            network is shown an image.
        average: what is averaged over those forms.
        size: height and width that images are stretched to before the network sees them, whole or
            in windows; by default what the run learned from.
        window: height and width of windows that cover the image; `whole` for none; by default as
            the run learned. A run that learned whole images sees windows of each image's own size.
        overlap: how much of a window's side the next one repeats.
        batch: images at a time, or windows; 0 lets the family choose.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        metadata: table of what is known of the images, for networks that are shown that; by default
            what the run learned from, if it is there.
        sources: stores of the same images, for what mends them; by default those it learned with.
    """

    tta: Annotated[tuple[str, ...], AfterValidator(_check_variants)] = ()
    average: Literal["probabilities", "logits"] = "probabilities"
    size: Size | None = None
    window: Size | Literal["whole"] | None = None
    overlap: float | None = Field(default=None, ge=0, lt=1)
    batch: int = Field(default=0, ge=0)
    device: str = "auto"
    metadata: str | None = None
    sources: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Manifests of what needs neither are as they were.
        found: dict[str, Any] = dump(self)
        absent = [key for key in ("metadata", "sources") if not found.get(key)]
        return {key: value for key, value in found.items() if key not in absent}

    def refuse(self, family: str, *names: str) -> None:
        """Make sure that a family is not asked for what it does not do.

        Raises:
            ValueError: one of these options is given.
        """
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                found = getattr(self, name)
                raise ValueError(f"{name}: the family '{family}' predicts without; found {found}")


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
        is_edited: the samples are not what the files in `data` say, but corrected, or more.
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
        kind: of its predictions.
        Config: its settings.
    """

    kind: Kind
    Config: type[RunConfig]

    def train(self, config: Any, job: TrainJob) -> None:
        """Train a model and leave it in `job.out`; a killed run continues.

        Raises:
            DivergedError: loss or weights are NaN or infinite; what was saved before stays.
        """

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame."""
