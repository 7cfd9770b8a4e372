"""Flags on hands of a made-up label space, planted faults, and closed forms."""

import json

import cv2
import numpy as np
import pytest
import yaml

from converters.masks import CropMask, crop, union
from converters.types import LabelSpace
from fusion.checks.adjacency import Adjacency
from fusion.checks.layout import _offsets
from fusion.rules.schema import DataclassReader, plain

pytestmark = pytest.mark.slow

SIZE_HW = (220, 300)
# x, y and radius: two rays of three bones, a wrist of four, a forearm at the lower border.
HAND = {
    "tip_1": (90, 20, 6),
    "mid-1": (92, 50, 8),
    "base 1": (95, 85, 10),
    "tip_2": (140, 15, 7),
    "mid-2": (138, 48, 9),
    "base 2": (134, 84, 11),
    "a": (92, 116, 8),
    "b": (112, 112, 10),
    "c": (134, 117, 9),
    "d": (150, 125, 6),
    "Radius": (100, 165, 16),
    "Ulna": (145, 170, 13),
}
LABELS = LabelSpace("toy_hand", tuple(HAND), once=True)


def draw_hand(seed, *, wobble=1.2, bend=0.15, mirrored=None):
    """One hand, turned, scaled, moved and perhaps mirrored; the forearm bends about the wrist."""
    rng = np.random.default_rng(seed)
    points = np.array([complex(x, y) for x, y, _ in HAND.values()])
    points = points + rng.normal(scale=wobble, size=(2, len(points))).T @ [1, 1j]
    points[-2:] = 115 + 120j + (points[-2:] - (115 + 120j)) * np.exp(1j * rng.normal(scale=bend))
    is_mirrored = rng.random() < 0.5 if mirrored is None else mirrored
    points = points - (115 + 95j)
    points = -points.conj() if is_mirrored else points
    scale, turn = rng.uniform(0.9, 1.1), rng.normal(scale=0.1)
    points = points * scale * np.exp(1j * turn) + 150 + rng.uniform(-10, 10) + 105j
    masks = {}
    for (label, (_, _, radius)), point in zip(HAND.items(), points, strict=True):
        plane = np.zeros(SIZE_HW, np.uint8)
        axes = (round(radius * scale * rng.uniform(0.95, 1.05)), round(radius * scale))
        cv2.ellipse(plane, (round(point.real), round(point.imag)), axes, 0, 0, 360, 1, -1)
        masks[label] = crop(plane)
    return masks


@pytest.fixture(scope="module")
def adjacency():
    return Adjacency.learn(((draw_hand(n), f"ID{n // 2}") for n in range(80)), LABELS)


def moved(mask, dx, dy):
    return CropMask(mask.x + dx, mask.y + dy, mask.pixels)


def relabelled(masks, cycle):
    """Each label of the cycle gets the mask of the next one."""
    return masks | {a: masks[b] for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True)}


def test_sound_hands_are_not_flagged(adjacency):
    flagged = [n for n in range(1000, 1100) if adjacency.check(draw_hand(n))]
    assert len(flagged) <= 1


@pytest.mark.parametrize(
    "cycle",
    [
        ("a", "b"),
        ("c", "d"),
        ("tip_1", "base 1"),
        ("mid-1", "mid-2"),
        ("Radius", "Ulna"),
        ("tip_1", "d"),
        ("a", "b", "c"),
    ],
)
def test_exchanged_labels_are_found(adjacency, cycle):
    for n in range(500, 505):
        flags = adjacency.check(relabelled(draw_hand(n), cycle))
        assert {flag.label for flag in flags if flag.kind == "swapped"} == set(cycle)
        assert {flag.kind for flag in flags} == {"swapped"}


def test_a_flag_says_where_the_bone_belongs(adjacency):
    flags = adjacency.check(relabelled(draw_hand(7), ("a", "b")))
    by_label = {flag.label: flag for flag in flags}
    assert "expected b in its place" in str(by_label["a"])
    assert by_label["a"].distance > 3


def test_exchanged_rays_are_found(adjacency):
    masks = draw_hand(600)
    for part in (("tip_1", "tip_2"), ("mid-1", "mid-2")):
        masks = relabelled(masks, part)
    found = {flag.label for flag in adjacency.check(masks) if flag.kind == "swapped"}
    assert found == {"tip_1", "tip_2", "mid-1", "mid-2"}


@pytest.mark.parametrize("label", ["a", "b", "c", "base 2"])
@pytest.mark.parametrize("away", [(0, 1), (0, -1)])
def test_a_bone_moved_by_its_width_is_found(adjacency, label, away):
    for n in range(700, 705):
        masks = draw_hand(n)
        step = round(1.2 * masks[label].area ** 0.5)
        masks[label] = moved(masks[label], away[0] * step, away[1] * step)
        flags = [flag for flag in adjacency.check(masks) if flag.label == label]
        assert [flag.kind for flag in flags] == ["displaced"]
        assert flags[0].distance > adjacency.places[label].limit


def test_missing_bones_are_named(adjacency):
    masks = draw_hand(8)
    del masks["mid-1"]
    masks["c"] = CropMask(0, 0, np.zeros((0, 0), np.uint8))
    assert [(f.label, f.kind) for f in adjacency.check(masks)] == [
        ("mid-1", "missing"),
        ("c", "missing"),
    ]


