"""Swin-Unet (Cao et al. 2021, arXiv:2105.05537) on timm's Swin Transformers, or any encoder.

The decoder mirrors the encoder: patch expanding doubles the size (section 3.5), the encoder's
features are put beside and mixed by a linear layer (section 3.6), Swin blocks follow; at last patch
expanding by four, and a linear projection to classes (figure 1).

It differs from the paper in this:

- Encoder and bottleneck are the four stages of any encoder at strides of 4 to 32; those of
  `tu-swin_tiny_patch4_window7_224`, of which two blocks a stage are kept, are the paper's.
- Skips are what a stage gives, as in figure 1; the authors' code takes what a stage is given.
- Attention windows are padded to whole ones, so that inputs may have any size.
- The last projection has a bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from torch import nn

ENCODER = True
OUTPUTS = 1
FINEST = 2
_STAGES = 4
# Blocks of the bottleneck, which is the encoder's; it counts for the chances to skip a block.
_BOTTLENECK = 2


def build(
    *,
    encoder: nn.Module,
    channels: int,
    classes: int,
    outputs: int,
    encoder_blocks: int | None = None,
    depths: Sequence[int] = (2, 2, 2),
    head_width: int = 32,
    window: int = 7,
    drop_path: float = 0.1,
) -> nn.Module:
    """Return a Swin-Unet.

    Args:
        encoder: gives features at strides of 4 to 32.
        channels: of the images.
        classes: of the logits.
        outputs: 1.
        encoder_blocks: how many are kept of each stage of a Swin encoder, with their weights; the
            paper's are 2. None keeps all.
        depths: Swin blocks of the decoder's stages, finest first.
        head_width: channels of each head of attention.
        window: side of the windows of attention, in tokens.
        drop_path: chance to skip a block of the coarsest stage; finer ones have less.
    """
    if encoder_blocks is not None:
        keep_blocks(encoder, encoder_blocks)
    return SwinUnet(encoder, classes, depths, head_width, window, drop_path)


def check(size_hw: tuple[int, int], options: Mapping[str, Any]) -> None:
    """Make sure that the options go together.

    Raises:
        ValueError: they do not.
    """
    depths = options.get("depths", (2, 2, 2))
    if len(depths) != _STAGES - 1 or min(depths) < 1:
        raise ValueError(f"options.depths: expected three numbers from 1 on, found {depths}")
    if not 0 <= options.get("drop_path", 0) < 1:
        raise ValueError(
            f"options.drop_path: expected a chance below 1, found {options['drop_path']}"
        )


def keep_blocks(encoder: nn.Module, count: int) -> None:
    """Drop all but the first blocks of each stage of a Swin Transformer of timm's.

    Raises:
        ValueError: no Swin Transformer, or a count that leaves none.
    """
    stages = [stage for stage in encoder.modules() if isinstance(stage, SwinTransformerStage)]
    if not stages or count < 1:
        raise ValueError(
            f"options.encoder_blocks: expected at least 1, of a tu-swin encoder; found {count} of "
            f"one with {len(stages)} such stages"
        )
    for stage in stages:
        stage.blocks = stage.blocks[:count]


class PatchExpand(nn.Module):
    """Enlarges tokens: a linear layer gives those of each new place, which are then normed."""

    def __init__(self, given: int, made: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(given, scale * scale * made, bias=False)
        self.norm = nn.LayerNorm(made)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (N, scale h, scale w, made) of tokens (N, h, w, given)."""
        number, height, width, _ = tokens.shape
        scale = self.scale
        parts = self.expand(tokens).view(number, height, width, scale, scale, -1)
        placed = parts.transpose(2, 3).reshape(number, height * scale, width * scale, -1)
        found: torch.Tensor = self.norm(placed)
        return found


class DecoderStage(nn.Module):
    """Patch expanding, the encoder's features beside it, and Swin blocks."""

    def __init__(
        self, coarser: int, finer: int, head_width: int, window: int, drop_paths: Sequence[float]
    ) -> None:
        """Build it.

        Args:
            coarser: channels that it is given.
            finer: channels of the encoder's features, and of what it makes.
            head_width: channels of each head.
            window: side, in tokens; every second block shifts them by half of it.
            drop_paths: chance to skip each block.
        """
        super().__init__()
        self.expand = PatchExpand(coarser, finer, 2)
        self.mix = nn.Linear(2 * finer, finer)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                finer,
                # Of any size: windows and their masks are made for what comes.
                (window, window),
                num_heads=max(finer // head_width, 1),
                window_size=window,
                shift_size=window // 2 if number % 2 else 0,
                always_partition=True,
                dynamic_mask=True,
                drop_path=chance,
            )
            for number, chance in enumerate(drop_paths)
        )

    def forward(self, tokens: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return tokens (N, 2 h, 2 w, finer)."""
        tokens = self.mix(torch.cat((self.expand(tokens), skip), -1))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class SwinUnet(nn.Module):
    """The network."""

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        depths: Sequence[int],
        head_width: int,
        window: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        widths = list(encoder.out_channels[-_STAGES:])
        last = max(sum(depths) + _BOTTLENECK - 1, 1)
        chances = iter([drop_path * n / last for n in range(sum(depths))])
        drop_paths = [list(islice(chances, depth)) for depth in depths]
        self.norm = nn.LayerNorm(widths[-1])
        self.decoder = nn.ModuleList(
            DecoderStage(widths[n + 1], widths[n], head_width, window, drop_paths[n])
            for n in reversed(range(_STAGES - 1))
        )
        self.norm_decoded = nn.LayerNorm(widths[0])
        self.expand = PatchExpand(widths[0], widths[0], 4)
        self.head = nn.Linear(widths[0], classes)
        for part in (self.decoder, self.expand, self.head):
            part.apply(_init_linear)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h, w) of images, float (N, channels, h, w)."""
        features = self.encoder(images)[-_STAGES:]
        *skips, tokens = (f.permute(0, 2, 3, 1) for f in features)
        tokens = self.norm(tokens)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            tokens = stage(tokens, skip)
        logits: torch.Tensor = self.head(self.expand(self.norm_decoded(tokens)))
        return logits.permute(0, 3, 1, 2)


def _init_linear(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
