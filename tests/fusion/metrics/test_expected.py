"""The expected Dice: against dense planes, and against truths that are drawn."""

import numpy as np
import pytest

from converters.masks import EMPTY, crop
from fusion.metrics.expected import expected_dice
from fusion.types import Prediction, SoftMask

SIZE_HW = (12, 20)


def of_plane(plane, kind="semantic"):
    mask = SoftMask((0, 0, plane.shape[1], plane.shape[0]), plane)
    return Prediction("a", plane.shape, kind, {"cup": ((1.0, mask),)})


def blob(seed):
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    noise = np.random.default_rng(seed).normal(0, 0.6, SIZE_HW)
    odds = 5 - np.hypot(y - 5, (x - 9) / 1.5) * 1.3 + noise
    return np.rint(255 / (1 + np.exp(-odds))).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_dice_with_the_probability_for_the_truth(seed):
    plane = blob(seed)
    p, mask = plane / 255, plane >= 128
    found = of_plane(plane)
    expected = 2 * (p * mask).sum() / (p.sum() + mask.sum())
    assert expected_dice(found, "cup", found.binary("cup")) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_truths_that_are_drawn_have_this_dice_on_average(seed):
    plane = blob(seed)
    found, mask = of_plane(plane), plane >= 128
    draws = np.random.default_rng(seed).random((4000, *SIZE_HW)) < plane / 255
    dice = 2 * (draws & mask).sum((1, 2)) / (draws.sum((1, 2)) + mask.sum())
    assert expected_dice(found, "cup", found.binary("cup")) == pytest.approx(dice.mean(), abs=0.01)


def test_votes_count_as_probabilities():
    planes = [np.random.default_rng(n).random(SIZE_HW) < 0.6 for n in range(3)]
    voted = np.sum(planes, axis=0) >= 2
    p = np.mean(planes, axis=0)
    found = of_plane(voted.astype(np.uint8) * np.uint8(255))
    masks = [crop(plane.astype(np.uint8)) for plane in planes]
    expected = 2 * (p * voted).sum() / (p.sum() + voted.sum())
    value = expected_dice(found, "cup", found.binary("cup"), masks)
    assert value == pytest.approx(expected)


@pytest.mark.parametrize(("level", "once", "expected"), [(51, False, 0.8), (51, True, 0.0)])
def test_an_empty_mask_is_right_where_the_class_is_not_there(level, once, expected):
    found = of_plane(np.full(SIZE_HW, level, np.uint8))
    assert found.binary("cup").area == 0
    assert expected_dice(found, "cup", EMPTY, (EMPTY,), once=once) == pytest.approx(expected)


def test_a_class_that_nobody_sees_is_expected_to_be_none():
    nothing = Prediction("a", SIZE_HW, "semantic", {})
    assert expected_dice(nothing, "cup", EMPTY, (EMPTY, EMPTY), once=False) == 1
    assert expected_dice(nothing, "cup", EMPTY, (EMPTY, EMPTY), once=True) == 0
    one = crop(np.ones(SIZE_HW, np.uint8))
    assert expected_dice(nothing, "cup", EMPTY, (EMPTY, one), once=False) == 0.5


def test_all_of_the_image_for_certain():
    found = of_plane(np.full(SIZE_HW, 255, np.uint8))
    assert expected_dice(found, "cup", found.binary("cup")) == 1


def test_detections_of_a_class_that_comes_often_count_together():
    planes = np.zeros((2, *SIZE_HW), np.uint8)
    planes[0, 2:6, 1:5], planes[1, 4:10, 9:15] = 200, 150
    window = (0, 0, SIZE_HW[1], SIZE_HW[0])
    evidence = tuple((s, SoftMask(window, p)) for s, p in zip((0.9, 0.7), planes, strict=True))
    found = Prediction("a", SIZE_HW, "instance", {"cup": evidence})
    p = planes.max(axis=0) / 255
    mask = p >= 0.5
    expected = 2 * (p * mask).sum() / (p.sum() + mask.sum())
    value = expected_dice(found, "cup", found.binary("cup", once=False), once=False)
    assert value == pytest.approx(expected)
