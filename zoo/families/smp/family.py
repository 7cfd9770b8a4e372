"""The family of segmentation-models-pytorch."""

from __future__ import annotations

from torch import nn

from zoo.families.encoders import sources_of
from zoo.families.semantic import SemanticFamily
from zoo.families.smp.config import SmpConfig
from zoo.families.smp.network import build_network
from zoo.run_files.licences import WeightSource


class SmpFamily(SemanticFamily):
    """Networks of segmentation-models-pytorch."""

    name = "smp"
    Config = SmpConfig

    def build(self, config: SmpConfig, classes: int) -> nn.Module:
        """Return a network; its encoder may come with pretrained weights.

        Raises:
            ValueError: an unknown encoder, options that do not go together, or weights that
                cannot be had.
        """
        return build_network(config, classes)

    def without_weights(self, config: SmpConfig) -> SmpConfig:
        """Return the config of the same network with random weights."""
        return config.model_copy(update={"encoder_weights": None})

    def sources(self, config: SmpConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return sources_of(config.encoder, config.encoder_weights)


FAMILY = SmpFamily()
