"""Bent and straight hands among the images that a rule is fitted on, and those it is meant for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.posture import bend_of_masks, is_bent
from converters.types import LabelSpace, Sample
from zoo.results.sources import open_stores

FLATTENED = 0.5


@dataclass(frozen=True)
class Postures:
    """How much held-out images count.

    Where bent hands are rare among the images with truth and frequent among those to fuse, a fit
    to the former is a fit to other images. Images of a posture that is r times as frequent where
    the rule is meant to be used count as r ** .5 images: importance weights under covariate shift,
    flattened, for few images that count a lot tell little (Shimodaira, Journal of Statistical
    Planning and Inference 2000, sections 2 and 5).

    Attributes:
        bent: number of bent hands.
        straight: number of straight ones.
        meant: the share of bent hands among the images to fuse; None where nobody has said it, so
            that all images count the same.
        weights: float64 (images,); their mean is 1.
    """

    bent: int
    straight: int
    meant: float | None
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(cls, samples: Iterable[Sample], labels: LabelSpace, meant: float | None) -> Postures:
        """Weigh images by their posture; one whose posture is not known counts as one.

        Args:
            samples: the held-out images, with truth.
            labels: says which classes tell the posture.
            meant: the share of bent hands among the images to fuse, above 0 and below 1.

        Raises:
            ValueError: a share is given, and the label space has no posture, or one of the two
                postures does not occur.
        """
        bent = [is_bent(sample, labels) for sample in samples]
        is_one, is_other = np.array([b is True for b in bent]), np.array([b is False for b in bent])
        ones, others = int(is_one.sum()), int(is_other.sum())
        weights = np.ones(len(bent))
        if meant is not None:
            if labels.posture is None:
                raise ValueError(f"--bent: the label space '{labels.name}' tells no posture")
            if not (ones and others):
                found = f"found {ones} bent and {others} straight ones"
                raise ValueError(
                    f"--bent: expected held-out images of both postures, {found}: leave --bent "
                    "out, or predict more (zoo train --folds all)"
                )
            weights[is_one] = (meant * (ones + others) / ones) ** FLATTENED
            weights[is_other] = ((1 - meant) * (ones + others) / others) ** FLATTENED
            weights /= weights.mean()
        return cls(ones, others, meant, weights)

    def describe(self) -> str:
        """Return in a line how many hands are bent and what was made of that; "" if none is."""
        known = self.bent + self.straight
        text = f"{self.bent} of {known} images are bent"
        if self.meant is None:
            if not self.bent:
                return ""
            return f"{text}; if that is otherwise among the images to fuse, say so: --bent"
        # The number of equally weighted images whose mean would be as uncertain (Kish 1965).
        worth = float(self.weights.sum() ** 2 / (self.weights**2).sum())
        return f"{text}, {self.meant:.0%} of those to fuse: weighed, they tell what {worth:.0f} do"


def read_share(text: str) -> float:
    """Return the share of bent hands that a user has given, or counts it in predictions.

    Args:
        text: a number, or a prediction store of the images to fuse.

    Raises:
        ValueError: neither; a share that leaves no room for one posture; a label space without
            posture.
    """
    try:
        share = float(text)
    except ValueError:
        share = _count(Path(text))
    if not 0 < share < 1:
        raise ValueError(f"--bent: expected a share above 0 and below 1, found {share:g}")
    return share


def _count(path: Path) -> float:
    if not path.exists():
        raise ValueError(f"--bent: expected a share or a prediction store, found '{path}'")
    (store,) = open_stores([path])
    labels = store.label_space()
    if labels.posture is None:
        raise ValueError(f"--bent: the label space '{labels.name}' tells no posture")
    names = labels.posture.distal, labels.posture.proximal
    found = (bend_of_masks({n: p.binary(n) for n in names}, p.size_hw, labels) for p in store)
    bends = [bend for bend in found if bend is not None]
    if not bends:
        raise ValueError(f"--bent: expected images in {path} that tell their posture, found none")
    return sum(b > labels.posture.bent_above_deg for b in bends) / len(bends)
