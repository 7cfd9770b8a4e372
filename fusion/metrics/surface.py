"""How far apart two outlines are, and how wrong a prediction is beside the true one.

The outline of a mask is its edge pixels: those with a pixel of the background above, below, left or
right; outside the image is background. MONAI counts so too (`SurfaceDiceMetric`,
`HausdorffDistanceMetric` without subvoxels), and RAM-H1200 scores with MONAI. DeepMind's
`surface-distance` (Nikolov et al. 2018) puts the outline between the pixels and weighs it by its
length: on smooth outlines its surface Dice is higher by up to .07, its distances differ by up to .6
pixels. Compare figures of one definition only.

Distances are Euclidean, in pixels. They come from a k-d tree of the edge pixels, which is exact; a
distance transform takes as long for a small object and far longer for a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, Mask
from fusion.arrays import Floats

TOLERANCE_PX = 2.0
PERCENTILE = 95.0
BAND_PX = 2

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def edge_points(mask: CropMask) -> npt.NDArray[np.int64]:
    """Return the mask's edge pixels in the image, int64 (n, 2): x, y."""
    if not mask.pixels.size:
        return np.zeros((0, 2), np.int64)
    inner = cv2.erode(mask.pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    y, x = np.nonzero(mask.pixels & ~inner)
    return np.stack([x + mask.x, y + mask.y], axis=1)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two outlines, in pixels.

    Attributes:
        to_truth: float64 (n,): from each edge pixel of the prediction to the nearest one of the
            truth; infinite where there is no truth.
        to_prediction: float64 (m,): from each edge pixel of the truth to the nearest one of the
            prediction; infinite where nothing is predicted.
    """

    to_truth: Floats
    to_prediction: Floats

    def surface_dice(self, tolerance_px: float = TOLERANCE_PX) -> float:
        """Return the normalised surface Dice (Nikolov et al. 2018, arXiv:1809.04430).

        It is the share of both outlines that lies within the tolerance of the other one. Both
        empty: 1; one empty: 0.
        """
        count = len(self.to_truth) + len(self.to_prediction)
        near = np.count_nonzero(self.to_truth <= tolerance_px)
        near += np.count_nonzero(self.to_prediction <= tolerance_px)
        return near / count if count else 1.0

    def hausdorff(self, percentile: float = PERCENTILE) -> float:
        """Return the Hausdorff distance in pixels, at a percentile of the distances.

        It is the larger one of the two directions' percentiles, each between its two nearest
        distances, as MONAI and `surface-distance` take it; the two are not pooled. Both empty: 0;
        one empty: infinite.
        """
        if not len(self.to_truth) or not len(self.to_prediction):
            return self._without_either()
        found = (np.percentile(d, percentile) for d in (self.to_truth, self.to_prediction))
        return float(max(found))

    def average(self) -> float:
        """Return the average symmetric surface distance in pixels.

        It is the mean of all distances of both directions (MONAI's `SurfaceDistanceMetric`,
        symmetric). Both empty: 0; one empty: infinite.
        """
        if not len(self.to_truth) or not len(self.to_prediction):
            return self._without_either()
        return float(np.concatenate([self.to_truth, self.to_prediction]).mean())

    def _without_either(self) -> float:
        return float("inf") if len(self.to_truth) or len(self.to_prediction) else 0.0


def surface_distances(prediction: CropMask, truth: CropMask) -> SurfaceDistances:
    """Measure how far the outlines of two masks are apart."""
    found, real = edge_points(prediction), edge_points(truth)
    return SurfaceDistances(_nearest(found, real), _nearest(real, found))


def _nearest(points: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> Floats:
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    from scipy.spatial import KDTree  # late: overlaps alone do not need it

    distances, _ = KDTree(others).query(points)
    return np.asarray(distances, np.float64)


def disc(radius_px: int) -> Mask:
    """Return the pixels at most `radius_px` away from the middle one, uint8 (2r+1, 2r+1).

    >>> disc(2)[0].tolist(), disc(2)[1].tolist()
    ([0, 0, 1, 0, 0], [0, 1, 1, 1, 0])
    """
    steps = np.arange(-radius_px, radius_px + 1) ** 2
    return (steps[:, None] + steps[None, :] <= radius_px**2).astype(np.uint8)


def boundary_error_rate(
    prediction: CropMask, truth: CropMask, size_hw: tuple[int, int], radius_px: int = BAND_PX
) -> float:
    """Return the share of wrong pixels in the band along the true outline.

    The band is the truth's dilation without its erosion, both by a disc of `radius_px`. The image's
    border is no outline: there the object is taken to go on, and no band runs along it. Where the
    prediction leaves the object out, it is wrong on the inner side of the band, about half of it.

    Args:
        prediction: mask in an image of that size.
        truth: mask in the same image.
        size_hw: the image's height and width.
        radius_px: half of the band's width.

    Returns:
        0 to 1. Without truth: 0 where nothing is predicted, 1 where something is. Truth that fills
        the image has no outline: 0 where the prediction fills it too, else 1.
    """
    window = _grown(truth, size_hw, radius_px)
    real, found = truth.window(window), prediction.window(window)
    band = np.zeros_like(real)
    if truth.area:
        kernel = disc(radius_px)
        # OpenCV's border takes part in neither: the object goes on where the image ends.
        band = cv2.dilate(real, kernel) & ~cv2.erode(real, kernel)
    width = int(cv2.countNonZero(band)) if band.size else 0
    if not width:
        is_same = prediction.area == truth.area == int((real & found).sum())
        return 0.0 if is_same else 1.0
    return int(cv2.countNonZero((real ^ found) & band)) / width


def _grown(mask: CropMask, size_hw: tuple[int, int], margin: int) -> tuple[int, int, int, int]:
    x, y, width, height = mask.box_xywh
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(size_hw[1], x + width + margin), min(size_hw[0], y + height + margin)
    return left, top, right - left, bottom - top
