"""The family of torchvision's FCN and DeepLabV3."""

from __future__ import annotations

from torch import nn

from zoo.families.semantic import SemanticFamily
from zoo.families.torchvision.config import TorchvisionConfig, known_weights
from zoo.families.torchvision.network import build_network
from zoo.run_files import licences
from zoo.run_files.checkpoints import is_weight_file


class TorchvisionFamily(SemanticFamily):
    """Networks of torchvision."""

    name = "torchvision"
    Config = TorchvisionConfig

    def build(self, config: TorchvisionConfig, classes: int) -> nn.Module:
        """Return a network.

        Raises:
            ValueError: the pretrained weights cannot be had, or are of another network.
        """
        return build_network(config, classes)

    def without_weights(self, config: TorchvisionConfig) -> TorchvisionConfig:
        """Return the config of the same network with random weights."""
        return config.model_copy(update={"pretrained": None})

    def sources(self, config: TorchvisionConfig) -> list[licences.WeightSource]:
        """Return whose weights the network starts from."""
        given = config.pretrained
        if given is None:
            return []
        if is_weight_file(given):
            return [licences.of_file(given)]
        is_whole = given in known_weights(config.architecture)
        model = config.architecture if is_whole else config.backbone
        return [licences.of_torchvision(model, given)]


FAMILY = TorchvisionFamily()
