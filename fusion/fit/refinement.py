"""Which refinements help: each is tried alone on held-out predictions, group by group.

All values of all steps are tried in one pass over the images, of which only Dice is kept. A step
is switched on where the lower end of the 95 % confidence interval of its gain is above 0. The
gain is that of a value chosen on other patients; the interval is over patients. Where several
steps help a group, a second pass tells whether they do so together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.fit.counted import folds_of
from fusion.metrics.intervals import Estimate, mean_over_people
from fusion.rules.crf import DenseCrf
from fusion.rules.refine import ReadGrey, Refine, Steps, cut, work_window
from fusion.types import Prediction

StepGains = npt.NDArray[np.float32]

CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "crf": (DenseCrf(), DenseCrf(weight=1.0), DenseCrf(weight=1.0, grey=16.0)),
    "smooth": (0.0005, 0.001, 0.002, 0.004),
    "threshold": (0.3, 0.35, 0.4, 0.45, 0.55, 0.6, 0.65, 0.7),
    "opening": (0.001, 0.002, 0.004),
    "closing": (0.001, 0.002, 0.004),
    "parts": (0.05, 0.25, 1.0),
    "holes": (0.02, 0.1, math.inf),
}
"""Step -> the values that are tried."""
_FOLDS = 5
REST = ""
"""Stands for the classes that are in no group."""


@dataclass(frozen=True)
class Trial:
    """What came of a step, or of several together, for a group of classes.

    Attributes:
        group: its name; "" stands for the classes that are in none.
        steps: the step with the value that is best on all images; several in the second pass.
        gain: in Dice, over what the group has without the last of the steps.
        is_on: whether the lower end of the gain's interval is above 0.
    """

    group: str
    steps: Mapping[str, Any]
    gain: Estimate
    is_on: bool

    def __str__(self) -> str:
        what = " + ".join(f"{name} {_text(value)}" for name, value in self.steps.items())
        last = list(self.steps)[-1]
        helps = "helps" if self.is_on else "does not help"
        alone = "alone" if len(self.steps) == 1 else f"with {last} beside the others"
        return f"{self.group or 'other classes'}: {what}: {self.gain}, {helps} {alone}"


@dataclass(frozen=True)
class Choice:
    """The refinements that help, and all that was tried.

    Attributes:
        refine: with an entry for each group that something helps.
        trials: of all groups and steps, in the order in which they were tried.
        images: on how many.
    """

    refine: Refine
    trials: tuple[Trial, ...]
    images: int

    def describe(self) -> list[str]:
        """Return what is done to each group's classes, a line each."""
        entries = {"other classes": self.refine.all, **self.refine.groups}
        done = {
            group: [f"{name} {_text(value)}" for name, value in steps.chosen.items()]
            for group, steps in entries.items()
        }
        return [f"{group}: {' + '.join(found)}" for group, found in done.items() if found]


@dataclass(frozen=True)
class Trying:
    """Tries steps on images, one by one; pure, so that it can run in any process.

    Attributes:
        tried: class name -> what is tried on it.
        labels: the classes.
        read_grey: reads an image by its key; called only where a CRF is tried.
    """

    tried: Mapping[str, Sequence[Steps]]
    labels: LabelSpace
    read_grey: ReadGrey | None = None

    def __call__(self, prediction: Prediction, truth: Mapping[str, CropMask]) -> StepGains:
        """Return what Dice gains by all that is tried, float32 (classes, most that are tried).

        Args:
            prediction: what a rule made of the image.
            truth: class name -> true mask.
        """
        is_wanted = self._needs_image and self.read_grey is not None
        image = self.read_grey(prediction.key) if is_wanted and self.read_grey else None
        most = max(map(len, self.tried.values()), default=0)
        row = np.zeros((len(self.labels), most), np.float32)
        for label, options in self.tried.items():
            gains = _gains(prediction, label, truth.get(label, EMPTY), options, image)
            row[self.labels.index[label], : len(options)] = gains
        return row

    @cached_property
    def _needs_image(self) -> bool:
        return any(steps.crf for options in self.tried.values() for steps in options)


