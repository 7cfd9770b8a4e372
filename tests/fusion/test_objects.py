"""Objects of a class kept apart: what touches, what is cut in two, what nobody has detected."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.masks import CropMask, crop, union
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.objects import detections_of, parts_of, split_mask, split_masks, split_prediction
from fusion.types import Prediction, SoftMask

SIZE_HW = (40, 60)
CELLS = LabelSpace("cells", ("cell", "rest"), background="rest")


def box(x: int, y: int, width: int, height: int) -> CropMask:
    return CropMask(x, y, np.ones((height, width), np.uint8))


def join(*masks: CropMask) -> CropMask:
    return reduce(union, masks)


def drawn(masks) -> set[bytes]:
    return {mask.full(SIZE_HW).tobytes() for mask in masks}


LEFT, RIGHT, FAR = box(2, 2, 10, 10), box(12, 2, 10, 10), box(40, 20, 8, 8)


def test_without_detections_each_connected_part_is_an_object() -> None:
    mask = join(LEFT, RIGHT, FAR)
    assert drawn(split_mask(mask, [])) == drawn([union(LEFT, RIGHT), FAR])
    corner = CropMask(0, 0, np.eye(2, dtype=np.uint8))
    assert len(parts_of(corner)) == 1


def test_what_touches_is_kept_apart_as_it_was_seen() -> None:
    found = split_mask(join(LEFT, RIGHT, FAR), [RIGHT, LEFT])
    assert drawn(found) == drawn([LEFT, RIGHT, FAR])


def test_pixels_that_nobody_has_seen_go_to_the_nearest() -> None:
    seen = [box(3, 3, 7, 7), box(14, 3, 7, 7)]
    assert drawn(split_mask(union(LEFT, RIGHT), seen)) == drawn([LEFT, RIGHT])


def test_the_surest_takes_what_two_have_seen() -> None:
    same = [LEFT, box(3, 2, 9, 10), RIGHT]
    assert drawn(split_mask(union(LEFT, RIGHT), same)) == drawn([LEFT, RIGHT])


def test_what_lies_elsewhere_is_no_object() -> None:
    assert drawn(split_mask(LEFT, [FAR, box(9, 2, 20, 10)])) == drawn([LEFT])


def test_an_object_in_two_parts_is_one() -> None:
    halves = union(box(2, 2, 10, 4), box(2, 8, 10, 4))
    assert drawn(split_mask(halves, [LEFT])) == drawn([halves])
    assert len(split_mask(halves, [])) == 2


def test_a_few_pixels_of_a_neighbour_do_not_take_a_part() -> None:
    mask = union(box(2, 2, 10, 10), box(13, 2, 20, 10))
    seen = [box(2, 2, 12, 10)]
    assert drawn(split_mask(mask, seen)) == drawn([box(2, 2, 10, 10), box(13, 2, 20, 10)])


BOXES = st.builds(
    box, st.integers(0, 40), st.integers(0, 25), st.integers(1, 15), st.integers(1, 12)
)


@settings(deadline=None)
@given(st.lists(BOXES, min_size=1, max_size=6), st.lists(BOXES, max_size=6))
def test_objects_share_nothing_and_leave_nothing(masks, detections) -> None:
    mask = join(*masks)
    found = split_mask(mask, detections)
    total = sum((own.full(SIZE_HW).astype(int) for own in found), np.zeros(SIZE_HW, int))
    assert np.array_equal(total, mask.full(SIZE_HW))
    assert all(own.area for own in found)


# --- predictions


def soft(mask: CropMask, value: int = 255) -> SoftMask:
    x, y, width, height = mask.box_xywh
    return SoftMask(
        (float(x), float(y), float(width), float(height)), mask.pixels * np.uint8(value)
    )


def seen(*scored: tuple[float, CropMask]) -> Prediction:
    masks = {"cell": tuple((score, soft(mask)) for score, mask in scored)}
    return Prediction("a", SIZE_HW, "instance", masks)


def test_detections_of_all_instance_sources_the_surest_first() -> None:
    whole = Prediction("a", SIZE_HW, "semantic", {"cell": ((1.0, soft(FAR)),)})
    sources = [seen((0.6, LEFT), (0.2, FAR)), whole, seen((0.9, RIGHT))]
    found = detections_of(sources, "cell")
    assert [mask.box_xywh for mask in found] == [RIGHT.box_xywh, LEFT.box_xywh]


def test_what_occurs_once_is_one_object_and_the_background_none() -> None:
    both = {"cell": union(LEFT, FAR), "rest": RIGHT}
    assert list(split_masks(both, [], CELLS)) == ["cell"]
    once = LabelSpace("cells", ("cell", "rest"), once=True)
    assert [len(found) for found in split_masks(both, [], once).values()] == [1, 1]


def test_a_prediction_of_objects_has_their_mean_probability() -> None:
    values = union(LEFT, RIGHT).full(SIZE_HW) * np.uint8(200)
    values[:, :12] = np.minimum(values[:, :12], 150)
    values[30, 50] = 90
    fused = Prediction(
        "a", SIZE_HW, "semantic", {"cell": ((1.0, SoftMask((0, 0, 60, 40), values)),)}
    )
    found = split_prediction(fused, [seen((0.9, LEFT), (0.8, RIGHT))], CELLS)
    assert found.kind == "instance"
    assert [score for score, _ in found.masks["cell"]] == pytest.approx([200 / 255, 150 / 255])
    assert drawn(mask.binary(SIZE_HW) for _, mask in found.masks["cell"]) == drawn([LEFT, RIGHT])
    rendered = found.evidence("cell", once=False)[1].render((0, 0, 60, 40))
    assert np.array_equal(rendered, np.where(values >= 128, values, 0))


def test_nothing_is_nothing() -> None:
    none = Prediction("a", SIZE_HW, "semantic", {})
    assert dict(split_prediction(none, [none], CELLS).masks) == {}
    assert split_mask(crop(np.zeros(SIZE_HW, np.uint8)), [LEFT]) == []


def test_where_a_pixel_has_one_label_no_pixel_is_lost() -> None:
    """The likeliest class may be less than one half; its objects are stored as decided."""
    waste = LabelSpace("w", ("cup", "can", "rest"), background="rest", exclusive="large_first")
    levels = {"cup": 110, "can": 100, "rest": 45}
    masks = {name: ((1.0, soft(LEFT, value)),) for name, value in levels.items()}
    fused = Prediction("a", SIZE_HW, "semantic", masks)
    before = binary_masks(fused, waste)
    after = binary_masks(split_prediction(fused, [fused], waste), waste)
    assert before["cup"].area == LEFT.area
    for name in ("cup", "can"):
        assert np.array_equal(before[name].full(SIZE_HW), after[name].full(SIZE_HW))
