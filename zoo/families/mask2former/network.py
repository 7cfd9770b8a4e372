"""Mask2Former (Cheng et al. 2022, arXiv:2112.01527) as Hugging Face's transformers have it.

Its queries are the instances, with the probabilities of their masks: of a class that occurs once
the query that is surest of it; otherwise each query is an instance of the class that it is surest
of. The backbone is a Swin Transformer (Liu et al. 2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import Mask2FormerConfig as Architecture
from transformers import Mask2FormerForUniversalSegmentation, SwinConfig

from fusion.types import soft_mask
from zoo.families.hub import load_pretrained, quiet
from zoo.families.instances import InstanceNetwork, InstancesByClass
from zoo.families.mask2former.config import Mask2FormerConfig, Mask2FormerDimensions
from zoo.inference.predict import enlarge

# In a run folder: the network's dimensions, which a pretrained one brings along.
ARCHITECTURE = "network.json"


class Mask2Former(InstanceNetwork):
    """A Mask2Former; its masks have a quarter of the input's height and width."""

    def __init__(
        self, network: Mask2FormerForUniversalSegmentation, floor: float, once: bool
    ) -> None:
        super().__init__(floor, once)
        self.network = network
        # It comes after what is used: never learning, it is missed by no process among several.
        self.encoder.get_submodule("swin.layernorm").requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The Swin Transformer."""
        encoder: nn.Module = self.network.model.pixel_level_module.encoder
        return encoder

    def forward(self, images: torch.Tensor) -> Any:
        """Return transformers' outputs for images, float (N, c, h, w).

        They are of all the decoder's layers: logits of classes (N, Q, C + 1), the last one of no
        object, and of masks (N, Q, h / 4, w / 4).
        """
        return self.network(images.expand(-1, 3, -1, -1), output_auxiliary_logits=True)

    def loss(
        self, images: torch.Tensor, masks: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of the losses of all layers.

        Args:
            images: float (N, c, h, w), normalised.
            masks: bool (N, P, h, w); an object without pixels is not in the image.
            classes: the objects' classes, int64 (P,).
        """
        found = [part.flatten(1).any(1) for part in masks]
        present = [part[own].float() for part, own in zip(masks, found, strict=True)]
        return self._losses(images, present, [classes[own] for own in found])

    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, for the estimate of memory; the match is left out."""
        labels = [torch.arange(masks.shape[1], device=masks.device)] * len(masks)
        criterion = self.network.criterion
        matcher = criterion.matcher
        criterion.matcher = _InOrder()
        try:
            with _AllFinite():
                return self._losses(images, list(masks.float()), labels)
        finally:
            criterion.matcher = matcher

    def _losses(
        self, images: torch.Tensor, present: list[torch.Tensor], labels: list[torch.Tensor]
    ) -> torch.Tensor:
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

    def find(self, images: torch.Tensor) -> list[InstancesByClass]:
        """Return each image's instances, of classes that occur once the best one.

        Args:
            images: float (N, c, h, w), normalised; the network is in evaluation mode.
        """
        outputs = self(images)
        masks = outputs.masks_queries_logits.float()
        scores = query_scores(outputs.class_queries_logits.float(), masks)
        size = (images.shape[-2], images.shape[-1])
        return [self._collect(*parts, size) for parts in zip(scores, masks, strict=True)]

    def _collect(
        self, scores: torch.Tensor, masks: torch.Tensor, size_hw: tuple[int, int]
    ) -> InstancesByClass:
        box = (0.0, 0.0, float(size_hw[1]), float(size_hw[0]))
        found: InstancesByClass = {}
        for query, label, score in self._choose(scores):
            # One after the other: of many queries the planes would not fit.
            plane = enlarge(masks[query][None, None], size_hw)[0, 0].sigmoid()
            prob = (plane * 255).round().to(torch.uint8).cpu().numpy()
            if (mask := soft_mask(prob, box)) is not None:
                found[label] = (*found.get(label, ()), (min(score, 1.0), mask))
        return found

    def _choose(self, scores: torch.Tensor) -> list[tuple[int, int, float]]:
        """Return query, class and score of what is an instance, the surest first."""
        best, partner = scores.max(0 if self.once else 1)
        order = best.argsort(descending=True, stable=True)
        order = order[best[order] > self.floor]
        pair = (partner[order], order) if self.once else (order, partner[order])
        rows = (part.tolist() for part in (*pair, best[order]))
        return list(zip(*rows, strict=True))


class _AllFinite(TorchFunctionMode):
    """Answers transformers' question whether numbers overflowed without looking at them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return np.True_ if func is torch.isfinite else func(*args, **(kwargs or {}))


