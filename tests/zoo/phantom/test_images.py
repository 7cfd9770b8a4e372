"""The physics of the phantom's pictures."""

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace
from zoo.phantom.anatomy import NEUTRAL, draw_hands
from zoo.phantom.annotation import draw_polygon
from zoo.phantom.bone import draw_quality, project_skeleton
from zoo.phantom.radiograph import draw_build, render_hand
from zoo.phantom.tissue import project_flesh
from zoo.phantom.wear import KINDS, Wear, cut_fingertip, draw_wear, wear_attenuation

SIZE = 256
LABELS = LabelSpace.load("hand_bones")


def hand(seed, size=SIZE):
    rngs = [np.random.default_rng((seed, stage)) for stage in range(3)]
    return draw_hands(rngs[0], (rngs[1], rngs[2]), NEUTRAL, size)[0]


def render(one, seed, wear=None):
    build = draw_build(np.random.default_rng((seed, 0)))
    return render_hand(one, build, wear or Wear(), np.random.default_rng((seed, 1)))


def masks(one):
    found = np.zeros((len(LABELS), one.size, one.size), np.uint8)
    for plane, line in zip(found, one.outlines, strict=True):
        cv2.fillPoly(plane, [draw_polygon(line, one.size, np.random.default_rng(0))], 1)
    return found.astype(bool)


@pytest.mark.slow
def test_overlapping_carpals_are_brighter():
    brighter = []
    for seed in range(4):
        one = hand(seed, 512)
        image = render(one, seed)
        carpals = masks(one)[[LABELS.index[name] for name in LABELS.groups["carpals"]]].sum(axis=0)
        brighter.append(image[carpals >= 2].mean() - image[carpals == 1].mean())
    assert min(brighter) > 10


def test_air_flesh_and_bone_differ_in_grey():
    for seed in range(3):
        one = hand(seed)
        image = render(one, seed)
        flesh = project_flesh(one, 1.0, np.random.default_rng(0)) > 8
        bone = masks(one).any(axis=0)
        near = cv2.dilate(bone.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        air = ~cv2.dilate(flesh.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool)
        levels = [np.mean(image[where]) for where in (air & ~near, flesh & ~near, bone)]
        assert levels[0] + 15 < levels[1] < levels[2] - 30
        assert image.dtype == np.uint8
        assert image.shape == (SIZE, SIZE)


def test_shafts_have_bright_edges_and_a_dark_canal():
    one = hand(2, 1024)
    bone = project_skeleton(one, draw_quality(np.random.default_rng(0)), np.random.default_rng(0))
    index = LABELS.index["finger-7"]
    middle = (one.tips[index] + one.bases[index]) / 2
    axis = one.tips[index] - one.bases[index]
    normal = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    line = middle + np.linspace(-40, 40, 161)[:, None] * normal
    profile = cv2.remap(bone, line[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]
    assert profile[70:91].min() < 0.8 * min(profile[:70].max(), profile[91:].max())


def test_bones_lie_within_the_flesh():
    one = hand(1)
    flesh = project_flesh(one, 0.92, np.random.default_rng(0)) > 0
    assert flesh[masks(one).any(axis=0)].mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_wear_changes_the_picture_where_it_is(kind):
    one = hand(3)
    plain = render(one, 3)
    worn = render(cut_fingertip(one, Wear(kind)) if kind == "cut" else one, 3, Wear(kind))
    assert (plain != worn).any()
    flesh = project_flesh(one, 1.0, np.random.default_rng(0))
    extra = wear_attenuation(one, Wear(kind), flesh, np.random.default_rng(0))
    assert extra.min() >= 0
    assert (extra > 0).mean() < 0.05
    assert (extra > 0).any() == (kind != "cut")


def test_wear_comes_in_its_share():
    found = [bool(draw_wear(np.random.default_rng(i), 0.3).kind) for i in range(400)]
    assert 0.22 < np.mean(found) < 0.38
