"""What networks learn from: images and bit-packed masks, decoded once, in a repeatable order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from converters.images import read_pixels
from converters.masks import CropMask, pack, rasterize_labels, unpack_labels
from converters.segformer import decode_row
from converters.types import LabelSpace, Sample
from zoo.soft_targets import FULL, AreaMask, shrink

if TYPE_CHECKING:
    from zoo.augmentation import Augmentation

Image = npt.NDArray[np.uint8]
Source = TypeVar("Source")
Result = TypeVar("Result")
READERS = 4


@dataclass(frozen=True)
class Item:
    """A decoded sample.

    Attributes:
        key: the sample's key.
        image: grey, uint8 (H, W).
        packed: bit-packed mask, uint8 (H, W, ceil(C / 8)), as `converters.masks.pack` makes it.

    Raises:
        ValueError: another dtype or shape.
    """

    key: str
    image: Image
    packed: Image

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 2:
            found = f"{self.image.dtype} {self.image.shape}"
            raise ValueError(f"{self.key}: expected a grey image, uint8 (H, W), found {found}")
        if self.packed.dtype != np.uint8 or self.packed.shape[:2] != self.image.shape:
            found = f"{self.packed.dtype} {self.packed.shape}"
            raise ValueError(f"{self.key}: expected a mask {self.image.shape}, found {found}")


class Items(Protocol):
    """A data set that gives decoded samples by number."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Item:
        """Decode a sample; from several threads at once."""


class SampleItems:
    """Samples, read from their image files; polygons become pixels at the image's own size."""

    def __init__(self, samples: Sequence[Sample], labels: LabelSpace) -> None:
        self._samples, self._labels = samples, labels

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        masks = rasterize_labels(sample.instances, sample.size_hw)
        return Item(sample.key, read_pixels(sample), pack(masks, self._labels, sample.size_hw))


