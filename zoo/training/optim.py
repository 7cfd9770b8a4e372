"""Optimizers by name, and the learning rate of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from zoo.config import StrictModel
from zoo.training.schedules import bind_schedule, check_schedule, name_schedule

Groups = list[dict[str, Any]]
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(StrictModel):
    """How the weights are moved.

    Attributes:
        name: key of `OPTIMIZERS`.
        lr: the highest learning rate.
        weight_decay: of matrices and kernels; biases and norms have none.
        momentum: of sgd.
        betas: of adam, adamw and adamp: how much the means of the gradient and of its square keep.
        eps: of adam, adamw and adamp: added to the divisor.
        encoder_lr: the encoder's learning rate is `lr` times this.
        schedule: key of `zoo.training.schedules.SCHEDULES`, or {name: ..., option: ...}.
        warmup_steps: steps in which the rate rises from near 0, in a straight line.
    """

    name: str = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    encoder_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    schedule: str | dict[str, Any] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            raise ValueError(f"expected one of {', '.join(OPTIMIZERS)}")
        return name

    @field_validator("schedule", mode="before")
    @classmethod
    def _known_schedule(cls, schedule: Any) -> str | dict[str, Any]:
        return check_schedule(schedule)

    @property
    def follows_score(self) -> bool:
        """Whether the rate depends on validation, which then needs images."""
        return name_schedule(self.schedule) == "plateau"


def adam(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam, whose decay is a part of the gradient (Kingma and Ba 2015)."""
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW, which decays apart from the gradient (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def adamp(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamP: no step along a kernel whose scale a norm undoes (Heo et al. 2021); timm's."""
    # Late: timm takes a second to import.
    from timm.optim import AdamP

    return AdamP(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)


OPTIMIZERS: dict[str, Callable[[Groups, OptimConfig], torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "adamp": adamp,
    "sgd": sgd,
}


def list_optimizers() -> list[tuple[str, str]]:
    """Return (name, purpose) of every optimizer."""
    return [(name, (make.__doc__ or "").splitlines()[0]) for name, make in OPTIMIZERS.items()]


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimizer of all weights that learn; those of an encoder come last.

    Raises:
        ValueError: the encoder shall learn at a rate of its own, and the network has none.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    if config.encoder_lr == 1:
        return OPTIMIZERS[config.name](_split_decay(weights, config), config)
    encoder = {id(p) for p in _encoder(network).parameters()}
    rest = _split_decay([p for p in weights if id(p) not in encoder], config)
    own = _split_decay([p for p in weights if id(p) in encoder], config)
    for group in own:
        group["lr"] = config.lr * config.encoder_lr
    return OPTIMIZERS[config.name]([*rest, *own], config)


def _split_decay(weights: Sequence[nn.Parameter], config: OptimConfig) -> Groups:
    groups: Groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _encoder(network: nn.Module) -> nn.Module:
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(
            f"optim.encoder_lr: expected a network with an attribute 'encoder', found "
            f"{type(network).__name__} without one; set encoder_lr to 1"
        )
    return encoder


def _warm(step: int, warmup: int) -> float:
    """Return the factor of the rate in a warm-up of so many steps; 1 after it."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate's factor for a step, counted from 0, of `steps`.

    >>> [round(rate(s, 10, OptimConfig(warmup_steps=4)), 2) for s in (0, 3, 4, 7, 10)]
    [0.25, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return _warm(step, warmup)
    return bind_schedule(config.schedule)(min(1.0, (step - warmup) / max(1, steps - warmup)))


class ScoreLR(LambdaLR):
    """A learning rate that the scores so far decide, after a warm-up.

    The scores are its state: a run that is continued goes on with the same rates.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factor: Callable[[Sequence[float]], float],
        warmup_steps: int,
    ) -> None:
        self.scores: list[float] = []
        super().__init__(optimizer, lambda step: _warm(step, warmup_steps) * factor(self.scores))

    def observe(self, score: float) -> None:
        """Take a score, the higher the better, and set the rate of the next step."""
        self.scores.append(float(score))
        parts = zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True)
        for group, highest, factor in parts:
            group["lr"] = highest * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule that sets the rate before every one of `steps` steps."""
    if config.follows_score:
        return ScoreLR(optimizer, bind_schedule(config.schedule), config.warmup_steps)
    # A function: a checkpoint leaves it out, and holds plain values alone.
    return LambdaLR(optimizer, lambda step: rate(step, steps, config))
