"""The networks that ship as configs: their sizes, and what others reported of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

import configs
from zoo.config import check_config
from zoo.families import load_family
from zoo.families.outlines import OUTLINES, build_outline, load_outline

_REPORTED = re.compile(r"^# Reported(?: \((N\d+)(?:, (R\d))?\))?: (\.\d+|none)$", re.MULTILINE)


class Reported(NamedTuple):
    """What others reported of a network, as the header of its config says.

    Attributes:
        row: of the list of systems that the reports describe, such as `N3`; "" is none.
        report: the one that it is from, such as `R0`; "" where that is not said.
        dice: None where there is none. Not a result of ours.
    """

    row: str
    report: str
    dice: float | None

    def __str__(self) -> str:
        dice = "" if self.dice is None else f"{self.dice:.4f}"
        return " ".join(filter(None, (self.row, self.report, dice)))


NOTHING_REPORTED = Reported("", "", None)


@dataclass(frozen=True)
class Model:
    """A shipped config's network.

    Attributes:
        family: that builds it.
        config: its name.
        reported: what others reported of it. Not a result of ours.
        parameters: weights that learn, in millions.
        size: height and width of its input, in pixels.
    """

    family: str
    config: str
    reported: Reported
    parameters: float
    size: tuple[int, int]


def describe_models(families: tuple[str, ...] = ()) -> Iterator[Model]:
    """Yield the networks of shipped configs; nothing is downloaded.

    Args:
        families: names; () is all that have outlines, and whose libraries are installed.

    Raises:
        ValueError: an unknown name, or one whose libraries are not installed.
    """
    for name in families or tuple(OUTLINES):
        try:
            load_family(name)
        except ValueError:
            if families:
                raise
            continue
        for config in configs.names(name):
            yield describe_model(name, config)


def describe_model(family: str, name: str) -> Model:
    """Return what a shipped config's network is like.

    Raises:
        ValueError: the family does not say what its networks are like.
    """
    outline = load_outline(family)
    if outline is None:
        raise ValueError(f"family '{family}': expected one of {', '.join(OUTLINES)}")
    text = configs.find(family, name).read_text(encoding="utf-8")
    config: Any = check_config(load_family(family).Config, yaml.safe_load(text), name)
    network = build_outline(outline, config, len(config.labels))
    reported = read_reported(text) or NOTHING_REPORTED
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Model(family, name, reported, count / 1e6, config.input_size)


def read_reported(text: str) -> Reported | None:
    """Return what a config's header says of others; None without a line.

    >>> read_reported("# Reported (N3, R0): .9712")
    Reported(row='N3', report='R0', dice=0.9712)
    """
    found = _REPORTED.search(text)
    if found is None:
        return None
    dice = None if found[3] == "none" else float(found[3])
    return Reported(found[1] or "", found[2] or "", dice)
