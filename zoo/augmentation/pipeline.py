"""A list of transforms whose outcome is a function of a seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from converters.files.images import Pixels
from converters.types import LabelSpace
from zoo.augmentation.layout import MaskChannels
from zoo.augmentation.steps import build_steps, has_mixing
from zoo.augmentation.vendor import A

Others = Callable[[np.random.Generator], tuple[Pixels, Pixels]]
"""Draws another sample of the same size: its image, and its mask in the same layout."""


class Augmentation:
    """Transforms of albumentations, and our own, whose outcome is a function of a seed alone.

    Masks stay bit-packed: a geometric transform moves whole bytes to their nearest pixel, which
    gives the same bits as moving every class by itself. Masks of covered shares (`is_soft`) are
    interpolated, plane by plane.
    """

    def __init__(
        self,
        steps: Sequence[Mapping[str, Any]],
        labels: LabelSpace | None = None,
        is_soft: bool = False,
    ) -> None:
        """Build the transforms.

        Args:
            steps: as `zoo.augmentation.steps.build_steps` takes them.
            labels: the classes; needed where a transform names some, or masks are soft.
            is_soft: masks are covered shares, one channel a class, instead of bits.

        Raises:
            ValueError: an unknown transform, parameter or class, naming its place in the list; or
                soft masks of unknown classes.
        """
        if is_soft and labels is None:
            raise ValueError("augment: soft masks: expected a label space, found none")
        transforms = build_steps(steps, labels)
        self.mixes = has_mixing(transforms)
        self.is_soft = is_soft
        self.classes = len(labels) if labels else 0
        way = cv2.INTER_LINEAR if is_soft else cv2.INTER_NEAREST
        self._compose = A.Compose(transforms, mask_interpolation=way)

    def __call__(
        self,
        image: Pixels,
        mask: Pixels,
        seed: Sequence[int],
        others: Others | None = None,
        classes: tuple[int, ...] | None = None,
    ) -> tuple[Pixels, Pixels]:
        """Return the augmented image, of the same shape, and mask, uint8 (h, w, channels).

        Args:
            image: uint8 (h, w), or (h, w, 3).
            mask: bit-packed, uint8 (h, w, B), or shares, uint8 (h, w, C).
            seed: numbers that decide what happens, such as (run's seed, epoch, index).
            others: draws what is mixed in, from the generator that it is given; needed where
                `mixes`.
            classes: the class number of each bit, where bits are objects; None: bit c is class c.

        Raises:
            ValueError: a transform changed the size, or has nothing to mix in.
        """
        if not self._compose.transforms:
            return image, mask
        sequence = np.random.SeedSequence(list(seed))
        # One generator for all transforms: given a seed, albumentations would start each one's
        # own generator with the same numbers, and their decisions would go together.
        python = random.Random(int(sequence.generate_state(1, np.uint64)[0]))
        self._compose.set_random_state(np.random.default_rng(sequence), python)
        layout = MaskChannels(self.is_soft, classes)
        out = self._compose(image=image, mask=mask, layout=layout, others=others)
        size_hw = image.shape[:2]
        if out["image"].shape[:2] != size_hw:
            found = f"{out['image'].shape[:2]} instead of {size_hw}"
            raise ValueError(f"augment: expected transforms that keep the size, found {found}")
        return out["image"].reshape(image.shape), out["mask"].reshape(mask.shape)
