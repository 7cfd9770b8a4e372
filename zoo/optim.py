"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import nn

from zoo.config import StrictModel

Groups = list[dict[str, Any]]


class OptimConfig(StrictModel):
    """How the weights are moved.

    Attributes:
        name: key of `OPTIMIZERS`.
        lr: the highest learning rate.
        weight_decay: of matrices and kernels; biases and norms have none.
        momentum: of sgd.
        schedule: key of `SCHEDULES`.
        warmup_steps: steps in which the rate rises from near 0, in a straight line.
    """

    name: str = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: str = "cosine"
    warmup_steps: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            raise ValueError(f"expected one of {', '.join(OPTIMIZERS)}")
        return name

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        if name not in SCHEDULES:
            raise ValueError(f"expected one of {', '.join(SCHEDULES)}")
        return name


def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=config.lr)


def sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)


OPTIMIZERS: dict[str, Callable[[Groups, OptimConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
}


def cosine(done: float) -> float:
    """Half a cosine wave from 1 to 0 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def constant(done: float) -> float:
    """Always 1."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "constant": constant}


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimizer of all weights that learn."""
    weights = [p for p in network.parameters() if p.requires_grad]
    groups: Groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.name]([g for g in groups if g["params"]], config)


def rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate's factor for a step, counted from 0, of `steps`.

    >>> [round(rate(s, 10, OptimConfig(warmup_steps=4)), 2) for s in (0, 3, 4, 7, 10)]
    [0.25, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[config.schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule that sets the rate before every one of `steps` steps."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, config))
