"""What is fused into what, checked before the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import converters
from converters.files.provenance import read_provenance
from converters.types import Sample
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble
from fusion.sources.store import PredictionStore
from fusion.types import Rule
from zoo.machine.cluster import check_place

CSV, STORE = "csv", "store"


USUAL_LABELS = "hand_bones"


@dataclass(frozen=True)
class Job:
    """What is fused, by which rule, into what.

    Attributes:
        ensemble: the sources, in the order of the rule.
        rule: one image's predictions -> the fused one.
        out: the file or folder to write.
        format: `csv`, `store`, or a data set format that can be written.
        samples: key -> the data set's sample, where one is given.
        floor: objects whose mean probability is below it are left out.
        jobs: processes.
        on: where; see `zoo.machine.cluster.map_anywhere`. Paths are absolute where it is not "".
        labels_name: how the user called the label space of submissions.
        command: what the user called, for the record.
    """

    ensemble: Ensemble
    rule: Rule
    out: Path
    format: str = CSV
    samples: Mapping[str, Sample] | None = None
    floor: float = 0.0
    jobs: int = 1
    on: str = ""
    labels_name: str | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_place(self.on)
        if self.jobs < 1:
            raise ValueError(f"--jobs: expected 1 or more, found {self.jobs}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"--floor: expected 0 to 1, found {self.floor}")
        if self.floor and self.format == STORE:
            raise ValueError("--floor: a store keeps every probability; give it to what reads it")
        _check_sizes(self)
        _check_out(self.out, self.format)
        _check_kept(self.out, self.ensemble)
        if self.format == STORE:
            _labels_name(self)


def _check_sizes(job: Job) -> None:
    if job.format not in (CSV, STORE) and job.samples is None:
        raise ValueError(f"--format {job.format}: expected --data with the images, found none")
    if job.ensemble.sizes_known:
        return
    if job.format == STORE:
        raise ValueError("--format store: a submission has no image sizes; expected --data too")
    if not job.rule.is_pixelwise:
        raise ValueError("this rule looks at neighbours: submissions alone need --data, for sizes")


def _check_out(out: Path, form: str) -> None:
    """Say before the work what would be said after it."""
    if form == CSV:
        if out.is_dir():
            raise ValueError(f"{out}: expected a file to write, found a folder")
        if out.is_file() and not _is_submission(out):
            raise ValueError(f"{out}: expected nothing there, or a submission to replace")
        return
    if out.is_file():
        raise ValueError(f"{out}: expected a folder to write, found a file")
    if form == STORE:
        return
    if not hasattr(converters.load_format(form), "write"):
        raise ValueError(f"format '{form}': expected one that can be written")
    if out.is_dir() and any(out.iterdir()) and read_provenance(out).get("kind") != form:
        raise ValueError(f"{out}: expected nothing there, or a data set in {form} to replace")


def _is_submission(path: Path) -> bool:
    """Whether a file starts as a submission does, or is empty."""
    with path.open("rb") as file:
        start = file.readline(200)
    found = start.decode("utf-8-sig", errors="replace").strip()
    return not start or found == ",".join(submission.HEADER)


def _check_kept(out: Path, ensemble: Ensemble) -> None:
    for source in ensemble.sources:
        if source.path.resolve() == out.resolve():
            raise ValueError(f"{out}: expected another place than that of a source, which it is")


def _labels_name(job: Job) -> str:
    """Return the name or file by which whoever reads the store finds its label space."""
    for source in job.ensemble.sources:
        if isinstance(source, PredictionStore):
            return source.manifest.labels
    if job.labels_name is None and job.ensemble.labels.name != USUAL_LABELS:
        raise ValueError("--format store: expected --labels with the classes of the submissions")
    return job.labels_name or USUAL_LABELS
