"""What Dice a mask can be expected to have, by the probabilities that it was made of.

The soft Dice confidence of Borges, Pacheco and Silva (2024), "Soft Dice Confidence: A Near-Optimal
Confidence Estimator for Selective Prediction in Semantic Segmentation" (arXiv:2402.10665): Dice
with the probability in the place of the truth that nobody knows. It leans on the probabilities:
where these are too timid, so is it, yet it still ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.masks import CropMask
from fusion.metrics.scores import intersection
from fusion.types import Prediction

_FULL = 255


def expected_dice(
    prediction: Prediction,
    label: str,
    mask: CropMask,
    sources: Sequence[CropMask] = (),
    *,
    once: bool = True,
) -> float:
    """Return the Dice that a class's mask can be expected to have.

    An empty mask is right unless the class is there: its value is 1 - the highest probability; or
    0, where every class occurs once.

    Args:
        prediction: whose probabilities count.
        label: the class.
        mask: what was made of them.
        sources: the class's masks in the sources of the prediction. Where this says yes or no
            alone, as votes do, the share of sources that have a pixel is its probability.
        once: every class occurs exactly once in an image.

    >>> from fusion.types import SoftMask
    >>> soft = SoftMask((0, 0, 4, 1), np.array([[255, 255, 128, 64]], np.uint8))
    >>> cup = Prediction("a", (1, 4), "semantic", {"cup": ((1.0, soft),)})
    >>> round(expected_dice(cup, "cup", cup.binary("cup")), 3)
    0.87
    """
    found = prediction.evidence(label, once)
    window = found[1].window(prediction.size_hw) if found else (0, 0, 0, 0)
    prob = found[1].render(window) if found and window[2] and window[3] else None
    if sources and (prob is None or not ((prob > 0) & (prob < _FULL)).any()):
        return _of_votes(mask, sources, once)
    if not mask.area:
        return 0.0 if once else 1.0 - (0 if prob is None else int(prob.max())) / _FULL
    if prob is None:
        return 0.0
    common = float(np.sum(prob, where=mask.window(window) > 0, dtype=np.float64)) / _FULL
    return 2 * common / (float(prob.sum(dtype=np.float64)) / _FULL + mask.area)


def _of_votes(mask: CropMask, sources: Sequence[CropMask], once: bool) -> float:
    areas = [source.area for source in sources]
    if not mask.area:
        return 0.0 if once else 1.0 - sum(area > 0 for area in areas) / len(areas)
    common = sum(intersection(mask, source) for source in sources)
    return 2 * common / (sum(areas) + len(areas) * mask.area)
