"""OCRNet: pixels are told by the regions of classes that they are like.

Yuan et al. 2020, "Object-Contextual Representations for Semantic Segmentation", arXiv:1909.11065,
sections 3.2 and 3.3, and the authors' HRNet-Semantic-Segmentation, branch HRNet-OCR.

Here classes may share pixels: the soft regions are learnt as one binary plane a class, where the
paper's are learnt as one class a pixel. Their weights over an image's pixels are the paper's,
a softmax over places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo.families.nets.layers import conv_norm_relu, resize

ENCODER = True
OUTPUTS = 2
FINEST = 2


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 512,
    key_width: int = 256,
    dropout: float = 0.05,
) -> nn.Module:
    """Return OCRNet on any encoder.

    The paper's HRNet is `tu-hrnet_w48` with `encoder_options` {feature_location: ""}, whose four
    resolutions have 48 to 384 channels; without, timm widens each for classification.

    Args:
        encoder: with features at strides of 4 to 32; those of an ordinary network are brought to a
            quarter and put together as HRNet's are, where the paper dilates a ResNet to an eighth.
        channels: of the images.
        classes: of the output.
        outputs: 2 gives the soft regions as well while learning, the paper's auxiliary loss.
        width: channels of pixels and regions.
        key_width: channels in which they are compared.
        dropout: share of channels dropped before the classes.
    """
    return OcrNet(encoder, classes, outputs > 1, width, key_width, dropout)


class OcrNet(nn.Module):
    """An encoder with an OCR head."""

    def __init__(
        self,
        encoder: Any,
        classes: int,
        gives_regions: bool,
        width: int,
        key_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.gives_regions = gives_regions
        inputs = sum(encoder.out_channels[2:])
        self.regions = nn.Sequential(
            conv_norm_relu(inputs, inputs, 1), nn.Conv2d(inputs, classes, 1)
        )
        self.pixels = conv_norm_relu(inputs, width)
        self.context = ObjectContext(width, key_width)
        self.augment = nn.Sequential(conv_norm_relu(2 * width, width, 1), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with two outputs: the logits, and the soft regions' of the same size.
        """
        features = self.encoder(images)[2:]
        joined = torch.cat([resize(f, features[0]) for f in features], 1)
        soft = self.regions(joined)
        pixels = self.pixels(joined)
        context = self.context(pixels, gather_regions(pixels, soft))
        logits: torch.Tensor = self.head(self.augment(torch.cat([context, pixels], 1)))
        return [logits, soft] if self.training and self.gives_regions else logits


class ObjectContext(nn.Module):
    """What regions say to pixels, weighed by how alike they are."""

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.queries, self.keys = (
            nn.Sequential(
                conv_norm_relu(width, key_width, 1), conv_norm_relu(key_width, key_width, 1)
            )
            for _ in range(2)
        )
        self.values = conv_norm_relu(width, key_width, 1)
        self.project = conv_norm_relu(key_width, width, 1)

    def forward(self, pixels: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Return context (N, C, h, w) of pixels (N, C, h, w) and regions (N, C, K, 1)."""
        queries, keys, values = (
            layer(given).flatten(2).transpose(1, 2)
            for layer, given in (
                (self.queries, pixels),
                (self.keys, regions),
                (self.values, regions),
            )
        )
        found = nn.functional.scaled_dot_product_attention(queries, keys, values)
        context: torch.Tensor = self.project(
            found.transpose(1, 2).unflatten(2, tuple(pixels.shape[-2:]))
        )
        return context


def gather_regions(pixels: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Return the mean pixel of each soft region, (N, C, K, 1).

    In float32: of 65536 pixels, the weights of one are too small for float16.

    Args:
        pixels: (N, C, h, w).
        soft: logits of K regions, (N, K, h, w).
    """
    with torch.autocast(pixels.device.type, enabled=False):
        weights = soft.float().flatten(2).softmax(2)
        regions = weights @ pixels.float().flatten(2).transpose(1, 2)
    return regions.transpose(1, 2).unsqueeze(3)
