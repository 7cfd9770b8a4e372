"""The family of EoMT, the encoder-only mask transformer."""

from __future__ import annotations

from typing import Any, ClassVar

from zoo.families.eomt.config import EomtConfig, EomtDimensions, check_patches
from zoo.families.eomt.network import MODELS, Eomt, describe_network
from zoo.families.query_family import QueryFamily


class EomtFamily(QueryFamily):
    """EoMTs."""

    name = "eomt"
    Config = EomtConfig
    title = "an EoMT"
    anew = ("class_predictor.", "criterion.")
    known: ClassVar = {
        "tue-mps/coco_instance_eomt_large_640": EomtDimensions(),
        "tue-mps/coco_instance_eomt_large_1280": EomtDimensions(image_size=1280),
        "tue-mps/eomt-dinov3-coco-instance-large-": EomtDimensions(),
    }

    def model(self, config: EomtConfig) -> Any:
        """Return transformers' class of a config's network."""
        return MODELS[config.encoder]

    def describe_network(self, config: EomtConfig, classes: int) -> Any:
        """Return transformers' config of a network that has dimensions."""
        return describe_network(config, classes)

    def wrap(self, network: Any, config: EomtConfig) -> Eomt:
        """Return the network that learns and finds instances.

        Raises:
            ValueError: patches of this network do not fill images of the config's size.
        """
        check_patches(config.size, network.config.patch_size)
        return Eomt(network, config.conf, config.labels.once)


FAMILY = EomtFamily()
