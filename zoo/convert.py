"""From one annotation format to another, with the loss measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import converters
from converters.crops import crop, suggest_margin
from converters.splits import Split
from converters.types import LabelSpace, Sample
from zoo.progress import Report
from zoo.source import DataSource


@dataclass(frozen=True)
class CropPlan:
    """What part of each image becomes an image of its own.

    Attributes:
        around: groups or classes that the part has to hold.
        margin_px: beyond their outlines, in the image's pixels.
        scale: how much it is enlarged.
        enlarger: a model file that enlarges; "" is Lanczos' kernel.
    """

    around: tuple[str, ...]
    margin_px: int = 0
    scale: int = 1
    enlarger: str = ""


def convert(
    data: DataSource,
    to: str,
    out: Path,
    labels_name: str,
    *,
    subset: str = "train",
    split_path: Path | None = None,
    fold: int = 0,
    layout: str = "",
    crop_plan: CropPlan | None = None,
    jobs: int = 1,
    command: Sequence[str],
    report: Report,
) -> tuple[int, str]:
    """Convert a data set; return the number of images and what was lost, in words.

    Raises:
        ValueError: unreadable data, a format that cannot be written, or a split of other images.
    """
    labels = LabelSpace.load(labels_name)
    samples = data.read(labels, subset)
    loss = converters.write(
        *(_cropped(samples, crop_plan, labels), out),
        format=to,
        labels=labels,
        split=Split.load(split_path) if split_path else None,
        fold=fold,
        excluded=data.excluded,
        layout=layout,
        jobs=jobs,
        enlarge=_enlarger(crop_plan),
        provenance=_provenance(data, crop_plan, command),
        progress=lambda done, total: report(done, total, ""),
    )
    return len(samples), loss.describe()


def suggest(data: DataSource, labels_name: str, subset: str, around: Sequence[str]) -> str:
    """Return, in words, how large crops around some bones have to be."""
    labels = LabelSpace.load(labels_name)
    return suggest_margin(data.read(labels, subset), around, labels).describe()


def _cropped(
    samples: Sequence[Sample], plan: CropPlan | None, labels: LabelSpace
) -> Sequence[Sample]:
    if plan is None:
        return samples
    return crop(samples, plan.around, plan.margin_px, labels, scale=plan.scale)


def _enlarger(plan: CropPlan | None) -> Any:
    if plan is None or not plan.enlarger:
        return None
    from zoo.upscale import load_enlarger

    return load_enlarger(Path(plan.enlarger))


def _provenance(
    data: DataSource, plan: CropPlan | None, command: Sequence[str]
) -> dict[str, Any]:
    record: dict[str, Any] = {"command": list(command)}
    if plan:
        record["config"] = {"crop": vars(plan)}
    if data.edits:
        record["edits"] = data.edits.digest
    return record
