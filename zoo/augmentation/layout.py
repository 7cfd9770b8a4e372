"""Where a class lies in a mask: in a bit, or in a channel of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels
from converters.types import LabelSpace

Region = npt.NDArray[np.bool_]
HALF = 128


@dataclass(frozen=True)
class MaskChannels:
    """Which class each bit of a packed mask, or each channel of an area mask, belongs to.

    Attributes:
        is_soft: channels are covered shares, 255 = all of the pixel; otherwise bits are packed,
            bit b % 8 of channel b // 8.
        classes: the class number of each bit or channel; None: bit c is class c.
    """

    is_soft: bool = False
    classes: tuple[int, ...] | None = None

    def cover(self, mask: Pixels, wanted: Collection[int]) -> Region:
        """Return the pixels, bool (h, w), that any of some classes has; half a pixel counts.

        Args:
            mask: uint8 (h, w, B) packed, or (h, w, C) shares.
            wanted: class numbers.
        """
        places = self._places(mask, wanted)
        if self.is_soft:
            return np.asarray((mask[..., places] >= HALF).any(-1))
        pattern = np.zeros(mask.shape[2], np.uint8)
        for place in places:
            pattern[place // 8] |= 1 << (place % 8)
        region = np.zeros(mask.shape[:2], bool)
        for channel in np.flatnonzero(pattern):
            region |= (mask[..., channel] & pattern[channel]) != 0
        return region

    def _places(self, mask: Pixels, wanted: Collection[int]) -> list[int]:
        if self.classes is not None:
            return [place for place, number in enumerate(self.classes) if number in wanted]
        most = mask.shape[2] if self.is_soft else 8 * mask.shape[2]
        return sorted(number for number in wanted if number < most)


def class_numbers(names: Iterable[str], labels: LabelSpace) -> frozenset[int]:
    """Return the numbers of classes that are named by themselves or by their group.

    Raises:
        ValueError: neither a class nor a group.

    >>> sorted(class_numbers(["forearm", "Pisiform"], LabelSpace.load("hand_bones")))
    [26, 27, 28]
    """
    numbers: set[int] = set()
    for name in names:
        members = labels.groups.get(name, (name,))
        if unknown := [member for member in members if member not in labels.index]:
            groups = ", ".join(labels.groups) or "none"
            raise ValueError(
                f"expected classes or groups of '{labels.name}' (groups: {groups}), "
                f"found '{unknown[0]}'"
            )
        numbers.update(labels.index[member] for member in members)
    return frozenset(numbers)
