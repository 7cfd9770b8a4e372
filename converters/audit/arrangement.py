"""How the structures of an image lie to each other, and how usual an arrangement is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from converters.audit.likeness import Array, Likeness, cross_learned
from converters.audit.pose import AlignedImages
from converters.audit.structures import Structure

SIZE = 2
"""Place of the logarithm of a structure's width among its features."""
# Fewer images do not say what is usual.
LEAST_IMAGES = 12
_USUAL = 95

Order = npt.NDArray[np.intp]
"""(B,): the structure's number whose polygons each label gets."""


def features(images: AlignedImages) -> Array:
    """Return place (2), size (1), direction and elongation (2) of each structure: (N, B, 5)."""
    return np.stack(
        [
            images.centres.real,
            images.centres.imag,
            0.5 * np.log(images.areas),
            images.stretch.real,
            images.stretch.imag,
        ],
        axis=-1,
    )


class Arrangement:
    """The usual arrangement of structures, learned from the images that it judges.

    Every image is judged by what was learned from other patients. Distances are squared Mahalanobis
    distances of the features of all structures together.

    Attributes:
        images: what was learned from.
        rows: (N, B, 5), the images' features.
        middles: (N, B, 5), where each image's features are expected.
    """

    def __init__(self, images: AlignedImages) -> None:
        self.images = images
        self.rows = features(images)
        self.middles = np.empty_like(self.rows)
        self._models: dict[int, Likeness] = {}
        self._held_out: list[Order] = []
        flat = self.rows.reshape(len(self.rows), -1)
        for model, held_out in cross_learned(flat, images.groups):
            self.middles[held_out] = model.middle.reshape(self.rows.shape[1:])
            self._held_out.append(held_out)
            self._models.update(dict.fromkeys(held_out.tolist(), model))
        self._usual: dict[tuple[int, ...], float] = {}

    def scales(self, n: int) -> Array:
        """Return the usual deviations (B, 5) of image `n`'s features."""
        return self._models[n].scale.reshape(self.rows.shape[1:])

    def distance2(self, n: int, rows: Array) -> Array:
        """Return how unusual arrangements (K, B, 5) are for image `n`: (K,)."""
        return self._models[n].distance2(rows.reshape(len(rows), -1))

    def parted2(self, n: int, rows: Array, structures: Sequence[int]) -> Array:
        """Return how unusual structures are, given the others, in arrangements (K, B, 5): (K,)."""
        rest = rows.copy()
        rest[:, list(structures)] = np.nan
        return self.distance2(n, rows) - self.distance2(n, rest)

    def usual2(self, structures: Sequence[int]) -> float:
        """Return what `parted2` of these structures exceeds in a twentieth of the images."""
        key = tuple(sorted(structures))
        if key not in self._usual:
            values = [self._parted_all(held_out, key) for held_out in self._held_out]
            self._usual[key] = float(np.nanpercentile(np.concatenate(values), _USUAL))
        return self._usual[key]

    def _parted_all(self, chosen: Order, structures: Sequence[int]) -> Array:
        """`parted2` of images that share a model, as they are labelled; NaN without these."""
        rows = self.rows[chosen]
        values = self.parted2(int(chosen[0]), rows, structures)
        values[np.isnan(rows[:, list(structures), 0]).any(axis=1)] = np.nan
        return values

    def place(self, n: int, structure: Structure) -> Array:
        """Return the features (5,) that a structure of image `n` has in the common frame."""
        a, b = self.images.fit[n]
        centre = complex(*structure.centre)
        xx, yy, xy = structure.spread[0, 0], structure.spread[1, 1], structure.spread[0, 1]
        stretch = complex(xx - yy, 2 * xy) / (xx + yy)
        if self.images.is_mirrored[n]:
            centre, stretch = centre.conjugate(), stretch.conjugate()
        at, turned = a * centre + b, stretch * (a / abs(a)) ** 2
        size = 0.5 * np.log(structure.area_px * abs(a) ** 2)
        return np.array([at.real, at.imag, size, turned.real, turned.imag])

    def misfit(
        self, n: int, label: int, structure: Structure, doubtful: Sequence[int] = ()
    ) -> float:
        """Return how badly a structure fits a label in image `n`; 1 is as the worst twentieth does.

        Args:
            n: number of the image.
            label: number of the label.
            structure: of that image.
            doubtful: numbers of labels whose structures are no measure for others.
        """
        rows = self.rows[n : n + 1].copy()
        rows[0, list(doubtful)] = np.nan
        rows[0, label] = self.place(n, structure)
        return float(self.parted2(n, rows, [label])[0]) / max(self.usual2([label]), 1e-9)
