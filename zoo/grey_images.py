"""Grey images for rules that look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from converters.images import read_pixels
from converters.types import Sample
from fusion.refine import Refined
from fusion.types import Rule
from fusion.watch import Watched


@dataclass(frozen=True)
class GreyImages:
    """Reads a data set's images by their keys; can be sent to another process.

    Attributes:
        samples: key -> sample, without its annotations.
    """

    samples: Mapping[str, Sample]

    @classmethod
    def of(cls, samples: Mapping[str, Sample]) -> GreyImages:
        """Return a reader of the samples' images."""
        return cls({key: replace(s, instances=()) for key, s in samples.items()})

    def __call__(self, key: str) -> npt.NDArray[np.uint8]:
        """Return an image in grey, uint8 (H, W)."""
        return read_pixels(self.samples[key])


def give_images(rule: Rule, samples: Mapping[str, Sample] | None) -> Rule:
    """Return a rule that can read the images that it looks at; others as they are.

    Raises:
        ValueError: the rule looks at images, and there are none.
    """
    if isinstance(rule, Watched):
        return replace(rule, rule=give_images(rule.rule, samples))
    if not isinstance(rule, Refined) or not rule.refine.needs_image:
        return rule
    if samples is None:
        raise ValueError("this rule refines by a CRF, which looks at images: expected --data")
    return replace(rule, read_grey=GreyImages.of(samples))
