"""Losses of single pixels: cross entropy and its relatives. All learn from the smoothed truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field

from zoo.options import NotNegative, Positive, Share
from zoo.training.losses.target import LossTarget


def _check_odd(side: int) -> int:
    if side < 3 or side % 2 == 0:
        raise ValueError("expected an odd number from 3 on")
    return side


Odd = Annotated[int, AfterValidator(_check_odd)]


def _entropy(logits: torch.Tensor, target: LossTarget, positive: float = 1.0) -> torch.Tensor:
    factor = None if positive == 1 else logits.new_tensor(positive)
    return F.binary_cross_entropy_with_logits(
        logits, target.smooth, reduction="none", pos_weight=factor
    )


def bce(logits: torch.Tensor, target: LossTarget) -> torch.Tensor:
    """Binary cross entropy, mean over everything."""
    return target.mean_classes(target.mean_pixels(_entropy(logits, target)))


def ce(logits: torch.Tensor, target: LossTarget) -> torch.Tensor:
    """Cross entropy of classes of which a pixel has one: -sum t log p, mean over pixels.

    The logits are odds of one class against the rest (`zoo.inference.activation`), so that log p is
    log sigmoid. Where a pixel may have no class, that is one more outcome. Smoothing moves the
    truth toward one over the number of outcomes (Szegedy et al. 2016, section 7). Weights of
    classes count each pixel by its class, as torch's `cross_entropy` does.
    """
    truth, log_p, weights = target.area, F.logsigmoid(logits), target.class_weights
    if weights is None:
        weights = truth.new_ones(truth.shape[1])
    if target.log_none is not None:
        none = (1 - truth.sum(1, keepdim=True)).clamp_min(0)
        truth, log_p = torch.cat([truth, none], 1), torch.cat([log_p, target.log_none], 1)
        weights = torch.cat([weights, weights.new_ones(1)])
    weights = weights[:, None, None]
    smooth = truth * (1 - target.smoothing) + target.smoothing / truth.shape[1]
    entropy = target.weigh(-(smooth * log_p * weights).sum(1, keepdim=True))
    counts = target.weigh((truth * weights).sum(1, keepdim=True))
    return entropy.sum() / counts.sum().clamp_min(1e-6)


def weighted_bce(
    logits: torch.Tensor, target: LossTarget, *, positive_weight: Positive = 2.0
) -> torch.Tensor:
    """Binary cross entropy whose term of the object counts `positive_weight` times.

    Above 1 it costs more to miss a pixel than to invent one. As torch's `pos_weight`.
    """
    return target.mean_classes(target.mean_pixels(_entropy(logits, target, positive_weight)))


def topk(logits: torch.Tensor, target: LossTarget, *, share: Share = 0.1) -> torch.Tensor:
    """Binary cross entropy of each class's hardest share of pixels.

    The online bootstrapping of Wu et al. 2016 (Bridging Category-level and Instance-level Semantic
    Image Segmentation) with the share of nnU-Net's variant, a tenth. They rank all pixels together;
    here every class has its own ranking, so that a small object keeps its share.
    """
    entropy = target.weigh(_entropy(logits, target)).transpose(0, 1).flatten(1)
    hardest, place = entropy.topk(max(1, int(share * entropy.shape[1])), dim=1, sorted=False)
    if target.pixel_weights is None:
        return target.mean_classes(hardest.mean(1))
    weights = target.pixel_weights.expand_as(logits).transpose(0, 1).flatten(1).gather(1, place)
    return target.mean_classes(hardest.sum(1) / weights.sum(1))


def focal(
    logits: torch.Tensor,
    target: LossTarget,
    *,
    gamma: NotNegative = 2.0,
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None,
) -> torch.Tensor:
    """Binary cross entropy times |t - p|^gamma, so that easy pixels count little.

    With a truth t of 0 or 1 it is Lin et al. 2017 (Focal Loss, eq. 4; eq. 5 with `alpha`, the
    weight of the object against 1 - alpha for the rest); in between, Li et al. 2020 (Generalized
    Focal Loss, quality focal loss), which is least where p = t.
    """
    truth = target.smooth
    # Above 0: the derivative of a root is infinite there.
    distance = (truth - logits.sigmoid()).abs().clamp_min(1e-6)
    values = distance**gamma * _entropy(logits, target)
    if alpha is not None:
        values = values * (alpha * truth + (1 - alpha) * (1 - truth))
    return target.mean_classes(target.mean_pixels(values))


def weigh_boundary(target: LossTarget, window: int, gain: float) -> LossTarget:
    """Return a target whose pixels weigh more the more their surroundings differ from them.

    The weight is 1 + gain |mean of t around the pixel - t|, for each class by itself (Wei et al.
    2020, F3Net; its authors take 31 and 5). `window` is the side of the square, in pixels.
    """
    across, middle = (1, window), window // 2
    # Rows, then columns: a square's mean at the cost of two lines.
    around = F.avg_pool2d(target.area, across, 1, (0, middle))
    around = F.avg_pool2d(around, across[::-1], 1, (middle, 0))
    weights = 1 + gain * (around - target.area).abs()
    return replace(target, pixel_weights=target.weigh(weights))


def boundary_bce(
    logits: torch.Tensor, target: LossTarget, *, window: Odd = 31, gain: NotNegative = 5.0
) -> torch.Tensor:
    """Binary cross entropy with more weight near outlines.

    The first half of the loss of F3Net, PraNet and SAM2-UNet; `boundary_iou` is the other.
    """
    return bce(logits, weigh_boundary(target, window, gain))
