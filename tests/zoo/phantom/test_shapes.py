"""Hand shapes and the polygons drawn around them."""

from itertools import chain

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace
from zoo.phantom.anatomy import BENT, FOREARM, MODEL_SIDE, NEUTRAL, draw_hands, load_model
from zoo.phantom.annotation import clip_to_image, draw_polygon, draw_polygons, split_polygon
from zoo.phantom.wear import Wear, cut_fingertip

NAMES = LabelSpace.load("hand_bones").names


def hands(seed, posture=NEUTRAL, size=MODEL_SIDE):
    rngs = [np.random.default_rng((seed, stage)) for stage in range(3)]
    return draw_hands(rngs[0], (rngs[1], rngs[2]), posture, size)


def fill(points, size):
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [points], 1)
    return mask


def overlap(one, other, size):
    a, b = fill(one, size).astype(bool), fill(other, size).astype(bool)
    return (a & b).sum() / (a | b).sum()


def test_model_has_one_outline_per_class():
    assert load_model().bones == len(NAMES)


@pytest.mark.slow
def test_overlaps_are_those_of_the_anatomy_notes():
    shared, carpals, thumb_base = [], [], []
    for seed in range(30):
        for hand in hands(seed, BENT if seed % 12 < 7 else NEUTRAL):
            rng = np.random.default_rng(seed)
            drawn = {
                name: draw_polygon(line, hand.size, rng)
                for name, line in zip(NAMES, hand.outlines, strict=True)
            }
            count = sum(fill(points, hand.size) for points in drawn.values())
            shared.append(100 * (count >= 2).mean())
            carpals.append(overlap(drawn["Triquetrum"], drawn["Pisiform"], hand.size))
            thumb_base.append(overlap(drawn["Trapezium"], drawn["Trapezoid"], hand.size))
    assert 0.38 <= np.mean(shared) <= 0.52
    assert 0.34 <= np.mean(carpals) <= 0.47
    assert 0.14 <= np.mean(thumb_base) <= 0.24


def test_hands_of_one_person_are_mirrored_and_alike():
    right, left = hands(3)
    stranger, _ = hands(4)
    assert (right.mirrored, left.mirrored) == (False, True)
    thumb, little = NAMES.index("finger-3"), NAMES.index("finger-19")
    assert right.tips[thumb, 0] < right.tips[little, 0]
    assert left.tips[thumb, 0] > left.tips[little, 0]
    alike = np.corrcoef(
        right.vector - load_model().param_mean[NEUTRAL],
        left.vector - load_model().param_mean[NEUTRAL],
    )[0, 1]
    other = np.corrcoef(
        right.vector - load_model().param_mean[NEUTRAL],
        stranger.vector - load_model().param_mean[NEUTRAL],
    )[0, 1]
    assert alike > 0.8 > 0.5 > other


def test_size_changes_the_raster_only():
    small, large = hands(5, size=256)[1], hands(5, size=2048)[1]
    assert np.allclose((small.tips + 0.5) * 8, large.tips + 0.5)


def test_hand_lies_in_the_image_and_forearm_leaves_it():
    for hand in chain(hands(6), hands(7, BENT)):
        for line, kind in zip(hand.outlines, hand.kind, strict=True):
            inside = (line >= 0).all() and (line <= hand.size - 1).all()
            assert inside == (kind != FOREARM)
            assert (clip_to_image(line, hand.size) <= hand.size - 1).all()


@pytest.mark.parametrize(("size", "dice"), [(256, 0.94), (512, 0.96), (2048, 0.985)])
def test_polygon_fills_the_pixels_of_its_outline(size, dice):
    hand = hands(8, size=size)[0]
    for line in hand.outlines:
        points = draw_polygon(line, size, np.random.default_rng(0))
        dense = np.rint(clip_to_image(line, size)).astype(np.int32)
        drawn, whole = fill(points, size), fill(dense, size)
        assert 2 * (drawn & whole).sum() / (drawn.sum() + whole.sum()) > dice
        assert points.dtype == np.int32
        assert len(points) <= 130


@pytest.mark.parametrize("size", [256, 2048])
def test_both_parts_of_a_bone_fill_the_pixels_of_the_whole(size):
    hand = hands(9, size=size)[0]
    split = 0
    for bone, line in enumerate(hand.outlines):
        whole = draw_polygon(line, size, np.random.default_rng(bone))
        parts = split_polygon(whole, hand.bases[bone], hand.tips[bone])
        union = np.maximum.reduce([fill(part, size) for part in parts])
        assert np.array_equal(union, fill(whole, size))
        if len(parts) == 2:
            split += 1
            assert (fill(parts[0], size) & fill(parts[1], size)).any()
    assert split > 20


def test_annotator_draws_in_any_order_and_a_label_twice():
    hand = hands(10, size=512)[0]
    drawn = draw_polygons(hand, np.random.default_rng(0), split_share=1.0)
    bones = [bone for bone, _ in drawn]
    assert sorted(set(bones)) == list(range(len(NAMES)))
    assert len(bones) == len(NAMES) + 1
    assert bones != sorted(bones)


def test_cut_fingertip_shortens_outline_and_finger():
    hand = hands(11, size=512)[0]
    bone = NAMES.index("finger-8")
    cut = cut_fingertip(hand, Wear("cut", digit=2, place=0.5))
    length = np.linalg.norm(hand.tips[bone] - hand.bases[bone])
    assert np.linalg.norm(cut.tips[bone] - hand.bases[bone]) == pytest.approx(length / 2)
    assert np.ptp(cut.outlines[bone][:, 1]) < 0.7 * np.ptp(hand.outlines[bone][:, 1])
    others = [b for b in range(len(NAMES)) if b != bone]
    assert all(cut.outlines[b] is hand.outlines[b] for b in others)
