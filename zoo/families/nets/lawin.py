"""Lawin Transformer: a pyramid of large windows that small ones look at.

Yan et al. 2022, "Lawin Transformer: Improving Semantic Segmentation Transformer with Multi-Scale
Representations via Large Window Attention", arXiv:2201.01615, section 3, and the authors'
lawin_head.py.

What a window looks at is pooled before it is cut into windows, not after: the windows' pools lie on
one grid, so that the numbers are the same, for a thirtieth of the memory. Sides that are no
multiples of 64 pixels are padded with zeros, where the authors' code takes none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import conv_norm_relu, resize

ENCODER = True
OUTPUTS = 1
FINEST = 2
# The whole image is one value a channel in the image pooling.
POOLS_ALL = True

_RATIOS = (8, 4, 2)
_WINDOW = 8


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 512,
    embedding: int = 768,
    dropout: float = 0.1,
) -> nn.Module:
    """Return Lawin on any encoder.

    Args:
        encoder: with features at strides of 4 to 32, such as `mit_b5` or one of timm's Swin.
        channels: of the images.
        classes: of the output.
        outputs: 1.
        width: channels of the decoder, a multiple of 128.
        embedding: channels to which each of the encoder's features is brought first.
        dropout: share of channels dropped before the classes.

    Raises:
        ValueError: a width whose half 64 heads cannot share.
    """
    if width % (2 * max(_RATIOS) ** 2):
        raise ValueError(f"width: expected a multiple of 128 for 64 heads, found {width}")
    return Lawin(encoder, classes, width, embedding, dropout)


class Lawin(nn.Module):
    """An encoder with LawinASPP, the pyramid, and its finest features."""

    def __init__(
        self, encoder: Any, classes: int, width: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        first, *others = encoder.out_channels[2:]
        self.embed = nn.ModuleList(nn.Conv2d(inputs, embedding, 1) for inputs in others)
        self.fuse = conv_norm_relu(len(others) * embedding, width, 1)
        self.short = conv_norm_relu(width, width, 1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(width, width, 1))
        self.windows = nn.ModuleList(LargeWindowAttention(width, ratio) for ratio in _RATIOS)
        self.join = conv_norm_relu((2 + len(_RATIOS)) * width, width, 1)
        self.embed_first = nn.Conv2d(first, 48, 1)
        self.refine = conv_norm_relu(width + 48, width, 1)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w)."""
        first, *others = self.encoder(images)[2:]
        embedded = [layer(f) for layer, f in zip(self.embed, others, strict=True)]
        fused = self.fuse(torch.cat([resize(e, embedded[0]) for e in embedded], 1))
        pooled = self.pool(fused).expand(-1, -1, *fused.shape[-2:])
        seen = [attention(fused) for attention in self.windows]
        joined = self.join(torch.cat([self.short(fused), pooled, *seen], 1))
        fine = torch.cat([resize(joined, first), self.embed_first(first)], 1)
        logits: torch.Tensor = self.head(self.refine(fine))
        return logits


class LargeWindowAttention(nn.Module):
    """Windows of 8 x 8 pixels that look at `ratio` times larger ones around them.

    The larger ones are pooled to 8 x 8 (mean of largest and mean). As many heads as pixels are
    pooled to one, `ratio` squared, mix positions each in its own way.
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio, self.heads, places = ratio, ratio**2, _WINDOW**2
        self.norm = nn.LayerNorm(width)
        # A linear layer of positions a head.
        self.mix_weight = nn.Parameter(torch.empty(self.heads, places, places))
        self.mix_bias = nn.Parameter(torch.empty(self.heads, places, 1))
        bound = places**-0.5
        nn.init.uniform_(self.mix_weight, -bound, bound)
        nn.init.uniform_(self.mix_bias, -bound, bound)
        self.queries, self.keys, self.values = (nn.Linear(width, width // 2) for _ in range(3))
        for layer in (self.queries, self.keys, self.values):
            nn.init.normal_(layer.weight, std=0.01)
        self.project = nn.Conv2d(width // 2, width, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(width)
        # As in mmcv's non-local block, which the authors' derives from: it starts as nothing.
        nn.init.zeros_(self.project_norm.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), and what their windows saw."""
        height, width = features.shape[-2:]
        padded = F.pad(features, (0, -width % _WINDOW, 0, -height % _WINDOW))
        queries = cut_windows(padded, _WINDOW)
        context = self.mix(self.see(padded))
        heads = (
            tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.queries(queries), self.keys(context), self.values(context))
        )
        found = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        plane = join_windows(found, (padded.shape[-2], padded.shape[-1]))
        seen = self.project_norm(self.project(plane))
        return features + seen[..., :height, :width]

    def see(self, features: torch.Tensor) -> torch.Tensor:
        """Return the pooled surroundings of the windows of features (N, C, h, w): (M, 64, C)."""
        ratio = self.ratio
        around = F.pad(features, ((ratio - 1) * _WINDOW // 2,) * 4)
        pooled = (F.max_pool2d(around, ratio) + F.avg_pool2d(around, ratio)) / 2
        return self.norm(cut_windows(pooled, _WINDOW // ratio))

    def mix(self, context: torch.Tensor) -> torch.Tensor:
        """Return context (M, 64, C) whose positions have been mixed, a head at a time."""
        heads = context.transpose(1, 2).unflatten(1, (self.heads, -1))
        mixed = torch.einsum("hqp,mhdp->mhdq", self.mix_weight, heads)
        mixed = heads + mixed + self.mix_bias.transpose(1, 2)
        return mixed.flatten(1, 2).transpose(1, 2)


def cut_windows(features: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the windows of 8 x 8 pixels of features (N, C, h, w): (M, 64, C), row by row."""
    rows = features.unfold(2, _WINDOW, stride).unfold(3, _WINDOW, stride)
    return rows.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).flatten(1, 2)


def join_windows(tokens: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """Return the features (N, C, h, w) whose windows side by side are these, (M, 64, C)."""
    down, across = (side // _WINDOW for side in size_hw)
    grid = tokens.unflatten(0, (-1, down, across)).unflatten(3, (_WINDOW, _WINDOW))
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
