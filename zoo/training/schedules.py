"""Learning-rate schedules by name: each gives the factor of the highest rate.

Most are functions of how much of the training after the warm-up is done, 0 to 1; so that a schedule
keeps its shape when the number of epochs changes. `plateau` is one of the scores so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from zoo.options import Positive, Share, check_options, describe

Below1 = Annotated[float, Field(ge=0, lt=1)]


def constant(done: float) -> float:
    """Always 1."""
    return 1.0


def cosine(done: float, *, floor: Below1 = 0.0) -> float:
    """Half a cosine wave from 1 to `floor`.

    (Loshchilov and Hutter 2017, SGDR, eq. 5, without restarts.)
    """
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def cosine_restarts(
    done: float,
    *,
    cycles: Annotated[int, Field(ge=1)] = 4,
    stretch: Positive = 1.0,
    decay: Share = 0.5,
    floor: Below1 = 0.0,
) -> float:
    """Cosine waves, each `stretch` times as long and `decay` times as high as the one before.

    (Loshchilov and Hutter 2017, SGDR, eq. 5, whose restarts go back to the full rate: decay 1.)
    """
    lengths = [stretch**cycle for cycle in range(cycles)]
    place, cycle = done * sum(lengths), 0
    while cycle < cycles - 1 and place >= lengths[cycle]:
        place -= lengths[cycle]
        cycle += 1
    peak = max(decay**cycle, floor)
    return floor + (peak - floor) * cosine(min(1.0, place / lengths[cycle]))


def poly(done: float, *, power: Positive = 0.9, floor: Below1 = 0.0) -> float:
    """From 1 to `floor` by (1 - done)^power (Chen et al. 2018, DeepLab)."""
    return floor + (1 - floor) * (1 - done) ** power


def step(done: float, *, milestones: tuple[Share, ...] = (0.6, 0.85), gamma: Share = 0.1) -> float:
    """Times `gamma` at each milestone, a share of the training after the warm-up."""
    return gamma ** sum(done >= milestone for milestone in milestones)


def plateau(
    scores: Sequence[float],
    *,
    factor: Share = 0.5,
    patience: Annotated[int, Field(ge=0)] = 5,
    threshold: Annotated[float, Field(ge=0)] = 1e-4,
    floor: Below1 = 0.0,
) -> float:
    """Times `factor` whenever `patience` scores have passed without a better validation Dice.

    Better is by more than `threshold`. A score is taken every `validate_every` epochs. (torch's
    ReduceLROnPlateau in mode max with an absolute threshold.)
    """
    best, waited, rate = -math.inf, 0, 1.0
    for score in scores:
        best, waited = (score, 0) if score > best + threshold else (best, waited + 1)
        if waited > patience:
            rate, waited = max(rate * factor, floor), 0
    return rate


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "poly": poly,
    "step": step,
    "plateau": plateau,
    "constant": constant,
}


def check_schedule(given: Any) -> str | dict[str, Any]:
    """Return a schedule as a config has it, checked: its name, or {name: ..., option: ...}.

    Raises:
        ValueError: an unknown schedule or option.
    """
    options = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"expected one of {', '.join(SCHEDULES)}, or its name and options")
    checked = check_options(SCHEDULES[name], options, name)
    return {"name": name, **checked} if isinstance(given, Mapping) else name


def name_schedule(given: str | dict[str, Any]) -> str:
    """Return the name in what `check_schedule` returned."""
    return given if isinstance(given, str) else str(given["name"])


def bind_schedule(given: str | dict[str, Any]) -> Callable[..., float]:
    """Return the function of what `check_schedule` returned, its options set."""
    options = {} if isinstance(given, str) else {k: v for k, v in given.items() if k != "name"}
    return partial(SCHEDULES[name_schedule(given)], **options)


def list_schedules() -> list[tuple[str, str, str]]:
    """Return (name, options with their defaults, purpose) of every schedule."""
    return describe(SCHEDULES)
