"""Images at the size of a network, read a few ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2

from converters.files.images import Pixels

Source = TypeVar("Source")
Result = TypeVar("Result")
READERS = 4


def resize_image(image: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Stretch an image, uint8 (H, W), to uint8 (h, w); its aspect is not kept."""
    if image.shape == tuple(size_hw):
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
        image: at the network's size, uint8 (h, w).
    """

    key: str
    size_hw: tuple[int, int]
    image: Pixels
