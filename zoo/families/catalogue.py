"""The networks that ship as configs: their sizes, and what others reported of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import nn
from torch.overrides import TorchFunctionMode

import configs
from converters.types import LabelSpace
from zoo.config import check_config
from zoo.contract import Family
from zoo.families import FAMILIES, load_family

_REPORTED = re.compile(r"^# Reported(?: \((N\d+)\))?: (\.\d+|none)$", re.MULTILINE)


@dataclass(frozen=True)
class Model:
    """A shipped config's network.

    Attributes:
        family: that builds it.
        config: its name.
        row: of the list of systems that the reports describe, such as `N3`; "" is none.
        reported: the Dice its authors reported; None where there is none. Not a result of ours.
        parameters: weights that learn, in millions.
        size: height and width of its input, in pixels.
    """

    family: str
    config: str
    row: str
    reported: float | None
    parameters: float
    size: tuple[int, int]


def describe_models(families: tuple[str, ...] = ()) -> Iterator[Model]:
    """Yield the networks of shipped configs; nothing is downloaded.

    Args:
        families: names; () is all whose libraries are installed.
    """
    for name in families or tuple(FAMILIES):
        try:
            family = load_family(name)
        except ValueError:
            if families:
                raise
            continue
        for config in configs.names(name):
            yield describe_model(family, config)


def describe_model(family: Family, name: str) -> Model:
    """Return what a shipped config's network is like."""
    text = configs.find(family.name, name).read_text(encoding="utf-8")
    config: Any = check_config(family.Config, yaml.safe_load(text), name)
    network = build_outline(family, config, len(LabelSpace.load(config.labels)))
    row, reported = read_reported(text) or ("", None)
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Model(family.name, name, row, reported, count / 1e6, config.input_size)


def read_reported(text: str) -> tuple[str, float | None] | None:
    """Return what a config's header says of others: the row, and their Dice; None without a line.

    >>> read_reported("# Reported (N3): .9712")
    ('N3', 0.9712)
    """
    found = _REPORTED.search(text)
    if found is None:
        return None
    return found[1] or "", None if found[2] == "none" else float(found[2])


def build_outline(family: Family, config: Any, classes: int) -> nn.Module:
    """Return a config's network without memory for its weights, which are on the `meta` device.

    Those of Ultralytics compute while they are built, so they are made in memory.

    Raises:
        ValueError: the network's dimensions are not known without its weights.
    """
    with _outline():
        network: nn.Module = family.build(family.without_weights(config), classes)
    return network


@contextmanager
def _outline() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.device("meta"))
        stack.enter_context(_PlainNumbers())
        yield


class _PlainNumbers(TorchFunctionMode):
    """Keeps lists of numbers on the CPU: networks read the chances to skip a block from them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace:
            given["device"] = "cpu"
        return func(*args, **given)
