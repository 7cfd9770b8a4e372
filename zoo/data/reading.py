"""Images as networks see them, at their size, read a few ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels, read_pixels
from converters.types import Sample

Source = TypeVar("Source")
Result = TypeVar("Result")
READERS = 4
# The means and deviations of ImageNet's values, which pretrained encoders expect: of grey, and of
# red, green and blue.
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226
COLOR_MEAN, COLOR_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Row = npt.NDArray[np.float32]
"""What is known of an image beside its pixels, as numbers, (k,); see `zoo.metadata`."""


def read_image(sample: Sample, channels: int) -> Pixels:
    """Read a sample's pixels as a network sees them.

    Args:
        sample: whose image is read.
        channels: 1 shows it in grey, 3 in red, green and blue.

    Returns:
        uint8 (H, W), or (H, W, 3).

    Raises:
        ValueError: as `converters.files.images.read_pixels`.
    """
    if channels == 1:
        return read_pixels(sample)
    rgb: Pixels = cv2.cvtColor(read_pixels(sample, grey=False), cv2.COLOR_BGR2RGB)
    return rgb


def channels_first(image: Pixels) -> Pixels:
    """Return an image, uint8 (h, w) or (h, w, 3), as (1, h, w) or (3, h, w)."""
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    # Tensors are written on; what is mapped from a file must not be.
    return np.require(planes, requirements=["C", "W"])


def resize_image(image: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Stretch an image, uint8 (H, W) or (H, W, 3); its aspect is not kept."""
    if image.shape[:2] == tuple(size_hw):
        return image
    shrinks = image.shape[0] > size_hw[0] and image.shape[1] > size_hw[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Pixels = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=way)
    return resized


def resize_packed(packed: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Stretch a bit-packed mask, uint8 (H, W, B), to uint8 (h, w, B); the nearest pixel counts."""
    if packed.shape[:2] == tuple(size_hw):
        return packed
    # Not INTER_NEAREST: it takes the upper left pixel, and shifts masks against their images.
    way = cv2.INTER_NEAREST_EXACT
    resized: Pixels = cv2.resize(packed, (size_hw[1], size_hw[0]), interpolation=way)
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


@dataclass(frozen=True)
class NetworkInput:
    """An image as a network gets it.

    Attributes:
        key: the sample's key.
        size_hw: the image's own height and width.
        image: at the network's size, uint8 (h, w), or (h, w, 3) in red, green and blue.
        metadata: for networks that are shown what is known of it; None: this one is not.
    """

    key: str
    size_hw: tuple[int, int]
    image: Pixels
    metadata: Row | None = field(default=None, kw_only=True)
