"""SAM2-UNet: a U-shaped decoder on SAM 2's frozen Hiera, which learns through adapters.

Xiong et al. 2024, "SAM2-UNet: Segment Anything 2 Makes Strong Encoder for Natural and Medical Image
Segmentation", arXiv:2408.08870, section 2, and the authors' SAM2UNet.py.

Logits have the size of the features that they are of; the authors enlarge them inside of the
network, which is left to the loss and to prediction. Hiera is timm's, with one channel of input
where its weights are of three.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import conv_norm_relu

ENCODER = True
OUTPUTS = 3
FINEST = 2


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 64,
    adapter_width: int = 32,
    frozen: bool = True,
) -> nn.Module:
    """Return SAM2-UNet.

    Args:
        encoder: one of `tu-sam2_hiera_tiny`, `_small`, `_base_plus`, `_large` (the paper's).
        channels: of the images.
        classes: of the output.
        outputs: 3 gives logits at a quarter, an eighth and a sixteenth while learning.
        width: channels of the decoder.
        adapter_width: channels inside of an adapter.
        frozen: whether the encoder's own weights stay as they are. One of random weights is worth
            little then.

    Raises:
        ValueError: another encoder.
    """
    return Sam2UNet(encoder, classes, outputs > 1, width, adapter_width, frozen)


class Sam2UNet(nn.Module):
    """Hiera with adapters, receptive field blocks, and three steps of a U-Net."""

    def __init__(
        self,
        encoder: Any,
        classes: int,
        gives_all: bool,
        width: int,
        adapter_width: int,
        frozen: bool,
    ) -> None:
        super().__init__()
        blocks = _blocks(encoder)
        encoder.requires_grad_(not frozen)
        for place, block in enumerate(blocks):
            blocks[place] = Adapter(block, adapter_width)
        self.encoder = encoder
        self.gives_all = gives_all
        self.reduce = nn.ModuleList(
            ReceptiveField(inputs, width) for inputs in encoder.out_channels[2:]
        )
        self.steps = nn.ModuleList(UpStep(width) for _ in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in range(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with three outputs: these, and those at an eighth and a sixteenth.
        """
        features = self.encoder(images)[2:]
        *skips, deep = (layer(f) for layer, f in zip(self.reduce, features, strict=True))
        found = []
        for step, head, skip in zip(self.steps, self.heads, reversed(skips), strict=True):
            deep = step(deep, skip)
            found.append(head(deep))
        return found[::-1] if self.training and self.gives_all else found[-1]


class Adapter(nn.Module):
    """What a frozen block is given, shifted by what a small network says of it."""

    def __init__(self, block: Any, width: int) -> None:
        super().__init__()
        self.block = block
        inputs = block.attn.qkv.in_features
        self.prompt = nn.Sequential(
            nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, inputs), nn.GELU()
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the block's output for tokens (N, h, w, C)."""
        found: torch.Tensor = self.block(tokens + self.prompt(tokens))
        return found


class ReceptiveField(nn.Module):
    """A receptive field block, as PraNet modified it (Fan et al. 2020, arXiv:2006.11392).

    Without activations between its convolutions, as in the authors' code.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_conv(inputs, width, (1, 1))])
        for side in (3, 5, 7):
            layers = (
                _conv(inputs, width, (1, 1)),
                _conv(width, width, (1, side)),
                _conv(width, width, (side, 1)),
                _conv(width, width, (3, 3), dilation=side),
            )
            self.branches.append(nn.Sequential(*layers))
        self.join = _conv(4 * width, width, (3, 3))
        self.shortcut = _conv(inputs, width, (1, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, width, h, w)."""
        found = self.join(torch.cat([branch(features) for branch in self.branches], 1))
        return F.relu(found + self.shortcut(features))


class UpStep(nn.Module):
    """A step of the decoder: enlarged twofold, joined with a skip, two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_norm_relu(2 * width, width), conv_norm_relu(width, width))

    def forward(self, deep: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return features (N, width, h, w) of the skip's size."""
        larger = F.interpolate(deep, skip.shape[-2:], mode="bilinear", align_corners=True)
        found: torch.Tensor = self.convs(torch.cat([skip, larger], 1))
        return found


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], dilation: int = 1) -> nn.Sequential:
    padding = tuple(dilation * (side // 2) for side in kernel)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _blocks(encoder: Any) -> Any:
    name = getattr(encoder, "name", type(encoder).__name__)
    if "sam2_hiera" not in name:
        raise ValueError(f"expected an encoder of SAM 2, such as tu-sam2_hiera_large, found {name}")
    return encoder.model.model.blocks
