"""Objects as bits of a mask, so that several of a class stay apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.files.images import Pixels
from converters.masks import crop, outline, rasterize
from converters.types import Instance


def pack_instances(instances: Sequence[Instance], size_hw: tuple[int, int]) -> Pixels:
    """Return objects bit-packed, uint8 (H, W, ceil(n / 8)): bit i is the i-th object."""
    packed = np.zeros((*size_hw, max(1, -(-len(instances) // 8))), np.uint8)
    for i, instance in enumerate(instances):
        mask = rasterize(instance.geometry, size_hw)
        height, width = mask.pixels.shape
        target = packed[mask.y : mask.y + height, mask.x : mask.x + width, i // 8]
        target |= mask.pixels << np.uint8(i % 8)
    return packed


def unpack_instances(packed: Pixels, names: Sequence[str]) -> tuple[Instance, ...]:
    """Return the objects that have pixels; their outlines give exactly these pixels.

    Args:
        packed: uint8 (H, W, B), as `pack_instances` makes it.
        names: the objects' classes, in the order of the bits.
    """
    masks = [crop(packed[..., i // 8] & np.uint8(1 << (i % 8))) for i in range(len(names))]
    return tuple(
        Instance(name, outline(mask)) for name, mask in zip(names, masks, strict=True) if mask.area
    )
