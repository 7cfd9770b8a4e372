"""MaxViT-UNet: MaxViT in the encoder, and MaxViT's blocks in the decoder.

Rehman & Khan 2023, "MaxViT-UNet: Multi-Axis Attention for Medical Image Segmentation",
arXiv:2305.08396, section 3, and the authors' maxvit_decoder.py.

Encoder and blocks are timm's. Its MaxViT-T has 2, 2, 5 and 2 blocks, an MBConv that widens fourfold
inside, heads of 32 channels, and windows of 16 tokens for images of 512. The authors' encoder has 2
blocks a stage, an MBConv that keeps its width, 32 heads in all blocks, and windows of 8 tokens.
Their network has 27.3 million weights, 19.1 of them in the encoder; on MaxViT-T it has 39.2, 30.3
of them in the encoder. What is joined
is brought to the channels of the skip by a convolution of one pixel, as by their first MBConv. They
enlarge the features to the image's size before the last convolution of one pixel; here the logits
have a quarter of it, and the loss and prediction enlarge them.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.drop import calculate_drop_path_rates
from timm.models.maxxvit import MaxxVitBlock, MaxxVitConvCfg, MaxxVitTransformerCfg
from torch import nn

from zoo.families.nets.layers import conv_norm_relu

ENCODER = True
OUTPUTS = 2
FINEST = 2


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    depths: tuple[int, int, int] = (2, 2, 2),
    dropout: float = 0.1,
    drop_path_rate: float = 0.1,
) -> nn.Module:
    """Return MaxViT-UNet.

    Args:
        encoder: MaxViT of timm, such as `tu-maxvit_tiny_tf_512`; the decoder's windows and grids
            have the same number of tokens.
        channels: of the images.
        classes: of the output.
        outputs: 2 adds the authors' auxiliary head on the encoder's finest features.
        depths: blocks of the decoder at a sixteenth, an eighth and a quarter.
        dropout: share of channels dropped before the classes.
        drop_path_rate: chance to skip the decoder's last block; the others' rises up to it.

    Raises:
        ValueError: another encoder, or no block in a stage.
    """
    if len(depths) != 3 or min(depths) < 1:
        raise ValueError(f"depths: expected three numbers of at least 1, found {list(depths)}")
    return MaxVitUNet(encoder, classes, outputs > 1, tuple(depths), dropout, drop_path_rate)


class MaxVitUNet(nn.Module):
    """A MaxViT with three stages of a U-Net."""

    def __init__(
        self,
        encoder: Any,
        classes: int,
        gives_auxiliary: bool,
        depths: tuple[int, ...],
        dropout: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        transformer = _transformer(encoder)
        widths = encoder.out_channels[2:]
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        self.stages = nn.ModuleList(
            UpStage(deep, skip, transformer, rate)
            for deep, skip, rate in zip(widths[:0:-1], widths[-2::-1], rates, strict=True)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(widths[0], classes, 1))
        self.auxiliary = None
        if gives_auxiliary:
            self.auxiliary = nn.Sequential(
                conv_norm_relu(widths[0], widths[0]),
                nn.Dropout2d(dropout),
                nn.Conv2d(widths[0], classes, 1),
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with two outputs: the logits, and the auxiliary head's of the same size.
        """
        *skips, deep = self.encoder(images)[2:]
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            deep = stage(deep, skip)
        logits: torch.Tensor = self.head(deep)
        if not self.training or self.auxiliary is None:
            return logits
        return [logits, self.auxiliary(skips[0])]


class UpStage(nn.Module):
    """Deep features, enlarged by a transposed convolution, joined with a skip, and blocks."""

    def __init__(
        self, deep: int, skip: int, transformer: MaxxVitTransformerCfg, drop_path: list[float]
    ) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(deep, skip, 4, stride=2, padding=1), nn.BatchNorm2d(skip), nn.Mish()
        )
        self.join = nn.Conv2d(2 * skip, skip, 1)
        conv = MaxxVitConvCfg()
        blocks = (MaxxVitBlock(skip, skip, 1, conv, transformer, rate) for rate in drop_path)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, deep: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w) of the skip's shape; the deep ones have half its sides."""
        found: torch.Tensor = self.blocks(self.join(torch.cat([skip, self.enlarge(deep)], 1)))
        return found


def _transformer(encoder: nn.Module) -> MaxxVitTransformerCfg:
    """Return how the decoder's blocks attend: in windows and with heads like the encoder's."""
    theirs: Any = next((m for m in encoder.modules() if hasattr(m, "partition_size")), None)
    if theirs is None:
        name = getattr(encoder, "name", type(encoder).__name__)
        raise ValueError(
            f"expected a MaxViT of timm's as encoder, such as tu-maxvit_tiny_tf_512, found {name}"
        )
    return MaxxVitTransformerCfg(
        dim_head=theirs.attn.dim_head, window_size=theirs.partition_size, rel_pos_type="bias"
    )
