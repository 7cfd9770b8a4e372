"""The family of networks that no library has."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.families.attention import attend_after
from zoo.families.encoders import build_encoder, sources_of
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.network import build_network, finest_read
from zoo.families.semantic import SemanticFamily
from zoo.run_files.licences import WeightSource


class NetsFamily(SemanticFamily):
    """Networks from their papers."""

    name = "nets"
    Config = NetsConfig

    def build(self, config: NetsConfig, classes: int) -> nn.Module:
        """Return a network; its encoder may come with pretrained weights.

        Raises:
            ValueError: an unknown encoder, options that do not go together, or weights that
                cannot be had.
        """
        encoder: Any = None
        if config.encoder is not None:
            encoder = build_encoder(
                config.encoder,
                config.encoder_weights,
                config.in_channels,
                config.encoder_options,
            )
        outputs = max(1, len(config.deep_supervision))
        network = build_network(
            config.architecture, encoder, config.in_channels, classes, outputs, config.options
        )
        if config.attention is not None:
            finest = finest_read(config.architecture)
            widths = enumerate(encoder.out_channels)
            attend_after(network, config.attention, [w if i >= finest else 0 for i, w in widths])
        return network

    def without_weights(self, config: NetsConfig) -> NetsConfig:
        """Return the config of the same network with random weights."""
        return config.model_copy(update={"encoder_weights": None})

    def sources(self, config: NetsConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        if config.encoder is None:
            return []
        return sources_of(config.encoder, config.encoder_weights)


FAMILY = NetsFamily()
