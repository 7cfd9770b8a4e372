"""From one annotation format to another, with the loss measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import converters
from converters.crops import crop, suggest_margin
from converters.splits import Split, check_leakage, make_split
from converters.splits import describe as describe_split
from converters.types import LabelSpace, Sample
from zoo.progress import Report
from zoo.source import DataSource

if TYPE_CHECKING:
    from zoo.first_stage import FirstBoxes


@dataclass(frozen=True)
class CropPlan:
    """What part of each image becomes an image of its own.

    Attributes:
        around: groups or classes that the part has to hold.
        margin_px: beyond their outlines, in the image's pixels.
        scale: how much it is enlarged.
        enlarger: a model file that enlarges; "" is Lanczos' kernel.
        first_stage: prediction store that says where the bones are; None asks the annotations.
            Where a split divides the data, images to learn from that the store does not have are
            cut by their annotations; those that are held out never are.
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
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, str]:
    """Convert a data set; return the number of images and what was lost, in words.

    Takes what the options of `zoo convert` are, and `say`, which is told of images in which a
    crop's first stage sees none of the bones.

    Raises:
        ValueError: unreadable data, a format that cannot be written, or a split of other images.
    """
    labels = LabelSpace.load(labels_name)
    samples = data.read(labels, subset)
    split = Split.load(split_path) if split_path else None
    learnt = frozenset(split.train(fold)) if split else frozenset()
    loss = converters.write(
        *(_cropped(samples, crop_plan, labels, learnt, say), out),
        format=to,
        labels=labels,
        split=split,
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
    first = _first_boxes(plan, labels)
    boxes = first.found if first else None
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
    samples: Sequence[Sample],
    plan: CropPlan | None,
    labels: LabelSpace,
    learnt: Collection[str],
    say: Callable[[str], None],
) -> Sequence[Sample]:
    if plan is None:
        return samples
    cut = partial(
        crop, around=plan.around, margin_px=plan.margin_px, labels=labels, scale=plan.scale
    )
    first = _first_boxes(plan, labels)
    if first is None:
        return cut(samples)
    _check_frames(plan, samples, first)
    for key in sorted(set(first.blind) & {sample.key for sample in samples}):
        what = ", ".join(plan.around)
        say(f"{key}: {plan.first_stage} sees no {what}; cut out where they lie in all others")
    by_truth = [s for s in samples if s.key in learnt and s.key not in first.sizes]
    others = [s for s in samples if s.key not in learnt or s.key in first.sizes]
    parts = [*cut(by_truth), *cut(others, boxes=first.complete())]
    return sorted(parts, key=lambda sample: sample.key)


def _first_boxes(plan: CropPlan, labels: LabelSpace) -> FirstBoxes | None:
    if plan.first_stage is None:
        return None
    from zoo.first_stage import find_boxes

    return find_boxes(plan.first_stage, plan.around, labels)


def _check_frames(plan: CropPlan, samples: Sequence[Sample], first: FirstBoxes) -> None:
    for sample in samples:
        found = first.sizes.get(sample.key, sample.size_hw)
        if found != tuple(sample.size_hw):
            raise ValueError(
                f"{plan.first_stage}: '{sample.key}' is {found} there, the image {sample.size_hw}; "
                "take predictions on this data set"
            )


def _enlarger(plan: CropPlan | None) -> Any:
    if plan is None or not plan.enlarger:
        return None
    from zoo.upscale import load_enlarger

    return load_enlarger(Path(plan.enlarger))


def _provenance(data: DataSource, plan: CropPlan | None, command: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"command": list(command)}
    if plan:
        told = {name: str(value) for name, value in vars(plan).items()}
        record["config"] = {"crop": {**told, "around": list(plan.around)}}
    if data.edits:
        record["edits"] = data.edits.digest
    return record