class _InOrder(nn.Module):
    """Gives the first queries to the objects."""

    def forward(
        self, masks: torch.Tensor, classes: torch.Tensor, present: Any, labels: list[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each image's queries and objects."""
        orders = [torch.arange(min(len(own), masks.shape[1])) for own in labels]
        return [(order, order) for order in orders]


def query_scores(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return how sure each query is of being an instance of each class, float (N, Q, C) in 0..1.

    The probability of the class times the mean probability inside of the mask, as the authors have
    it for instance segmentation.

    Args:
        classes: logits, float (N, Q, C + 1).
        masks: logits, float (N, Q, h, w).
    """
    inside = masks > 0
    total = (masks.sigmoid() * inside).flatten(2).sum(-1)
    quality = total / inside.flatten(2).sum(-1).clamp_min(1)
    return classes.softmax(-1)[..., :-1] * quality[..., None]


def build_network(config: Mask2FormerConfig, classes: int) -> Mask2Former:
    """Return a network to train.

    Raises:
        ValueError: the pretrained weights cannot be had, or are of another network.
    """
    losses = config.loss_weights.model_dump()
    if config.network is not None:
        return _wrap(_create(_describe(config.network, classes, losses)), config)
    name = str(config.pretrained)
    further = {"num_labels": classes, "dtype": torch.float32, **losses}
    remedy = "pretrained=null and network"
    network, info = load_pretrained(Mask2FormerForUniversalSegmentation, name, remedy, **further)
    _check_all_but_classes(name, info)
    return _wrap(network, config)


def rebuild_network(run: Path, config: Mask2FormerConfig) -> Mask2Former:
    """Return the network of a run, without its weights and without a download.

    Raises:
        ValueError: the run does not say what its network looks like.
    """
    path = run / ARCHITECTURE
    try:
        architecture = Architecture.from_json_file(str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the network's dimensions: {error}") from None
    return _wrap(_create(architecture), config)


def _describe(network: Mask2FormerDimensions, classes: int, losses: dict[str, Any]) -> Architecture:
    stages = [f"stage{n}" for n in range(1, 5)]
    swin = SwinConfig(num_channels=3, out_features=stages, **network.backbone.model_dump())
    return Architecture(
        backbone_config=swin,
        num_labels=classes,
        feature_size=network.hidden_dim,
        mask_feature_size=network.hidden_dim,
        **network.model_dump(exclude={"backbone"}),
        **losses,
    )


def _wrap(network: Mask2FormerForUniversalSegmentation, config: Mask2FormerConfig) -> Mask2Former:
    return Mask2Former(network, config.conf, config.labels.once)


def _create(architecture: Architecture) -> Mask2FormerForUniversalSegmentation:
    with quiet():
        return Mask2FormerForUniversalSegmentation(architecture)


def _check_all_but_classes(name: str, info: dict[str, Any]) -> None:
    # What knows the classes starts anew.
    own = ("class_predictor.", "criterion.")
    keys = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    if wrong := sorted(key for key in keys if not key.startswith(own)):
        raise ValueError(
            f"pretrained '{name}': expected weights of a Mask2Former, found others: {len(wrong)} "
            f"differ, such as '{wrong[0]}'"
        )
