"""What the networks of transformers share whose queries are the instances."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from zoo.families.instances import InstanceNetwork
from zoo.inference.instances import InstancesByClass, find_instances
from zoo.inference.predict import enlarge


class QueryNetwork(InstanceNetwork):
    """A network with a number of queries, each with a class and a mask.

    Which of them are instances, `zoo.inference.instances` says.

    Attributes:
        network: transformers' network, on images of three channels.
    """

    def __init__(self, network: Any, floor: float, once: bool) -> None:
        super().__init__(floor, once)
        self.network = network

    @abstractmethod
    def losses(
        self, images: torch.Tensor, present: list[torch.Tensor], labels: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted sum of the losses.

        Args:
            images: float (N, c, h, w), normalised.
            present: each image's objects, float (P, h, w).
            labels: their classes, int64 (P,).
        """

    @abstractmethod
    def queries(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how sure each query is of each class, and its mask.

        Args:
            images: float (N, c, h, w), normalised; the network is in evaluation mode.

        Returns:
            Probabilities, float32 (N, Q, C), and logits of any size, float32 (N, Q, h', w').
        """

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
        return self.losses(images, present, [classes[own] for own in found])

    def find(self, images: torch.Tensor) -> list[InstancesByClass]:
        """Return each image's instances, of classes that occur once the best one.

        Args:
            images: float (N, c, h, w), normalised; the network is in evaluation mode.
        """
        scores, masks = self.queries(images)
        size = (images.shape[-2], images.shape[-1])
        return [
            find_instances(own, partial(_plane, planes, size), self.floor, self.once)
            for own, planes in zip(scores.cpu().numpy(), masks, strict=True)
        ]


def _plane(masks: torch.Tensor, size_hw: tuple[int, int], query: int) -> npt.NDArray[np.uint8]:
    # On the masks' device, which enlarges faster than it hands over.
    probs = enlarge(masks[query][None, None], size_hw)[0, 0].sigmoid()
    return (probs * 255).round().to(torch.uint8).cpu().numpy()


class ExportableQueries(nn.Module):
    """A query network that gives scores and masks when it is called, for `zoo export`.

    Attributes:
        count: of its queries.
    """

    def __init__(self, network: QueryNetwork) -> None:
        super().__init__()
        self.network, self.count = network, int(network.network.config.num_queries)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and logits of masks, float32, of images; see `QueryNetwork.queries`."""
        return self.network.queries(images)


class MaskClassifier(QueryNetwork):
    """A query network as Mask2Former is one: its criterion compares masks at points.

    Its outputs are transformers': logits of classes (N, Q, C + 1), the last one of no object, and
    of masks (N, Q, h', w').
    """

    def queries(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how sure each query is of each class, and its mask; see `QueryNetwork`."""
        outputs = self(images)
        masks = outputs.masks_queries_logits.float()
        return query_scores(outputs.class_queries_logits.float(), masks), masks

    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, for the estimate of memory; the match is left out."""
        labels = [torch.arange(masks.shape[1], device=masks.device)] * len(masks)
        criterion = self.network.criterion
        matcher = criterion.matcher
        criterion.matcher = InOrder()
        try:
            with Unasked():
                return self.losses(images, list(masks.float()), labels)
        finally:
            criterion.matcher = matcher


class SwinClassifier(MaskClassifier):
    """A mask classifier on a Swin Transformer."""

    def __init__(self, network: Any, floor: float, once: bool) -> None:
        super().__init__(network, floor, once)
        # It comes after what is used: never learning, it is missed by no process among several.
        self.encoder.get_submodule("swin.layernorm").requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The Swin Transformer."""
        encoder: nn.Module = self.network.model.pixel_level_module.encoder
        return encoder


class Unasked(TorchFunctionMode):
    """Answers what transformers asks about numbers without looking at them.

    Whether any overflowed, whether boxes have their corners in order, how many objects there are:
    what only is pretended holds no numbers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.isfinite:
            return np.True_
        if func is torch.where and len(args) == 1:
            # Where something holds: chosen by what holds, instead of by a list of places.
            return (args[0],)
        if func is torch.Tensor.all and len(args) == 1 and not kwargs:
            return True
        # True is 1 where it is a number.
        if func is torch.Tensor.item:
            return True
        return func(*args, **(kwargs or {}))


class InOrder(nn.Module):
    """Gives the first queries to the objects."""

    def forward(
        self, masks: torch.Tensor, classes: torch.Tensor, present: Any, labels: list[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each image's queries and objects."""
        orders = [torch.arange(min(len(own), masks.shape[1])) for own in labels]
        return [(order, order) for order in orders]


def query_scores(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return how sure each query is of being an instance of each class, float (N, Q, C) in 0..1.

    The probability of the class times the mean probability inside of the mask, as Mask2Former's
    authors have it for instance segmentation (Cheng et al. 2022, arXiv:2112.01527).

    Args:
        classes: logits, float (N, Q, C + 1), the last one of no object.
        masks: logits, float (N, Q, h, w).
    """
    inside = masks > 0
    total = (masks.sigmoid() * inside).flatten(2).sum(-1)
    quality = total / inside.flatten(2).sum(-1).clamp_min(1)
    return classes.softmax(-1)[..., :-1] * quality[..., None]
