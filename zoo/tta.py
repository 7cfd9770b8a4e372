"""Test-time augmentation by name: in what other forms a network is shown an image.

A name is one or several moves joined by `+`, such as `hflip`, `scale:0.75`, `hflip+scale:1.25`.
Each name is one more form beside the plain image, which is always among them, and costs one more
pass through the network (a scale of 1.25 costs 1.56 of one).

==============  =================================================================================
`hflip`         mirrored left and right
`vflip`         mirrored up and down
`scale:0.75`    so much larger than the plain one; whole images to multiples of the network's stride
`contrast:0.8`  distance of each pixel from the image's mean, times the factor
`gamma:1.2`     each pixel in 0..1 to the power of it: above 1 is darker
==============  =================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FLIPS = ("hflip", "vflip")
FACTORS = ("scale", "contrast", "gamma")
EXPECTED = "expected hflip, vflip, scale:0.75, contrast:0.8, gamma:1.2, or some joined by +"


@dataclass(frozen=True)
class Variant:
    """A form of an image: what is done to it, in the order of the attributes from last to first.

    Attributes:
        hflip: mirror left and right.
        vflip: mirror up and down.
        scale: multiply height and width.
        contrast: multiply the distance from the image's mean.
        gamma: raise to this power.
    """

    hflip: bool = False
    vflip: bool = False
    scale: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0


PLAIN = Variant()


def parse_variant(name: str) -> Variant:
    """Return the variant of a name.

    Raises:
        ValueError: an unknown move, a move twice, or a factor that is not positive, or 1.

    >>> parse_variant("hflip+scale:0.75")
    Variant(hflip=True, vflip=False, scale=0.75, contrast=1.0, gamma=1.0)
    """
    moves: dict[str, bool | float] = {}
    for text in name.split("+"):
        move, _, factor = text.partition(":")
        if move in moves:
            raise ValueError(f"tta '{name}': expected each move once, found '{move}' twice")
        if move in FLIPS and text == move:
            moves[move] = True
        elif move in FACTORS:
            moves[move] = _read_factor(name, factor)
        else:
            raise ValueError(f"tta '{name}': {EXPECTED}; found '{text}'")
    return Variant(**moves)  # type: ignore[arg-type]


def _read_factor(name: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        raise ValueError(f"tta '{name}': {EXPECTED}; found the factor '{text}'") from None
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"tta '{name}': expected a positive factor, found {text}")
    if factor == 1:
        raise ValueError(f"tta '{name}': a factor of 1 is the plain image, always there; remove it")
    return factor


def parse_variants(names: Sequence[str]) -> tuple[Variant, ...]:
    """Return the variants of several names, without the plain one.

    Raises:
        ValueError: a bad name, or two names of the same variant.
    """
    variants = tuple(parse_variant(name) for name in names)
    for number, (name, variant) in enumerate(zip(names, variants, strict=True)):
        if variant in variants[:number]:
            raise ValueError(f"tta '{name}': expected each variant once; it is given twice")
    return variants