def test_an_empty_prediction_lacks_everything(adjacency):
    assert [flag.kind for flag in adjacency.check({})] == ["missing"] * len(LABELS)


def test_few_bones_are_not_compared(adjacency):
    masks = {label: draw_hand(9)[label] for label in ("a", "b", "c")}
    flags = adjacency.check(relabelled(masks, ("a", "c")))
    assert {flag.kind for flag in flags} == {"missing"}


def test_a_far_fragment_is_found_and_does_not_move_the_bone(adjacency):
    masks = draw_hand(10)
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[190:193, 10:14] = 1
    masks["b"] = union(masks["b"], crop(plane))
    (flag,) = adjacency.check(masks)
    assert (flag.label, flag.kind) == ("b", "fragment")
    assert "12 px at x 12, y 191" in flag.text


def split(mask):
    """Two parts, a gap of three columns between them."""
    pixels = mask.pixels.copy()
    middle = pixels.shape[1] // 2
    pixels[:, middle - 1 : middle + 2] = 0
    return CropMask(mask.x, mask.y, pixels)


def test_two_near_parts_are_none(adjacency):
    masks = draw_hand(11)
    masks["base 1"] = split(masks["base 1"])
    assert not [flag for flag in adjacency.check(masks) if flag.kind == "fragment"]


def test_parts_that_true_bones_have_are_usual():
    def hand(n):
        masks = draw_hand(n)
        return masks | {"a": union(masks["a"], moved(masks["a"], 30, 60))}

    learned = Adjacency.learn(((hand(n), f"ID{n}") for n in range(40)), LABELS)
    assert learned.places["a"].apart > 1
    assert not [flag for flag in learned.check(hand(50)) if flag.kind == "fragment"]


def test_a_hole_and_the_other_side_change_little(adjacency):
    masks = draw_hand(12, mirrored=False)
    other = {
        label: CropMask(
            SIZE_HW[1] - mask.x - mask.pixels.shape[1],
            mask.y,
            np.ascontiguousarray(mask.pixels[:, ::-1]),
        )
        for label, mask in masks.items()
    }
    pixels = masks["b"].pixels.copy()
    pixels[8:11, 8:11] = 0
    holed = masks | {"b": CropMask(masks["b"].x, masks["b"].y, pixels)}
    assert adjacency.check(masks) == adjacency.check(other) == adjacency.check(holed) == []


def test_it_is_read_back_from_a_file(adjacency):
    text = json.dumps(plain(adjacency))
    assert len(text) < 10_000
    found = DataclassReader().read(Adjacency, yaml.safe_load(text), "adjacency")
    assert found == adjacency
    masks = relabelled(draw_hand(13), ("b", "Ulna"))
    assert found.check(masks) == adjacency.check(masks)


def test_what_neighbours_give_turns_scales_and_moves_with_them():
    rng = np.random.default_rng(0)
    at = rng.normal(size=9) + 1j * rng.normal(size=9)
    near = np.argsort(np.abs(at[:, None] - at[None]), axis=1)[:, 1:5]
    a, b = 1.7 * np.exp(0.8j), 3 - 2j
    points = a * at + b
    assert np.abs(_offsets(points, at, near)).max() < 1e-12
    away = 0.3 - 0.1j
    points[4] += a * away
    assert _offsets(points, at, near)[4] == pytest.approx(away)


def test_unknown_neighbours_are_left_out_of_the_fit():
    at = np.array([0, 1, 1j, -1, -1j], complex)
    near = np.array([[n for n in range(5) if n != k] for k in range(5)])
    points = 2 * at
    points[1] = np.nan
    offsets = _offsets(points, at, near)
    assert np.isnan(offsets[1])
    assert np.abs(np.delete(offsets, 1)).max() < 1e-12
    points[2] = np.nan
    assert np.isnan(_offsets(points, at, near)).all() or np.isnan(_offsets(points, at, near)[0])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], "at least 12 images with truth, found 0"),
        ([draw_hand(n) for n in range(11)], "at least 12 images with truth, found 11"),
        ([{"a": draw_hand(n)["a"]} for n in range(12)], "at least 4 classes, found 1"),
    ],
)
def test_too_little_to_learn_from_is_refused(images, expected):
    with pytest.raises(ValueError, match=expected):
        Adjacency.learn(((masks, str(n)) for n, masks in enumerate(images)), LABELS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": 2}, "expected version 1, found 2"),
        ({"places": {}}, "expected at least 4 classes, found 0"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(adjacency, change, expected):
    with pytest.raises(ValueError, match=expected):
        DataclassReader().read(Adjacency, plain(adjacency) | change, "")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("neighbours", ["toe"], "unknown class 'toe'"),
        ("covariance", [1.0], "expected 9 numbers"),
        ("covariance", [float("nan")] * 9, "expected finite numbers"),
        ("at", [0.0, float("nan")], "expected finite numbers"),
        ("limit", float("inf"), "expected finite numbers"),
    ],
)
def test_a_place_that_does_not_fit_is_refused(adjacency, key, value, expected):
    record = plain(adjacency)
    record["places"]["a"][key] = value
    with pytest.raises(ValueError, match=f"a: '{key}': {expected}"):
        DataclassReader().read(Adjacency, record, "")
