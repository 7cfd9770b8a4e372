"""EffiSegNet (Vezakis et al. 2024, arXiv:2407.16298) on any encoder.

Features of five resolutions get the same number of channels, are enlarged to the image's size and
added; two ghost modules (Han et al. 2020, arXiv:1911.11907) and a 1x1 convolution give the logits
(figure 1).

It differs from the paper in this:

- Nearest neighbours are enlarged and added from coarse to fine, which gives the same sum with a
  fraction of the memory.
- The paper's EfficientNets give their first stage at half of the size, as timm's do
  (`tu-tf_efficientnet_b7`); those of segmentation-models-pytorch (`efficientnet-b7`) give their
  stem. An encoder that gives nothing there is taken without.
- Further outputs of deep supervision, which the authors' code has, stay at their features' size.
- The last convolution has a bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import init_he

ENCODER = True
OUTPUTS = 6


def build(
    *,
    encoder: nn.Module,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 64,
) -> nn.Module:
    """Return an EffiSegNet.

    Args:
        encoder: gives features at strides of 2 to 32.
        channels: of the images.
        classes: of the logits.
        outputs: 6, the last five of the features, or 1.
        width: channels of the decoder.
    """
    return EffiSegNet(encoder, classes, outputs, width)


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a cheap one of each of those.

    The ReLUs come before the norms, as in the authors' code.
    """

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        first = -(-made // 2)
        self.made = made
        self.primary = _conv_relu_norm(given, first, 1)
        self.cheap = _conv_relu_norm(first, first, 3, groups=first)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h, w)."""
        first = self.primary(features)
        return torch.cat((first, self.cheap(first)), 1)[:, : self.made]


class EffiSegNet(nn.Module):
    """The network."""

    def __init__(self, encoder: nn.Module, classes: int, outputs: int, width: int) -> None:
        """Build it.

        Args:
            encoder: gives the image and features, of which the finest may have no channels.
            classes: of the logits.
            outputs: one of the sum, and one of each of its parts; or 1.
            width: channels of the decoder.

        Raises:
            ValueError: an encoder without features at half of the size cannot give six outputs.
        """
        super().__init__()
        self.encoder = encoder
        given = [c for c in encoder.out_channels[1:] if c]
        if 1 < outputs != 1 + len(given):
            raise ValueError(
                f"deep_supervision: expected none with an encoder of {len(given)} features instead "
                f"of {OUTPUTS - 1}, found {outputs} weights"
            )
        self.project = nn.ModuleList(_conv_relu_norm(c, width, 3) for c in given)
        self.norm = nn.BatchNorm2d(width)
        self.ghosts = nn.Sequential(GhostModule(width, width), GhostModule(width, width))
        self.head = nn.Conv2d(width, classes, 1)
        self.auxiliary_heads = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))
            for _ in range(outputs - 1)
        )
        for part in (self.project, self.ghosts, self.head, self.auxiliary_heads):
            init_he(part)

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h, w) of images, float (N, channels, h, w).

        While learning with several outputs: them, and those of the features, finest first.
        """
        features = [f for f in self.encoder(images)[1:] if f.shape[1]]
        parts = [layer(f) for layer, f in zip(self.project, features, strict=True)]
        whole = parts[-1]
        for part in reversed(parts[:-1]):
            whole = part + _enlarge(whole, part.shape[-2:])
        whole = self.norm(_enlarge(whole, images.shape[-2:]))
        logits: torch.Tensor = self.head(self.ghosts(whole))
        if not (self.training and len(self.auxiliary_heads)):
            return logits
        pairs = zip(self.auxiliary_heads, parts, strict=True)
        return [logits, *(head(part) for head, part in pairs)]


def _enlarge(features: torch.Tensor, size_hw: torch.Size) -> torch.Tensor:
    return F.interpolate(features, size=size_hw, mode="nearest")


def _conv_relu_norm(given: int, made: int, kernel: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(given, made, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(made))
