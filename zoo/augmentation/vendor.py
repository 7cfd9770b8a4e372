"""albumentations, imported without its question for a newer release."""

from __future__ import annotations

import os

# It asks the network when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

__all__ = ["A", "check_rising"]


def check_rising(span: tuple[float, float]) -> tuple[float, float]:
    """Return a range.

    Raises:
        ValueError: it ends before it begins.
    """
    if span[0] > span[1]:
        raise ValueError(f"expected a range from low to high, found {list(span)}")
    return span
