"""The family of torchvision's Mask R-CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.families.instances import InstanceFamily
from zoo.families.maskrcnn.config import MaskRcnnConfig
from zoo.families.maskrcnn.network import (
    ExportableBoxes,
    MaskRcnn,
    build_network,
    rebuild_network,
)
from zoo.families.maskrcnn.parts import COCO, TIMM
from zoo.run_files import licences
from zoo.run_files.checkpoints import is_weight_file


class MaskRcnnFamily(InstanceFamily):
    """Mask R-CNNs of torchvision."""

    name = "maskrcnn"
    Config = MaskRcnnConfig

    def build(self, config: MaskRcnnConfig, classes: int) -> MaskRcnn:
        """Return a network to train.

        Raises:
            ValueError: an unknown backbone, or pretrained weights that cannot be had or are of
                another network.
        """
        return build_network(config, classes)

    def rebuild(self, run: Path, config: MaskRcnnConfig, classes: int) -> MaskRcnn:
        """Return the network of a run, without its weights and without a download."""
        return rebuild_network(config, classes)

    def open_boxes(self, run: Path, config: MaskRcnnConfig) -> ExportableBoxes:
        """Rebuild a run's network on the CPU, to be exported.

        Raises:
            ValueError: the run has no weights, or those of another network.
        """
        network: Any = self.load(run, config)
        return ExportableBoxes(network, len(config.labels))

    def sources(self, config: MaskRcnnConfig) -> list[licences.WeightSource]:
        """Return whose pretrained weights the network starts from."""
        given = config.pretrained
        if given is None:
            return []
        if is_weight_file(given):
            return [licences.of_file(given)]
        if config.backbone.startswith(TIMM):
            return [licences.of_timm(config.backbone.removeprefix(TIMM))]
        model = config.architecture if given == COCO else config.backbone
        return [licences.of_torchvision(model, given)]


FAMILY = MaskRcnnFamily()
