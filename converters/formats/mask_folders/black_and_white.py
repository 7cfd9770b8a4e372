"""What counts as black and white where files have lost exactness, as JPEG does."""

from __future__ import annotations

from converters.formats.mask_pixels import VOID, Pixels

LOSSY = frozenset({".jpg", ".jpeg"})
# JPEG's grey is off by so much; a mask may have so many pixels between, at its edges.
NEAR, MOST_BETWEEN = 32, 0.05


def share_between(values: Pixels) -> float:
    """Return the share of values, uint8 of any shape, that are neither nearly black nor white."""
    return float(((values > NEAR) & (values < VOID - NEAR)).mean())
