"""The family of Mask2Former."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Mask2FormerForUniversalSegmentation

from zoo.families.mask2former.config import Mask2FormerConfig, Mask2FormerDimensions
from zoo.families.mask2former.network import Mask2Former, describe_network
from zoo.families.query_family import QueryFamily
from zoo.families.swin import SwinDimensions


class Mask2FormerFamily(QueryFamily):
    """Mask2Formers."""

    name = "mask2former"
    Config = Mask2FormerConfig
    title = "a Mask2Former"
    anew = ("class_predictor.", "criterion.")
    # Swins whose other dimensions are Swin-T's.
    known: ClassVar = {
        "facebook/mask2former-swin-tiny-": Mask2FormerDimensions(),
        "facebook/mask2former-swin-small-": Mask2FormerDimensions(
            backbone=SwinDimensions(depths=(2, 2, 18, 2))
        ),
    }

    def model(self, config: Mask2FormerConfig) -> Any:
        """Return transformers' class of a config's network."""
        return Mask2FormerForUniversalSegmentation

    def describe_network(self, config: Mask2FormerConfig, classes: int) -> Any:
        """Return transformers' config of a network that has dimensions."""
        return describe_network(config, classes)

    def wrap(self, network: Any, config: Mask2FormerConfig) -> Mask2Former:
        """Return the network that learns and finds instances."""
        return Mask2Former(network, config.conf, config.labels.once)


FAMILY = Mask2FormerFamily()
