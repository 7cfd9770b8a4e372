"""SwinUNETR in two dimensions as MONAI has it."""

from __future__ import annotations

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn

from zoo.families.monai.config import MonaiConfig


class SwinUnetr(nn.Module):
    """MONAI's SwinUNETR."""

    def __init__(self, network: SwinUNETR) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The Swin Transformer."""
        encoder: nn.Module = self.network.swinViT
        return encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h, w) of images, float (N, c, h, w)."""
        logits: torch.Tensor = self.network(images)
        return logits


def build_network(config: MonaiConfig, classes: int) -> SwinUnetr:
    """Return a network with random weights."""
    network = SwinUNETR(
        in_channels=config.in_channels,
        out_channels=classes,
        spatial_dims=2,
        feature_size=config.feature_size,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_size,
        use_v2=config.use_v2,
        norm_name=config.norm,
        dropout_path_rate=config.drop_path_rate,
    )
    return SwinUnetr(network)
