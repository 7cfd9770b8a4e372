from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box

from converters.masks import (
    EMPTY,
    CropMask,
    crop,
    decode_coco_rle,
    decode_rle,
    encode_coco_rle,
    encode_rle,
    outline,
    outlines,
    pack,
    rasterize,
    rasterize_labels,
    rings,
    tight_box,
    union,
    union_box,
    unpack,
    unpack_labels,
)
from converters.types import Instance, LabelSpace

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def planes(max_side: int = 14) -> st.SearchStrategy[np.ndarray]:
    shape = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=max_side)
    return hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))


def dense(height: int, width: int, *pixels: tuple[int, int]) -> np.ndarray:
    plane = np.zeros((height, width), np.uint8)
    for row, column in pixels:
        plane[row, column] = 1
    return plane


PLANES = {
    "empty": np.zeros((5, 7), np.uint8),
    "full": np.ones((5, 7), np.uint8),
    "one pixel": dense(5, 7, (2, 3)),
    "first pixel": dense(5, 7, (0, 0)),
    "last pixel": dense(5, 7, (4, 6)),
    "run over a row's end": dense(5, 7, (1, 5), (1, 6), (2, 0), (2, 1)),
    "both side columns": dense(4, 3, (0, 0), (0, 2), (1, 0), (1, 2), (3, 2)),
    "ring": np.pad(np.pad(np.zeros((1, 3), np.uint8), 1, constant_values=1), 1),
    "two parts": dense(5, 7, (0, 1), (4, 5)),
    "diagonal": np.eye(6, dtype=np.uint8),
    "wide": np.ones((1, 9), np.uint8),
    "tall": np.ones((9, 1), np.uint8),
}


@pytest.fixture(params=sorted(PLANES))
def plane(request):
    return PLANES[request.param]


def plain_rle(plane: np.ndarray) -> str:
    """Read the rule aloud: row-major, from 1, start and length."""
    runs: list[int] = []
    previous = 0
    for place, value in enumerate(plane.ravel().tolist(), start=1):
        if value and not previous:
            runs += [place, 0]
        if value:
            runs[-1] += 1
        previous = value
    return " ".join(map(str, runs))


# --- crops


def test_crop_is_tight_and_comes_back(plane):
    mask = crop(plane)
    np.testing.assert_array_equal(mask.full(plane.shape), plane)
    assert mask.area == plane.sum()
    if mask.area:
        assert all(side.any() for side in (*mask.pixels[[0, -1]], *mask.pixels[:, [0, -1]].T))


def test_crop_takes_any_dtype():
    assert crop(np.array([[0, 0.25]])).box_xywh == (1, 0, 1, 1)
    assert crop(np.array([[False, True]])).area == 1


@pytest.mark.parametrize("box_xywh", [(0, 0, 6, 6), (2, 1, 3, 9), (5, 5, 2, 2), (20, 0, 3, 3)])
def test_window_is_the_image_cut(box_xywh):
    mask = CropMask(3, 2, np.ones((4, 2), np.uint8))
    x, y, width, height = box_xywh
    expected = mask.full((40, 40))[y : y + height, x : x + width]
    np.testing.assert_array_equal(mask.window(box_xywh), expected)


@pytest.mark.parametrize(
    ("x", "pixels"),
    [(-1, np.zeros((2, 2), np.uint8)), (0, np.zeros((2, 2))), (0, np.zeros(3, np.uint8))],
)
def test_crop_mask_refuses(x, pixels):
    with pytest.raises(ValueError, match="mask crop: expected"):
        CropMask(x, 0, pixels)


def test_union_of_boxes():
    a, b = crop(dense(9, 9, (1, 2))), crop(dense(9, 9, (5, 3), (6, 8)))
    assert union_box([a, EMPTY, b]) == (2, 1, 7, 6)
    assert union_box([EMPTY]) == (0, 0, 0, 0)
    np.testing.assert_array_equal(union(a, b).full((9, 9)), a.full((9, 9)) | b.full((9, 9)))


# --- polygons


def test_rasterize_is_fillpoly_on_the_whole_image(sample):
    for instance in sample.instances:
        expected = np.zeros(sample.size_hw, np.uint8)
        for part in instance.parts:
            rings = [part.exterior, *part.interiors]
            points = [np.floor(np.array(ring.coords)[:-1] + 0.5).astype(np.int32) for ring in rings]
            one = np.zeros(sample.size_hw, np.uint8)
            expected |= cv2.fillPoly(one, points, (1,))
        mask = rasterize(instance.geometry, sample.size_hw)
        np.testing.assert_array_equal(mask.full(sample.size_hw), expected)


