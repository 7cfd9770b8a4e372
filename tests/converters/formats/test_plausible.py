from __future__ import annotations

import json

import pytest

import converters
from converters.formats.plausible import (
    are_normalised,
    check_area,
    check_box,
    check_place,
    shows_pixels,
)
from converters.types import Frame

SIZE = (240, 320)
ULNA = "Ulna"


@pytest.mark.parametrize(
    ("polygons", "size_hw", "expected"),
    [
        ([[0.1, 0.2, 0.35, 0.2, 0.35, 0.45]], SIZE, True),
        ([[-0.02, 0.2, 1.01, 0.2, 0.35, 0.45], [0.5, 0.5, 1, 1, 1, 0.5]], SIZE, True),
        ([[0.1, 0.2, 0.35, 0.2, 0.35, 0.45], [10, 20, 30, 20, 30, 40]], SIZE, False),
        ([[0, 0, 1, 0, 1, 1]], SIZE, False),
        ([[0, 0, 0.5, 0, 0.5, 0.5]], SIZE, True),
        ([[0.5, 0, 1, 0.5, 0.5, 1, 0, 0.5]], SIZE, False),
        ([[0, -0.5, 0.5, 0, 0, 0.5, -0.5, 0]], SIZE, False),
        ([[2e-5, -1e-5, 2e-5, -1e-5, 2e-5, -1e-5]], SIZE, False),
        ([[0.3], [0.3, 0.2, 0.9], []], SIZE, True),
        ([[0.25, 0.2, 0.26, 0.2, 0.26, 0.21]], SIZE, True),
        ([[0.5, 0, 1, 0.5, 0.5, 1, 0, 0.5], [0.1, 0.2, 0.35, 0.2, 0.35, 0.45]], SIZE, True),
        ([[0.1, 0.2, 0.35, 0.2, 0.35, 0.45]], (5, 7), False),
        ([[float("nan"), 0.2, 0.35, 0.2, 0.35, 0.45]], SIZE, False),
        ([], SIZE, False),
    ],
)
def test_normalised_coordinates(polygons, size_hw, expected):
    assert are_normalised(polygons, size_hw) == expected


PART = (0.1, 0.2, 0.9, 0.8)


@pytest.mark.parametrize(
    ("box", "area", "expected"),
    [
        ([0, 0, 1, 1], None, True),
        (None, 1, True),
        ([0.1, 0.2, 0.8, 0.6], 0.48, False),
        ([32, 48, 256, 144], 36864, False),
        ([0.1, 0.2, 0.8, 0.6], 36864, False),
        (None, None, False),
        ("box", "area", False),
        ([1], [1], False),
    ],
)
def test_what_shows_that_a_small_object_is_in_pixels(box, area, expected):
    assert shows_pixels(PART, box, area, SIZE) == expected


@pytest.mark.parametrize(
    "bounds",
    [(10, 10, 30, 40), (-20, -9, 330, 250), (300, 10, 420, 60), (-300, -200, 310, 230)],
    ids=["inside", "a little beyond", "mostly beyond", "large"],
)
def test_places_in_the_image(bounds):
    check_place(bounds, SIZE)


@pytest.mark.parametrize(
    "bounds",
    [
        (330, 10, 350, 60),
        (10, -60, 30, -1),
        (10, 10, 9000, 60),
        (100, 60, 620, 470),
        (5000, 10, 5001, 11),
    ],
    ids=["beside", "above", "one point far away", "twice the size", "far away"],
)
def test_places_of_another_image(bounds):
    with pytest.raises(ValueError, match="expected points in an image of 240 x 320"):
        check_place(bounds, SIZE)


FOUND = (64.0, 96.0, 224.0, 216.0)
SAID = {
    "x, y, width, height": [64, 96, 160, 120],
    "rounded": [62.5, 95.1, 164, 123],
    "drawn loosely": [50, 80, 200, 150],
    "two corners": [64, 96, 224, 216],
    "parts of the sides": [0.2, 0.4, 0.5, 0.5],
    "cut to the image": [64, 96, 160, 120],
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_boxes_that_agree(said):
    assert check_box(said, [FOUND], SIZE)


def test_a_box_that_is_cut_to_the_image_agrees():
    assert check_box([300, 10, 20, 100], [(300.0, 10.0, 420.0, 110.0)], SIZE)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        [0, 0, 0, 0],
        [5, 5, -3, 2],
        [1, 2, 3],
        ["1", "2", "3", "4"],
        [1, 2, 3, float("nan")],
        [1, 2, 10**400, 4],
        [1e300, 2, float("inf"), 4],
        "box",
        {"x": 1},
    ],
)
def test_boxes_that_say_nothing(said):
    assert not check_box(said, [FOUND], SIZE)


@pytest.mark.parametrize(
    "said",
    [
        [32, 48, 80, 60],
        [128, 192, 320, 240],
        [0.5, 0.1, 0.2, 0.1],
        [0, 0, 10, 10],
        [1e300, 2, 3, 4],
    ],
)
def test_boxes_somewhere_else(said):
    with pytest.raises(ValueError, match="found x 64 to 224 and y 96 to 216: mend what is wrong"):
        check_box(said, [FOUND], SIZE)


def test_small_objects_may_differ_by_some_pixels():
    assert check_box([10, 10, 1, 1], [(12.0, 13.0, 14.0, 14.5)], SIZE)


@pytest.mark.parametrize("said", [9600, 19200, 2400, 0, None, "9600", float("nan"), -5, 10**400])
def test_areas_that_agree_or_say_nothing(said):
    check_area(said, 9600, FOUND)


@pytest.mark.parametrize(("said", "pixels"), [(9600, 1), (300, 9600), (1e300, 5)])
def test_areas_of_another_scale(said, pixels):
    with pytest.raises(ValueError, match="pixels as 'area' says"):
        check_area(said, pixels, (0.0, 0.0, 5.0, 5.0))


# --- in the competition's tree


def problems(tree, labels):
    return [str(p) for p in converters.scan(tree.root, labels=labels)[1]]


def test_a_tree_with_normalised_points(tree, labels):
    tree.hand(
        "ID001/a",
        (ULNA, [[0.1, 0.2], [0.35, 0.2], [0.35, 0.45]]),
        ("Radius", [[0.5, 0.5], [0.6, 0.5], [0.6, 0.7]]),
    )
    (found,) = problems(tree, labels)
    assert found.startswith(
        "train/outputs_json/ID001/a.json: expected points in pixels of an image"
    )


def test_a_tree_with_points_far_outside(tree, labels):
    tree.hand(
        "ID001/a", (ULNA, [[10, 10], [20, 10], [20, 20]]), ("Radius", [[1, 1], [9, 9], [9, 900]])
    )
    samples, (found,) = converters.scan(tree.root, labels=labels)
    assert str(found).startswith("train/outputs_json/ID001/a.json: 'Radius': expected points in an")
    assert [i.label for i in samples[0].instances] == [ULNA]


def test_objects_of_a_crop_may_go_on_beyond_it(tree, labels):
    tree.hand("ID001/a", (ULNA, [[10, 10], [500, 10], [20, 300]]))
    frame = {"box_xywh": [0, 0, 60, 40], "full_hw": [400, 600]}
    place = "train/DCM/ID001/a"
    record = {place: {"key": place, "group": "ID001", "frame": frame}}
    (tree.root / "images.json").write_text(json.dumps(record), encoding="utf-8")
    assert problems(tree, labels) == []
    assert converters.read(tree.root, labels=labels)[0].frame == Frame((0, 0, 60, 40), (400, 600))
