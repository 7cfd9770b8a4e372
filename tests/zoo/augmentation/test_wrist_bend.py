"""Bent wrists: where everything goes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon

from converters.masks import CropMask, pack, rasterize, unpack, unpack_labels
from converters.posture import long_axis
from converters.types import LabelSpace
from zoo.augmentation.layout import MaskChannels
from zoo.augmentation.pipeline import Augmentation
from zoo.augmentation.wrist_bend import WristBend, find_joint
from zoo.phantom.anatomy import BENT, NEUTRAL, draw_hands
from zoo.phantom.annotation import draw_polygons

pytestmark = pytest.mark.slow

SIZE = 320
LABELS = LabelSpace.load("hand_bones")


def _hands(posture: int, number: int = 0) -> list[np.ndarray]:
    """The packed masks of a person's left and right hand."""
    seeds = [np.random.default_rng([number, i]) for i in range(4)]
    packed = []
    for hand in draw_hands(seeds[0], tuple(seeds[1:3]), posture, SIZE):
        drawn = draw_polygons(hand, seeds[3], 0.0)
        masks = {LABELS.names[i]: rasterize(Polygon(p), (SIZE, SIZE)) for i, p in drawn}
        packed.append(pack(masks, LABELS, (SIZE, SIZE)))
    return packed


