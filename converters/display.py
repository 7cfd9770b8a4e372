"""What notebooks show of our types. Who draws them registers here: the types know no pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_DRAWERS: dict[str, Callable[[Any], str]] = {}


def register(kind: str, draw: Callable[[Any], str]) -> None:
    """Say how objects of a type are shown.

    Args:
        kind: the type's name.
        draw: returns an object as HTML.
    """
    _DRAWERS[kind] = draw


def as_html(thing: object) -> str | None:
    """Return an object as HTML; None where nobody draws its type: then its text is shown."""
    draw = _DRAWERS.get(type(thing).__name__)
    return draw(thing) if draw else None
