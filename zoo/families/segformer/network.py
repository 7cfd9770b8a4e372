"""SegFormer (Xie et al. 2021) as Hugging Face's transformers have it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from zoo.families.hub import load_pretrained
from zoo.families.segformer.config import SegFormerConfig

# In a run folder: the network's dimensions, which a pretrained one brings along.
ARCHITECTURE = "network.json"


class SegFormer(nn.Module):
    """A SegFormer; its logits have a quarter of the input's height and width."""

    def __init__(self, network: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The Mix Transformer."""
        encoder: nn.Module = self.network.segformer
        return encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h / 4, w / 4) of images, float (N, c, h, w)."""
        channels = self.network.config.num_channels
        logits: torch.Tensor = self.network(images.expand(-1, channels, -1, -1)).logits
        return logits


def build_network(config: SegFormerConfig, classes: int) -> SegFormer:
    """Return a network to train.

    Raises:
        ValueError: the pretrained weights cannot be had, or the dimensions do not fit.
    """
    if config.network is None:
        return SegFormer(_pretrained(str(config.pretrained), config.network_channels, classes))
    sizes, heads = config.network.hidden_sizes, config.network.num_attention_heads
    if any(size % n for size, n in zip(sizes, heads, strict=True)):
        raise ValueError(
            f"network: expected hidden_sizes {sizes} that num_attention_heads {heads} divide"
        )
    dimensions = config.network.model_dump()
    architecture = SegformerConfig(
        num_channels=config.network_channels, num_labels=classes, **dimensions
    )
    return SegFormer(SegformerForSemanticSegmentation(architecture))


def rebuild_network(run: Path) -> SegFormer:
    """Return the network of a run, without its weights and without a download.

    Raises:
        ValueError: the run does not say what its network looks like.
    """
    path = run / ARCHITECTURE
    try:
        architecture = SegformerConfig.from_json_file(str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the network's dimensions: {error}") from None
    return SegFormer(SegformerForSemanticSegmentation(architecture))


def _pretrained(name: str, channels: int, classes: int) -> SegformerForSemanticSegmentation:
    remedy = "pretrained=null and network"
    dimensions = {"num_labels": classes, "num_channels": channels}
    network, _ = load_pretrained(SegformerForSemanticSegmentation, name, remedy, **dimensions)
    return network
