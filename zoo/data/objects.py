"""Masks with a bit for each object, where an image may have several of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converters.masks import rasterize
from converters.types import LabelSpace, Sample
from zoo.data.bits import BitMask
from zoo.data.items import Item, SampleItems
from zoo.data.reading import read_image


@dataclass(frozen=True)
class ObjectBits:
    """Which bit of a mask is whose: as many for each class as an image has objects of it.

    Attributes:
        classes: the class number of each bit; those of a class are next to each other.
    """

    classes: tuple[int, ...]

    @classmethod
    def of(cls, samples: Iterable[Sample], labels: LabelSpace) -> ObjectBits:
        """Return bits for the objects of any of the samples; at least one a class."""
        most = Counter(range(len(labels)))
        for sample in samples:
            most |= Counter(labels.index[instance.label] for instance in sample.instances)
        numbers = range(len(labels))
        return cls(tuple(number for number in numbers for _ in range(max(most[number], 1))))

    def bits(self, sample: Sample, labels: LabelSpace) -> list[int]:
        """Return the bit of each of a sample's objects, in their order."""
        first = {number: bit for bit, number in reversed(list(enumerate(self.classes)))}
        seen: Counter[int] = Counter()
        found = []
        for instance in sample.instances:
            number = labels.index[instance.label]
            found.append(first[number] + seen[number])
            seen[number] += 1
        return found


class ObjectItems(SampleItems):
    """Samples whose masks have a bit for each object, as annotated: parts of one are one."""

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: LabelSpace,
        places: ObjectBits,
        channels: int = 1,
    ) -> None:
        super().__init__(samples, labels, channels)
        self._places = places

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        bits = self._places.bits(sample, self._labels)
        crops = (
            (bit, rasterize(instance.geometry, sample.size_hw))
            for bit, instance in zip(bits, sample.instances, strict=True)
        )
        mask = BitMask.of_crops(crops, len(self._places.classes), sample.size_hw)
        return Item(sample.key, read_image(sample, self._channels), mask)

    def stamp(self, index: int) -> bytes:
        """Return what `SampleItems` does, and which bits there are."""
        return super().stamp(index) + repr(self._places.classes).encode()
