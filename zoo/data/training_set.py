"""Samples to learn from, augmented, in a repeatable order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from converters.files.images import Pixels
from zoo.data.batches import as_tensor
from zoo.data.items import Items
from zoo.data.reading import Row
from zoo.data.stores import Cache, Form, open_store
from zoo.data.windows import Windows
from zoo.machine.facts import count_cores

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation

# Windows are not drawn from the numbers that augmentation starts with.
_WINDOWS = (1,)
Batch = tuple[torch.Tensor, ...]
"""Images, masks, and what is known of the images, where the network is shown that."""
# Channels that OpenCV takes apart, in less than half of NumPy's time; it has a limit.
_SPLIT = 64


class Examples(Dataset[Batch]):
    """What a network learns from: an example for each (epoch, index), decided by these alone."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples in an epoch."""

    @abstractmethod
    def __getitem__(self, place: tuple[int, int]) -> Batch:
        """Return the example of (epoch, index): tensors of the same sizes for all."""


class TrainingSet(Examples):
    """Samples at the network's size, augmented; whole images or windows of them.

    What a sample looks like depends on (seed, epoch, index) alone, not on workers, order or an
    interruption; so does which other one is mixed in. Where the augmentation is of soft masks,
    targets are covered shares (`zoo.data.area_targets`).
    """

    def __init__(
        self,
        items: Items,
        size_hw: tuple[int, int],
        augment: Augmentation,
        seed: int,
        in_memory: bool = True,
        *,
        cache_dir: Path | None = None,
        windows: Windows | None = None,
        objects: tuple[int, ...] | None = None,
        metadata: Mapping[str, Row] | None = None,
    ) -> None:
        """Prepare samples.

        Args:
            items: decodes them.
            size_hw: height and width that whole images are stretched to.
            augment: what is done to them.
            seed: decides, together with epoch and index.
            in_memory: keep them in memory at that size, and read all of them now.
            cache_dir: keep them in files in this folder instead.
            windows: cut these from the stretched images; None takes them whole.
            objects: the class of each bit, where bits are objects; None: bit c is class c.
            metadata: key of a sample -> what is known of it, where the network is shown that; of
                what is mixed in from other images nothing is.

        Raises:
            ValueError: the folder cannot be made, or windows are larger than the images.
        """
        self._augment, self._seed, self._size, self._windows = augment, seed, size_hw, windows
        self.objects = objects
        if windows and any(a > b for a, b in zip(windows.size_hw, size_hw, strict=True)):
            raise ValueError(
                f"window: expected at most the images' size {size_hw}, found {windows.size_hw}"
            )
        form = Form(size_hw, "shares", augment.classes) if augment.is_soft else Form(size_hw)
        cache: Cache = "disk" if cache_dir else "memory" if in_memory else "none"
        self._store = open_store(items, form, cache, cache_dir)
        self._rows: list[Row] | None = None
        if metadata is not None:
            self._rows = [metadata[items.key(index)] for index in range(len(items))]

    def __len__(self) -> int:
        return len(self._store) * (self._windows.per_image if self._windows else 1)

    @property
    def is_soft(self) -> bool:
        """Whether masks are covered shares, one channel a class, instead of bits."""
        return self._augment.is_soft

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        """Return the image, uint8 (1, h, w) or (3, h, w), and its mask for (epoch, index).

        The mask is uint8 (B, h, w), bits; or (C, h, w), shares, where `is_soft`. The third part,
        where there is metadata, is what is known of the image, float32 (k,).
        """
        epoch, index = place
        seed = (self._seed, epoch, index)
        if self._windows is None:
            image, mask = self._whole(index, seed)
        else:
            image, mask = self._window(self._windows, index, seed)
        if self._rows is None:
            return as_tensor(image), _planes(mask)
        own = index // (self._windows.per_image if self._windows else 1)
        return as_tensor(image), _planes(mask), torch.from_numpy(self._rows[own])

    def _whole(self, index: int, seed: tuple[int, int, int]) -> tuple[Pixels, Pixels]:
        def open_sample(number: int) -> tuple[Pixels, Pixels]:
            kept = self._store[number]
            return kept.image, kept.mask.planes()

        def others(generator: np.random.Generator) -> tuple[Pixels, Pixels]:
            return open_sample(other_index(len(self._store), index, generator))

        return self._augment(*open_sample(index), seed, others, self.objects)

    def _window(
        self, windows: Windows, index: int, seed: tuple[int, int, int]
    ) -> tuple[Pixels, Pixels]:
        own = index // windows.per_image
        chooser = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=_WINDOWS))
        kind = windows.draw_kind(chooser)

        def open_window(number: int, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
            kept = self._store[number]
            return windows.cut(kept, windows.draw(kept.mask, kind, generator))

        def others(generator: np.random.Generator) -> tuple[Pixels, Pixels]:
            # Around the same class or group, so that there is something to mix.
            return open_window(other_index(len(self._store), own, generator), generator)

        image, mask = self._augment(*open_window(own, chooser), seed, others, self.objects)
        return windows.middle(image, self._size), windows.middle(mask, self._size)


def _planes(mask: Pixels) -> torch.Tensor:
    """Channels first."""
    if mask.shape[2] <= _SPLIT:
        return torch.from_numpy(np.stack(cv2.split(mask)))
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(mask, 2, 0)))


def other_index(length: int, index: int, generator: np.random.Generator) -> int:
    """Draw the number of another sample; of a single one, its own."""
    return (index + int(generator.integers(1, max(length, 2)))) % length


class EpochSampler(Sampler[tuple[int, int]]):
    """Every sample once an epoch, as (epoch, index), in an order that (seed, epoch) decides.

    Of several processes each takes its share; the shares are equally long.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self._length, self._seed, self._rank, self._processes = length, seed, rank, processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._length // self._processes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._length)
        share = np.resize(order, len(self) * self._processes)[self._rank :: self._processes]
        for index in share.tolist():
            yield self._epoch, index


def training_loader(
    dataset: Examples, sampler: EpochSampler, batch: int, workers: int, pinned: bool
) -> DataLoader[Batch]:
    """Return the batches: of a `TrainingSet` images, uint8 (N, 1 or 3, h, w), and packed masks.

    And what is known of the images, float32 (N, k), where the samples have that.

    A last batch that is not full is dropped, except where it is the only one: sizes stay fixed.
    `workers` is a limit: there are no more processes than cores, or than batches.
    """
    batches = -(-len(sampler) // batch)
    workers = min(workers, count_cores(), batches)
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        drop_last=len(sampler) >= batch,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
        # Its own generator: starting an epoch must not draw from the network's random numbers.
        generator=torch.Generator().manual_seed(0),
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
