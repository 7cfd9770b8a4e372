"""The family of Mask2Former."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from zoo.families.instances import InstanceFamily
from zoo.families.mask2former.config import (
    Four,
    Mask2FormerConfig,
    Mask2FormerDimensions,
    SwinDimensions,
)
from zoo.families.mask2former.network import (
    ARCHITECTURE,
    Mask2Former,
    build_network,
    rebuild_network,
)
from zoo.run_files.licences import WeightSource, of_hub

# Beginnings of names on the hub -> blocks of the Swins whose other dimensions are Swin-T's.
_KNOWN: dict[str, Four] = {
    "facebook/mask2former-swin-tiny-": (2, 2, 6, 2),
    "facebook/mask2former-swin-small-": (2, 2, 18, 2),
}


class Mask2FormerFamily(InstanceFamily):
    """Mask2Formers."""

    name = "mask2former"
    Config = Mask2FormerConfig

    def build(self, config: Mask2FormerConfig, classes: int) -> Mask2Former:
        """Return a network to train.

        Raises:
            ValueError: the pretrained weights cannot be had, or are of another network.
        """
        return build_network(config, classes)

    def without_weights(self, config: Mask2FormerConfig) -> Mask2FormerConfig:
        """Return the config of the same network with random weights.

        Raises:
            ValueError: only the pretrained weights say what the network is like.
        """
        if config.network is not None:
            return config
        name = str(config.pretrained)
        known = next((d for start, d in _KNOWN.items() if name.startswith(start)), None)
        if known is None:
            raise ValueError(f"pretrained '{name}': its dimensions come with the weights")
        network = Mask2FormerDimensions(backbone=SwinDimensions(depths=known))
        return config.model_copy(update={"pretrained": None, "network": network})

    def rebuild(self, run: Path, config: Mask2FormerConfig, classes: int) -> Mask2Former:
        """Return the network of a run, without its weights and without a download.

        Raises:
            ValueError: the run does not say what its network looks like.
        """
        return rebuild_network(run, config)

    def describe(self, run: Path, network: nn.Module) -> None:
        """Leave the network's dimensions, which a pretrained one brings along."""
        if isinstance(network, Mask2Former):
            network.network.config.to_json_file(str(run / ARCHITECTURE))

    def sources(self, config: Mask2FormerConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return [of_hub(config.pretrained)] if config.pretrained else []


FAMILY = Mask2FormerFamily()
