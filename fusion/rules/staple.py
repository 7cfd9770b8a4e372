"""STAPLE: the hidden truth, and how well each source finds it, estimated together.

Warfield, Zou and Wells, "Simultaneous truth and performance level estimation (STAPLE): an algorithm
for the validation of image segmentation", IEEE Transactions on Medical Imaging 23(7), 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.arrays import Bytes, Floats
from fusion.rules.base import ClassRule, ClassVotes
from fusion.rules.evidence import FAINT, NEUTRAL
from fusion.types import Window

# As in ITK's filter: estimates that change by less are final.
_STILL = 1e-7
_TINY = np.finfo(np.float64).tiny
# Probabilities in steps of a 32nd have few enough distinct columns for many sources.
SOFT_STEPS = 32
# Beyond so many codes it is cheaper to number those that occur.
_AT_MOST_CODES = 1 << 16


@dataclass(frozen=True)
class RaterQuality:
    """What expectation maximisation says.

    Attributes:
        truth: float64 (h, w), the probability that a pixel belongs to the object, in 0..1.
        sensitivity: float64 (K,), the probability that a source marks a pixel of the object.
        specificity: float64 (K,), the probability that it leaves out a pixel of the background.
    """

    truth: Floats
    sensitivity: Floats
    specificity: Floats


@dataclass(frozen=True)
class Staple(ClassRule):
    """STAPLE (Warfield et al. 2004): each source counts by how well it agrees with the others.

    Per class and image, on the crop around all masks with a margin: the share of the background
    is part of the estimate. A source that has found nothing has sensitivity 0, which leaves the
    decision to the others; one that abstains is left out.

    Attributes:
        soft: hear the sources' probabilities instead of their masks.
        margin: of the crop, as a share of the longer side of the box around all masks' cells.
        iterations: at most so many.

    Raises:
        ValueError: a negative margin, or no iterations.
    """

    soft: bool = False
    margin: float = 0.25
    iterations: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.margin < np.inf:
            raise ValueError(f"staple: expected a margin >= 0, found {self.margin}")
        if self.iterations < 1:
            raise ValueError(f"staple: expected at least one iteration, found {self.iterations}")

    def fuse(self, votes: ClassVotes, labels: LabelSpace) -> tuple[Window, Bytes]:
        """Return the probability of the estimated truth on the crop."""
        window = _widen(votes.window(FAINT if self.soft else NEUTRAL), self.margin, votes.size_hw)
        nothing = np.zeros((window[3], window[2]), np.uint8)
        if not nothing.size:
            return window, nothing
        found = {**dict.fromkeys(votes.masks, nothing), **dict(votes.layers(window))}
        # Sums of floats depend on their order, which is to be the same whoever comes first.
        ordered = sorted(found.values(), key=_content)
        layers = np.stack(ordered)
        steps = SOFT_STEPS if self.soft else 1
        truth = estimate(layers, steps, self.iterations).truth
        return window, np.minimum(np.floor(truth * 256), 255).astype(np.uint8)


def _content(layer: Bytes) -> bytes:
    return layer.tobytes()


def estimate(layers: Bytes, steps: int = 1, iterations: int = 100) -> RaterQuality:
    """Estimate the truth behind several segmentations of one object, and each one's quality.

    Masks give the binary algorithm of the paper, with the mean share of marked pixels as the prior
    and the mean mask as the first guess, as in ITK's filter. Of a probability d, which the paper
    does not have, d counts as a mark and 1 - d as none: the likelihood of a source's word on a
    pixel of the object is p^d (1-p)^(1-d), elsewhere q^(1-d) (1-q)^d. With masks it is the paper's.

    Args:
        layers: uint8 (K, h, w), one source a layer, 255 = 1.
        steps: probabilities are rounded to multiples of 1 / steps; 1 makes them masks.
        iterations: at most so many; it ends before where nothing changes.
    """
    from scipy.special import expit  # late: no other rule is to wait for it

    rows, counts, place = _patterns(np.rint(layers * (steps / 255)).astype(np.uint8), steps + 1)
    d = rows / steps
    truth = d.mean(axis=1)
    prior = float(counts @ truth / counts.sum())
    p = q = np.full(len(layers), -1.0)
    for _ in range(iterations):
        before = np.concatenate([p, q])
        p, q = _rate(d, counts * truth), _rate(1 - d, counts * (1 - truth))
        of_object = d @ _log(p) + (1 - d) @ _log(1 - p) + _log(prior)
        of_rest = (1 - d) @ _log(q) + d @ _log(1 - q) + _log(1 - prior)
        truth = expit(of_object - of_rest)
        if np.abs(np.concatenate([p, q]) - before).max() <= _STILL:
            break
    return RaterQuality(truth[place].reshape(layers.shape[1:]), p, q)


def _rate(share: Floats, weight: Floats) -> Floats:
    return np.asarray(weight @ share / np.maximum(weight.sum(), _TINY))


def _log(value: Floats | float) -> Floats:
    return np.log(np.maximum(value, _TINY))


def _patterns(levels: Bytes, count: int) -> tuple[Bytes, Floats, npt.NDArray[np.intp]]:
    """Distinct columns, uint8 (n, K), how often each comes, (n,), and each pixel's one, (h*w,).

    Args:
        levels: uint8 (K, h, w), each below `count`.
        count: of levels.
    """
    flat = levels.reshape(len(levels), -1)
    code, codes = np.zeros(flat.shape[1], np.int64), 1
    for layer in flat:
        code, codes = code * count + layer, codes * count
        if codes > _AT_MOST_CODES:
            known, code = np.unique(code, return_inverse=True)
            codes = len(known)
    often = np.bincount(code, minlength=codes)
    used = np.flatnonzero(often)
    pixel, number = np.zeros((2, codes), np.intp)
    pixel[code] = np.arange(code.size)
    number[used] = np.arange(len(used))
    return flat[:, pixel[used]].T, often[used].astype(np.float64), number[code]


def _widen(window: Window, margin: float, size_hw: tuple[int, int]) -> Window:
    x, y, width, height = window
    reach = round(margin * max(width, height))
    x0, y0 = max(0, x - reach), max(0, y - reach)
    x1, y1 = min(size_hw[1], x + width + reach), min(size_hw[0], y + height + reach)
    return x0, y0, x1 - x0, y1 - y0
