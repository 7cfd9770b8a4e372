"""How the bones of a hand lie to each other, and how usual an arrangement is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from converters.audit.bones import Bone
from converters.audit.likeness import Array, Likeness, cross_learned
from converters.audit.pose import Hands

SIZE = 2
"""Place of the logarithm of a bone's width among its features."""
# Fewer hands do not say what is usual.
LEAST_HANDS = 12
_USUAL = 95

Order = npt.NDArray[np.intp]
"""(B,): the bone's number whose polygons each label gets."""


def features(hands: Hands) -> Array:
    """Return place (2), size (1), direction and elongation (2) of each bone: (N, B, 5)."""
    return np.stack(
        [
            hands.centres.real,
            hands.centres.imag,
            0.5 * np.log(hands.areas),
            hands.stretch.real,
            hands.stretch.imag,
        ],
        axis=-1,
    )


class Arrangement:
    """The usual arrangement of bones, learned from the hands that it judges.

    Every hand is judged by what was learned from other patients. Distances are squared Mahalanobis
    distances of the features of all bones together.

    Attributes:
        hands: what was learned from.
        rows: (N, B, 5), the hands' features.
        middles: (N, B, 5), where each hand's features are expected.
    """

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.rows = features(hands)
        self.middles = np.empty_like(self.rows)
        self._models: dict[int, Likeness] = {}
        self._held_out: list[Order] = []
        flat = self.rows.reshape(len(self.rows), -1)
        for model, held_out in cross_learned(flat, hands.groups):
            self.middles[held_out] = model.middle.reshape(self.rows.shape[1:])
            self._held_out.append(held_out)
            self._models.update(dict.fromkeys(held_out.tolist(), model))
        self._usual: dict[tuple[int, ...], float] = {}

    def scales(self, n: int) -> Array:
        """Return the usual deviations (B, 5) of hand `n`'s features."""
        return self._models[n].scale.reshape(self.rows.shape[1:])

    def distance2(self, n: int, rows: Array) -> Array:
        """Return how unusual arrangements (K, B, 5) are for hand `n`: (K,)."""
        return self._models[n].distance2(rows.reshape(len(rows), -1))

    def parted2(self, n: int, rows: Array, bones: Sequence[int]) -> Array:
        """Return how unusual some bones are, given the others, in arrangements (K, B, 5): (K,)."""
        rest = rows.copy()
        rest[:, list(bones)] = np.nan
        return self.distance2(n, rows) - self.distance2(n, rest)

    def usual2(self, bones: Sequence[int]) -> float:
        """Return what `parted2` of these bones exceeds in a twentieth of the hands."""
        key = tuple(sorted(bones))
        if key not in self._usual:
            values = [self._parted_all(held_out, key) for held_out in self._held_out]
            self._usual[key] = float(np.nanpercentile(np.concatenate(values), _USUAL))
        return self._usual[key]

    def _parted_all(self, chosen: Order, bones: Sequence[int]) -> Array:
        """`parted2` of hands that share a model, as they are labelled; NaN without the bones."""
        rows = self.rows[chosen]
        values = self.parted2(int(chosen[0]), rows, bones)
        values[np.isnan(rows[:, list(bones), 0]).any(axis=1)] = np.nan
        return values

    def place(self, n: int, bone: Bone) -> Array:
        """Return the features (5,) that a bone of hand `n`'s image has in the common frame."""
        a, b = self.hands.fit[n]
        centre = complex(*bone.centre)
        xx, yy, xy = bone.spread[0, 0], bone.spread[1, 1], bone.spread[0, 1]
        stretch = complex(xx - yy, 2 * xy) / (xx + yy)
        if self.hands.is_mirrored[n]:
            centre, stretch = centre.conjugate(), stretch.conjugate()
        at, turned = a * centre + b, stretch * (a / abs(a)) ** 2
        size = 0.5 * np.log(bone.area_px * abs(a) ** 2)
        return np.array([at.real, at.imag, size, turned.real, turned.imag])

    def misfit(self, n: int, label: int, bone: Bone, doubtful: Sequence[int] = ()) -> float:
        """Return how badly a bone fits a label in hand `n`; 1 is as the worst twentieth does.

        Args:
            n: number of the hand.
            label: number of the label.
            bone: of that hand's image.
            doubtful: numbers of labels whose bones are no measure for others.
        """
        rows = self.rows[n : n + 1].copy()
        rows[0, list(doubtful)] = np.nan
        rows[0, label] = self.place(n, bone)
        return float(self.parted2(n, rows, [label])[0]) / max(self.usual2([label]), 1e-9)
