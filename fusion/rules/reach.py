"""Which rules look at one pixel at a time, so that they need not know an image's size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from fusion.rules.registry import FUSIONS

_PIXELWISE = ("mean", "weighted", "vote", "max", "classwise")


def looks_around(rule: object) -> bool:
    """Tell whether a rule, or a rule in it, looks at more than one pixel at a time."""
    kinds = tuple(FUSIONS[name] for name in _PIXELWISE if name in FUSIONS)
    if not isinstance(rule, kinds):
        return True
    return any(map(looks_around, _inner_rules(rule)))


def _inner_rules(value: object) -> Iterator[object]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _rules_in(getattr(value, field.name))


def _rules_in(value: Any) -> Iterator[object]:
    if callable(value):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _rules_in(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _rules_in(inner)
    else:
        yield from _inner_rules(value)
