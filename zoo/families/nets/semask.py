"""SeMask-FPN: a Swin Transformer that says what classes its features are of, stage by stage.

Jain et al. 2021, "SeMask: Semantically Masked Transformers for Semantic Segmentation",
arXiv:2112.12782, section 3, and the authors' SeMask-FPN.

Swin is timm's. Semantic attention is in windows at every stage, as in the paper; for 20 classes and
more, the authors' code lets the two coarsest of a Swin-T, -S and -L look at the whole image, which
`whole_from` does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import conv_norm_relu

ENCODER = True
OUTPUTS = 2
# It goes through the encoder's stages by itself.
FINEST = None


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    window: int = 7,
    whole_from: int = 4,
    blocks: int = 1,
    width: int = 256,
    dropout: float = 0.1,
) -> nn.Module:
    """Return SeMask-FPN.

    Args:
        encoder: Swin of timm, such as `tu-swin_base_patch4_window12_384`.
        channels: of the images.
        classes: of the output.
        outputs: 2 adds the semantic decoder's logits while learning, weighed .4 in the paper.
        window: side of the windows in which semantic attention looks, in features' pixels; the
            paper's is Swin's own.
        whole_from: the first of the stages 0 to 3 that looks at the whole image; 4 is none.
        blocks: of semantic attention a stage.
        width: channels of the decoder.
        dropout: share of channels dropped before the classes.

    Raises:
        ValueError: another encoder, or numbers below 1.
    """
    if min(window, blocks) < 1:
        raise ValueError(f"expected a window and blocks of at least 1, found {window} and {blocks}")
    returned = getattr(getattr(encoder, "model", None), "return_layers", {})
    stages = [layer for layer in returned if layer.startswith("layers_")]
    if len(stages) != 4:
        name = getattr(encoder, "name", type(encoder).__name__)
        raise ValueError(
            f"expected a Swin of timm's as encoder, such as tu-swin_tiny_patch4_window7_224, found "
            f"{name}"
        )
    layers = [
        SemanticLayer(inputs, classes, None if place >= whole_from else window, blocks)
        for place, inputs in enumerate(encoder.out_channels[2:])
    ]
    return SeMask(
        encoder,
        nn.ModuleDict(zip(stages, layers, strict=True)),
        classes,
        outputs > 1,
        width,
        dropout,
    )


class SeMask(nn.Module):
    """Swin with semantic layers, a Semantic FPN's head, and a decoder of semantic maps."""

    def __init__(
        self,
        encoder: Any,
        semantic: nn.ModuleDict,
        classes: int,
        gives_semantic: bool,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.semantic = semantic
        self.gives_semantic = gives_semantic
        widths = encoder.out_channels[2:]
        self.norms = nn.ModuleList(nn.LayerNorm(inputs) for inputs in widths)
        self.scales = nn.ModuleList(
            ScaleHead(inputs, width, halvings) for halvings, inputs in enumerate(widths)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with two outputs: the logits, and the semantic decoder's of the same size.
        """
        features, maps = self.encode(images)
        scaled = [head(f) for head, f in zip(self.scales, features, strict=True)]
        logits: torch.Tensor = self.head(torch.stack(scaled).sum(0))
        if not self.training or not self.gives_semantic:
            return logits
        return [logits, torch.stack([_double(m, i) for i, m in enumerate(maps)]).sum(0)]

    def encode(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return features and semantic maps at a quarter to a 32nd: (N, C, h', w'), (N, K, h', w').

        Each of the encoder's stages starts from what the one before made of its semantic layer.
        """
        features: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        tokens = images
        for name, stage in self.encoder.model.items():
            tokens = stage(tokens)
            if name in self.semantic:
                found, tokens = self.semantic[name](tokens)
                features.append(self.norms[len(features)](tokens).permute(0, 3, 1, 2))
                maps.append(found.permute(0, 3, 1, 2))
        return features, maps


class SemanticLayer(nn.Module):
    """Blocks of semantic attention after a stage, in windows or over the whole image."""

    def __init__(self, width: int, classes: int, window: int | None, blocks: int) -> None:
        super().__init__()
        self.window = window
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(SemanticAttention(width, classes) for _ in range(blocks))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a semantic map (N, h, w, K), and tokens (N, h, w, C), of tokens (N, h, w, C)."""
        height, width = tokens.shape[1:3]
        sides = (self.window, self.window) if self.window else (height, width)
        padding = (0, 0, 0, -width % sides[1], 0, -height % sides[0])
        padded = F.pad(self.norm(tokens), padding)
        size = (padded.shape[1], padded.shape[2])
        windows = cut_windows(padded, sides)
        found = windows
        for block in self.blocks:
            found, windows = block(windows)
        semantic, seen = (join_windows(w, sides, size) for w in (found, windows))
        return semantic[:, :height, :width], seen[:, :height, :width]


class SemanticAttention(nn.Module):
    """Pixels look at those of like classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.queries, self.keys = (nn.Linear(width, classes) for _ in range(2))
        self.values, self.project = (nn.Linear(width, width) for _ in range(2))
        self.dropout = nn.Dropout(0.1)
        self.weight = nn.Parameter(torch.zeros(1))
        for layer in (self.queries, self.keys, self.values, self.project):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a semantic map (M, L, K), and tokens (M, L, C), of tokens (M, L, C)."""
        semantic = self.queries(tokens)
        seen = F.scaled_dot_product_attention(
            semantic, self.keys(tokens), self.values(tokens), scale=1.0
        )
        return semantic, tokens + self.weight * self.dropout(self.project(seen))


class ScaleHead(nn.Module):
    """Semantic FPN's way from a scale to a quarter: convolutions, and doublings between them."""

    def __init__(self, inputs: int, width: int, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        self.convs = nn.ModuleList(
            conv_norm_relu(inputs if place == 0 else width, width)
            for place in range(max(1, doublings))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, width, h / 4, w / 4)."""
        for conv in self.convs:
            features = _double(conv(features), min(1, self.doublings))
        return features


def _double(features: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        features = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
    return features


def cut_windows(tokens: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """Return the windows side by side of tokens (N, h, w, C): (M, L, C), row by row."""
    down, across = (length // side for length, side in zip(tokens.shape[1:3], sides, strict=True))
    grid = tokens.unflatten(1, (down, sides[0])).unflatten(3, (across, sides[1]))
    return grid.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def join_windows(
    windows: torch.Tensor, sides: tuple[int, int], size_hw: tuple[int, int]
) -> torch.Tensor:
    """Return the tokens (N, h, w, C) whose windows side by side are these, (M, L, C)."""
    down, across = (length // side for length, side in zip(size_hw, sides, strict=True))
    grid = windows.unflatten(1, sides).unflatten(0, (-1, down, across))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)
