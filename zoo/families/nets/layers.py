"""Layers that networks of this family share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm_relu(
    given: int, made: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps the size (but for its stride), a batch norm and a ReLU.

    Args:
        given: channels.
        made: channels.
        kernel: odd side.
        stride: of the convolution.
        dilation: of the convolution.
    """
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(inplace=True),
    )


def resize(features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return features (N, c, h, w) at the size of others, bilinear."""
    size = like.shape[-2:]
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def init_he(module: nn.Module) -> None:
    """Draw the kernels of convolutions from a normal law for ReLUs (He et al. 2015, section 2.2).

    Args:
        module: whose convolutions; those of pretrained encoders are no part of it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the image (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inside = max(channels // reduction, 1)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, inside, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(inside, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, c, h, w), weighed."""
        return features * self.weigh(features.mean((2, 3), keepdim=True))
