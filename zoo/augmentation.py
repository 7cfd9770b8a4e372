"""Augmentation of an image together with its bit-packed mask, by albumentations' names."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# It asks the network for a newer release when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

Image = npt.NDArray[np.uint8]


class Augmentation:
    """A list of albumentations' transforms whose outcome is a function of a seed alone.

    Masks stay bit-packed: a geometric transform moves whole bytes to their nearest pixel, which
    gives the same bits as moving every class by itself.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Build the transforms.

        Args:
            steps: `{"name": a transform of albumentations, **its parameters}`; in `OneOf` and
                `SomeOf`, `transforms` is again such a list.

        Raises:
            ValueError: an unknown transform or parameter, naming its place in the list.
        """
        transforms = [_build(step, f"augment.{i}") for i, step in enumerate(steps)]
        self._compose = A.Compose(transforms, mask_interpolation=cv2.INTER_NEAREST)

    def __call__(self, image: Image, packed: Image, seed: Sequence[int]) -> tuple[Image, Image]:
        """Return the augmented image, uint8 (h, w), and mask, uint8 (h, w, B).

        Args:
            image: uint8 (h, w).
            packed: bit-packed mask, uint8 (h, w, B).
            seed: numbers that decide what happens, such as (run's seed, epoch, index).

        Raises:
            ValueError: a transform changed the size.
        """
        if not self._compose.transforms:
            return image, packed
        sequence = np.random.SeedSequence(list(seed))
        # One generator for all transforms: given a seed, albumentations would start each one's
        # own generator with the same numbers, and their decisions would go together.
        python = random.Random(int(sequence.generate_state(1, np.uint64)[0]))
        self._compose.set_random_state(np.random.default_rng(sequence), python)
        out = self._compose(image=image, mask=packed)
        if out["image"].shape[:2] != image.shape:
            found = f"{out['image'].shape[:2]} instead of {image.shape}"
            raise ValueError(f"augment: expected transforms that keep the size, found {found}")
        return out["image"].reshape(image.shape), out["mask"].reshape(packed.shape)


def _build(step: Mapping[str, Any], where: str) -> Any:
    if not isinstance(step, Mapping) or "name" not in step:
        raise ValueError(f"{where}: expected 'name' and parameters, found {step!r:.80}")
    name = str(step["name"])
    kind = getattr(A, name, None)
    if not isinstance(kind, type) or not issubclass(kind, A.BasicTransform | A.BaseCompose):
        raise ValueError(f"{where}: unknown transform '{name}'; names are those of albumentations")
    parameters = {key: value for key, value in step.items() if key != "name"}
    if isinstance(inner := parameters.get("transforms"), Sequence):
        parts = [_build(s, f"{where}.transforms.{i}") for i, s in enumerate(inner)]
        parameters["transforms"] = parts
    with warnings.catch_warnings():
        # An unknown or bad parameter is only warned about.
        warnings.simplefilter("error")
        try:
            return kind(**parameters)
        except (TypeError, ValueError, UserWarning) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{where}: {name}: {reason}") from None
