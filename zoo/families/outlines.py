"""Families whose networks can be looked at before they are trained: what each is like, unbuilt.

It is optional: `zoo list models` lists these families' networks, and a run of theirs is told how
much memory it will need. Others train and predict all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from converters.types import LabelSpace
from zoo.families.training_step import TrainingStep

OUTLINES = {
    "smp": "zoo.families.smp.family:FAMILY",
    "segformer": "zoo.families.segformer.family:FAMILY",
    "torchvision": "zoo.families.torchvision.family:FAMILY",
    "huggingface": "zoo.families.huggingface.family:FAMILY",
    "monai": "zoo.families.monai.family:FAMILY",
    "nets": "zoo.families.nets.family:FAMILY",
    "yolo": "zoo.families.yolo.training_step:OUTLINE",
    "maskrcnn": "zoo.families.maskrcnn.family:FAMILY",
    "mask2former": "zoo.families.mask2former.family:FAMILY",
    "oneformer": "zoo.families.oneformer.family:FAMILY",
    "eomt": "zoo.families.eomt.family:FAMILY",
    "rfdetr": "zoo.families.rfdetr.family:FAMILY",
    "refiner": "zoo.families.refiner.family:FAMILY",
}
"""Name of a family -> module and attribute of its `NetworkOutline`."""


class NetworkOutline(Protocol):
    """What a family's networks are like.

    The configs of such a family say how its training takes memory, as `TrainerConfig` does:
    `batch`, `precision`, `input_size`, `has_average`, `optimizer_states`, `least_batch`,
    `gradient_checkpointing`, and what to change by `with_batch`, `with_size`, `with_checkpointing`.
    """

    def build(self, config: Any, classes: int) -> nn.Module:
        """Return a network to train.

        Raises:
            ValueError: dimensions that do not go together, or weights that cannot be had.
        """

    def without_weights(self, config: Any) -> Any:
        """Return the config of the same network with random weights, which needs no download.

        Raises:
            ValueError: only the pretrained weights say what the network is like.
        """

    def blocks(self, network: Any) -> list[nn.Module]:
        """Return the parts that gradient checkpointing computes anew."""

    def training_step(self, network: Any, config: Any, labels: LabelSpace) -> TrainingStep:
        """Return what the network computes while it learns."""


def load_outline(family: str) -> NetworkOutline | None:
    """Return what a family's networks are like; None where it does not say so.

    Raises:
        ModuleNotFoundError: the family's libraries are not installed.
    """
    if family not in OUTLINES:
        return None
    module, _, attribute = OUTLINES[family].partition(":")
    outline: NetworkOutline = getattr(import_module(module), attribute)
    return outline


def build_outline(outline: NetworkOutline, config: Any, classes: int) -> nn.Module:
    """Return a config's network without memory for its weights, which are on the `meta` device.

    Raises:
        ValueError: the network's dimensions are not known without its weights.
    """
    with _on_meta():
        return outline.build(outline.without_weights(config), classes)


@contextmanager
def _on_meta() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.device("meta"))
        stack.enter_context(_OutlineMode())
        yield


# What sets the numbers of a tensor that has none; it takes most of the time of an outline.
_FILLS = {
    torch.Tensor.add_,
    torch.Tensor.clamp_,
    torch.Tensor.erfinv_,
    torch.Tensor.fill_,
    torch.Tensor.mul_,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.zero_,
}


class _OutlineMode(TorchFunctionMode):
    """Keeps lists of numbers on the CPU, and fills no weights.

    Networks read the chances to skip a block from such lists, Ultralytics' their strides.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in (torch.linspace, torch.tensor):
            given["device"] = "cpu"
        elif func in _FILLS or _is_initializer(func):
            filled = args[0] if args else given["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **given)


def _is_initializer(func: Any) -> bool:
    return getattr(func, "__module__", None) == nn.init.__name__ and func.__name__.endswith("_")
