"""A training step as the estimate of memory sees it: up to the loss, without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class TrainingStep(nn.Module):
    """What a family computes of a batch while it learns, on any device, also a pretended one.

    Nothing in it may depend on what tensors hold. Where training does, such as on the number of
    proposals that lie on objects, it is the most that there can be.
    """

    def __init__(
        self,
        network: nn.Module,
        images_shape: tuple[int, int, int, int],
        compute: Callable[[torch.Tensor], Any],
        further: nn.Module | None = None,
    ) -> None:
        """Take what there is to compute.

        Args:
            network: in training mode.
            images_shape: of a batch, (N, channels, h, w).
            compute: what is computed of images, float, of that shape.
            further: what has weights beside the network, such as a loss with weights of classes.
        """
        super().__init__()
        self.network, self.further = network, further
        self.images_shape, self._compute = images_shape, compute

    def forward(self, images: torch.Tensor) -> Any:
        """Compute a batch."""
        return self._compute(images)
