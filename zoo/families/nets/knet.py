"""K-Net: a kernel a class, updated by the pixels that it claims.

Zhang et al. 2021, "K-Net: Towards Unified Image Segmentation", arXiv:2106.14855, sections 3.2 and
3.3, as for semantic segmentation in the authors' knet/seg.

Three things differ. Classes may share pixels, so that `masks` is the paper's sigmoid
unless told otherwise; the authors' code for one class a pixel has a softmax over
classes. A kernel's feature is the mean of what it claims, not the sum, which overflows float16
(norms follow that take its scale away). And the decoder is smp's UPerNet or FPN, which bring a
ResNet's strides of 4 to 32 to a quarter; the auxiliary head on the encoder is left out, as every
stage is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import nn

ENCODER = True
# UPerNet pools the whole image.
POOLS_ALL = True

_STAGES = 3


def _count_outputs(options: Mapping[str, Any]) -> int:
    """Return how many there are: one a stage, and the first kernels'."""
    return int(options.get("stages", _STAGES)) + 1


OUTPUTS = _count_outputs
FINEST = 2


def build(
    *,
    encoder: Any,
    channels: int,
    classes: int,
    outputs: int,
    decoder: Literal["upernet", "fpn"] = "upernet",
    stages: int = _STAGES,
    width: int = 512,
    heads: int = 8,
    feedforward: int = 2048,
    masks: Literal["sigmoid", "softmax"] = "sigmoid",
    dropout: float = 0.1,
) -> nn.Module:
    """Return K-Net on any encoder.

    Args:
        encoder: with features at strides of 4 to 32.
        channels: of the images.
        classes: of the output.
        outputs: as many as stages and one more give all of them while learning, the last first.
        decoder: `upernet` (the authors') or `fpn`.
        stages: how often kernels are updated.
        width: channels of the decoder and of kernels; the authors' 512 for Swin, 256 for ResNet.
        heads: in which kernels look at each other.
        feedforward: channels inside of a kernel's two layers.
        masks: how logits become what a kernel claims: `sigmoid`, or `softmax` over classes.
        dropout: share of channels dropped before the first kernels.

    Raises:
        ValueError: an option that is none of these.
    """
    if decoder not in ("upernet", "fpn") or masks not in ("sigmoid", "softmax"):
        raise ValueError(
            f"expected decoder upernet or fpn, and masks sigmoid or softmax, found {decoder} and "
            f"{masks}"
        )
    if stages < 1 or width % heads:
        raise ValueError(
            f"expected at least 1 stage, and a width that heads divide; found {stages} stages, "
            f"width {width} and {heads} heads"
        )
    body = _decoder(decoder, encoder.out_channels, width, dropout)
    updates = [KernelUpdate(width, heads, feedforward, masks) for _ in range(stages)]
    return KNet(encoder, body, nn.ModuleList(updates), classes, outputs > 1)


def _decoder(kind: str, channels: list[int], width: int, dropout: float) -> nn.Sequential:
    if kind == "upernet":
        body = UPerNetDecoder(encoder_channels=channels, decoder_channels=width)
    else:
        body = FPNDecoder(
            encoder_channels=channels,
            pyramid_channels=width,
            segmentation_channels=width,
            dropout=0.0,
        )
    return nn.Sequential(body, nn.Dropout2d(dropout))


class KNet(nn.Module):
    """An encoder-decoder whose last kernels are updated, stage by stage."""

    def __init__(
        self, encoder: Any, decoder: nn.Module, stages: nn.ModuleList, classes: int, gives_all: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.gives_all = gives_all
        self.kernels = nn.Conv2d(stages[0].width, classes, 1)
        self.stages = stages

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 4, w / 4) of images (N, channels, h, w).

        While learning with several outputs: those of the last stage first, of the first kernels
        last, all of the same size.
        """
        features = self.decoder(self.encoder(images))
        found = [self.kernels(features)]
        kernels = self.kernels.weight.flatten(1).expand(len(images), -1, -1)
        for stage in self.stages:
            logits, kernels = stage(features, kernels, found[-1])
            found.append(logits)
        return found[::-1] if self.training and self.gives_all else found[-1]


class KernelUpdate(nn.Module):
    """A kernel update head: gather, update, look at each other, claim anew."""

    def __init__(self, width: int, heads: int, feedforward: int, masks: str) -> None:
        super().__init__()
        self.width, self.masks = width, masks
        self.transform = nn.Conv2d(width, width, 1)
        self.update = KernelUpdater(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.ReLU(inplace=True), nn.Linear(feedforward, width)
        )
        self.feedforward_norm = nn.LayerNorm(width)
        self.claim = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.LayerNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
        )
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, features: torch.Tensor, kernels: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return new logits (N, K, h, w), and new kernels (N, K, C).

        Args:
            features: (N, C, h, w).
            kernels: of the stage before, (N, K, C).
            logits: of the stage before, (N, K, h, w).
        """
        features = self.transform(features)
        kernels = self.update(gather_claimed(features, logits, self.masks), kernels)
        seen = self.attention(kernels, kernels, kernels, need_weights=False)[0]
        kernels = self.attention_norm(kernels + seen)
        kernels = self.feedforward_norm(kernels + self.feedforward(kernels))
        return torch.einsum("nkc,nchw->nkhw", self.claim(kernels), features), kernels


class KernelUpdater(nn.Module):
    """The paper's adaptive kernel update: gates weigh old kernels and new features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_features, self.of_kernels = (nn.Linear(width, 2 * width) for _ in range(2))
        self.gate_features, self.gate_kernels = (
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.Sigmoid())
            for _ in range(2)
        )
        self.norm_features, self.norm_kernels = (nn.LayerNorm(width) for _ in range(2))
        self.project = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(inplace=True)
        )

    def forward(self, features: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Return kernels (N, K, C) of what they claimed and were, both (N, K, C)."""
        features_in, features_out = self.of_features(features).chunk(2, -1)
        kernels_in, kernels_out = self.of_kernels(kernels).chunk(2, -1)
        both = features_in * kernels_in
        found: torch.Tensor = self.project(
            self.gate_features(both) * self.norm_features(features_out)
            + self.gate_kernels(both) * self.norm_kernels(kernels_out)
        )
        return found


def gather_claimed(features: torch.Tensor, logits: torch.Tensor, masks: str) -> torch.Tensor:
    """Return the mean feature of what each kernel claims, (N, K, C), in float32.

    Args:
        features: (N, C, h, w).
        logits: (N, K, h, w).
        masks: `sigmoid` or `softmax`.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits = logits.float()
        weights = (logits.sigmoid() if masks == "sigmoid" else logits.softmax(1)).flatten(2)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
        return weights @ features.float().flatten(2).transpose(1, 2)