def _radiograph(packed: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur((unpack(packed, 29).sum(0) > 0).astype(np.uint8) * 200, (5, 5), 0)


def _bend(packed: np.ndarray, degrees: float, **further: Any) -> np.ndarray:
    step = {"name": "WristBend", "angle_range": [degrees, degrees], "p": 1.0, **further}
    return Augmentation([step], LABELS)(_radiograph(packed), packed, (0,))[1]


def _direction(packed: np.ndarray, tip: str, base: str) -> float:
    """Degrees, clockwise, of the way from one bone's middle to another's."""
    masks = unpack_labels(packed, LABELS)
    ends = []
    for name in (tip, base):
        rows, columns = np.nonzero(masks[name].full((SIZE, SIZE)))
        ends.append(np.array([columns.mean(), rows.mean()]))
    x, y = ends[0] - ends[1]
    return float(np.degrees(np.arctan2(y, x)))


def _turn(before: np.ndarray, after: np.ndarray, tip: str, base: str) -> float:
    difference = _direction(after, tip, base) - _direction(before, tip, base)
    return (difference + 180) % 360 - 180


def _thumb_side(packed: np.ndarray) -> int:
    """1 where the thumb lies clockwise from the middle finger."""
    difference = _direction(packed, "finger-3", "Capitate") - _direction(
        packed, "finger-11", "Capitate"
    )
    return int(np.sign((difference + 180) % 360 - 180))


@pytest.fixture(scope="module")
def hands() -> list[np.ndarray]:
    return _hands(NEUTRAL)


@pytest.mark.parametrize("degrees", [15, 30, 45, -15])
def test_bones_beyond_the_carpus_turn_together(hands: list[np.ndarray], degrees: float) -> None:
    for packed in hands:
        bent = _bend(packed, degrees)
        away = -_thumb_side(packed)
        for tip, base in (
            ("finger-8", "finger-11"),
            ("finger-5", "finger-7"),
            ("finger-17", "finger-19"),
            ("finger-1", "finger-3"),
        ):
            assert _turn(packed, bent, tip, base) == pytest.approx(away * degrees, abs=1.5)


def test_bones_beyond_the_carpus_keep_their_shape(hands: list[np.ndarray]) -> None:
    for packed in hands:
        before, after = unpack_labels(packed, LABELS), unpack_labels(_bend(packed, 40), LABELS)
        for name in LABELS.groups["fingers"]:
            assert after[name].area == pytest.approx(before[name].area, rel=0.08, abs=6)
            assert _extent(after[name]) == pytest.approx(_extent(before[name]), abs=2.5)


def _extent(mask: CropMask) -> float:
    points = cv2.findNonZero(mask.pixels)
    return float(max(cv2.minAreaRect(points)[1]))


def test_the_forearm_stays_to_the_pixel(hands: list[np.ndarray]) -> None:
    for packed in hands:
        bent = _bend(packed, 45)
        for name in LABELS.groups["forearm"]:
            c = LABELS.index[name]
            assert np.array_equal(unpack(bent, 29)[c], unpack(packed, 29)[c])


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("degrees", [45, 20, -15, -45])
def test_the_map_never_folds(number: int, degrees: float) -> None:
    for packed in _hands(NEUTRAL, number):
        bend, layout = WristBend((degrees, degrees), p=1.0), MaskChannels()
        bend.bind(LABELS)
        data = {"mask": packed, "layout": layout}
        columns, rows = bend.get_params_dependent_on_data({}, data)["maps"]
        a, b = (
            np.gradient(columns.astype(float), axis=1),
            np.gradient(columns.astype(float), axis=0),
        )
        c, d = np.gradient(rows.astype(float), axis=1), np.gradient(rows.astype(float), axis=0)
        stretch = a * d - b * c
        # The inverse of a map that keeps a fifth of every length at least.
        assert stretch.min() > 0
        assert stretch.max() < 6


def test_a_hand_is_bent_no_farther_than_it_has_room(hands: list[np.ndarray]) -> None:
    bent = _hands(BENT)[0]
    limited = abs(_turn(bent, _bend(bent, 60), "finger-8", "finger-11"))
    free = abs(_turn(hands[0], _bend(hands[0], 40), "finger-8", "finger-11"))
    assert limited < 50
    assert free > 38


def test_carpals_stay_whole(hands: list[np.ndarray]) -> None:
    for packed in hands:
        before, after = unpack_labels(packed, LABELS), unpack_labels(_bend(packed, 35), LABELS)
        for name in LABELS.groups["carpals"]:
            assert 0.45 < after[name].area / before[name].area < 2.0
            assert cv2.connectedComponents(after[name].pixels)[0] == 2


def test_a_bent_hand_is_recognised_as_one(hands: list[np.ndarray]) -> None:
    for packed in hands:
        masks = unpack_labels(_bend(packed, 40), LABELS)
        middle, radius = (long_axis(masks[name], (SIZE, SIZE)) for name in ("finger-11", "Radius"))
        assert middle is not None
        assert radius is not None
        cosine = abs(middle @ radius) / (np.hypot(*middle) * np.hypot(*radius))
        assert LABELS.posture is not None
        assert np.degrees(np.arccos(cosine)) > LABELS.posture.bent_above_deg


def test_image_and_mask_move_together(hands: list[np.ndarray]) -> None:
    step = {"name": "WristBend", "p": 1.0}
    image, packed = Augmentation([step], LABELS)(_radiograph(hands[0]), hands[0], (3,))
    bone = unpack(packed, 29).any(0)
    assert ((image > 100) == bone).mean() > 0.97


def test_soft_masks_bend_like_bits(hands: list[np.ndarray]) -> None:
    image, packed = _radiograph(hands[0]), hands[0]
    step = {"name": "WristBend", "p": 1.0}
    planes = np.ascontiguousarray(np.moveaxis(unpack(packed, 29), 0, 2)) * np.uint8(255)
    soft = Augmentation([step], LABELS, is_soft=True)(image, planes, (3,))[1]
    hard = unpack(Augmentation([step], LABELS)(image, packed, (3,))[1], 29)
    assert ((soft >= 128) != (np.moveaxis(hard, 0, 2) > 0)).mean() < 0.002


@pytest.mark.parametrize("group", ["fingers", "carpals", "forearm"])
def test_without_one_of_the_three_nothing_happens(hands: list[np.ndarray], group: str) -> None:
    masks = unpack_labels(hands[0], LABELS)
    kept = {n: m for n, m in masks.items() if LABELS.group_of(n) != group}
    packed = pack(kept, LABELS, (SIZE, SIZE))
    assert np.array_equal(_bend(packed, 40), packed)


def test_no_joint_in_an_empty_image() -> None:
    nothing = np.zeros((32, 32), bool)
    assert find_joint(nothing, nothing, nothing, 0.5) is None
