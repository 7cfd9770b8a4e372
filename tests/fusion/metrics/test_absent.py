"""Classes that are neither there nor found: Dice counts 1, and there is no distance."""

import numpy as np
import pytest

from converters.masks import CropMask
from converters.types import LabelSpace
from fusion.metrics.measures import measure_image
from fusion.metrics.scores import Scores
from fusion.metrics.summary import Absent, count_absent, summarize

LABELS = LabelSpace("toys", ("a", "b", "c"))
MASK = CropMask(1, 1, np.ones((3, 3), np.uint8))


def scores(*images):
    measured = [
        measure_image(str(i), found, true, LABELS, (9, 9), ("dice", "hd95", "asd", "ber"))
        for i, (found, true) in enumerate(images)
    ]
    return Scores(LABELS, measured)


def test_pairs_that_count_one_are_told_apart():
    found = scores(({}, {"a": MASK}), ({"b": MASK}, {"a": MASK, "b": MASK}))
    assert found.mean() == pytest.approx((0 + 1 + 1) / 3)
    assert count_absent(found) == Absent(3, 6, 0.5)
    assert count_absent(scores(({}, {}))) == Absent(3, 3, None)


@pytest.mark.parametrize("measure", ["hd95", "asd"])
def test_a_class_that_was_never_found_has_no_distance(measure):
    found = summarize(scores(({}, {"a": MASK}), ({"b": MASK}, {"b": MASK})), measure)
    assert set(found.classes) == {"b"}
    assert found.infinite == 1
    assert found.overall.mean == 0
    assert summarize(scores(({}, {"a": MASK})), measure).overall is None
