"""Bend the wrist of a straight hand, labels with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from converters.files.images import Pixels
from converters.types import LabelSpace
from zoo.augmentation.layout import MaskChannels, Region, class_numbers
from zoo.augmentation.vendor import A, check_rising

Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]

# Outlines are measured on masks of at most about this side.
_MEASURED_PX = 512
# Of the table over radius and angle.
_RINGS, _ANGLES = 160, 720
# The joint keeps this share of a length along a circle at least: nothing folds.
_LEAST_STRETCH = 0.2
# Both ends of the ramp from rigid to still are rounded, each over this share of it.
_ROUNDED = 0.2
# Beyond the outlines of bones, so that the pixels at their edges move with them.
_MARGIN_RAD = np.radians(3.0)
# Where the centre may lie: this far from the carpus' middle toward the hand, in half lengths.
_CENTRES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Joint:
    """How far around its centre a hand and a forearm reach, circle by circle.

    Angles are in radians, seen from the centre, 0 toward the hand in the forearm's direction,
    positive clockwise in the image.

    Attributes:
        centre: x, y in pixels.
        axis: the forearm's direction toward the hand, as an angle in the image.
        ring_px: distance from one circle to the next.
        hand: float (rings, 2), the lowest and highest angle of what turns.
        arm: float (rings, 2), where the forearm ends below and begins above.
    """

    centre: tuple[float, float]
    axis: float
    ring_px: float
    hand: Floats
    arm: Floats

    def limit(self, bend: float) -> float:
        """Return the largest angle by which the joint bends without folding, 0 or more.

        Args:
            bend: of which the sign counts: positive clockwise.
        """
        gap = self.arm[:, 1] - self.hand[:, 1] if bend > 0 else self.hand[:, 0] - self.arm[:, 0]
        steepest = 1 / (1 - _ROUNDED)
        return max(0.0, float(gap.min()) * (1 - _LEAST_STRETCH) / steepest)

    @cached_property
    def weight(self) -> Floats:
        """What share of the bend each place makes, float (rings, angles + 1), angles -pi to pi."""
        angle = np.linspace(-np.pi, np.pi, _ANGLES + 1)
        below = _ramp(angle, self.arm[:, :1], self.hand[:, :1])
        above = _ramp(-angle, -self.arm[:, 1:], -self.hand[:, 1:])
        return np.minimum(below, above)

    def strain(self, points: Floats, bend: float) -> float:
        """Return how much a bend deforms some places (x, y), float (n, 2), in the mean; 0 is rigid.

        Along a circle a length becomes `stretch` times as long, and one circle slides on the next
        by `slide` of their distance: the sum of squares of the stretch's logarithm and the slide.
        """
        across = np.asarray(np.gradient(self.weight, self.ring_px, axis=0))
        along = np.asarray(np.gradient(self.weight, 2 * np.pi / _ANGLES, axis=1))
        offset = points - np.array(self.centre)
        radius = np.hypot(offset[:, 0], offset[:, 1])
        angle = np.arctan2(offset[:, 1], offset[:, 0]) - self.axis + np.pi
        place = (
            np.rint(radius / self.ring_px).astype(int),
            np.rint(angle % (2 * np.pi) * (_ANGLES / (2 * np.pi))).astype(int),
        )
        stretch = np.maximum(1 + bend * along[place], _LEAST_STRETCH)
        slide = radius * bend * across[place]
        return float((np.log(stretch) ** 2 + slide**2).mean())

    def maps(self, size_hw: tuple[int, int], bend: float) -> tuple[Map, Map]:
        """Return where each pixel of the bent image comes from: columns and rows, float32 (h, w).

        A place keeps its distance from the centre and moves along its circle by `bend` times its
        weight. On every circle the order of places stays, so that the map is one to one; its
        inverse is found circle by circle.
        """
        angle = np.linspace(-np.pi, np.pi, _ANGLES + 1)
        moved = angle + bend * self.weight
        back = [angle - np.interp(angle, row, angle) for row in moved]
        rows, columns = np.indices(size_hw, np.float32)
        x, y = columns - np.float32(self.centre[0]), rows - np.float32(self.centre[1])
        # Seen from the forearm's direction; OpenCV's own angles are exact to .3 degrees only.
        cosine, sine = np.float32(np.cos(self.axis)), np.float32(np.sin(self.axis))
        place = np.arctan2(y * cosine - x * sine, x * cosine + y * sine)
        turned = cv2.remap(
            np.asarray(back, np.float32),
            (place + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi)),
            np.hypot(x, y) / np.float32(self.ring_px),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        cosine, sine = np.cos(turned), np.sin(turned)
        source_x = x * cosine + y * sine + np.float32(self.centre[0])
        source_y = y * cosine - x * sine + np.float32(self.centre[1])
        return np.asarray(source_x, np.float32), np.asarray(source_y, np.float32)


def _ramp(angle: Floats, start: Floats, end: Floats) -> Floats:
    """0 up to `start`, 1 from `end` on, between them straight with rounded ends."""
    share = np.clip((angle - start) / np.maximum(end - start, 1e-6), 0, 1)
    bow = 1 / (2 * _ROUNDED * (1 - _ROUNDED))
    low, high = bow * share**2, 1 - bow * (1 - share) ** 2
    straight = (share - _ROUNDED / 2) / (1 - _ROUNDED)
    return np.where(share < _ROUNDED, low, np.where(share > 1 - _ROUNDED, high, straight))


def find_joint(pivot: Region, beyond: Region, before: Region, bend: float) -> Joint | None:
    """Find the centre about which a hand bends with the least strain on its carpus.

    A wrist turns from side to side about the head of the capitate, in the carpus' distal half
    (Youm et al. 1978, J Bone Joint Surg Am 60, 423): centres from the carpus' middle to its distal
    edge, and to its edge on the side of the bend, are tried.

    Args:
        pivot: the carpus, bool (h, w).
        beyond: what turns, bool (h, w).
        before: what stays, bool (h, w).
        bend: radians, positive clockwise.

    Returns:
        The joint that bends so far; the one that bends farthest where none does; None where one of
        the three is empty.
    """
    step = max(1, max(pivot.shape) // _MEASURED_PX)
    points = [_points(region, step) for region in (pivot, beyond, before)]
    if not all(len(p) for p in points):
        return None
    carpus, hand, arm = points
    middle = carpus.mean(0)
    toward = middle - arm.mean(0)
    toward /= max(float(np.hypot(*toward)), 1e-6)
    # Clockwise from the hand's direction lies the side to which a clockwise bend goes.
    aside = np.copysign(1, bend) * np.array([-toward[1], toward[0]])
    long, wide = (float(np.percentile((carpus - middle) @ d, 99)) for d in (toward, aside))
    farthest = 1.5 * float(np.hypot(*pivot.shape))
    joints = [
        _measure(middle + up * long * toward + out * wide * aside, toward, hand, arm, farthest)
        for up in _CENTRES
        for out in _CENTRES
    ]
    able = [joint for joint in joints if joint.limit(bend) >= abs(bend)]
    if not able:
        return max(joints, key=lambda joint: joint.limit(bend))
    return min(able, key=lambda joint: joint.strain(carpus, bend))


def _points(region: Region, step: int) -> Floats:
    rows, columns = np.nonzero(region[::step, ::step])
    return np.stack([columns, rows], 1).astype(np.float64) * step


def _measure(centre: Floats, toward: Floats, hand: Floats, arm: Floats, farthest: float) -> Joint:
    axis = float(np.arctan2(toward[1], toward[0]))
    ring_px = farthest / (_RINGS - 1)
    hand_span = _spans(hand - centre, axis, ring_px)
    # Seen backward, the forearm is a span about 0 as well.
    arm_span = _spans(arm - centre, axis + np.pi, ring_px)
    arm_edges = np.stack([arm_span[:, 1] - np.pi, arm_span[:, 0] + np.pi], 1)
    return Joint((float(centre[0]), float(centre[1])), axis, ring_px, hand_span, arm_edges)


def _spans(offsets: Floats, axis: float, ring_px: float) -> Floats:
    """Lowest and highest angle of points on each circle, widened a little, smooth over circles."""
    ring = (np.hypot(offsets[:, 0], offsets[:, 1]) / ring_px).astype(int)
    angle = np.angle(np.exp(1j * (np.arctan2(offsets[:, 1], offsets[:, 0]) - axis)))
    low, high = np.full(_RINGS, np.inf), np.full(_RINGS, -np.inf)
    np.minimum.at(low, ring, angle)
    np.maximum.at(high, ring, angle)
    found = np.flatnonzero(high >= low)
    # Circles further out continue the last one's span; those further in have none.
    every = np.arange(_RINGS)
    spans = [np.interp(every, found, span[found]) for span in (low, high)]
    inner = every < found[0]
    spans = [np.where(inner, 0.0, span) for span in spans]
    return np.stack([-_widen(-spans[0]), _widen(spans[1])], 1)


def _widen(span: Floats) -> Floats:
    """The mean over circles of the highest of each one's neighbours: never below the span."""
    reach = max(1, _RINGS // 40)
    window = np.lib.stride_tricks.sliding_window_view
    highest = window(np.pad(span, 2 * reach, mode="edge"), 2 * reach + 1).max(1)
    return np.asarray(window(highest, 2 * reach + 1).mean(1) + _MARGIN_RAD)


class WristBend(A.DualTransform):  # type: ignore[misc]
    """Turn the hand about its wrist; the forearm stays, and the carpus follows smoothly.

    Straight hands are most of the training data, bent ones most of the test data. Bones beyond the
    carpus turn rigidly; on circles about the joint's centre the turn falls off to nothing at the
    forearm. The map is one to one: where a hand has no room for the angle that was drawn, it is
    bent as far as it goes without folding.

    Which classes are what follows from the label space's posture, where it has one: `beyond` is
    the group of its distal bone, `before` that of its proximal bone, `pivot` the other groups, and
    a positive bend goes away from the proximal bone (the radius: the thumb's side). All can be
    named, as classes or groups.

    Args:
        angle_range: degrees, drawn evenly; negative ones bend the other way. Real bends go away
            from the thumb.
        pivot: the carpus.
        beyond: what turns.
        before: what stays.
        toward: those of `before` on the side to which a positive bend goes.
        fill: grey value of what comes from outside of the image; None continues its border.
        p: chance.
    """

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """What the config may say."""

        angle_range: Annotated[
            tuple[
                Annotated[float, Field(ge=-60, le=60)],
                Annotated[float, Field(ge=-60, le=60)],
            ],
            AfterValidator(check_rising),
        ]
        pivot: tuple[str, ...] | None
        beyond: tuple[str, ...] | None
        before: tuple[str, ...] | None
        toward: tuple[str, ...] | None
        fill: Annotated[int, Field(ge=0, le=255)] | None

    def __init__(
        self,
        angle_range: tuple[float, float] = (15.0, 45.0),
        pivot: Sequence[str] | None = None,
        beyond: Sequence[str] | None = None,
        before: Sequence[str] | None = None,
        toward: Sequence[str] | None = None,
        fill: int | None = None,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.angle_range = angle_range
        self.pivot, self.beyond, self.before, self.toward = pivot, beyond, before, toward
        self.fill = fill
        self._classes: dict[str, frozenset[int]] = {}

    def bind(self, labels: LabelSpace) -> None:
        """Look up the classes.

        Raises:
            ValueError: a name that the label space does not have, or none given where it has no
                posture.
        """
        given = {name: getattr(self, name) for name in ("pivot", "beyond", "before", "toward")}
        for name, names in (_from_posture(labels) | {k: v for k, v in given.items() if v}).items():
            try:
                self._classes[name] = class_numbers(names, labels)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if missing := [name for name in given if not self._classes.get(name)]:
            raise ValueError(
                f"expected '{missing[0]}': classes or groups; the label space '{labels.name}' has "
                "no posture from which to tell"
            )

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the angle, find the joint and compute the map; no map where there is no joint."""
        drawn = float(self.py_random.uniform(*self.angle_range))
        layout, mask = data.get("layout", MaskChannels()), data["mask"]
        pivot, beyond, before, aside = (
            layout.cover(mask, self._classes[name])
            for name in ("pivot", "beyond", "before", "toward")
        )
        bend = np.radians(drawn) * _side(pivot, before, aside)
        joint = find_joint(pivot, beyond, before, bend) if bend else None
        if joint is None:
            return {"maps": None, "bend_deg": 0.0}
        bend = float(np.clip(bend, -joint.limit(bend), joint.limit(bend)))
        maps = joint.maps(mask.shape[:2], bend)
        return {"maps": maps, "bend_deg": np.degrees(bend), "is_soft": layout.is_soft}

    def apply(self, img: Pixels, maps: tuple[Map, Map] | None, **params: Any) -> Pixels:
        """Return the bent image, uint8 (h, w) or (h, w, channels)."""
        if maps is None:
            return img
        border = cv2.BORDER_REPLICATE if self.fill is None else cv2.BORDER_CONSTANT
        value = (self.fill or 0,) * 4
        bent = cv2.remap(img, *maps, cv2.INTER_LINEAR, borderMode=border, borderValue=value)
        return np.asarray(bent, np.uint8).reshape(img.shape)

    def apply_to_mask(
        self, mask: Pixels, maps: tuple[Map, Map] | None, is_soft: bool = False, **params: Any
    ) -> Pixels:
        """Return the bent mask, uint8 (h, w, channels): nearest bits, or shares in between."""
        if maps is None:
            return mask
        way = cv2.INTER_LINEAR if is_soft else cv2.INTER_NEAREST
        # OpenCV takes four channels at a time with a border value.
        parts = [
            cv2.remap(np.ascontiguousarray(mask[..., i : i + 4]), *maps, way, borderValue=(0,) * 4)
            for i in range(0, mask.shape[2], 4)
        ]
        planes = [part.reshape(*mask.shape[:2], -1) for part in parts]
        return np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]


def _from_posture(labels: LabelSpace) -> dict[str, tuple[str, ...]]:
    posture = labels.posture
    if posture is None:
        return {}
    far, near = labels.group_of(posture.distal), labels.group_of(posture.proximal)
    if far is None or near is None or far == near:
        return {}
    return {
        "beyond": (far,),
        "before": (near,),
        "pivot": tuple(group for group in labels.groups if group not in (far, near)),
        "toward": tuple(name for name in labels.groups[near] if name != posture.proximal),
    }


def _side(pivot: Region, before: Region, aside: Region) -> int:
    """1 where a bend toward `aside` is clockwise, -1 where it is not, 0 where that is unknown."""
    step = max(1, max(pivot.shape) // _MEASURED_PX)
    points = [_points(region, step) for region in (pivot, before, aside, before & ~aside)]
    if not all(len(p) for p in points):
        return 0
    carpus, arm, this, that = (p.mean(0) for p in points)
    axis, across = carpus - arm, this - that
    return int(np.sign(axis[0] * across[1] - axis[1] * across[0]))
