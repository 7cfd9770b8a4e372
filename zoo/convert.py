"""From one annotation format to another, with the loss measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import converters
from converters.crops import crop, suggest_margin
from converters.masks import Box
from converters.splits import Split, check_leakage, make_split
from converters.splits import describe as describe_split
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
        first_stage: prediction store that says where the bones are; None asks the annotations.
    """

    around: tuple[str, ...]
    margin_px: int = 0
    scale: int = 1
    enlarger: str = ""
    first_stage: Path | None = None


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


def plan_crop(
    around: Sequence[str],
    margin_px: int = 0,
    scale: int = 1,
    enlarger: str = "",
    first_stage: Path | None = None,
) -> CropPlan | None:
    """Return the plan that the options of a command line mean; None without `around`.

    Raises:
        ValueError: an option that means nothing without `around`, or one out of its range.
    """
    if not around:
        if margin_px or scale != 1 or enlarger or first_stage:
            raise ValueError("--margin, --scale, --enlarger, --boxes: expected with --crop GROUP")
        return None
    if margin_px < 0 or scale < 1:
        raise ValueError(f"expected --margin >= 0 and --scale >= 1, found {margin_px} and {scale}")
    if enlarger and scale == 1:
        raise ValueError("--enlarger: expected with --scale 2 or more, found 1")
    return CropPlan(tuple(around), margin_px, scale, enlarger, first_stage)


def suggest(data: DataSource, labels_name: str, subset: str, plan: CropPlan | None) -> str:
    """Return, in words, how large crops around some bones have to be.

    Raises:
        ValueError: no plan that says around which.
    """
    if plan is None:
        raise ValueError("--suggest: expected with --crop GROUP, such as carpals")
    labels = LabelSpace.load(labels_name)
    boxes = _first_boxes(plan, labels)
    return suggest_margin(data.read(labels, subset), plan.around, labels, boxes).describe()


def split(
    data: DataSource,
    out: Path,
    labels_name: str,
    folds: int,
    strategy: str,
    seed: int,
    *,
    describe: bool,
) -> str:
    """Divide a data set's train images into folds; return what was made, in words.

    Raises:
        ValueError: too few patients, an unknown strategy, or the same image in two folds, or in a
            fold and among the test images.
    """
    labels = LabelSpace.load(labels_name)
    samples = data.read(labels)
    made = make_split(samples, folds=folds, seed=seed, strategy=strategy, labels=labels)
    check_leakage(made, data.read(labels, "all"))
    made.save(out)
    sizes = ", ".join(str(len(keys)) for keys in made.folds)
    groups = len(set(made.groups.values()))
    line = f"{out}: {len(samples)} images of {groups} groups; folds {sizes}"
    return f"{line}\n{describe_split(made, samples, labels)}" if describe else line


def describe_formats() -> str:
    """Return the formats, a line each: name, what can be done with it, layouts, what they lose."""
    lines = []
    for name in converters.FORMATS:
        module = converters.load_format(name)
        ways = [way for way in ("read", "write") if hasattr(module, way)]
        layouts = [
            layout + (f" (loses {', '.join(sorted(lost))})" if lost else "")
            for layout, lost in module.LOSES.items()
        ]
        lines.append(f"{name:11s} {', '.join(ways):12s} {'; '.join(layouts)}".rstrip())
    return "\n".join(lines)


def _cropped(
    samples: Sequence[Sample], plan: CropPlan | None, labels: LabelSpace
) -> Sequence[Sample]:
    if plan is None:
        return samples
    boxes = _first_boxes(plan, labels)
    return crop(samples, plan.around, plan.margin_px, labels, scale=plan.scale, boxes=boxes)


def _first_boxes(plan: CropPlan, labels: LabelSpace) -> Mapping[str, Box] | None:
    if plan.first_stage is None:
        return None
    from zoo.first_stage import read_boxes

    return read_boxes(plan.first_stage, plan.around, labels)


def _enlarger(plan: CropPlan | None) -> Any:
    if plan is None or not plan.enlarger:
        return None
    from zoo.upscale import load_enlarger

    return load_enlarger(Path(plan.enlarger))


def _provenance(data: DataSource, plan: CropPlan | None, command: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"command": list(command)}
    if plan:
        record["config"] = {"crop": {name: str(value) for name, value in vars(plan).items()}}
    if data.edits:
        record["edits"] = data.edits.digest
    return record
