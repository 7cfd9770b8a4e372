"""Put parts of another sample into a sample; all classes change together.

What is seen and what is labelled come from the same sample at every pixel: inside the part that is
pasted, every bit of the mask is the other sample's, outside every bit is the sample's own. No
object is drawn without its label, and none is labelled that is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.linalg
from pydantic import AfterValidator, Field

from converters.files.images import Pixels
from converters.types import LabelSpace
from zoo.augmentation.layout import MaskChannels, Region, class_numbers
from zoo.augmentation.vendor import A, check_rising

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(gt=0, lt=1)]
# Classes that two samples must share to be laid on each other.
_LANDMARKS = 3
# Of grey values around what is pasted, from one sample to the other.
_LARGEST_GAIN = 2.0


class Mixing(A.DualTransform):  # type: ignore[misc]
    """A transform that takes pixels and bits of another sample.

    The other sample comes from `others`, an entry of the data: a function of a random number
    generator that gives (image, mask) of the same size.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the other sample and what is taken from it.

        Raises:
            ValueError: there are no other samples.
        """
        others = data.get("others")
        if others is None:
            name = type(self).__name__
            raise ValueError(f"{name}: expected other samples to take from, found none")
        image, mask = others(self.random_generator)
        layout = data.get("layout", MaskChannels())
        return self.choose(data["image"], data["mask"], image, mask, layout)

    def choose(
        self,
        image: Pixels,
        mask: Pixels,
        other_image: Pixels,
        other_mask: Pixels,
        layout: MaskChannels,
    ) -> dict[str, Any]:
        """Return the entries `paste_image`, `paste_mask` and `alpha`, float32 (h, w) in 0..1."""
        raise NotImplementedError

    def apply(self, img: Pixels, paste_image: Pixels, alpha: Any, **params: Any) -> Pixels:
        """Return the mixed image, uint8 (h, w)."""
        weight = alpha.reshape(alpha.shape + (1,) * (img.ndim - 2))
        pasted = paste_image.reshape(img.shape).astype(np.float32)
        return np.rint(img + weight * (pasted - img)).astype(np.uint8)

    def apply_to_mask(self, mask: Pixels, paste_mask: Pixels, alpha: Any, **params: Any) -> Pixels:
        """Return the mixed mask, uint8 (h, w, channels)."""
        return np.where((alpha >= 0.5)[..., None], paste_mask, mask)


class CutMix(Mixing):
    """Put a rectangle of another sample, at its own place, into a sample (Yun et al. 2019).

    For masks there is no label to average: the bits in the rectangle are the other sample's.

    Args:
        area_range: share of the image, drawn evenly.
        p: chance.
    """

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """What the config may say."""

        area_range: Annotated[tuple[Share, Share], AfterValidator(check_rising)]

    def __init__(self, area_range: tuple[float, float] = (0.1, 0.4), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.area_range = area_range

    def choose(
        self,
        image: Pixels,
        mask: Pixels,
        other_image: Pixels,
        other_mask: Pixels,
        layout: MaskChannels,
    ) -> dict[str, Any]:
        """Draw the rectangle, of the image's shape."""
        height, width = image.shape[:2]
        side = self.py_random.uniform(*self.area_range) ** 0.5
        high, wide = max(1, round(side * height)), max(1, round(side * width))
        top = self.py_random.randint(0, height - high)
        left = self.py_random.randint(0, width - wide)
        alpha = np.zeros((height, width), np.float32)
        alpha[top : top + high, left : left + wide] = 1
        return {"paste_image": other_image, "paste_mask": other_mask, "alpha": alpha}