class HuggingFaceItems:
    """Rows of `converters.segformer.open_split`."""

    def __init__(self, rows: Any, labels: LabelSpace) -> None:
        self._rows, self._channels = rows, -(-len(labels) // 8)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        key, image, packed = decode_row(self._rows[index])
        return Item(key, image, np.ascontiguousarray(packed[..., : self._channels]))


def resize_image(image: Image, size_hw: tuple[int, int]) -> Image:
    """Stretch an image, uint8 (H, W), to uint8 (h, w); its aspect is not kept."""
    if image.shape == tuple(size_hw):
        return image
    shrinks = image.shape[0] > size_hw[0] and image.shape[1] > size_hw[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=way)
    return resized


def resize_packed(packed: Image, size_hw: tuple[int, int]) -> Image:
    """Stretch a bit-packed mask, uint8 (H, W, B), to uint8 (h, w, B); the nearest pixel counts."""
    if packed.shape[:2] == tuple(size_hw):
        return packed
    # Not INTER_NEAREST: it takes the upper left pixel, and shifts masks against their images.
    way = cv2.INTER_NEAREST_EXACT
    resized: Image = cv2.resize(packed, (size_hw[1], size_hw[0]), interpolation=way)
    return resized.reshape(*size_hw, packed.shape[2])


def read_ahead(
    function: Callable[[Source], Result], inputs: Iterable[Source], readers: int = READERS
) -> Iterator[Result]:
    """Yield `function` of each input, in order, computed by threads a few inputs ahead."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) > 2 * readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class TrainingSet(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples at the network's size, augmented.

    What a sample looks like depends on (seed, epoch, index) alone, not on workers, order or an
    interruption; so does which other one is mixed in. With `in_memory`, images and packed masks are
    kept at the network's size (5 bytes a pixel for 29 classes) and read before the first epoch, so
    that worker processes share them. Where the augmentation is of soft masks, targets are covered
    shares (`zoo.soft_targets`).
    """

    def __init__(
        self,
        items: Items,
        size_hw: tuple[int, int],
        augment: Augmentation,
        seed: int,
        in_memory: bool = True,
    ) -> None:
        self._items, self._size, self._augment, self._seed = items, size_hw, augment, seed
        every = range(len(items))
        self._kept = list(read_ahead(self._read, every)) if in_memory else None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_soft(self) -> bool:
        """Whether masks are covered shares, one channel a class, instead of bits."""
        return self._augment.is_soft

    def _read(self, index: int) -> tuple[Image, Image | AreaMask]:
        item = self._items[index]
        image = resize_image(item.image, self._size)
        if self.is_soft:
            return image, shrink(item.packed, self._augment.classes, self._size)
        return image, resize_packed(item.packed, self._size)

    def _open(self, index: int) -> tuple[Image, Image]:
        image, mask = self._kept[index] if self._kept is not None else self._read(index)
        return image, mask.planes() if isinstance(mask, AreaMask) else mask

    def __getitem__(self, place: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image, uint8 (1, h, w), and its mask for (epoch, index).

        The mask is uint8 (B, h, w), bits; or (C, h, w), shares, where `is_soft`.
        """
        epoch, index = place

        def others(generator: np.random.Generator) -> tuple[Image, Image]:
            return self._open(other_index(len(self), index, generator))

        image, mask = self._augment(*self._open(index), (self._seed, epoch, index), others)
        channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(mask, 2, 0)))
        return torch.from_numpy(np.ascontiguousarray(image))[None], channels


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
    dataset: TrainingSet, sampler: EpochSampler, batch: int, workers: int, pinned: bool
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches: images, uint8 (N, 1, h, w), and packed masks, uint8 (N, B, h, w).

    A last batch that is not full is dropped, except where it is the only one: sizes stay fixed.
    """
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


# The mean and deviation of ImageNet's grey values, which pretrained encoders expect.
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images of any shape as float32 with about zero mean and unit deviation."""
    return (images.float() / 255 - GREY_MEAN) / GREY_DEVIATION


def unpack_on_device(packed: torch.Tensor, classes: int) -> torch.Tensor:
    """Return float32 (N, C, h, w), 0 or 1, of bit-packed masks, uint8 (N, B, h, w)."""
    number = torch.arange(classes, device=packed.device)
    bit = (2 ** (number % 8)).to(torch.uint8)[:, None, None]
    return (packed[:, number // 8] & bit).clamp_max_(1).float()


def targets_on_device(masks: torch.Tensor, classes: int, is_soft: bool) -> torch.Tensor:
    """Return targets, float32 (N, C, h, w) in 0..1, of a batch's masks.

    Args:
        masks: uint8 (N, B, h, w), bits; or (N, C, h, w), shares.
        classes: how many there are.
        is_soft: which of the two.
    """
    return masks.float() / FULL if is_soft else unpack_on_device(masks, classes)


@dataclass(frozen=True)
class Frame:
    """An image as a network gets it.

    Attributes:
        key: the sample's key.
        size_hw: the image's own height and width.
        image: at the network's size, uint8 (h, w).
    """

    key: str
    size_hw: tuple[int, int]
    image: Image


def read_frames(samples: Iterable[Sample], size_hw: tuple[int, int]) -> Iterator[Frame]:
    """Yield samples' images at the network's size, in order, read a few ahead of their use."""

    def read(sample: Sample) -> Frame:
        return Frame(sample.key, sample.size_hw, resize_image(read_pixels(sample), size_hw))

    return read_ahead(read, samples)


@dataclass(frozen=True)
class Case(Frame):
    """An image to score on.

    Attributes:
        truth: label -> mask at the image's own size.
    """

    truth: dict[str, CropMask]


class Cases:
    """The samples that a network is scored on, one after the other."""

    def __init__(
        self, items: Items, size_hw: tuple[int, int], labels: LabelSpace, in_memory: bool = True
    ) -> None:
        self._items, self._size, self._labels = items, size_hw, labels
        self._in_memory = in_memory
        self._kept: dict[int, Case] = {}

    def __len__(self) -> int:
        return len(self._items)

    def read(self, numbers: Iterable[int]) -> Iterator[Case]:
        """Yield the samples of these numbers, in order."""
        return read_ahead(self._read, numbers)

    def _read(self, index: int) -> Case:
        if index in self._kept:
            return self._kept[index]
        item = self._items[index]
        size = (item.image.shape[0], item.image.shape[1])
        truth = unpack_labels(item.packed, self._labels)
        case = Case(item.key, size, resize_image(item.image, self._size), truth)
        if self._in_memory:
            self._kept[index] = case
        return case
