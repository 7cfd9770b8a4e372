"""OneFormer (Jain et al. 2023, arXiv:2211.06220) as Hugging Face's transformers have it.

A Mask2Former whose queries know from a sentence what they shall find: here always instances. Unlike
its authors, queries do not learn from sentences about the image's objects as well, which are used
while learning alone: classes have names that no text encoder has been shown.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import OneFormerConfig as Architecture
from transformers import OneFormerForUniversalSegmentation

from zoo.families.oneformer.config import OneFormerConfig
from zoo.families.queries import SwinClassifier

# CLIP's tokens of "the task is instance", between those of beginning and end.
TASK = (49406, 518, 10549, 533, 34572, 49407)


class OneFormer(SwinClassifier):
    """A OneFormer; its masks have a quarter of the input's height and width."""

    task: torch.Tensor

    def __init__(
        self, network: OneFormerForUniversalSegmentation, floor: float, once: bool
    ) -> None:
        super().__init__(network, floor, once)
        length = network.config.task_seq_len
        task = torch.tensor([*TASK, *[0] * length][:length])
        self.register_buffer("task", task, persistent=False)
        # Of the sentences: never learning, it is missed by no process among several.
        network.criterion.logit_scale.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> Any:
        """Return transformers' outputs for images, float (N, c, h, w).

        They are of all the decoder's layers: logits of classes (N, Q, C + 1), the last one of no
        object, and of masks (N, Q, h / 4, w / 4).
        """
        task = self.task.expand(images.shape[0], -1)
        return self.network(images.expand(-1, 3, -1, -1), task, output_auxiliary_logits=True)

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
                None,
                present,
                labels,
                None,
                [
                    {k: v.float() for k, v in layer.items()}
                    for layer in outputs.auxiliary_predictions
                ],
                calculate_contrastive_loss=False,
            )
            # Its own is a list of one.
            total: torch.Tensor = self.network.get_loss(losses).sum()
        return total


def describe_network(config: OneFormerConfig, classes: int) -> Architecture:
    """Return transformers' config of a network that has dimensions."""
    network = config.network
    if network is None:
        raise ValueError("network: expected dimensions, found none")
    return Architecture(
        backbone_config=network.backbone.describe(),
        num_labels=classes,
        conv_dim=network.hidden_dim,
        mask_dim=network.hidden_dim,
        **network.model_dump(exclude={"backbone"}),
        **config.loss_weights.model_dump(),
    )
