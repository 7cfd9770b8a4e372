"""RF-DETR-Seg (Robinson et al. 2025, arXiv:2511.09554) as Hugging Face's transformers have it.

A DINOv2 that attends in windows (Oquab et al. 2023), the decoder of LW-DETR (Chen et al. 2024), and
a head that multiplies what a query says with what each pixel does.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import RfDetrConfig as Architecture
from transformers import RfDetrForInstanceSegmentation
from transformers.loss.loss_rf_detr import RfDetrHungarianMatcher, RfDetrImageLoss

from zoo.families.queries import QueryNetwork, Unasked
from zoo.families.rfdetr.config import RfDetrConfig

_WEIGHTS = {
    "loss_ce": "class_loss_coefficient",
    "loss_bbox": "bbox_loss_coefficient",
    "loss_giou": "giou_loss_coefficient",
    "loss_mask_ce": "mask_class_loss_coefficient",
    "loss_mask_dice": "mask_dice_loss_coefficient",
}
Match = tuple[torch.Tensor, torch.Tensor]


class RfDetr(QueryNetwork):
    """An RF-DETR-Seg; its masks have a quarter of the input's height and width."""

    def __init__(self, network: RfDetrForInstanceSegmentation, floor: float, once: bool) -> None:
        super().__init__(network, floor, once)
        embeddings: Any = self.encoder.get_submodule("embeddings")
        embeddings.window_partition = MethodType(split_windows, embeddings)
        # Only for images that are hidden in part; never learning, it is missed by no process.
        embeddings.mask_token.requires_grad_(False)
        network.loss_function = _losses

    @property
    def encoder(self) -> nn.Module:
        """The DINOv2."""
        encoder: nn.Module = self.network.model.model.backbone.backbone
        return encoder

    def forward(self, images: torch.Tensor) -> Any:
        """Return transformers' outputs for images, float (N, c, h, w).

        They are logits of classes (N, Q, C), boxes (N, Q, 4), and logits of masks (N, Q, h / 4,
        w / 4).
        """
        return self.network(images.expand(-1, 3, -1, -1))

    def queries(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how sure each query is of each class, and its mask; see `QueryNetwork`."""
        outputs = self(images)
        return outputs.logits.float().sigmoid(), outputs.pred_masks.float()

    def losses(
        self, images: torch.Tensor, present: list[torch.Tensor], labels: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted sum of the losses of all layers; see `QueryNetwork`."""
        objects = [
            {"masks": masks, "boxes": enclose(masks), "class_labels": own}
            for masks, own in zip(present, labels, strict=True)
        ]
        total: torch.Tensor = self.network(images.expand(-1, 3, -1, -1), labels=objects).loss
        return total

    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, for the estimate of memory; the match is left out."""
        labels = [torch.arange(masks.shape[1], device=masks.device)] * len(masks)
        self.network.loss_function = partial(_losses, matcher=_match_in_order)
        try:
            with Unasked():
                return self.losses(images, list(masks.float()), labels)
        finally:
            self.network.loss_function = _losses


def enclose(masks: torch.Tensor) -> torch.Tensor:
    """Return the boxes around masks as shares of the image: middle, width and height.

    Args:
        masks: float (P, h, w) of 0 and 1; none is empty.

    Returns:
        float (P, 4): x, y, width, height.
    """
    ranges = []
    for axis in (1, 2):
        line = masks.amax(axis)
        side = line.shape[1]
        first, last = line.argmax(1), side - line.flip(1).argmax(1)
        ranges.append(((first + last) / 2 / side, (last - first) / side))
    (x, width), (y, height) = ranges
    return torch.stack([x, y, width, height], 1)


def split_windows(embeddings: Any, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return an image's tokens window by window.

    Transformers' own mixes up height and width, which of images that are not square makes stripes
    of the windows, and puts them together in another order than it took them apart.

    Args:
        embeddings: transformers' module, of which this is a method.
        tokens: float (N, 1 + patches, channels); the first one is of the whole image.
        height: of the images, in pixels.
        width: the same.

    Returns:
        float (N * windows, 1 + patches of one, channels).
    """
    side, patch = embeddings.config.num_windows, embeddings.patch_size
    rows, columns, channels = height // patch // side, width // patch // side, tokens.shape[-1]
    parts = tokens[:, 1:].reshape(-1, side, rows, side, columns, channels).transpose(2, 3)
    parts = parts.reshape(-1, rows * columns, channels)
    return torch.cat((tokens[:, :1].repeat_interleave(side * side, 0), parts), 1)


def describe_network(config: RfDetrConfig, classes: int) -> Architecture:
    """Return transformers' config of a network that has dimensions."""
    network = config.network
    if network is None:
        raise ValueError("network: expected dimensions, found none")
    backbone = {"model_type": "rf_detr_dinov2", **network.backbone.model_dump(mode="json")}
    return Architecture(
        backbone_config=backbone,
        num_labels=classes,
        intermediate_size=4 * network.d_model,
        **network.model_dump(exclude={"backbone"}),
        **config.loss_weights.model_dump(),
    )


def _losses(
    logits: torch.Tensor,
    labels: list[dict[str, torch.Tensor]],
    device: torch.device,
    boxes: torch.Tensor,
    masks: torch.Tensor,
    config: Any,
    *further: Any,
    matcher: Any = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], None]:
    """Return what transformers' `RfDetrForSegmentationLoss` does, also where there is no object."""
    layers, first = further[:3], further[3:]
    # In float16 the costs of a match overflow.
    with torch.autocast(device.type, enabled=False):
        outputs: dict[str, Any] = _named(logits, boxes, masks)
        outputs["auxiliary_outputs"] = [
            _named(*parts) for parts in zip(*(layer[:-1] for layer in layers), strict=True)
        ]
        outputs["enc_outputs"] = _named(*first)
        found = _criterion(config, matcher)(outputs, labels)
        total = sum(
            getattr(config, weight) * value.sum()
            for start, weight in _WEIGHTS.items()
            for name, value in found.items()
            if name == start or name.removeprefix(f"{start}_") in _layer_names(config)
        )
        if not any(len(own["class_labels"]) for own in labels):
            # Where several processes train, each gives every weight a gradient at every step.
            parts = (outputs, outputs["enc_outputs"], *outputs["auxiliary_outputs"])
            total = total + 0 * sum(part["pred_masks"].sum() for part in parts)
    return total, found, None


