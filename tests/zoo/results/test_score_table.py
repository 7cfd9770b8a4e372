"""The table of scores says what lifts its means."""

import numpy as np
import pytest

from converters.masks import CropMask
from converters.types import LabelSpace
from fusion.metrics.measures import measure_image
from fusion.metrics.scores import Scores
from zoo.results import score_table

LABELS = LabelSpace("toys", ("a", "b"))
MASK = CropMask(1, 1, np.ones((3, 3), np.uint8))
NOTHING = "nothing is there, and nothing was found"


def table(found, true, measures):
    scores = Scores(LABELS, [measure_image("0", found, true, LABELS, (9, 9), measures)])
    summaries = score_table.summarize_all(scores, measures)
    record = score_table.record(scores, measures, summaries)
    return score_table.describe(scores, measures, summaries).splitlines(), record["absent"]


@pytest.mark.parametrize(
    ("found", "true", "said"),
    [
        ({}, {"a": MASK}, f": {NOTHING}; mean Dice of the others 0.0000"),
        ({}, {}, f": {NOTHING}"),
        ({"b": MASK}, {"a": MASK}, None),
    ],
)
def test_classes_neither_there_nor_found_are_counted(found, true, said):
    lines, record = table(found, true, ("dice", "iou", "hd95"))
    told = [line for line in lines if NOTHING in line]
    count = 2 - len({*found, *true})
    head = f"{count} of 2 pairs of an image and a class count 1 in Dice, IoU"
    assert told == ([f"{head}{said}"] if said else [])
    assert (record["pairs"], record["of"]) == (count, 2)


def test_distances_alone_count_no_one():
    lines, _ = table({}, {"a": MASK}, ("hd95",))
    assert not any(NOTHING in line for line in lines)
    assert next(line for line in lines if line.startswith("all")).split() == ["all", "-"]
