"""Mask2Former (Cheng et al. 2022, arXiv:2112.01527) as Hugging Face's transformers have it.

Its queries are the instances, with the probabilities of their masks. The backbone is a Swin
Transformer (Liu et al. 2021).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Mask2FormerConfig as Architecture

from zoo.families.mask2former.config import Mask2FormerConfig
from zoo.families.queries import SwinClassifier


class Mask2Former(SwinClassifier):
    """A Mask2Former; its masks have a quarter of the input's height and width."""

    def forward(self, images: torch.Tensor) -> Any:
        """Return transformers' outputs for images, float (N, c, h, w).

        They are of all the decoder's layers: logits of classes (N, Q, C + 1), the last one of no
        object, and of masks (N, Q, h / 4, w / 4).
        """
        return self.network(images.expand(-1, 3, -1, -1), output_auxiliary_logits=True)

    def losses(
        self, images: torch.Tensor, present: list[torch.Tensor], labels: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted sum of the losses of all layers; see `QueryNetwork`."""
        outputs = self(images)
        # In float16 the costs of a match overflow.
        with torch.autocast(images.device.type, enabled=False):
            losses = self.network.get_loss_dict(
                outputs.masks_queries_logits.float(),
                outputs.class_queries_logits.float(),
                present,
                labels,
                [{k: v.float() for k, v in layer.items()} for layer in outputs.auxiliary_logits],
            )
            total: torch.Tensor = self.network.get_loss(losses)
        return total


def describe_network(config: Mask2FormerConfig, classes: int) -> Architecture:
    """Return transformers' config of a network that has dimensions."""
    network = config.network
    if network is None:
        raise ValueError("network: expected dimensions, found none")
    return Architecture(
        backbone_config=network.backbone.describe(),
        num_labels=classes,
        feature_size=network.hidden_dim,
        mask_feature_size=network.hidden_dim,
        **network.model_dump(exclude={"backbone"}),
        **config.loss_weights.model_dump(),
    )
