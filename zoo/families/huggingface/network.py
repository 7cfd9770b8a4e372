"""UPerNet, BEiT and DPT as Hugging Face's transformers have them. SegFormer is a family apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import transformers as hf
from torch import nn

from converters.errors import one_line
from zoo.families.hub import load_pretrained, quiet
from zoo.families.huggingface.config import DIMENSIONS, HuggingFaceConfig

Logits: TypeAlias = torch.Tensor | list[torch.Tensor]
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


class UperNet(nn.Module):
    """UPerNet.

    Transformers enlarges the logits inside of the network; here that is left to the loss and to
    prediction, which do it the same way, once.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        encoder: nn.Module = self.network.backbone
        return encoder

    def forward(self, images: torch.Tensor) -> Logits:
        """Return logits (N, C, h / 4, w / 4) of images, float (N, c, h, w).

        While learning, and where there is an auxiliary head: the logits and the head's, h / 16.
        """
        channels = self.network.config.backbone_config.num_channels
        own = self.network
        features = own.backbone(images.expand(-1, channels, -1, -1)).feature_maps
        return _heads(own.decode_head, own.auxiliary_head, features, self.training)


class Beit(nn.Module):
    """BEiT with UPerNet's head, on images of sides that are multiples of the patch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The Transformer."""
        encoder: nn.Module = self.network.beit
        return encoder

    def forward(self, images: torch.Tensor) -> Logits:
        """Return logits (N, C, h / 4, w / 4) of images, float (N, c, h, w).

        While learning, and where there is an auxiliary head: the logits and the head's, h / 16.
        """
        own, config = self.network, self.network.config
        tokens = own.beit(
            images.expand(-1, config.num_channels, -1, -1), output_hidden_states=True
        ).hidden_states
        rows, columns = (side // config.patch_size for side in images.shape[-2:])
        # The first token is of the whole image.
        maps = (tokens[i - 1][:, 1:].transpose(1, 2) for i in config.out_indices)
        features = own.fpn(tuple(m.reshape(len(images), -1, rows, columns) for m in maps))
        return _heads(own.decode_head, own.auxiliary_head, features, self.training)


class Dpt(nn.Module):
    """DPT on images of sides that are multiples of the patch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The Vision Transformer."""
        encoder: nn.Module = self.network.dpt
        return encoder

    def forward(self, images: torch.Tensor) -> Logits:
        """Return logits (N, C, h, w) of images, float (N, c, h, w).

        While learning, and where there is an auxiliary head: the logits and the head's, h / 2.
        """
        own, config = self.network, self.network.config
        tokens = own.dpt(
            images.expand(-1, config.num_channels, -1, -1), output_hidden_states=True
        ).hidden_states[1:]
        chosen = [tokens[i] for i in config.backbone_out_indices]
        features = own.neck(chosen, *(side // config.patch_size for side in images.shape[-2:]))
        finest: torch.Tensor = own.head(features)
        if not self.training or own.auxiliary_head is None:
            return finest
        return [finest, own.auxiliary_head(features[-1])]


def _heads(head: Any, auxiliary: Any, features: Any, is_training: bool) -> Logits:
    logits: torch.Tensor = head(features)
    return [logits, auxiliary(features)] if is_training and auxiliary is not None else logits


class _Kind(NamedTuple):
    """What transformers call an architecture, and what makes it ours."""

    network: Any
    wrap: Callable[[Any], nn.Module]
    encoder: str


_KINDS = {
    "upernet": _Kind(hf.UperNetForSemanticSegmentation, UperNet, "backbone."),
    "beit": _Kind(hf.BeitForSemanticSegmentation, Beit, "beit."),
    "dpt": _Kind(hf.DPTForSemanticSegmentation, Dpt, "dpt."),
}


def build_network(config: HuggingFaceConfig, classes: int) -> nn.Module:
    """Return a network.

    Raises:
        ValueError: dimensions that do not go together, or pretrained weights that cannot be had or
            are of another network.
    """
    kind, dimensions = _KINDS[config.architecture], _dimensions(config, classes)
    if config.pretrained is not None:
        return kind.wrap(_pretrained(kind, config.pretrained, dimensions))
    try:
        return kind.wrap(kind.network(dimensions))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        reason = one_line(error)
        raise ValueError(
            f"network: these dimensions do not fit: {type(error).__name__}: {reason:.300}"
        ) from None


def _dimensions(config: HuggingFaceConfig, classes: int) -> Any:
    """Return transformers' config.

    Raises:
        ValueError: values of another type, or that do not go together.
    """
    given = dict(config.network)
    if config.architecture == "upernet":
        backbone = {"out_features": _STAGES, **given["backbone_config"]}
        given["backbone_config"] = backbone | {"num_channels": config.network_channels}
        # Else the auxiliary head is made for a Swin-T, whatever the backbone is.
        given.setdefault("auxiliary_in_channels", None)
    else:
        given["num_channels"] = config.network_channels
        # Of the table of positions, which is stretched to other images. DPT's is square.
        size = config.input_size
        side = list(size) if config.architecture == "beit" else max(size)
        given.setdefault("image_size", side)
    given |= {"num_labels": classes, "use_auxiliary_head": len(config.deep_supervision) > 1}
    try:
        with quiet():
            return DIMENSIONS[config.architecture](**given)
    except Exception as error:  # whatever transformers' checks raise, it is about the config
        reason = one_line(error)
        raise ValueError(f"network: {type(error).__name__}: {reason:.300}") from None


def _pretrained(kind: _Kind, name: str, dimensions: Any) -> Any:
    network, info = load_pretrained(kind.network, name, "pretrained=null", config=dimensions)
    # What knows the classes starts at random, and so may heads that the weights do not have.
    shapes = [key for key, *pair in info["mismatched_keys"] if not _differ_in_classes(*pair)]
    missing = [key for key in info["missing_keys"] if key.startswith(kind.encoder)]
    if wrong := sorted(
        [*shapes, *missing], key=lambda key: (not key.startswith(kind.encoder), key)
    ):
        raise ValueError(
            f"pretrained '{name}': expected weights of the network that 'network' and 'channels' "
            f"describe, found others: {len(wrong)} differ, such as '{wrong[0]}'"
        )
    return network


def _differ_in_classes(found: torch.Size, own: torch.Size) -> bool:
    """Tell whether two layers' weights are those of last layers for other numbers of classes."""
    # A kernel of one pixel, or a bias: no other layer of these networks has another height alone.
    is_last = len(own) == 1 or tuple(own[2:]) == (1, 1)
    return is_last and tuple(found[1:]) == tuple(own[1:])