def choose_refinement(
    measure: Callable[[Trying], Iterable[StepGains]],
    people: Sequence[str],
    labels: LabelSpace,
    *,
    candidates: Mapping[str, Sequence[Any]] = CANDIDATES,
    read_grey: ReadGrey | None = None,
    weights: npt.NDArray[np.float64] | None = None,
) -> Choice:
    """Choose what to do to each group's classes.

    Args:
        measure: yields what the tries make of each image's held-out prediction; called once, or
            twice. In both passes the images come in the same order.
        people: whose the images are, in that order.
        labels: the classes.
        candidates: step -> the values to try.
        read_grey: reads an image by its key; without it the CRF is not tried.
        weights: float64 (images,), above 0, how much each image counts; None for all alike.

    Raises:
        ValueError: no images, or images of one patient only.
        MissingDependency: the CRF is to be tried, and is not installed.
    """
    _check_people(people)
    tried = {
        name: [replace(Steps(), **{name: value}) for value in values]
        for name, values in candidates.items()
        if values and (name != "crf" or read_grey is not None)
    }
    flat = [steps for options in tried.values() for steps in options]
    gains = np.stack(list(measure(Trying(dict.fromkeys(labels.names, flat), labels, read_grey))))
    weights = np.ones(len(people)) if weights is None else weights
    trials = []
    for group, names in _groups(labels).items():
        columns = [labels.index[name] for name in names]
        at = 0
        for name, options in tried.items():
            part = gains[:, columns, at : at + len(options)]
            trials.append(_try_alone(group, name, options, part, people, weights))
            at += len(options)
    chains = {group: _chain(trials, group) for group in _groups(labels)}
    together = _try_together(measure, people, labels, chains, read_grey, weights)
    chosen = {group: _chosen(group, chains[group], together) for group in chains}
    helped = {g: replace(Steps(), **steps) for g, steps in chosen.items() if steps}
    rest = helped.pop(REST, Steps())
    return Choice(Refine(rest, helped), (*trials, *together), len(people))


def _check_people(people: Sequence[str]) -> None:
    if not people:
        raise ValueError("refine: expected held-out images with truth, found none")
    if len(set(people)) < 2:
        found = f"{len(set(people))} in {len(people)} images"
        raise ValueError(f"refine: expected images of at least two patients, found {found}")


def _groups(labels: LabelSpace) -> dict[str, list[str]]:
    found = {group: list(names) for group, names in labels.groups.items() if names}
    rest = [name for name in labels.names if labels.group_of(name) is None]
    return {**found, **({REST: rest} if rest else {})}


def _try_alone(
    group: str,
    name: str,
    options: Sequence[Steps],
    gains: StepGains,
    people: Sequence[str],
    weights: npt.NDArray[np.float64],
) -> Trial:
    """Judge a step's gains (N, classes, values) by values that were chosen on other patients."""
    per_image = gains.mean(axis=1, dtype=np.float64)
    held_out = np.zeros(len(people))
    for train, test in folds_of(people, _FOLDS):
        helps = weights[train] @ per_image[train]
        best = int(helps.argmax())
        # Where no value helps the others, none would have been taken.
        if helps[best] > 0:
            held_out[test] = per_image[test, best]
    gain = mean_over_people(held_out, people, weights)
    value = getattr(options[int((weights @ per_image).argmax())], name)
    return Trial(group, {name: value}, gain, gain.is_gain)


def _chain(trials: Sequence[Trial], group: str) -> list[dict[str, Any]]:
    """The steps that help: the best one, the best two together, and so on."""
    helping = [trial for trial in trials if trial.group == group and trial.is_on]
    chain: list[dict[str, Any]] = []
    for trial in sorted(helping, key=lambda trial: -trial.gain.mean):
        chain.append({**(chain[-1] if chain else {}), **trial.steps})
    return chain


