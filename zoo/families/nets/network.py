"""The networks of this family by name, and how one is built.

A network's module has

- `build(*, encoder, channels, classes, outputs, **options) -> nn.Module`: the network, of images,
  float (N, channels, h, w); it gives logits (N, classes, h', w'), which may be smaller than the
  images, and `outputs` of them in a list, finest first, while it learns, if more than one. Its
  `encoder` is a part of that name. What else `build` takes by keyword are the `options`;
- `ENCODER: bool`: whether it takes an encoder, see `zoo.families.encoders.build_encoder`;
- `OUTPUTS`: how many outputs it can give while it learns, or a function of the options;
- where needed `OWN_ENCODER: bool`: whether it has one of its own, for where none is given;
- where needed `FINEST`: the place of the finest of its encoder's features that it reads, 2 is at a
  quarter; without it 1; None where it calls the encoder's parts itself;
- where needed `POOLS_ALL: bool`: whether a norm sees one value an image and channel;
- where needed `check(size_hw, options)`: raises a ValueError for what does not go together;
- where needed `objective(base, options)`: what training lowers, of what the config says; for a
  network that gives more than masks while it learns. See `compute_loss` for one that is to see the
  images.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from converters.errors import one_line

NETWORKS = {
    "unet3plus": "zoo.families.nets.unet3plus",
    "resunet_a": "zoo.families.nets.resunet_a",
    "swin_unet": "zoo.families.nets.swin_unet",
    "effisegnet": "zoo.families.nets.effisegnet",
    "resunet_plus_plus": "zoo.families.nets.resunet_plus_plus",
    "ocr": "zoo.families.nets.ocr",
    "sam2_unet": "zoo.families.nets.sam2_unet",
    "lawin": "zoo.families.nets.lawin",
    "knet": "zoo.families.nets.knet",
    "maxvit_unet": "zoo.families.nets.maxvit_unet",
    "upernet": "zoo.families.nets.upernet",
    "semask": "zoo.families.nets.semask",
}
"""Name -> module of the network; a line is all that a new one needs."""

# Given by us.
_NOT_OPTIONS = {"encoder", "channels", "classes", "outputs"}


def load_network(name: str) -> Any:
    """Return the module of a network.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"architecture '{name}': expected one of {', '.join(NETWORKS)}")
    return import_module(NETWORKS[name])


def known_options(name: str) -> list[str]:
    """Return what a network takes besides an encoder."""
    signature = inspect.signature(load_network(name).build)
    return [option for option in signature.parameters if option not in _NOT_OPTIONS]


def count_outputs(name: str, options: Mapping[str, Any]) -> int:
    """Return how many outputs a network can give while it learns."""
    found = load_network(name).OUTPUTS
    return int(found(options) if callable(found) else found)


def finest_read(name: str) -> int:
    """Return the place of the finest of an encoder's features that a network reads.

    Raises:
        ValueError: it does not read them from the encoder, so that nothing can be put between.
    """
    found: int | None = getattr(load_network(name), "FINEST", 1)
    if found is None:
        raise ValueError(f"attention: {name} calls its encoder's stages one by one: expected null")
    return found


def check_network(
    name: str, encoder: str | None, options: Mapping[str, Any], size_hw: tuple[int, int]
) -> None:
    """Make sure that a network takes an encoder, options and inputs.

    Raises:
        ValueError: it does not, or there is no such network.
    """
    module = load_network(name)
    if encoder is not None and not module.ENCODER:
        raise ValueError(f"encoder: {name} takes none, found '{encoder}'; remove it")
    if encoder is None and module.ENCODER and not getattr(module, "OWN_ENCODER", False):
        raise ValueError(f"encoder: {name} needs one, such as resnet34; found none")
    known = known_options(name)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"options.{unknown[0]}: {name} takes {', '.join(known) or 'none'}; options=null drops "
            "all that the config has"
        )
    if hasattr(module, "check"):
        module.check(size_hw, options)


def wrap_objective(name: str, base: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """Return what training a network lowers, of what a config says."""
    module = load_network(name)
    return module.objective(base, options) if hasattr(module, "objective") else base


def build_network(
    name: str,
    encoder: nn.Module | None,
    channels: int,
    classes: int,
    outputs: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """Return a network of images, float (N, channels, h, w).

    Raises:
        ValueError: options that do not go together.
    """
    module = load_network(name)
    try:
        network: nn.Module = module.build(
            encoder=encoder, channels=channels, classes=classes, outputs=outputs, **options
        )
    except Exception as error:
        raise ValueError(
            f"{name} with these options cannot be built: {type(error).__name__}: "
            f"{one_line(error):.300}"
        ) from None
    return network
