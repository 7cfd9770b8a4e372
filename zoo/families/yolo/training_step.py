"""What networks of Ultralytics compute while they learn, for the estimate of memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from converters.types import LabelSpace
from zoo.families.training_step import TrainingStep
from zoo.families.yolo.config import YoloConfig
from zoo.families.yolo.network import build_network

# isort: split
from ultralytics.utils.loss import v8SegmentationLoss

# Cells of the grid that learn one object's mask: Ultralytics' `tal_topk`; of networks without
# non-maximum suppression a second head has one cell an object.
CELLS, CELLS_OF_ONE = 10, 1


def build_training_step(network: nn.Module, config: YoloConfig, objects: int) -> TrainingStep:
    """Return a batch's way through the network and the losses of scores and masks.

    Masks need most: each cell that learns an object's has that mask at full size, whatever the
    object's own size.

    Args:
        network: in training mode.
        config: how it is trained.
        objects: in an image.
    """
    side = config.imgsz // config.mask_ratio

    def compute(images: torch.Tensor) -> torch.Tensor:
        found = network(images)
        heads = [(found, CELLS)]
        if "one2one" in found:
            heads = [(found["one2many"], CELLS), (found["one2one"], CELLS_OF_ONE)]
        losses = [_head_losses(head, objects * cells, side) for head, cells in heads]
        return torch.stack(losses).sum()

    return TrainingStep(network, (config.batch, 3, config.imgsz, config.imgsz), compute)


def _head_losses(head: dict[str, Any], masks: int, side: int) -> torch.Tensor:
    prototypes = head["proto"][0] if isinstance(head["proto"], tuple) else head["proto"]
    if prototypes.shape[-2:] != (side, side):
        prototypes = F.interpolate(prototypes, (side, side), mode="bilinear", align_corners=False)
    coefficients = head["mask_coefficient"].permute(0, 2, 1).contiguous()
    scores = head["scores"]
    total = F.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores))
    cells = min(masks, coefficients.shape[1])
    truth = prototypes.new_zeros((cells, side, side), dtype=torch.float32)
    boxes, areas = truth.new_zeros((cells, 4)), truth.new_zeros(cells)
    for own, planes in zip(coefficients, prototypes, strict=True):
        total = total + v8SegmentationLoss.single_mask_loss(
            truth, own[:cells], planes, boxes, areas
        )
    return total


class YoloOutline:
    """Networks of Ultralytics before they are trained; see `zoo.families.outlines`."""

    def build(self, config: YoloConfig, classes: int) -> nn.Module:
        """Return the network with random weights."""
        return build_network(config, classes)

    def without_weights(self, config: YoloConfig) -> YoloConfig:
        """Return the config of the same network with random weights."""
        return config

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return nothing: Ultralytics' trainer has no gradient checkpointing."""
        return []

    def training_step(
        self, network: nn.Module, config: YoloConfig, labels: LabelSpace
    ) -> TrainingStep:
        """Return what the network computes while it learns, one object of each class an image."""
        return build_training_step(network, config, len(labels))


OUTLINE = YoloOutline()
