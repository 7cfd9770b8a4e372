"""Crops of a data set: what is cut out, by annotations or by a first stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from converters.crops import crop, suggest_margin
from converters.files.images import Enlarge
from converters.types import LabelSpace, Sample
from zoo.source import DataSource

if TYPE_CHECKING:
    from zoo.datasets.crop_boxes import FirstBoxes


@dataclass(frozen=True)
class CropPlan:
    """What part of each image becomes an image of its own.

    Attributes:
        around: groups or classes that the part has to hold.
        margin_px: beyond their outlines, in the image's pixels.
        scale: how much it is enlarged.
        enlarger: a model that enlarges, see `zoo.datasets.upscale`; "" is Lanczos' kernel.
        first_stage: prediction store that says where the classes lie; None asks the annotations.
            Where a split divides the data, images to learn from that the store does not have are
            cut by their annotations; those that are held out never are.
    """

    around: tuple[str, ...]
    margin_px: int = 0
    scale: int = 1
    enlarger: str = ""
    first_stage: Path | None = None


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


def suggest(data: DataSource, labels_name: str | None, subset: str, plan: CropPlan | None) -> str:
    """Return, in words, how large crops around some classes have to be.

    Raises:
        ValueError: no plan that says around which.
    """
    if plan is None:
        raise ValueError("--suggest: expected with --crop GROUP")
    labels = data.labels(labels_name)
    first = _first_boxes(plan, labels)
    boxes = first.found if first else None
    return suggest_margin(data.read(labels, subset), plan.around, labels, boxes).describe()


def crop_samples(
    samples: Sequence[Sample],
    plan: CropPlan,
    labels: LabelSpace,
    learnt: Collection[str],
    say: Callable[[str], None],
) -> Sequence[Sample]:
    """Return the crops of samples, by key.

    Args:
        samples: whole images.
        plan: what to cut out.
        labels: the classes.
        learnt: keys of images that are learned from.
        say: is told of images in which the first stage sees none of the classes.

    Raises:
        ValueError: a first stage of other classes or of images of other sizes, or an unknown class.
    """
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
    from zoo.datasets.crop_boxes import find_boxes

    return find_boxes(plan.first_stage, plan.around, labels)


def _check_frames(plan: CropPlan, samples: Sequence[Sample], first: FirstBoxes) -> None:
    for sample in samples:
        found = first.sizes.get(sample.key, sample.size_hw)
        if found != tuple(sample.size_hw):
            raise ValueError(
                f"{plan.first_stage}: '{sample.key}' is {found} there, the image {sample.size_hw}; "
                "take predictions on this data set"
            )


def open_enlarger(plan: CropPlan) -> Enlarge | None:
    """Return the plan's model that enlarges; None for Lanczos' kernel."""
    if not plan.enlarger:
        return None
    from zoo.datasets.upscale import load_enlarger

    return load_enlarger(plan.enlarger)