def _try_together(
    measure: Callable[[Trying], Iterable[StepGains]],
    people: Sequence[str],
    labels: LabelSpace,
    chains: Mapping[str, Sequence[Mapping[str, Any]]],
    read_grey: ReadGrey | None,
    weights: npt.NDArray[np.float64],
) -> list[Trial]:
    several = {group: chain for group, chain in chains.items() if len(chain) > 1}
    if not several:
        return []
    asked = {
        name: [replace(Steps(), **steps) for steps in several[group]]
        for group, names in _groups(labels).items()
        if group in several
        for name in names
    }
    gains = np.stack(list(measure(Trying(asked, labels, read_grey))))
    trials = []
    for group, chain in several.items():
        columns = [labels.index[name] for name in _groups(labels)[group]]
        per_image = gains[:, columns].mean(axis=1, dtype=np.float64)
        for i in range(1, len(chain)):
            gain = mean_over_people(per_image[:, i] - per_image[:, i - 1], people, weights)
            trials.append(Trial(group, chain[i], gain, gain.is_gain))
    return trials


def _chosen(
    group: str, chain: Sequence[Mapping[str, Any]], together: Sequence[Trial]
) -> Mapping[str, Any]:
    """The longest chain in which every further step still helps."""
    length = min(1, len(chain))
    for trial in together:
        if trial.group == group and trial.is_on and len(trial.steps) == length + 1:
            length += 1
    return chain[length - 1] if length else {}


# --- Dice of everything that is tried


def _gains(
    prediction: Prediction,
    label: str,
    truth: CropMask,
    options: Sequence[Steps],
    image: npt.NDArray[np.uint8] | None,
) -> list[float]:
    best = prediction.best(label)
    side_px = math.sqrt(prediction.size_hw[0] * prediction.size_hw[1])
    margins = [steps.margin_px(side_px) for steps in options]
    windows = {m: work_window(best[1], m, prediction.size_hw) for m in set(margins)} if best else {}
    window = windows.get(max(margins), (0, 0, 0, 0))
    if best is None or not window[2]:
        return [0.0] * len(options)
    prob, real, grey = best[1].render(window), truth.window(window), cut(image, window)
    whole = (prob >= 128).astype(np.uint8)
    before = _dice(whole, real, truth.area)
    idle = _idle(whole)
    after = []
    for steps, margin in zip(options, margins, strict=True):
        if _only(steps) in idle:
            after.append(before)
            continue
        # As much of the window as the step will see when it is used: to a CRF it matters.
        x, y, width, height = windows[margin]
        part = (
            slice(y - window[1], y - window[1] + height),
            slice(x - window[0], x - window[0] + width),
        )
        done = whole.copy()
        done[part] = steps.inside(prob[part], side_px, None if grey is None else grey[part])
        after.append(_dice(done, real, truth.area))
    return [dice - before for dice in after]


@cache
def _only(steps: Steps) -> str:
    """The one step that is taken; "" where there are several, or none."""
    return next(iter(steps.chosen)) if len(steps.chosen) == 1 else ""


def _idle(whole: npt.NDArray[np.uint8]) -> list[str]:
    """The steps that change nothing about a mask (h, w): it has one part, or no holes."""
    # Outlines of parts, whose pixels touch at a corner, have no parent; those of holes have one.
    _, tree = cv2.findContours(whole, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    of_holes = np.zeros(0, np.bool_) if tree is None else tree[0, :, 3] >= 0
    holes = int(of_holes.sum())
    return ["parts"] * (len(of_holes) - holes < 2) + ["holes"] * (holes == 0)


def _dice(inside: npt.NDArray[np.uint8], real: npt.NDArray[np.uint8], truth_px: int) -> float:
    both = cv2.countNonZero(inside) + truth_px
    return 2 * cv2.countNonZero(inside & real) / both if both else 1.0


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
