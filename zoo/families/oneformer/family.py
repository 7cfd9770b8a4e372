"""The family of OneFormer."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import OneFormerForUniversalSegmentation

from zoo.families.oneformer.config import OneFormerConfig, OneFormerDimensions
from zoo.families.oneformer.network import OneFormer, describe_network
from zoo.families.query_family import QueryFamily
from zoo.families.swin import SwinDimensions

_LARGE = SwinDimensions(
    embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12
)


class OneFormerFamily(QueryFamily):
    """OneFormers."""

    name = "oneformer"
    Config = OneFormerConfig
    title = "a OneFormer"
    anew = ("model.transformer_module.decoder.class_embed.", "criterion.")
    known: ClassVar = {
        "shi-labs/oneformer_coco_swin_large": OneFormerDimensions(backbone=_LARGE),
        "shi-labs/oneformer_cityscapes_swin_large": OneFormerDimensions(
            backbone=_LARGE, num_queries=250
        ),
        "shi-labs/oneformer_ade20k_swin_large": OneFormerDimensions(
            backbone=_LARGE, num_queries=250
        ),
        "shi-labs/oneformer_ade20k_swin_tiny": OneFormerDimensions(),
    }

    def model(self, config: OneFormerConfig) -> Any:
        """Return transformers' class of a config's network."""
        return OneFormerForUniversalSegmentation

    def further(self, config: OneFormerConfig) -> dict[str, Any]:
        """Return what else a pretrained network is told: it has no text encoder."""
        return {"is_training": False}

    def describe_network(self, config: OneFormerConfig, classes: int) -> Any:
        """Return transformers' config of a network that has dimensions."""
        return describe_network(config, classes)

    def wrap(self, network: Any, config: OneFormerConfig) -> OneFormer:
        """Return the network that learns and finds instances."""
        return OneFormer(network, config.conf, config.labels.once)


FAMILY = OneFormerFamily()
