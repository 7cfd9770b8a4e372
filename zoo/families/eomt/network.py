"""EoMT (Kerssies et al. 2025, arXiv:2503.19108) as Hugging Face's transformers have it.

A plain vision transformer, DINOv2 (Oquab et al. 2023) or DINOv3 (Simeoni et al. 2025), whose last
blocks see the queries among the patches. Unlike its authors, training does not anneal the masks of
attention: a network from scratch keeps them, a pretrained one is as it was left.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)
from transformers.models.eomt_dinov3 import modeling_eomt_dinov3 as dinov3

from zoo.families.eomt import config as settings
from zoo.families.queries import MaskClassifier

MODELS = {"dinov2": EomtForUniversalSegmentation, "dinov3": EomtDinov3ForUniversalSegmentation}


class Eomt(MaskClassifier):
    """An EoMT on images of any size that patches fill; its masks have a quarter of it."""

    def __init__(self, network: Any, floor: float, once: bool) -> None:
        super().__init__(network, floor, once)
        network.get_loss_dict = MethodType(_losses_in_float, network)
        network._disable_attention_mask = _free_queries
        if isinstance(network, EomtForUniversalSegmentation):
            network.embeddings.forward = MethodType(embed, network.embeddings)

    @property
    def encoder(self) -> nn.Module:
        """The vision transformer, without the queries and what reads them."""
        network = self.network
        return nn.ModuleList([network.embeddings, network.layers, network.layernorm])

    def forward(self, images: torch.Tensor, **labels: Any) -> Any:
        """Return transformers' outputs for images, float (N, c, h, w).

        They are the last block's logits of classes (N, Q, C + 1), the last one of no object, and of
        masks (N, Q, h / 4, w / 4).
        """
        patch = self.network.config.patch_size
        self.network.grid_size = (images.shape[-2] // patch, images.shape[-1] // patch)
        return self.network(images.expand(-1, 3, -1, -1), **labels)

    def losses(
        self, images: torch.Tensor, present: list[torch.Tensor], labels: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted sum of the losses of all blocks with queries; see `QueryNetwork`."""
        total: torch.Tensor = self(images, mask_labels=present, class_labels=labels).loss
        return total

    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, for the estimate of memory; the match is left out."""
        # What is kept of places that are only pretended would be given to those that are real.
        kept = dinov3.get_patches_center_coordinates
        dinov3.get_patches_center_coordinates = kept.__wrapped__
        try:
            return super().dummy_loss(images, masks)
        finally:
            dinov3.get_patches_center_coordinates = kept


def embed(embeddings: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return tokens of an image of any size; transformers' own are of one square size alone.

    Positions are interpolated as DINOv2 does.

    Args:
        embeddings: transformers' module, of which this is a method.
        pixel_values: float (N, 3, h, w).

    Returns:
        float (N, prefix + patches, channels).
    """
    patches = embeddings.patch_embeddings(pixel_values)
    grid = tuple(side // embeddings.config.patch_size for side in pixel_values.shape[-2:])
    places = embeddings.position_embeddings.weight
    own = int(len(places) ** 0.5)
    if grid != (own, own):
        plane = places.T.reshape(1, -1, own, own).float()
        plane = F.interpolate(plane, grid, mode="bicubic", antialias=True, align_corners=False)
        places = plane.flatten(2)[0].T.to(patches.dtype)
    first = (embeddings.cls_token, embeddings.register_tokens)
    prefix = [token.expand(patches.shape[0], -1, -1) for token in first]
    return embeddings.dropout(torch.cat([*prefix, patches + places], 1))


def describe_network(config: settings.EomtConfig, classes: int) -> Any:
    """Return transformers' config of a network that has dimensions."""
    network = config.network
    if network is None:
        raise ValueError("network: expected dimensions, found none")
    given = {"num_labels": classes, **network.model_dump(), **config.loss_weights.model_dump()}
    if config.encoder == "dinov2":
        return EomtConfig(**given)
    return EomtDinov3Config(**given, intermediate_size=4 * network.hidden_size)


def _losses_in_float(
    network: Any, masks_queries_logits: Any, class_queries_logits: Any, **labels: Any
) -> dict[str, torch.Tensor]:
    # In float16 the costs of a match overflow.
    logits = masks_queries_logits.float(), class_queries_logits.float()
    with torch.autocast(masks_queries_logits.device.type, enabled=False):
        losses: dict[str, torch.Tensor] = type(network).get_loss_dict(network, *logits, **labels)
        return losses


def _free_queries(
    attn_mask: torch.Tensor,
    prob: torch.Tensor,
    num_query_tokens: int,
    encoder_start_tokens: int,
    device: torch.device,
) -> torch.Tensor:
    """Let queries see the whole image with a probability of `1 - prob`, without asking for it."""
    free = torch.rand(attn_mask.shape[0], num_query_tokens, device=device) > prob
    seen = attn_mask[:, :num_query_tokens, encoder_start_tokens:]
    attn_mask[:, :num_query_tokens, encoder_start_tokens:] = seen | free[..., None]
    return attn_mask
