"""The family of MONAI's SwinUNETR."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn

from zoo.families.monai.config import MonaiConfig
from zoo.families.monai.network import build_network
from zoo.families.semantic import SemanticFamily


class MonaiFamily(SemanticFamily):
    """Networks of MONAI."""

    name = "monai"
    Config = MonaiConfig

    def build(self, config: MonaiConfig, classes: int) -> nn.Module:
        """Return a network with random weights."""
        return build_network(config, classes)

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return the parts that gradient checkpointing computes anew; convolutions need most."""
        kinds = (SwinTransformerBlock, UnetResBlock)
        return [module for module in network.modules() if isinstance(module, kinds)]


FAMILY = MonaiFamily()
