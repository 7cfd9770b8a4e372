"""Images on their way to a network, and predictions of what it gave, in the images' own frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace, Sample
from fusion.types import Prediction, soft_mask
from zoo.data.reading import READERS, NetworkInput, Row, read_ahead, read_image, resize_image
from zoo.inference.windows import Size


def to_prediction(
    key: str, size_hw: Size, probs: npt.NDArray[np.uint8], labels: LabelSpace
) -> Prediction:
    """Return one image's prediction; a class's score is its highest probability.

    Args:
        key: the sample's key.
        size_hw: the image's own height and width.
        probs: uint8 (C, h, w), 255 = 1, over the whole image, at the network's size.
        labels: the classes.
    """
    box = (0.0, 0.0, float(size_hw[1]), float(size_hw[0]))
    masks = {}
    for name, plane in zip(labels.names, probs, strict=True):
        mask = soft_mask(plane, box)
        if mask is not None:
            masks[name] = ((int(plane.max()) / 255, mask),)
    return Prediction(key, size_hw, "semantic", masks)


def read_frames(
    samples: Iterable[Sample],
    size_hw: Size | None,
    channels: int = 1,
    readers: int = READERS,
    metadata: Mapping[str, Row] | None = None,
) -> Iterator[NetworkInput]:
    """Yield samples' images, in order, read by threads a few ahead of their use.

    Args:
        samples: whose images.
        size_hw: what they are stretched to; None leaves each at its own size.
        channels: 1 shows them in grey, 3 in colour.
        readers: how many threads.
        metadata: key of a sample -> what is known of it, where the network is shown that.
    """

    def read(sample: Sample) -> NetworkInput:
        image = resize_image(read_image(sample, channels), size_hw or sample.size_hw)
        row = None if metadata is None else metadata[sample.key]
        return NetworkInput(sample.key, sample.size_hw, image, metadata=row)

    return read_ahead(read, samples, readers)
