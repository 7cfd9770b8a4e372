"""ResUNet++ (Jha et al. 2019, arXiv:1911.07067).

Residual units, squeeze-excitation, atrous spatial pyramid pooling, and attention (figure 1).

The paper leaves numbers open that its authors' code states, and this follows: widths of 16 to 256,
squeeze to an eighth, dilations of 1, 6, 12 and 18 that are added, and attention without a sigmoid.
The last layer gives one logit a class instead of one probability.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import SqueezeExcitation, init_he

ENCODER = False
OUTPUTS = 1
_DILATIONS = (1, 6, 12, 18)


def build(
    *,
    encoder: None,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 16,
    reduction: int = 8,
) -> nn.Module:
    """Return a ResUNet++.

    Args:
        encoder: None; it has its own.
        channels: of the images.
        classes: of the logits.
        outputs: 1.
        width: channels at the image's size; each halving doubles them.
        reduction: how much narrower squeeze-excitation is inside.
    """
    return ResUNetPlusPlus(channels, classes, width, reduction)


class ResidualUnit(nn.Module):
    """Norm, ReLU, convolution, twice; a convolution beside it; squeeze-excitation of the sum."""

    def __init__(
        self, given: int, made: int, reduction: int, stride: int = 1, is_first: bool = False
    ) -> None:
        """Build it.

        Args:
            given: channels.
            made: channels.
            reduction: of squeeze-excitation.
            stride: of the first convolution.
            is_first: it reads the image, which is not normed before (the stem block).
        """
        super().__init__()
        before: list[nn.Module] = [] if is_first else [nn.BatchNorm2d(given), nn.ReLU()]
        self.residual = nn.Sequential(
            *before,
            nn.Conv2d(given, made, 3, stride, 1),
            nn.BatchNorm2d(made),
            nn.ReLU(inplace=True),
            nn.Conv2d(made, made, 3, 1, 1),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(given, made, 1, stride), nn.BatchNorm2d(made))
        self.excite = SqueezeExcitation(made, reduction)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h / stride, w / stride)."""
        found: torch.Tensor = self.excite(self.residual(features) + self.shortcut(features))
        return found


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling: dilated convolutions whose sum is mixed by a 1x1 one."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(given, made, 3, 1, d, d), nn.BatchNorm2d(made))
            for d in _DILATIONS
        )
        self.mix = nn.Conv2d(made, made, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h, w)."""
        first, *others = (branch(features) for branch in self.branches)
        found: torch.Tensor = self.mix(sum(others, first))
        return found


class Attention(nn.Module):
    """Weighs what the decoder has by what the encoder has at twice the size."""

    def __init__(self, finer: int, coarser: int) -> None:
        super().__init__()
        self.read_finer = _norm_relu_conv(finer, coarser)
        self.read_coarser = _norm_relu_conv(coarser, coarser)
        self.weigh = _norm_relu_conv(coarser, coarser)

    def forward(self, finer: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        """Return the coarser features, weighed."""
        both = F.max_pool2d(self.read_finer(finer), 2) + self.read_coarser(coarser)
        found: torch.Tensor = self.weigh(both) * coarser
        return found


class DecoderUnit(nn.Module):
    """Attention, twice the size, the encoder's features beside it, and a residual unit."""

    def __init__(self, finer: int, coarser: int, made: int, reduction: int) -> None:
        super().__init__()
        self.attend = Attention(finer, coarser)
        self.unit = ResidualUnit(finer + coarser, made, reduction)

    def forward(self, finer: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h, w) at the finer ones' size."""
        enlarged = F.interpolate(self.attend(finer, coarser), scale_factor=2.0, mode="nearest")
        found: torch.Tensor = self.unit(torch.cat((enlarged, finer), 1))
        return found


class Encoder(nn.Module):
    """The stem and three residual units of half the size each."""

    def __init__(self, channels: int, widths: list[int], reduction: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.units = nn.ModuleList([ResidualUnit(channels, widths[0], reduction, is_first=True)])
        self.units.extend(ResidualUnit(a, b, reduction, stride=2) for a, b in pairs)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return features at strides of 1, 2, 4 and 8."""
        features = [images]
        for unit in self.units:
            features.append(unit(features[-1]))
        return features[1:]


class ResUNetPlusPlus(nn.Module):
    """The network."""

    def __init__(self, channels: int, classes: int, width: int, reduction: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.encoder = Encoder(channels, widths[:4], reduction)
        self.bridge = PyramidPooling(widths[3], widths[4])
        # Each reads the encoder's level and what the one before has made.
        self.decoder = nn.ModuleList(
            DecoderUnit(widths[n], widths[n + 2], widths[n + 1], reduction) for n in (2, 1, 0)
        )
        self.pool = PyramidPooling(widths[1], widths[0])
        self.head = nn.Conv2d(widths[0], classes, 1)
        init_he(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h, w) of images, float (N, channels, h, w)."""
        *skips, features = self.encoder(images)
        features = self.bridge(features)
        for unit, skip in zip(self.decoder, reversed(skips), strict=True):
            features = unit(skip, features)
        logits: torch.Tensor = self.head(self.pool(features))
        return logits


def _norm_relu_conv(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(given), nn.ReLU(), nn.Conv2d(given, made, 3, 1, 1))
