"""The colours of the pictures: outlines, fills, and what the legends call them.

Those of the page itself, its text and its tables, are the variables at the top of `style.css`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

Color = tuple[int, int, int]
"""Red, green and blue, 0..255."""

# --- classes: outlines and fills of the audit's and the fusion's pictures

# Okabe and Ito, "Color Universal Design", 2008, lightened for dark grounds and with a pale grey
# for their black; ordered so that neighbours differ in hue and in lightness.
PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 178, 128),
    (240, 228, 66),
    (220, 130, 185),
    (50, 120, 220),
    (235, 105, 40),
    (238, 238, 238),
)
# Classes that a picture is not about.
MUTED: Color = (142, 152, 168)

# --- a mask beside the truth

HIT: Color = (150, 160, 172)
HIT_ON_GREY: Color = (110, 117, 126)  # as it looks over a grey object
MISSED: Color = (240, 120, 20)
FALSE: Color = (70, 170, 245)

# --- two masks beside each other, and the truth around them

# Okabe and Ito's orange and sky blue, lightened: apart for every kind of colour vision.
ONLY_A: Color = (240, 140, 30)
ONLY_B: Color = (80, 180, 250)
BOTH: Color = HIT
BOTH_ON_GREY: Color = HIT_ON_GREY
TRUTH: Color = (255, 255, 255)


def class_colors(names: Sequence[str]) -> dict[str, Color]:
    """Return a fixed colour for each class; beyond the palette they are spread over the hues."""
    return {name: PALETTE[i] if i < len(PALETTE) else _hue(i) for i, name in enumerate(names)}


def _hue(i: int) -> Color:
    # Steps of the golden angle stay apart from each other whatever their number.
    red, green, blue = colorsys.hls_to_rgb(i * 0.381966 % 1, 0.45 + 0.2 * (i % 2), 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def css(color: Color) -> str:
    """Return a colour as style sheets write it.

    >>> css((255, 0, 16))
    '#ff0010'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)
