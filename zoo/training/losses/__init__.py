"""Losses of classes that may overlap, and of classes of which a pixel has one.

Every loss takes logits, float32 (N, C, h, w), and a `LossTarget`, and returns a scalar; its options
are keyword-only. `Objective` adds them up as a config says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from zoo.options import NotNegative, check_options, describe
from zoo.training.losses.pixels import bce, boundary_bce, ce, focal, topk, weighted_bce
from zoo.training.losses.regions import (
    boundary_iou,
    dice,
    dice_topk,
    focal_tversky,
    iou,
    lovasz,
    tversky,
)
from zoo.training.losses.target import LossTarget

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "bce": bce,
    "ce": ce,
    "weighted_bce": weighted_bce,
    "boundary_bce": boundary_bce,
    "topk": topk,
    "focal": focal,
    "dice": dice,
    "dice_topk": dice_topk,
    "iou": iou,
    "boundary_iou": boundary_iou,
    "lovasz": lovasz,
    "tversky": tversky,
    "focal_tversky": focal_tversky,
}
# Of classes of which a pixel has one: these compare them with each other.
EXCLUSIVE = frozenset({"ce"})
WEIGHT = {"weight": NotNegative}


def check_losses(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Return losses as a config has them, checked: name -> weight, or its weight and options.

    >>> check_losses({"dice": "0.5", "focal": {"weight": 1, "gamma": 3}})
    {'dice': 0.5, 'focal': {'weight': 1.0, 'gamma': 3.0}}

    Raises:
        ValueError: an unknown loss or option, a negative weight, or none above 0.
    """
    checked: dict[str, Any] = {}
    for name, given in losses.items():
        if name not in LOSSES:
            raise ValueError(f"unknown loss '{name}'; known are {', '.join(LOSSES)}")
        is_plain = not isinstance(given, Mapping)
        options = {"weight": given} if is_plain else given
        found = check_options(LOSSES[name], options, name, WEIGHT)
        checked[name] = found["weight"] if is_plain else found
    if not any(split_weight(given)[0] for given in checked.values()):
        raise ValueError("expected a loss with a weight above 0, found none")
    return checked


def split_weight(given: Any) -> tuple[float, dict[str, Any]]:
    """Return the weight and the options of an entry that `check_losses` returned."""
    if not isinstance(given, Mapping):
        return given, {}
    options = dict(given)
    return options.pop("weight"), options


def list_losses() -> list[tuple[str, str, str]]:
    """Return (name, options with their defaults, purpose) of every loss."""
    return describe(LOSSES)


__all__ = ["EXCLUSIVE", "LOSSES", "LossTarget", "check_losses", "list_losses", "split_weight"]
