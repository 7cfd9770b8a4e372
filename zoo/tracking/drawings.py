"""Pictures of the validation images that a model gets worst."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.masks import CropMask
from converters.pictures import drawing
from converters.pictures.colors import class_colors
from converters.pictures.drawing import View
from converters.types import LabelSpace, Sample, has_twice
from fusion.binary import binary_masks
from fusion.metrics.annotated import measure_masks, truth_masks
from fusion.metrics.objects import predicted_objects
from fusion.types import Prediction
from zoo.report import pictures
from zoo.tracking.backends import Drawing, Layer, Picture

Planes = Mapping[str, npt.NDArray[np.bool_]]
# 29 classes need three or four, and each is two pictures.
_MOST_LAYERS = 8


@dataclass(frozen=True)
class ScoredSample:
    """A sample, what was drawn on it, and what that is worth.

    Attributes:
        sample: with truth.
        masks: class -> mask.
        dice: mean over the classes.
        pq: mean panoptic quality of the classes with objects; None where no class has several.
    """

    sample: Sample
    masks: Mapping[str, CropMask]
    dice: float
    pq: float | None = None


def worst_samples(
    predictions: Iterable[Prediction], samples: Sequence[Sample], labels: LabelSpace, count: int
) -> list[ScoredSample]:
    """Return the worst samples, worst first; no more are kept in memory.

    The worst are those with the lowest panoptic quality where a sample has several objects of a
    class, else with the lowest Dice.

    Args:
        predictions: one a sample, in order.
        samples: with truth.
        labels: the classes.
        count: how many.
    """
    by_objects = not labels.once and any(has_twice(sample.labels) for sample in samples)

    def scored() -> Iterator[ScoredSample]:
        for prediction, sample in zip(predictions, samples, strict=True):
            masks = binary_masks(prediction, labels)
            objects = predicted_objects(prediction, labels, masks) if by_objects else None
            score = measure_masks(masks, sample, labels, labels, ("dice",), objects)
            yield ScoredSample(sample, masks, float(np.mean(list(score.dice.values()))), score.pq())

    def worth(found: ScoredSample) -> tuple[float, float]:
        return 1.0 if found.pq is None else found.pq, found.dice

    return heapq.nsmallest(count, scored(), key=worth)


def draw_worst(found: Sequence[ScoredSample], labels: LabelSpace) -> Iterator[Drawing]:
    """Yield the drawings of samples, in order."""
    for rank, case in enumerate(found, start=1):
        yield draw_sample(f"worst-{rank}", case, labels)


def draw_sample(name: str, case: ScoredSample, labels: LabelSpace) -> Drawing:
    """Draw truth, prediction, what is hit, missed and false, and layers of classes apart.

    A layer holds classes of which neither the true nor the drawn masks overlap each other on this
    image, so that each class can be seen, and one number a pixel says all. A network that has not
    learned yet draws everything everywhere; no layers are drawn of that.
    """
    truth = truth_masks(case.sample, labels)
    view = pictures.view_of([*truth.values(), *case.masks.values()], case.sample.size_hw)
    ground = drawing.read_view(case.sample, view)
    colors = class_colors(labels.names)
    panels = {
        "truth": drawing.draw_masks(ground, truth, view, colors),
        "prediction": drawing.draw_masks(ground, case.masks, view, colors),
        "difference": pictures.draw_difference(ground, case.masks, truth, view),
    }
    sides = {"truth": _planes(truth, view), "prediction": _planes(case.masks, view)}
    layers = []
    groups = apart(labels.names, list(sides.values()))
    for number, names in enumerate(groups if len(groups) <= _MOST_LAYERS else (), start=1):
        for side, masks in (("truth", truth), ("prediction", case.masks)):
            some = {n: masks[n] for n in names if n in masks}
            title = f"{side} layer {number}"
            panels[title] = drawing.draw_masks(ground, some, view, colors)
            layers.append(_layer(title, names, sides[side], labels, view))
    shown = {title: _bytes(panel) for title, panel in panels.items()}
    caption = f"{case.sample.key}, Dice {case.dice:.4f}"
    if case.pq is not None:
        caption += f", PQ {case.pq:.4f}"
    if len(groups) > _MOST_LAYERS:
        caption += f", no layers: {len(groups)} would be needed"
    return Drawing(name, caption, _bytes(ground), shown, layers)


def apart(names: Sequence[str], sides: Sequence[Planes]) -> list[tuple[str, ...]]:
    """Divide classes into few groups in which no two share a pixel; absent ones are in none.

    Each class goes to the first group that it fits, in order (greedy colouring of the graph of
    overlaps: Welsh and Powell, "An upper bound for the chromatic number of a graph", 1967).

    Args:
        names: the classes.
        sides: sets of masks, label -> bool (h, w); classes are apart if they are in each set.
    """
    groups: list[list[str]] = []
    taken: list[list[Any]] = []
    for name in names:
        planes = [side.get(name) for side in sides]
        if all(plane is None for plane in planes):
            continue
        place = next((i for i, used in enumerate(taken) if not _meet(used, planes)), len(groups))
        if place == len(groups):
            groups.append([])
            taken.append([False for _ in sides])
        groups[place].append(name)
        pairs = zip(taken[place], planes, strict=True)
        taken[place] = [used if plane is None else used | plane for used, plane in pairs]
    return [tuple(group) for group in groups]


def _meet(used: Sequence[Any], planes: Sequence[npt.NDArray[np.bool_] | None]) -> bool:
    pairs = zip(used, planes, strict=True)
    return any(plane is not None and bool((plane & taken).any()) for taken, plane in pairs)


def _planes(masks: Mapping[str, CropMask], view: View) -> Planes:
    drawn = {n: drawing.coverage(m, view) >= 0.5 for n, m in masks.items() if m.area}
    return {name: plane for name, plane in drawn.items() if plane.any()}


def _layer(
    title: str, names: Sequence[str], planes: Planes, labels: LabelSpace, view: View
) -> Layer:
    numbers = np.zeros(view.size_hw, np.uint8 if len(labels) < 256 else np.uint16)
    of = {name: labels.names.index(name) + 1 for name in names if name in planes}
    for name, number in of.items():
        numbers[planes[name]] = number
    return Layer(title, numbers, {number: name for name, number in of.items()})


def _bytes(picture: npt.NDArray[np.float32]) -> Picture:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