def test_boundary_pixels_belong_to_the_object():
    assert rasterize(box(2, 3, 5, 4), (10, 10)).box_xywh == (2, 3, 4, 2)
    assert rasterize(box(2, 3, 5, 4), (10, 10)).area == 8


def test_a_hole_keeps_its_outline_and_loses_its_inside():
    ring = Polygon(box(0, 0, 9, 9).exterior, [box(3, 3, 6, 6).exterior])
    assert rasterize(ring, (10, 10)).area == 100 - 4


def test_overlapping_parts_are_joined_not_cancelled():
    both = MultiPolygon([box(0, 0, 5, 5), box(3, 3, 8, 8)])
    assert rasterize(both, (10, 10)).full((10, 10))[4, 4] == 1


def test_instances_of_one_label_are_joined():
    twice = [Instance("Ulna", box(0, 0, 1, 1)), Instance("Ulna", box(5, 5, 6, 6))]
    assert rasterize_labels(twice, (10, 10))["Ulna"].area == 8


def test_outside_the_image_is_empty():
    assert rasterize(box(20, 20, 30, 30), (10, 10)).area == 0
    assert rasterize(box(-20, -20, -3, -3), (10, 10)).area == 0


def test_outline_gives_the_pixels_back(plane):
    mask = crop(plane)
    if not mask.area:
        with pytest.raises(ValueError, match="empty"):
            outline(mask)
        return
    np.testing.assert_array_equal(rasterize(outline(mask), plane.shape).full(plane.shape), plane)


@QUICK
@given(planes(20))
@pytest.mark.slow
def test_outline_gives_any_pixels_back(plane):
    if plane.any():
        again = rasterize(outline(crop(plane)), plane.shape)
        np.testing.assert_array_equal(again.full(plane.shape), plane)


def test_outlines_are_those_of_each_mask():
    rng = np.random.default_rng(3)
    planes = [rng.random(rng.integers(1, 20, 2)) < share for share in (0.2, 0.5, 0.9) * 20]
    masks = [mask for plane in planes if (mask := crop(plane)).area]
    assert [found.wkb for found in outlines(masks)] == [outline(mask).wkb for mask in masks]
    for mask, found in zip(masks, outlines(masks), strict=True):
        parts = found.geoms if isinstance(found, MultiPolygon) else [found]
        drawn = [(part.exterior, *part.interiors) for part in parts]
        for polygon, (shell, holes) in zip(drawn, rings(mask), strict=True):
            for line, ring in zip(polygon, (shell, *holes), strict=True):
                assert np.array_equal(line.coords[: len(ring)], ring)
    assert outlines([]) == []
    with pytest.raises(ValueError, match="found an empty one"):
        outlines([*masks, EMPTY])


def test_outline_knows_parts_and_holes():
    ring = np.pad(np.pad(np.zeros((3, 3), np.uint8), 1, constant_values=1), 1)
    both = np.hstack([ring, ring])
    geometry = outline(crop(both))
    assert isinstance(geometry, MultiPolygon)
    assert [len(part.interiors) for part in geometry.geoms] == [1, 1]


# --- row-major run lengths


def test_rle_is_the_plain_rule(plane):
    assert encode_rle(crop(plane), plane.shape) == plain_rle(plane)


def test_rle_does_not_depend_on_the_crop(plane):
    loose = CropMask(0, 0, plane)
    assert encode_rle(loose, plane.shape) == plain_rle(plane)


@QUICK
@given(planes())
def test_rle_round_trip(plane):
    code = encode_rle(crop(plane), plane.shape)
    assert code == plain_rle(plane)
    np.testing.assert_array_equal(decode_rle(code, plane.shape).full(plane.shape), plane)


def test_rle_joins_rows_of_a_wide_mask():
    assert encode_rle(crop(np.ones((2, 3), np.uint8)), (2, 3)) == "1 6"


def test_rle_of_runs_that_touch():
    assert decode_rle("1 2 3 1", (2, 4)).area == 3


@pytest.mark.parametrize(
    ("code", "size_hw", "expected_box"),
    [
        ("4 4", (3, 5), (0, 0, 5, 2)),
        ("2 3 12 1", (3, 5), (1, 0, 3, 3)),
        ("5 1 6 1", (2, 5), (0, 0, 5, 2)),
        ("7 1 8 1 9 2", (3, 5), (1, 1, 4, 1)),
        ("1 15", (3, 5), (0, 0, 5, 3)),
        ("10 1 15 1", (3, 5), (4, 1, 1, 2)),
    ],
)
def test_rle_decodes_to_a_tight_crop(code, size_hw, expected_box):
    mask = decode_rle(code, size_hw)
    plane = np.zeros(size_hw[0] * size_hw[1], np.uint8)
    for start, length in np.array(code.split(), int).reshape(-1, 2):
        plane[start - 1 : start - 1 + length] = 1
    assert mask.box_xywh == expected_box
    np.testing.assert_array_equal(mask.full(size_hw), plane.reshape(size_hw))


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int8, np.float32, np.int64])
def test_crop_of_two_columns_and_of_parts_of_an_array(dtype):
    plane = np.zeros((9, 8), dtype)
    plane[2:5, 1] = 7
    assert crop(plane[:, :2]).box_xywh == (1, 2, 1, 3)
    assert crop(plane[::2, 1::2]).box_xywh == (0, 1, 1, 2)
    assert crop(plane[::-1]).box_xywh == (1, 4, 1, 3)
    assert crop(plane[2:5, 1:2]).pixels.max() == 1


