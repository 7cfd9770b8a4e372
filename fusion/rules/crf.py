"""Dense CRF: an outline drawn to where the image's grey values change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.errors import import_optional
from fusion.arrays import Bytes

# A byte says no more than that: 0 and 255 are not certain.
_LEAST_PROB = 0.5 / 255


@dataclass(frozen=True)
class DenseCrf:
    """Fully connected CRF of one class against the rest, so that classes may go on overlapping.

    Pixels that are close together, and above all pixels that are close together and of similar
    grey, are drawn to the same side: Kraehenbuehl and Koltun, "Efficient Inference in Fully
    Connected CRFs with Gaussian Edge Potentials", NIPS 2011, equation 3 with one grey channel.
    Inference is that of `pydensecrf` (package pydensecrf2): Potts model, kernels normalised on both
    sides.

    Attributes:
        reach: standard deviation of the place where grey counts, as a share of sqrt(H * W).
        grey: standard deviation of the grey value, of 0 to 255.
        weight: of the pixels that are near and of similar grey.
        smooth_reach: standard deviation of the place where grey does not count, as a share of
            sqrt(H * W).
        smooth_weight: of the pixels that are near.
        steps: of the mean field's inference.

    Raises:
        ValueError: a deviation that is not positive, a weight below 0, or fewer than one step.
    """

    reach: float = 0.01
    grey: float = 8.0
    weight: float = 3.0
    smooth_reach: float = 0.0015
    smooth_weight: float = 1.0
    steps: int = 5

    def __post_init__(self) -> None:
        for name in ("reach", "grey", "smooth_reach"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"crf: '{name}': expected a positive number, found {value}")
        for name in ("weight", "smooth_weight"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"crf: '{name}': expected a number from 0 on, found {value}")
        if self.steps < 1:
            raise ValueError(f"crf: 'steps': expected at least 1, found {self.steps}")

    def __call__(self, prob: Bytes, image: Bytes, side_px: float) -> Bytes:
        """Return the refined probability.

        Args:
            prob: uint8 (h, w), 255 = 1, of a part of an image.
            image: grey uint8 (h, w), the same part.
            side_px: sqrt(H * W) of the whole image.

        Raises:
            MissingDependency: pydensecrf is not installed.
            ValueError: parts of different sizes.
        """
        if image.shape != prob.shape or image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}"
            raise ValueError(f"crf: expected grey uint8 {prob.shape}, found {found}")
        densecrf = load()
        if not prob.size:
            return prob
        crf = densecrf.DenseCRF(prob.size, 2)
        crf.setUnaryEnergy(_energy(prob))
        places = _places(prob.shape)
        smooth = np.ascontiguousarray(places / np.float32(self.smooth_reach * side_px))
        crf.addPairwiseEnergy(smooth, compat=self.smooth_weight)
        grey = image.reshape(1, -1) / np.float32(self.grey)
        near = np.concatenate([places / np.float32(self.reach * side_px), grey])
        crf.addPairwiseEnergy(np.ascontiguousarray(near), compat=self.weight)
        inside = np.asarray(crf.inference(self.steps))[1].reshape(prob.shape)
        return np.rint(255 * inside).astype(np.uint8)


def load() -> Any:
    """Return the library's module; raises MissingDependency where it is not installed."""
    return import_optional("pydensecrf.densecrf", "crf")


def _energy(prob: Bytes) -> npt.NDArray[np.float32]:
    """Negative logarithms of the probabilities of outside and inside, float32 (2, n)."""
    inside = np.clip(prob.ravel().astype(np.float32) / 255, _LEAST_PROB, 1 - _LEAST_PROB)
    return np.ascontiguousarray(-np.log(np.stack([1 - inside, inside])), np.float32)


def _places(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Row and column of each pixel, float32 (2, n)."""
    return np.indices(shape, np.float32).reshape(2, -1)
