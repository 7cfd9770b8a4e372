"""Losses of overlapping classes: a sigmoid per class, never a softmax over them.

Every loss takes logits, float (N, C, h, w), and targets, float (N, C, h, w), 0 or 1, and returns a
scalar. They compute in float32, whatever the network computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy, mean over everything."""
    return F.binary_cross_entropy_with_logits(logits, target)


def dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice, per class over the whole batch, mean over the classes that occur in it.

    Pixels are summed over the batch before the ratio is taken: a bone of a few pixels gets one
    steady ratio instead of N noisy ones, and counts as much as the largest. A class without a
    pixel in the batch has no Dice to improve and is left to the other losses, as in
    segmentation-models-pytorch. (Milletari et al. 2016, V-Net, eq. in section 3, with the plain sum
    as denominator.)
    """
    prob, truth = logits.sigmoid().flatten(2), target.flatten(2)
    # A product that is summed as it is made needs no memory of its own.
    shared = torch.linalg.vecdot(prob, truth).sum(0)
    true_area = truth.sum(2).sum(0)
    ratio = 2 * shared / (prob.sum(2).sum(0) + true_area).clamp_min(1e-6)
    occurs = true_area > 0
    return ((1 - ratio) * occurs).sum() / occurs.sum().clamp_min(1)


def focal(logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Binary cross entropy times (1 - p_t)^gamma, mean over everything.

    p_t is the probability given to the truth (Lin et al. 2017, Focal Loss, eq. 4; without alpha).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


LOSSES: dict[str, Loss] = {"bce": bce, "dice": dice, "focal": focal}


def check_weights(weights: Mapping[str, float]) -> Mapping[str, float]:
    """Return weights of known losses.

    Raises:
        ValueError: an unknown loss, a negative weight, or none above 0.
    """
    if unknown := sorted(set(weights) - set(LOSSES)):
        raise ValueError(f"unknown loss '{unknown[0]}'; known are {', '.join(LOSSES)}")
    if min(weights.values(), default=0) < 0 or not any(weights.values()):
        raise ValueError("expected weights of at least 0, one of them larger")
    return weights


def weighted_sum(
    weights: Mapping[str, float], logits: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Return the sum of the losses, each times its weight."""
    # Autocast would sum a million pixels in float16, whose largest number is 65504.
    with torch.autocast(logits.device.type, enabled=False):
        logits, target = logits.float(), target.float()
        parts = [w * LOSSES[name](logits, target) for name, w in weights.items() if w]
        return torch.stack(parts).sum()
