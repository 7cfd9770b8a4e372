"""Losses of whole regions: ratios of areas, per class over the batch.

Pixels are summed over the batch before the ratio is taken: an object of a few pixels gets one
steady ratio instead of N noisy ones, and counts as much as the largest. A class without a pixel in
the batch has no ratio to improve and is left to the other losses, as in
segmentation-models-pytorch.

The area that prediction and truth share is the sum of the smaller of both. Where the truth is 0 or
1 that is the usual product; where it lies between, the product would be best for predictions of 0
and 1, and this is best where they equal the truth (Wang et al. 2023, Dice Semimetric Losses, and
Jaccard Metric Losses).

The truth is never smoothed here: half a percent of the background outweighs a small object.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from zoo.options import NotNegative, Positive, Share
from zoo.training.losses.pixels import Odd, topk, weigh_boundary
from zoo.training.losses.target import LossTarget

# Keeps ratios finite; far below a pixel.
LEAST_AREA = 1e-6
Areas = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _areas(logits: torch.Tensor, target: LossTarget) -> Areas:
    """Return what is shared, only predicted, and only true, each (C,), in weighted pixels."""
    prob = logits.sigmoid()
    shared = target.weigh(torch.minimum(prob, target.area)).sum((0, 2, 3))
    predicted = target.weigh(prob).sum((0, 2, 3))
    return shared, predicted - shared, target.weigh(target.area).sum((0, 2, 3)) - shared


def _tversky(logits: torch.Tensor, target: LossTarget, alpha: float, beta: float) -> torch.Tensor:
    shared, invented, missed = _areas(logits, target)
    return 1 - shared / (shared + alpha * invented + beta * missed).clamp_min(LEAST_AREA)


def _mean_present(values: torch.Tensor, target: LossTarget) -> torch.Tensor:
    return target.mean_classes(values, target.area.amax((0, 2, 3)) > 0)


def dice(logits: torch.Tensor, target: LossTarget) -> torch.Tensor:
    """1 - soft Dice, mean over the classes that occur.

    (Milletari et al. 2016, V-Net, section 3, with the plain sum as denominator.)
    """
    return _mean_present(_tversky(logits, target, 0.5, 0.5), target)


def iou(logits: torch.Tensor, target: LossTarget) -> torch.Tensor:
    """1 - soft intersection over union (Jaccard), mean over the classes that occur.

    (Rahman and Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks.)
    """
    return _mean_present(_tversky(logits, target, 1.0, 1.0), target)


def tversky(
    logits: torch.Tensor, target: LossTarget, *, alpha: Positive = 0.3, beta: Positive = 0.7
) -> torch.Tensor:
    """1 - Tversky index: what is invented weighs `alpha`, what is missed `beta`.

    .5 and .5 are Dice, 1 and 1 IoU (Salehi et al. 2017, Tversky Loss Function, whose
    best are the defaults).
    """
    return _mean_present(_tversky(logits, target, alpha, beta), target)


def focal_tversky(
    logits: torch.Tensor,
    target: LossTarget,
    *,
    alpha: Positive = 0.3,
    beta: Positive = 0.7,
    gamma: Positive = 4 / 3,
) -> torch.Tensor:
    """Tversky loss of every class to the power 1 / gamma.

    Above 1, classes that are nearly right weigh more; below, those that are wrong (Abraham and Khan
    2019, A Novel Focal Tversky Loss, whose alpha is our beta).
    """
    # Above 0: the derivative of a root is infinite there.
    loss = _tversky(logits, target, alpha, beta).clamp_min(1e-6)
    return _mean_present(loss ** (1 / gamma), target)


def dice_topk(logits: torch.Tensor, target: LossTarget, *, share: Share = 0.1) -> torch.Tensor:
    """Dice loss plus the cross entropy of each class's hardest share of pixels.

    DiceTopK, with weight 1 each: the most robust of the losses that Ma et al. 2021 (Loss odyssey
    in medical image segmentation) compare. Give `dice` and `topk` for other weights.
    """
    return dice(logits, target) + topk(logits, target, share=share)


def boundary_iou(
    logits: torch.Tensor, target: LossTarget, *, window: Odd = 31, gain: NotNegative = 5.0
) -> torch.Tensor:
    """IoU loss with more weight near outlines (Wei et al. 2020, F3Net)."""
    return iou(logits, weigh_boundary(target, window, gain))


def lovasz(logits: torch.Tensor, target: LossTarget) -> torch.Tensor:
    """Lovasz hinge: the convex surrogate of 1 - IoU of the thresholded mask, per class that occurs.

    (Berman et al. 2018, The Lovasz-Softmax Loss, algorithm 1.) It knows in and out only:
    a pixel is in where the truth is at least one half. Weights of pixels make the IoU a weighted
    one. It sorts all pixels of a class, and needs about four times the memory of the others.
    """
    inside = target.area >= 0.5
    errors = 1 - torch.where(inside, logits, -logits)
    ranked, order = errors.transpose(0, 1).flatten(1).sort(dim=1, descending=True)

    def rank(values: torch.Tensor) -> torch.Tensor:
        return values.transpose(0, 1).flatten(1).gather(1, order).cumsum(1)

    missed, invented = rank(target.weigh(inside.float())), rank(target.weigh((~inside).float()))
    area = missed[:, -1:]
    jaccard = 1 - (area - missed) / (area + invented)
    steps = jaccard.diff(dim=1, prepend=torch.zeros_like(area))
    return target.mean_classes((F.relu(ranked) * steps).sum(1), inside.any(-1).any(-1).any(0))
