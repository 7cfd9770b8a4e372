"""Predictions as dense planes, one a class, and planes as predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.types import Evidence, Prediction, soft_mask

_FULL = 255


def to_planes(prediction: Prediction, labels: LabelSpace) -> npt.NDArray[np.uint8]:
    """Return each class's probability at the image's own pixels.

    Args:
        prediction: of one image.
        labels: the classes, in the order of the planes.

    Returns:
        uint8 (classes, H, W), 255 = 1; a class that is not predicted is 0.
    """
    height, width = prediction.size_hw
    planes = np.zeros((len(labels), height, width), np.uint8)
    for plane, name in zip(planes, labels.names, strict=True):
        if found := prediction.evidence(name, labels.once):
            found[1].render((0, 0, width, height), plane)
    return planes


def to_masks(prediction: Prediction, labels: LabelSpace) -> npt.NDArray[np.bool_]:
    """Return each class's pixels as a submission holds them, bool (classes, H, W)."""
    masks = binary_masks(prediction, labels)
    return np.stack([masks[name].full(prediction.size_hw).astype(bool) for name in labels.names])


def from_planes(
    key: str,
    planes: npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]],
    labels: LabelSpace,
    size_hw: tuple[int, int] | None = None,
) -> Prediction:
    """Return the prediction that dense planes are: `semantic`, a mask a class.

    Args:
        key: the sample's key.
        planes: (classes, H, W) in the order of the classes, or class -> (H, W); of a class that is
            absent from a mapping nothing is said. bool (masks), uint8 (255 = 1), or floats in 0..1,
            which are kept to 1 / 255.
        labels: the classes.
        size_hw: of the image in pixels, where a network saw it smaller or larger: its planes are
            stretched over the image, when and where pixels are needed. None: the planes' own.

    Raises:
        ValueError: other shapes, dtypes or values, or classes that the label space does not have.
    """
    named = _named(key, planes, labels)
    sizes = {plane.shape for plane in named.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 2:
        raise ValueError(f"{key}: expected planes (H, W) of one size, found {sorted(sizes)}")
    height, width = size_hw or next(iter(sizes))
    masks: dict[str, tuple[Evidence, ...]] = {}
    for name, plane in named.items():
        prob = _as_bytes(key, name, plane)
        if mask := soft_mask(prob, (0.0, 0.0, float(width), float(height)), floor=1):
            masks[name] = ((float(prob.max()) / _FULL, mask),)
    classes = None if len(named) == len(labels) else frozenset(named)
    return Prediction(key, (height, width), "semantic", masks, classes)


def _named(
    key: str,
    planes: npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]],
    labels: LabelSpace,
) -> dict[str, npt.NDArray[np.generic]]:
    if isinstance(planes, Mapping):
        if unknown := sorted(set(planes) - set(labels.names)):
            raise ValueError(f"{key}: expected classes of {labels.listed()}, found {unknown}")
        if not planes:
            raise ValueError(f"{key}: expected at least one plane, found none")
        return {name: np.asarray(planes[name]) for name in labels.names if name in planes}
    array = np.asarray(planes)
    if array.ndim != 3 or len(array) != len(labels):
        raise ValueError(
            f"{key}: expected planes ({len(labels)}, H, W), one a class of {labels.listed()}, "
            f"found {array.shape}; a plane an object: fusion.predict_objects"
        )
    return dict(zip(labels.names, array, strict=True))


def _as_bytes(key: str, name: str, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if plane.dtype == np.uint8:
        if plane.max(initial=0) == 1:
            raise ValueError(
                f"{key}: '{name}': expected uint8 where 255 is 1, found no value above 1: give a "
                "mask of 0 and 1 as bool"
            )
        return plane.astype(np.uint8)
    if plane.dtype == np.bool_:
        return plane.astype(np.uint8) * np.uint8(_FULL)
    if not np.issubdtype(plane.dtype, np.floating):
        raise ValueError(f"{key}: '{name}': expected bool, uint8 or floats, found {plane.dtype}")
    values = plane.astype(np.float64)
    # NaN is neither.
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"{key}: '{name}': expected probabilities in 0..1, found {values.min():g} to "
            f"{values.max():g}: apply the sigmoid first"
        )
    return np.rint(values * _FULL).astype(np.uint8)
