"""FCN and DeepLabV3 as torchvision has them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model

from converters.errors import one_line
from zoo.families.downloads import in_torch_cache
from zoo.families.semantic import reads_colours
from zoo.families.torchvision.config import TorchvisionConfig, known_weights
from zoo.run_files import checkpoints

_MOMENTUM = 0.1
# What a backbone's weights have beyond the backbone, as they come from classification.
_CLASSIFIERS = ("fc.", "classifier.")
# Torchvision's names of the parts -> ours.
_PARTS = {"backbone": "encoder", "classifier": "decoder", "aux_classifier": "auxiliary_head"}


class TorchvisionNet(nn.Module):
    """A network of torchvision; its logits have an eighth of the input's height.

    Torchvision enlarges the logits inside of the network; here that is left to the loss and to
    prediction, which do it the same way, once.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder = network.backbone
        self.decoder = network.classifier
        self.auxiliary_head = network.aux_classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h / 8, w / 8) of images, float (N, c, h, w).

        While learning, and where there is an auxiliary head: the logits and the head's.
        """
        features = self.encoder(images)
        logits: torch.Tensor = self.decoder(features["out"])
        if not self.training or self.auxiliary_head is None:
            return logits
        return [logits, self.auxiliary_head(features["aux"])]


def build_network(config: TorchvisionConfig, classes: int) -> TorchvisionNet:
    """Return a network.

    Raises:
        ValueError: the pretrained weights cannot be had, or are of another network.
    """
    given = config.pretrained
    if given is None:
        network = _fit_channels(_create(config, classes), config, is_trained=False)
        _follow_short_trainings(network)
        return network
    if checkpoints.is_weight_file(given):
        network = _create(config, classes)
        if not reads_colours(Path(given)):
            _fit_channels(network, config, is_trained=False)
        found = checkpoints.read_weights(Path(given))
        own = checkpoints.strip_prefix(found, network.encoder.state_dict(), Path(given))
        own = {k: v for k, v in own.items() if not k.startswith(_CLASSIFIERS)}
        checkpoints.check_alike(own, network.encoder.state_dict(), Path(given))
        network.encoder.load_state_dict(own)
        return _fit_channels(network, config, is_trained=True)
    network = _create(config, classes)
    _take(network, _fetch(config, given))
    return _fit_channels(network, config, is_trained=True)


def _follow_short_trainings(network: nn.Module) -> None:
    """Let batch norms remember some ten steps, as torch has it.

    Torchvision's MobileNetV3 remembers a hundred. Of random weights' statistics a third is left
    after a hundred steps then, and what is predicted is nothing.
    """
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d) and part.momentum is not None:
            part.momentum = max(part.momentum, _MOMENTUM)


def _create(config: TorchvisionConfig, classes: int) -> TorchvisionNet:
    network = get_model(
        config.architecture,
        weights=None,
        weights_backbone=None,
        num_classes=classes,
        aux_loss=len(config.deep_supervision) > 1,
    )
    return TorchvisionNet(network)


def _fit_channels(
    network: TorchvisionNet, config: TorchvisionConfig, is_trained: bool
) -> TorchvisionNet:
    """Let the first convolution read one channel, where images are grey.

    Trained kernels are summed over colours: the same as to show the grey image three times. Random
    ones are drawn for any number of channels alike, so one of them serves.
    """
    first = next(m for m in network.encoder.modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == config.in_channels:
        return network
    with torch.no_grad():
        weight = first.weight.sum(1, keepdim=True) if is_trained else first.weight[:, :1].clone()
    first.in_channels, first.weight = 1, nn.Parameter(weight)
    return network


def _fetch(config: TorchvisionConfig, name: str) -> dict[str, torch.Tensor]:
    """Return weights by our names, without the layers that know torchvision's classes."""
    whole = known_weights(config.architecture).get(name)
    weights = whole or known_weights(config.backbone)[name]
    try:
        # weights_only: torchvision's files are pickles, of which only tensors are read.
        found = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = one_line(error)
        raise ValueError(
            f"pretrained '{name}': could not get torchvision's weights; run once with a network "
            f"connection, {in_torch_cache(weights.url)}, give a safetensors file of the backbone, "
            f"or set pretrained=null: {type(error).__name__}: {reason:.160}"
        ) from None
    if whole is None:
        plain = {k.removeprefix("features."): v for k, v in found.items()}
        return {f"encoder.{k}": v for k, v in plain.items() if not k.startswith(_CLASSIFIERS)}
    parts = ((k.partition("."), v) for k, v in found.items())
    return {f"{_PARTS[part]}.{rest}": v for (part, _, rest), v in parts}


def _take(network: TorchvisionNet, found: dict[str, torch.Tensor]) -> None:
    """Load all but the layers that know the classes.

    Raises:
        ValueError: the encoder misses something.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k.startswith("encoder.") and k not in fitting]
    if missing:
        raise ValueError(f"pretrained: these weights are of another network: no '{missing[0]}'")
    network.load_state_dict(own | fitting)
