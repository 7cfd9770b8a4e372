"""Weights of the sources, fitted for Dice and drawn toward those of related classes.

Per class the soft Dice, averaged over the images, is maximised, or another objective that follows
from counts. A class's weights are drawn toward those of its group, which are drawn toward those of
all classes, which are drawn toward the plain pool: partial pooling, as in a hierarchical model
(Gelman and Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models, 2006, section
12.2), so that many classes and few images do not overfit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.fit.stacks import Stack
from fusion.rules.evidence import LOGIT_LIMIT, ZONES
from fusion.rules.hybrid import ClassWeights

STEPS = 30
PRECISION = 2e-5  # of the loss, relative


@dataclass(frozen=True)
class Shrinkage:
    """How strongly weights are drawn toward those of a wider circle of classes.

    Attributes:
        of_class: a class's toward its group's.
        of_group: a group's toward those of all classes.
        of_all: those of all classes toward the plain pool.
    """

    of_class: float = 0.05
    of_group: float = 0.02
    of_all: float = 0.01

    def times(self, factor: float) -> Shrinkage:
        """Return a stronger or weaker one."""
        return Shrinkage(self.of_class * factor, self.of_group * factor, self.of_all * factor)


class Goal(Protocol):
    """What the weights of a class are to win, from its tables."""

    def logits(self, parameters: Floats) -> npt.NDArray[np.float32]:
        """Return the rows' pooled log odds, float32 (n,)."""

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """Return what is to be minimised, and its gradient."""

    def mean_dice_above(self, logits: npt.NDArray[np.float32], threshold: float) -> float:
        """Return what is won where the rows' log odds reach a threshold."""


@dataclass(frozen=True)
class Mixture:
    """A weighted mean of Dice of several kinds; a `Goal`.

    Attributes:
        parts: weight and stack, all of the same rows.
    """

    parts: tuple[tuple[float, Stack], ...]

    def logits(self, parameters: Floats) -> npt.NDArray[np.float32]:
        """Return the rows' pooled log odds, float32 (n,)."""
        return self.parts[0][1].logits(parameters)

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """1 - weighted mean of the soft Dice of the parts, and its gradient."""
        found = [(weight, *stack.soft_loss(parameters)) for weight, stack in self.parts]
        gradient = np.sum([weight * slope for weight, _, slope in found], axis=0)
        return sum(weight * loss for weight, loss, _ in found), gradient

    def mean_dice_above(self, logits: npt.NDArray[np.float32], threshold: float) -> float:
        """Weighted mean of the parts' Dice where the rows' log odds reach a threshold."""
        return sum(w * stack.mean_dice_above(logits, threshold) for w, stack in self.parts)


def plain_pool(sources: int) -> Floats:
    """Return the parameters from which everything starts, `ClassWeights.plain`'s.

    They are float64 (zones * (K + 1) + 1,): each zone's weights, then the bias.
    """
    plain = ClassWeights.plain(sources)
    rows = [weight for zone in ZONES for weight in plain.weights[zone]]
    return np.array([*rows, plain.bias])


def fit_weights(
    stacks: Mapping[str, Goal], labels: LabelSpace, sources: int, shrinkage: Shrinkage
) -> dict[str, Floats]:
    """Return each class's parameters, as `Stack.dice` takes them.

    Args:
        stacks: class name -> its tables.
        labels: the classes and their groups.
        sources: their number.
        shrinkage: how strongly weights are drawn toward wider circles.
    """
    top = descend(list(stacks.values()), plain_pool(sources), shrinkage.of_all)
    groups = {
        group: descend([stacks[n] for n in names], top, shrinkage.of_group)
        for group, names in labels.groups.items()
        if names
    }
    fitted = {}
    for name, stack in stacks.items():
        toward = groups.get(labels.group_of(name) or "", top)
        fitted[name] = tune_bias(stack, descend([stack], toward, shrinkage.of_class))
    return fitted


def descend(stacks: Sequence[Goal], toward: Floats, shrink: float) -> Floats:
    """Minimise the mean soft loss of the stacks plus shrink * squared distance to `toward`."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        values = [stack.soft_loss(parameters) for stack in stacks]
        away = parameters - toward
        value = float(np.mean([v for v, _ in values])) + shrink * float(away @ away)
        gradient = np.mean([g for _, g in values], axis=0) + 2 * shrink * away
        return value, np.asarray(gradient, np.float64)

    bounds = [(0.0, None)] * (len(toward) - 1) + [(-LOGIT_LIMIT, LOGIT_LIMIT)]
    options = {"maxiter": STEPS, "ftol": PRECISION}
    found = minimize(loss, toward, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, np.float64)


def tune_bias(stack: Goal, parameters: Floats) -> Floats:
    """Move the bias to where the most is won, if it stays so when the neighbours count too."""
    shifts = np.linspace(-0.8, 0.8, 17)
    logits = stack.logits(parameters)
    values = [stack.mean_dice_above(logits, -shift) for shift in shifts]
    # A single lucky threshold is noise: smooth over three neighbours, then choose.
    padded = np.pad(values, 1, mode="edge")
    smooth = np.convolve(padded, [0.25, 0.5, 0.25], mode="valid")
    best = int(np.argmax(smooth - 1e-4 * np.abs(shifts)))
    tuned = parameters.copy()
    tuned[-1] += shifts[best]
    return tuned
