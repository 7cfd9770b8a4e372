"""UPerNet on any encoder, plain Vision Transformers such as MAE's included, with auxiliary head.

Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", arXiv:1807.10221, section
3; as BEiT (arXiv:2106.08254) and MAE (He et al. 2022, arXiv:2111.06377, appendix A.4) use it: as
wide as the encoder, with an auxiliary FCN head on the features at a sixteenth.

The decoder is segmentation-models-pytorch's, which normalises the encoder's features first.
"""

from __future__ import annotations

from typing import Any

import torch
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import nn

from zoo.families.nets.layers import conv_norm_relu

ENCODER = True
OUTPUTS = 2
FINEST = 2
# Its pyramid pools the whole image.
POOLS_ALL = True


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    width: int = 512,
    auxiliary_width: int = 256,
    dropout: float = 0.1,
) -> nn.Module:
    """Return UPerNet.

    Args:
        encoder: with features at strides of 4 to 32.
        channels: of the images.
        classes: of the output.
        outputs: 2 adds the auxiliary head.
        width: channels of the decoder.
        auxiliary_width: channels of the auxiliary head.
        dropout: share of channels dropped before the classes.
    """
    return UPerNet(encoder, classes, outputs > 1, width, auxiliary_width, dropout)


class UPerNet(nn.Module):
    """An encoder with UPerNet's decoder."""

    def __init__(
        self,
        encoder: Any,
        classes: int,
        gives_auxiliary: bool,
        width: int,
        auxiliary_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = UPerNetDecoder(encoder.out_channels, decoder_channels=width)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))
        self.auxiliary = None
        if gives_auxiliary:
            self.auxiliary = nn.Sequential(
                conv_norm_relu(encoder.out_channels[4], auxiliary_width),
                nn.Dropout2d(dropout),
                nn.Conv2d(auxiliary_width, classes, 1),
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with two outputs: the logits, and the auxiliary head's, h / 16.
        """
        features = self.encoder(images)
        sixteenth = features[4]
        logits: torch.Tensor = self.head(self.decoder(features))
        if not self.training or self.auxiliary is None:
            return logits
        return [logits, self.auxiliary(sixteenth)]
