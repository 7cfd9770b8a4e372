"""The family of RF-DETR with masks."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import RfDetrForInstanceSegmentation

from zoo.families.query_family import QueryFamily
from zoo.families.rfdetr.config import (
    DinoDimensions,
    RfDetrConfig,
    RfDetrDimensions,
    check_input,
)
from zoo.families.rfdetr.network import RfDetr, describe_network


def _sized(side: int, queries: int, layers: int, windows: int = 2) -> RfDetrDimensions:
    backbone = DinoDimensions(image_size=side, num_windows=windows)
    return RfDetrDimensions(backbone=backbone, num_queries=queries, decoder_layers=layers)


class RfDetrFamily(QueryFamily):
    """RF-DETR-Segs."""

    name = "rfdetr"
    Config = RfDetrConfig
    title = "an RF-DETR-Seg"
    anew = ("model.class_embed.", "model.model.enc_out_class_embed.")
    known: ClassVar = {
        "Roboflow/rf-detr-seg-nano": _sized(312, 100, 4, windows=1),
        "Roboflow/rf-detr-seg-small": _sized(384, 100, 4),
        "Roboflow/rf-detr-seg-medium": _sized(432, 200, 5),
        "Roboflow/rf-detr-seg-large": _sized(504, 300, 5),
        "Roboflow/rf-detr-seg-xlarge": _sized(624, 300, 6),
        "Roboflow/rf-detr-seg-xxlarge": _sized(768, 300, 6),
    }

    def model(self, config: RfDetrConfig) -> Any:
        """Return transformers' class of a config's network."""
        return RfDetrForInstanceSegmentation

    def describe_network(self, config: RfDetrConfig, classes: int) -> Any:
        """Return transformers' config of a network that has dimensions."""
        return describe_network(config, classes)

    def wrap(self, network: Any, config: RfDetrConfig) -> RfDetr:
        """Return the network that learns and finds instances.

        Raises:
            ValueError: the network does not take images of the config's size.
        """
        backbone = network.config.backbone_config
        stride = backbone.patch_size * backbone.num_windows
        if any(side % stride for side in config.size):
            raise ValueError(
                f"size: expected multiples of {stride}, a patch's side times the number of windows "
                f"of this network, found {list(config.size)}"
            )
        check_input(config.size, backbone.patch_size, network.config.num_queries)
        return RfDetr(network, config.conf, config.labels.once)


FAMILY = RfDetrFamily()
