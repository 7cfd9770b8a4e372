"""Samples that a network is scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from converters.masks import CropMask
from converters.types import LabelSpace
from zoo.data.bits import BitMask
from zoo.data.items import Items
from zoo.data.reading import NetworkInput, Row, read_ahead
from zoo.data.stores import DiskStore, Form, Made, MemoryStore, Store


@dataclass(frozen=True)
class Case(NetworkInput):
    """An image to score on.

    Attributes:
        truth: label -> mask at the image's own size.
    """

    truth: dict[str, CropMask]


class CaseReader(Protocol):
    """Samples that a network is scored on, by number."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def read(self, numbers: Iterable[int]) -> Iterator[Case]:
        """Yield the samples of these numbers, in order."""


class Cases:
    """The samples that a network is scored on, one after the other.

    What is kept of a sample is its image at the network's size and bits of the truth at its own:
    .13 MB for 29 classes at 2048, where masks of a byte a pixel are 1 MB.
    """

    def __init__(
        self,
        items: Items,
        size_hw: tuple[int, int],
        labels: LabelSpace,
        in_memory: bool = True,
        *,
        cache_dir: Path | None = None,
        metadata: Mapping[str, Row] | None = None,
    ) -> None:
        """Prepare samples.

        Args:
            items: decodes them.
            size_hw: height and width that images are stretched to.
            labels: the classes.
            in_memory: keep them once they are read.
            cache_dir: keep them in files in this folder instead.
            metadata: key of a sample -> what is known of it, where the network is shown that.

        Raises:
            ValueError: the folder cannot be made.
        """
        self._labels, self._metadata = labels, metadata
        made = Made(items, Form(size_hw, "own"))
        kept = MemoryStore(made, at_once=False) if in_memory else made
        self._store: Store = DiskStore(made, cache_dir) if cache_dir else kept

    def __len__(self) -> int:
        return len(self._store)

    def read(self, numbers: Iterable[int]) -> Iterator[Case]:
        """Yield the samples of these numbers, in order."""
        return read_ahead(self._read, numbers)

    def _read(self, index: int) -> Case:
        kept = self._store[index]
        if not isinstance(kept.mask, BitMask):
            raise TypeError("expected bits")
        names = self._labels.names
        truth = {names[bit]: crop for bit, crop in kept.mask.crops() if bit < len(names)}
        row = None if self._metadata is None else self._metadata[kept.key]
        return Case(kept.key, kept.mask.size_hw, kept.image, truth, metadata=row)
