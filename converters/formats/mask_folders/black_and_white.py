"""What counts as black and white where files have lost exactness, as JPEG does."""

from __future__ import annotations

from converters.formats.mask_pixels import VOID, Pixels

LOSSY = frozenset({".jpg", ".jpeg"})
# JPEG's grey is off by so much; a mask may have so many pixels between, at its edges.
NEAR, MOST_BETWEEN = 32, 0.05


# Of what is not black so much is white, to what is grey; numbers of objects are spread evenly.
_LEAST_WHITE = 0.5


def has_smoothed_edges(greys: Pixels) -> bool:
    """Tell whether grey levels, uint8 of any shape, are black and white but at a few edges."""
    between = share_between(greys)
    white = (greys >= VOID - NEAR).mean()
    return bool(between <= MOST_BETWEEN and white >= _LEAST_WHITE * between and white)


def share_between(values: Pixels) -> float:
    """Return the share of values, uint8 of any shape, that are neither nearly black nor white."""
    return float(((values > NEAR) & (values < VOID - NEAR)).mean())
