"""U-Net 3+ (Huang et al. 2020, arXiv:2004.08790) on any encoder, or on its own.

Each node of the decoder reads all levels: finer ones of the encoder, its own, and coarser ones of
the decoder (figure 1c, equation 1).

It differs from the paper in this:

- With an encoder, the five levels have strides of 2 to 32 and the finest logits half of the image's
  size; with its own (`encoder: null`) they have 1 to 16, as in the paper.
- An encoder that gives nothing at half of the size, such as Swin's, gets two convolutions for it.
- Outputs of deep supervision (section 2.2) stay at their node's size, and the truth is reduced to
  theirs; the paper enlarges them. The loss is the config's, not IoU + focal + MS-SSIM.
- The classification-guided module (section 2.3) tells of each class whether it is in the image, by
  a sigmoid; the paper's, of one organ, chooses between two numbers. It learns from binary cross
  entropy, and it closes classes in evaluation only, so that a class that it misses still learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import conv_norm_relu, init_he

ENCODER, OWN_ENCODER = True, True
LEVELS = OUTPUTS = 5
# The logits of a class that is closed; its probability is 2e-9, also in half precision 0.
_CLOSED = -20.0


def build(
    *,
    encoder: nn.Module | None,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 64,
    own_width: int = 64,
    guided: bool = False,
    dropout: float = 0.5,
) -> nn.Module:
    """Return a U-Net 3+.

    Args:
        encoder: None for the paper's own.
        channels: of the images.
        classes: of the logits.
        outputs: 5 for deep supervision, else 1.
        width: channels that a node takes from each level; it has five times as many.
        own_width: channels of the own encoder's first level; each next one has twice as many.
        guided: add the classification-guided module.
        dropout: of that module.
    """
    taken = PlainEncoder(channels, own_width) if encoder is None else encoder
    return UNet3Plus(taken, channels, classes, outputs, width, dropout if guided else None)


def objective(base: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """Return what training lowers: with the guiding module, it learns as well."""
    return GuidedObjective(base) if options.get("guided") else base


class PlainEncoder(nn.Module):
    """The paper's encoder: five levels of two convolutions, each of half the size before.

    `out_channels` begins with the image's.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.out_channels = [channels, *(width * 2**level for level in range(LEVELS))]
        pairs = pairwise(self.out_channels)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm_relu(a, b), conv_norm_relu(b, b)) for a, b in pairs
        )
        init_he(self)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the images and five features, at strides of 1 to 16."""
        features = [images]
        for level, stage in enumerate(self.stages):
            features.append(stage(F.max_pool2d(features[-1], 2) if level else images))
        return features


class Link(nn.Module):
    """What a node takes from one level: enlarged or pooled, then a convolution (figure 2)."""

    def __init__(self, given: int, made: int, halvings: int) -> None:
        """Build it.

        Args:
            given: channels of the level.
            made: channels for the node.
            halvings: how much finer the level is than the node; negative where it is coarser.
        """
        super().__init__()
        self.halvings = halvings
        self.convolve = conv_norm_relu(given, made)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h, w) at the node's size."""
        if self.halvings > 0:
            features = F.max_pool2d(features, 2**self.halvings)
        elif self.halvings < 0:
            scale = 2.0**-self.halvings
            features = F.interpolate(features, scale_factor=scale, mode="bilinear")
        found: torch.Tensor = self.convolve(features)
        return found


class Node(nn.Module):
    """One node of the decoder, which reads all levels (equation 1)."""

    def __init__(self, level: int, channels: list[int], width: int) -> None:
        """Build it.

        Args:
            level: of the node, 0 is the finest.
            channels: of all levels, finest first, as the node reads them.
            width: channels from each of them.
        """
        super().__init__()
        self.links = nn.ModuleList(Link(c, width, level - k) for k, c in enumerate(channels))
        self.fuse = nn.Sequential(conv_norm_relu(LEVELS * width, LEVELS * width))

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Return features (N, 5 width, h, w) of five levels, finest first."""
        taken = [link(features) for link, features in zip(self.links, levels, strict=True)]
        found: torch.Tensor = self.fuse(torch.cat(taken, 1))
        return found


class Guide(nn.Module):
    """Tells which classes are in the image, of the coarsest level (figure 3)."""

    def __init__(self, given: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.classify = nn.Conv2d(given, classes, 1)

    def forward(self, coarsest: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, 1, 1)."""
        return F.adaptive_max_pool2d(self.classify(self.drop(coarsest)), 1)


class UNet3Plus(nn.Module):
    """The network."""

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        classes: int,
        outputs: int,
        width: int,
        guide_dropout: float | None,
    ) -> None:
        """Build it.

        Args:
            encoder: gives the image and five levels, of which the finest may have no channels.
            channels: of the images.
            classes: of the logits.
            outputs: 5 or 1.
            width: channels that a node takes from each level.
            guide_dropout: of the guiding module; None is without it.
        """
        super().__init__()
        self.encoder = encoder
        given = list(encoder.out_channels[1:])
        self.stem: nn.Module | None = None
        if not given[0]:
            given[0] = width
            self.stem = nn.Sequential(
                conv_norm_relu(channels, width, stride=2), conv_norm_relu(width, width)
            )
        fused = LEVELS * width
        nodes = []
        for level in range(LEVELS - 1):
            coarser = [fused] * (LEVELS - 2 - level) + given[-1:]
            nodes.append(Node(level, given[: level + 1] + coarser, width))
        self.nodes = nn.ModuleList(nodes)
        sizes = [*[fused] * (LEVELS - 1), given[-1]]
        self.heads = nn.ModuleList(nn.Conv2d(c, classes, 3, padding=1) for c in sizes[:outputs])
        self.guide = None if guide_dropout is None else Guide(given[-1], classes, guide_dropout)
        for part in (self.stem, self.nodes, self.heads, self.guide):
            if part is not None:
                init_he(part)

    def forward(self, images: torch.Tensor) -> Any:
        """Return logits of images, float (N, channels, h, w).

        Returns:
            In evaluation (N, C, h', w'). While learning with several outputs their list, finest
            first; with the guiding module {"masks": that or the logits, "classes": (N, C, 1, 1)}.
        """
        levels = list(self.encoder(images)[1:])
        if self.stem is not None:
            levels[0] = self.stem(images)
        presence = None if self.guide is None else self.guide(levels[-1])
        for level in reversed(range(LEVELS - 1)):
            levels[level] = self.nodes[level](levels)
        if not self.training:
            logits: torch.Tensor = self.heads[0](levels[0])
            return logits if presence is None else close(logits, presence)
        outputs = [head(x) for head, x in zip(self.heads, levels, strict=False)]
        found = outputs if len(outputs) > 1 else outputs[0]
        return found if presence is None else {"masks": found, "classes": presence}


def close(logits: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    """Return logits (N, C, h, w) in which classes that are not there are nowhere.

    Args:
        logits: of pixels.
        presence: of classes, (N, C, 1, 1); a class is there from 0 on.
    """
    return torch.where(presence >= 0, logits, logits.clamp(max=_CLOSED))


class GuidedObjective(nn.Module):
    """The loss of the masks, and binary cross entropy of the classes that are in the image."""

    def __init__(self, masks: nn.Module) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, outputs: Mapping[str, Any], area: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: of the network while it learns.
            area: the truth, float (N, C, h, w); a class is there if it covers half of a pixel.
        """
        is_there = (area.amax((2, 3), keepdim=True) >= 0.5).float()
        classes = F.binary_cross_entropy_with_logits(outputs["classes"].float(), is_there)
        loss: torch.Tensor = self.masks(outputs["masks"], area) + classes
        return loss