def _layer_names(config: Any) -> set[str]:
    return {"enc", *map(str, range(config.decoder_layers))}


def _named(logits: Any, boxes: Any, masks: Any) -> dict[str, torch.Tensor]:
    return {"logits": logits.float(), "pred_boxes": boxes.float(), "pred_masks": masks.float()}


def _criterion(config: Any, matcher: Any) -> RfDetrImageLoss:
    matcher = matcher or RfDetrHungarianMatcher(
        config.class_cost,
        config.bbox_cost,
        config.giou_cost,
        config.mask_point_sample_ratio,
        config.mask_class_loss_coefficient,
        config.mask_dice_loss_coefficient,
    )
    return RfDetrImageLoss(
        matcher,
        config.num_labels,
        config.focal_alpha,
        ["labels", "boxes", "masks"],
        config.group_detr,
        config.mask_point_sample_ratio,
    )


def _match_in_order(
    outputs: dict[str, torch.Tensor], labels: list[dict[str, torch.Tensor]], group_detr: int
) -> list[Match]:
    """Give the first queries of each group to the objects."""
    queries = outputs["logits"].shape[1] // group_detr
    orders = [torch.arange(min(len(own["class_labels"]), queries)) for own in labels]
    return [
        (torch.cat([order + queries * n for n in range(group_detr)]), order.repeat(group_detr))
        for order in orders
    ]