class CopyPaste(Mixing):
    """Put some classes of another sample into a sample.

    What is pasted are these classes and a margin around them, with everything else that lies there.
    With `align`, the other sample is first laid on this one: turned, scaled and, where
    it is the other side's, mirrored so that the middles of the classes fit best (orthogonal
    Procrustes); where fewer than three of them are in both, nothing happens. Where a class occurs
    once in an image, the sample's own objects of these classes are replaced: what is pasted also
    covers their pixels. Grey values are fitted to those around it, and the seam is blended.

    Args:
        classes: classes or groups.
        align: whether to lay the other sample on this one.
        replace: whether the sample's own objects go; None: where the label space says that every
            class occurs once.
        margin: around the objects, as a share of the image's shorter side.
        p: chance.
    """

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """What the config may say."""

        classes: Annotated[tuple[str, ...], Field(min_length=1)]
        align: bool
        replace: bool | None
        margin: Annotated[float, Field(gt=0, le=0.1)]

    def __init__(
        self,
        classes: Sequence[str],
        align: bool = True,
        replace: bool | None = None,
        margin: float = 0.01,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.classes, self.align, self.replace, self.margin = classes, align, replace, margin
        self._numbers: frozenset[int] = frozenset()
        self._replaces = bool(replace)

    def bind(self, labels: LabelSpace) -> None:
        """Look up the classes.

        Raises:
            ValueError: a name that the label space does not have.
        """
        self._numbers = class_numbers(self.classes, labels)
        self._replaces = labels.once if self.replace is None else self.replace
        if self.align and len(self._numbers) < _LANDMARKS:
            raise ValueError(
                f"align: expected at least {_LANDMARKS} classes, found {len(self._numbers)}; "
                "name more, or set align: false"
            )

    def choose(
        self,
        image: Pixels,
        mask: Pixels,
        other_image: Pixels,
        other_mask: Pixels,
        layout: MaskChannels,
    ) -> dict[str, Any]:
        """Lay the other sample on this one, and choose the part to paste."""
        nothing = np.zeros(mask.shape[:2], np.float32)
        kept = {"paste_image": image, "paste_mask": mask, "alpha": nothing}
        valid = np.ones(mask.shape[:2], bool)
        if self.align:
            matrix = fit(*landmarks(other_mask, mask, self._numbers, layout))
            if matrix is None:
                return kept
            other_image, other_mask, valid = lay(matrix, other_image, other_mask, layout.is_soft)
        region = layout.cover(other_mask, self._numbers)
        if not region.any():
            return kept
        if self._replaces:
            region |= layout.cover(mask, self._numbers)
        width_px = max(1, round(self.margin * min(mask.shape[:2])))
        region = _grown(region, 2 * width_px) & valid
        fitted = fit_grey(other_image, image, _grown(region, 3 * width_px) & ~region & valid)
        # Half of the blur lies on either side of the seam; it stays off the classes themselves.
        size = 2 * width_px + 1
        alpha = cv2.GaussianBlur(region.astype(np.float32), (size, size), 0)
        return {"paste_image": fitted, "paste_mask": other_mask, "alpha": alpha * valid}


def landmarks(
    moving: Pixels, fixed: Pixels, numbers: Iterable[int], layout: MaskChannels
) -> tuple[Floats, Floats]:
    """Return the middles x, y of the classes that two masks have in common, float (n, 2) each."""
    pairs = []
    for number in sorted(numbers):
        found = [_middle(layout.cover(mask, (number,))) for mask in (moving, fixed)]
        if all(point is not None for point in found):
            pairs.append(found)
    points = np.array(pairs, np.float64).reshape(-1, 2, 2)
    return points[:, 0], points[:, 1]


def _middle(region: Region) -> tuple[float, float] | None:
    moments = cv2.moments(region.astype(np.uint8), binaryImage=True)
    area = moments["m00"]
    return (moments["m10"] / area, moments["m01"] / area) if area else None


def fit(moving: Floats, fixed: Floats) -> Floats | None:
    """Return the turn, scale and mirror image that bring points onto others, float (2, 3).

    Least squares over n points (x, y); None for fewer than three, or where they coincide.
    """
    if len(moving) < _LANDMARKS:
        return None
    centre, target = moving.mean(0), fixed.mean(0)
    a, b = moving - centre, fixed - target
    spread = float((a**2).sum())
    if spread <= 0:
        return None
    rotation, singular_sum = scipy.linalg.orthogonal_procrustes(a, b)
    linear = rotation.T * (singular_sum / spread)
    return np.column_stack([linear, target - linear @ centre])


def lay(
    matrix: Floats, image: Pixels, mask: Pixels, is_soft: bool
) -> tuple[Pixels, Pixels, Region]:
    """Return an image and its mask, moved by a matrix (2, 3), and where they have pixels."""
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    way = cv2.INTER_LINEAR if is_soft else cv2.INTER_NEAREST
    parts = [
        cv2.warpAffine(np.ascontiguousarray(mask[..., i : i + 4]), matrix, size, flags=way)
        for i in range(0, mask.shape[2], 4)
    ]
    planes = np.concatenate([part.reshape(*image.shape[:2], -1) for part in parts], axis=2)
    inside = cv2.warpAffine(
        np.ones(image.shape[:2], np.uint8), matrix, size, flags=cv2.INTER_NEAREST
    )
    return np.asarray(moved, np.uint8), planes, inside > 0


def fit_grey(moving: Pixels, fixed: Pixels, band: Region) -> Pixels:
    """Return an image whose mean and deviation in a band are another one's, uint8 (h, w)."""
    if not band.any():
        return moving
    ours, theirs = fixed[band].astype(np.float64), moving[band].astype(np.float64)
    gain = np.clip(ours.std() / max(float(theirs.std()), 1e-6), 1 / _LARGEST_GAIN, _LARGEST_GAIN)
    fitted = (moving - theirs.mean()) * gain + ours.mean()
    return np.clip(np.rint(fitted), 0, 255).astype(np.uint8)


def _grown(region: Region, by_px: int) -> Region:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by_px + 1, 2 * by_px + 1))
    return cv2.dilate(region.astype(np.uint8), kernel) > 0
