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
from pydantic import Field, model_validator
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import Mask2FormerConfig as Architecture
from transformers import Mask2FormerForUniversalSegmentation, SwinConfig

from converters.types import LabelSpace
from fusion.types import soft_mask
from zoo.config import StrictModel
from zoo.families.hub import load_pretrained, quiet
from zoo.families.instances import InstanceConfig, InstanceFamily, InstanceNetwork, InstancesByClass
from zoo.inference.predict import enlarge
from zoo.run_files.licences import WeightSource, of_hub

Four = tuple[int, int, int, int]
ARCHITECTURE = "network.json"
# Beginnings of names on the hub -> blocks of the Swins whose other dimensions are Swin-T's.
_KNOWN: dict[str, Four] = {
    "facebook/mask2former-swin-tiny-": (2, 2, 6, 2),
    "facebook/mask2former-swin-small-": (2, 2, 18, 2),
}


class SwinDimensions(StrictModel):
    """A Swin Transformer, stage by stage; the defaults are Swin-T's.

    Attributes:
        embed_dim: channels of the first stage; they double at each of the others.
        depths: blocks.
        num_heads: heads; divide the channels.
        window_size: side of the windows of attention, in patches of 4 pixels.
        drop_path_rate: chance to skip the last block; it rises in a line from the first one's 0.
    """

    embed_dim: int = Field(default=96, gt=0)
    depths: Four = (2, 2, 6, 2)
    num_heads: Four = (3, 6, 12, 24)
    window_size: int = Field(default=7, gt=0)
    drop_path_rate: float = Field(default=0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> SwinDimensions:
        if any(self.embed_dim * 2**n % heads for n, heads in enumerate(self.num_heads)):
            raise ValueError(
                f"expected embed_dim {self.embed_dim}, doubled at each stage, that num_heads "
                f"{self.num_heads} divide"
            )
        return self


class Mask2FormerDimensions(StrictModel):
    """A Mask2Former of random weights; the defaults are its authors' for Swin-T.

    Attributes:
        backbone: the Swin Transformer.
        num_queries: how many instances it can find; more than there are classes.
        hidden_dim: channels of both decoders and of the masks' features.
        encoder_layers: of the pixel decoder.
        decoder_layers: of the decoder of queries; each but the last one learns masks as well.
        num_attention_heads: of both; divide the channels.
        encoder_feedforward_dim: channels inside of the pixel decoder's layers.
        dim_feedforward: channels inside of the decoder's layers.
        dropout: in both.
    """

    backbone: SwinDimensions = SwinDimensions()
    num_queries: int = Field(default=100, gt=0)
    hidden_dim: int = Field(default=256, gt=0, multiple_of=32)
    encoder_layers: int = Field(default=6, gt=0)
    decoder_layers: int = Field(default=10, gt=1)
    num_attention_heads: int = Field(default=8, gt=0)
    encoder_feedforward_dim: int = Field(default=1024, gt=0)
    dim_feedforward: int = Field(default=2048, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> Mask2FormerDimensions:
        if self.hidden_dim % self.num_attention_heads:
            raise ValueError(
                f"expected hidden_dim {self.hidden_dim} that num_attention_heads "
                f"{self.num_attention_heads} divides"
            )
        return self


class Mask2FormerLossWeights(StrictModel):
    """How much each loss counts, and where masks are compared; transformers' names and values.

    Attributes:
        class_weight: which class a query is of.
        mask_weight: cross-entropy of a mask's points.
        dice_weight: Dice of a mask's points.
        no_object_weight: how much a query counts that shall be no object.
        train_num_points: points at which masks are compared.
        oversample_ratio: how many times as many are drawn to choose the least sure ones from.
        importance_sample_ratio: share of the points that are chosen so.
    """

    class_weight: float = Field(default=2.0, gt=0)
    mask_weight: float = Field(default=5.0, gt=0)
    dice_weight: float = Field(default=5.0, gt=0)
    no_object_weight: float = Field(default=0.1, gt=0)
    train_num_points: int = Field(default=12544, gt=0)
    oversample_ratio: float = Field(default=3.0, ge=1)
    importance_sample_ratio: float = Field(default=0.75, ge=0, le=1)


class Mask2FormerConfig(InstanceConfig):
    """A Mask2Former, with pretrained weights or from scratch.

    Attributes:
        pretrained: folder, or name on the Hugging Face hub, of a Mask2Former; brings its own
            dimensions. Mind its licence: its authors' weights are for non-commercial use.
        network: dimensions of a network with random weights.
        loss_weights: how much each loss counts.
    """

    pretrained: str | None = None
    network: Mask2FormerDimensions | None = None
    loss_weights: Mask2FormerLossWeights = Mask2FormerLossWeights()

    @model_validator(mode="after")
    def _one_source(self) -> Mask2FormerConfig:
        if (self.pretrained is None) == (self.network is None):
            raise ValueError("expected either 'pretrained' or 'network', found both or none")
        return self

    @model_validator(mode="after")
    def _a_query_for_each_class(self) -> Mask2FormerConfig:
        classes = len(LabelSpace.load(self.labels))
        if self.network is not None and self.network.num_queries < classes:
            raise ValueError(
                f"network.num_queries: expected at least {classes}, one a class, found "
                f"{self.network.num_queries}"
            )
        return self


class Mask2Former(InstanceNetwork):
    """A Mask2Former on grey images; its masks have a quarter of the input's height and width."""

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
        """Return transformers' outputs for images, float (N, 1, h, w).

        They are of all the decoder's layers: logits of classes (N, Q, C + 1), the last one of no
        object, and of masks (N, Q, h / 4, w / 4).
        """
        return self.network(images.expand(-1, 3, -1, -1), output_auxiliary_logits=True)

    def loss(
        self, images: torch.Tensor, masks: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of the losses of all layers.

        Args:
            images: float (N, 1, h, w), normalised.
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
            images: float (N, 1, h, w), normalised; the network is in evaluation mode.
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


class Mask2FormerFamily(InstanceFamily):
    """Mask2Formers."""

    name = "mask2former"
    Config = Mask2FormerConfig

    def build(self, config: Mask2FormerConfig, classes: int) -> Mask2Former:
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
        network, info = load_pretrained(
            Mask2FormerForUniversalSegmentation, name, remedy, **further
        )
        _check_all_but_classes(name, info)
        return _wrap(network, config)

    def without_weights(self, config: Mask2FormerConfig) -> Mask2FormerConfig:
        """Return the config of the same network with random weights.

        Raises:
            ValueError: only the pretrained weights say what the network is like.
        """
        if config.network is not None:
            return config
        name = str(config.pretrained)
        known = next((d for start, d in _KNOWN.items() if name.startswith(start)), None)
        if known is None:
            raise ValueError(f"pretrained '{name}': its dimensions come with the weights")
        network = Mask2FormerDimensions(backbone=SwinDimensions(depths=known))
        return config.model_copy(update={"pretrained": None, "network": network})

    def rebuild(self, run: Path, config: Mask2FormerConfig, classes: int) -> Mask2Former:
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

    def describe(self, run: Path, network: nn.Module) -> None:
        """Leave the network's dimensions, which a pretrained one brings along."""
        if isinstance(network, Mask2Former):
            network.network.config.to_json_file(str(run / ARCHITECTURE))

    def sources(self, config: Mask2FormerConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return [of_hub(config.pretrained)] if config.pretrained else []


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
    return Mask2Former(network, config.conf, LabelSpace.load(config.labels).once)


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


FAMILY = Mask2FormerFamily()