def test_rle_of_nothing():
    assert encode_rle(EMPTY, (4, 4)) == ""
    assert decode_rle(" ", (4, 4)).area == 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1", "pairs"),
        ("a b", "whole numbers"),
        ("1.5 2", "whole numbers"),
        ("99999999999999999999 1", "whole numbers"),
        ("0 2", "at least 1"),
        ("2 0", "at least 1"),
        ("3 -1", "at least 1"),
        ("12 2", r"up to 12 \(3 x 4\), found 13"),
        ("1 9223372036854775807", "up to 12"),
        ("5 2 1 2", "sorted"),
        ("1 3 2 2", "do not overlap"),
    ],
)
def test_rle_refuses(code, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(code, (3, 4))


# --- COCO's run lengths


def test_coco_rle_is_that_of_pycocotools(plane):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(plane))
    ours = encode_coco_rle(crop(plane), plane.shape)
    assert ours["counts"] == theirs["counts"].decode("ascii")
    assert ours["size"] == theirs["size"]
    np.testing.assert_array_equal(decode_coco_rle(theirs).full(plane.shape), plane)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@QUICK
@given(planes(40))
def test_coco_rle_round_trip(plane):
    coco = pytest.importorskip("pycocotools.mask")
    code = encode_coco_rle(crop(plane), plane.shape)
    np.testing.assert_array_equal(coco.decode(code), plane)
    np.testing.assert_array_equal(decode_coco_rle(code).full(plane.shape), plane)


def test_coco_rle_that_is_not_compressed():
    mask = decode_coco_rle({"size": [3, 2], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(mask.full((3, 2)), [[0, 0], [1, 0], [1, 0]])


@pytest.mark.parametrize("counts", ["", "~~", "P", [1, 2], [7, -1]])
def test_coco_rle_refuses(counts):
    with pytest.raises(ValueError, match="COCO RLE"):
        decode_coco_rle({"size": [3, 2], "counts": counts})


# --- bit-packed masks


@pytest.mark.parametrize("classes", [1, 8, 9, 11, 29, 32, 33])
def test_pack_and_unpack(classes):
    space = LabelSpace("some", tuple(f"c{i}" for i in range(classes)))
    stack = np.random.default_rng(classes).integers(0, 2, (classes, 6, 9)).astype(np.uint8)
    stack[classes // 2] = 0
    masks = {f"c{i}": crop(plane) for i, plane in enumerate(stack)}
    packed = pack(masks, space, (6, 9))
    assert packed.shape == (6, 9, -(-classes // 8))
    np.testing.assert_array_equal(unpack(packed, classes), stack)
    again = unpack_labels(packed, space)
    assert set(again) == {name for name, mask in masks.items() if mask.area}
    for name, mask in again.items():
        np.testing.assert_array_equal(mask.full((6, 9)), masks[name].full((6, 9)))


@QUICK
@given(hnp.arrays(np.uint8, (29, 5, 4), elements=st.integers(0, 1)))
def test_pack_round_trip(labels, stack):
    masks = {name: crop(plane) for name, plane in zip(labels.names, stack, strict=True)}
    np.testing.assert_array_equal(unpack(pack(masks, labels, (5, 4)), 29), stack)


def test_bit_and_channel_of_a_class(labels):
    packed = pack({"finger-10": crop(np.ones((1, 1), np.uint8))}, labels, (1, 1))
    assert packed.tolist() == [[[0, 2, 0, 0]]]


def test_pack_refuses_an_unknown_label(labels):
    with pytest.raises(ValueError, match="label of 'hand_bones', found 'tooth'"):
        pack({"tooth": EMPTY}, labels, (4, 4))


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_halves_are_rounded_alike_wherever_they_lie(shift):
    square = Polygon([(9.5, 9.5), (19.5, 9.5), (19.5, 19.5), (9.5, 19.5)])
    moved = rasterize(translate(square, shift, shift), (40, 40))
    assert tight_box(moved) == (10 + shift, 10 + shift, 11, 11)
    assert moved.area == 11 * 11
