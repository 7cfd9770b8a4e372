"""The family of Hugging Face's transformers."""

from __future__ import annotations

from torch import nn

from zoo.families.huggingface.config import HuggingFaceConfig
from zoo.families.huggingface.network import build_network
from zoo.families.semantic import SemanticFamily
from zoo.run_files.licences import WeightSource, of_hub


class HuggingFaceFamily(SemanticFamily):
    """Networks of transformers."""

    name = "huggingface"
    Config = HuggingFaceConfig

    def build(self, config: HuggingFaceConfig, classes: int) -> nn.Module:
        """Return a network.

        Raises:
            ValueError: dimensions that do not go together, or pretrained weights that cannot be
                had or are of another network.
        """
        return build_network(config, classes)

    def without_weights(self, config: HuggingFaceConfig) -> HuggingFaceConfig:
        """Return the config of the same network with random weights."""
        return config.model_copy(update={"pretrained": None})

    def sources(self, config: HuggingFaceConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return [of_hub(config.pretrained)] if config.pretrained else []


FAMILY = HuggingFaceFamily()
