"""Objects one by one, beside figures that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import box as rectangle

from converters.masks import CropMask
from converters.types import Instance, LabelSpace, Sample
from fusion.metrics.annotated import score
from fusion.metrics.objects import match_objects
from fusion.metrics.summary import summarize_objects
from fusion.types import Prediction, SoftMask

SIZE_HW = (40, 100)
CELLS = LabelSpace("cells", ("cell", "grain"))


def box(x: int, y: int, width: int, height: int) -> CropMask:
    return CropMask(x, y, np.ones((height, width), np.uint8))


@pytest.mark.parametrize(
    ("found", "real", "ious"),
    [
        ([], [], []),
        ([box(0, 0, 10, 10)], [], []),
        ([box(0, 0, 10, 10)], [box(0, 0, 10, 10)], [1.0]),
        ([box(0, 0, 10, 8)], [box(0, 0, 10, 10)], [0.8]),
        ([box(0, 0, 10, 5)], [box(0, 0, 10, 10)], []),  # one half is not enough
        # Two that cover one: one of them is the match, the better one.
        ([box(0, 0, 10, 8), box(0, 0, 10, 9)], [box(0, 0, 10, 10)], [0.9]),
        # Where objects overlap, one may be near two: the pairs together count.
        (
            [box(0, 0, 10, 10), box(0, 0, 10, 8)],
            [box(0, 0, 10, 9), box(0, 0, 10, 12)],
            [8 / 9, 10 / 12],
        ),
    ],
)
def test_matches(found, real, ious) -> None:
    matches = match_objects(found, real)
    assert (matches.predicted, matches.true) == (len(found), len(real))
    assert matches.ious == pytest.approx(tuple(ious))


def predict(key: str, kind: str, *masks: tuple[float, CropMask]) -> Prediction:
    found = tuple(
        (own, SoftMask(tuple(map(float, mask.box_xywh)), mask.pixels * np.uint8(255)))
        for own, mask in masks
    )
    return Prediction(key, SIZE_HW, kind, {"cell": found})


def sample(key: str, *boxes: tuple[int, int, int, int]) -> Sample:
    shapes = [rectangle(x, y, x + w - 1, y + h - 1) for x, y, w, h in boxes]
    instances = tuple(Instance("cell", shape) for shape in shapes)
    return Sample(key, f"{key}.png", SIZE_HW, instances, group=key)


SAMPLES = [
    sample("a", (0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10)),
    sample("b", (0, 0, 10, 10)),
]


def test_panoptic_quality_by_hand() -> None:
    first = predict(
        "a",
        "instance",
        (0.9, box(0, 0, 10, 10)),
        (0.8, box(20, 0, 10, 8)),
        (0.7, box(60, 0, 10, 10)),
        (0.4, box(40, 0, 10, 10)),  # not found: less sure than not
    )
    scores = score([first, predict("b", "instance")], SAMPLES, CELLS, "objects")
    (name,), (found,) = zip(*summarize_objects(scores).items(), strict=True)
    assert name == "cell"
    assert (found.true, found.predicted, found.matched) == (4, 3, 2)
    assert found.sq.mean == pytest.approx((1 + 0.8) / 2)
    assert found.rq.mean == pytest.approx(2 / (2 + 1 / 2 + 2 / 2))
    assert found.pq.mean == pytest.approx(found.sq.mean * found.rq.mean)
    # Image a: IoU 1 is above all ten, .8 above .5, .55, ... .75; 3 + 3 objects. Image b: nothing.
    each = [2 / (6 - 2)] * 6 + [1 / (6 - 1)] * 4
    assert found.dsb.mean == pytest.approx((np.mean(each) + 0) / 2)
    assert found.record()["pq"]["mean"] == pytest.approx(found.pq.mean)


def test_a_plain_mask_shows_its_parts() -> None:
    both = CropMask(0, 0, np.zeros((10, 30), np.uint8))
    both.pixels[:, :10] = both.pixels[:, 20:] = 1
    scores = score([predict("a", "semantic", (1.0, both))], SAMPLES, CELLS, "objects")
    found = summarize_objects(scores)["cell"]
    assert (found.true, found.predicted, found.matched) == (3, 2, 2)


def test_a_class_that_occurs_once_is_one_object() -> None:
    once = LabelSpace("cells", ("cell", "grain"), once=True)
    parts = CropMask(0, 0, np.zeros((10, 50), np.uint8))
    parts.pixels[:, :10] = parts.pixels[:, 20:30] = parts.pixels[:, 40:] = 1
    scores = score([predict("a", "semantic", (1.0, parts))], SAMPLES, once, "objects")
    found = summarize_objects(scores)["cell"]
    assert (found.true, found.predicted, found.pq.mean) == (1, 1, 1)


def test_where_a_pixel_has_one_label_an_object_is_what_is_seen_of_it() -> None:
    painted = LabelSpace("cells", ("cell", "grain"), exclusive="large_first")
    found = predict("a", "instance", (0.9, box(0, 0, 10, 10)), (0.8, box(20, 0, 10, 10)))
    scores = score([found], SAMPLES, painted, "objects")
    assert summarize_objects(scores)["cell"].matched == 2


def test_nothing_asked_nothing_measured() -> None:
    scores = score([predict("a", "instance")], SAMPLES, CELLS, "dice")
    assert summarize_objects(scores) == {}


def test_several_objects_that_are_seen_as_more_parts_are_not_doubled() -> None:
    touching = [sample("a", (0, 0, 10, 10), (10, 0, 10, 10)), sample("b", (0, 0, 20, 10))]
    parts = CropMask(0, 0, np.ones((10, 20), np.uint8))
    parts.pixels[:, 9:11] = 0
    found = [predict(key, "semantic", (1.0, parts)) for key in "ab"]
    several, one = score(found, touching, CELLS, "presence").images
    assert (several.doubled, one.doubled) == ((), ("cell",))


def test_what_no_object_covers_has_none() -> None:
    space = LabelSpace("cells", ("rest", "cell"), background="rest")
    found = Prediction(
        "a",
        SIZE_HW,
        "semantic",
        {"rest": ((1.0, SoftMask((0.0, 20.0, 9.0, 9.0), np.full((9, 9), 255, np.uint8))),)},
    )
    assert list(summarize_objects(score([found], SAMPLES, space, "objects"))) == ["cell"]
