"""Classes that are worth being seen larger: thin ones that lie together, in large images."""

from dataclasses import replace
from pathlib import Path

import pytest
from shapely.geometry import box

pytest.importorskip("torch")

from converters.types import Instance, LabelSpace, Sample
from zoo.pipeline.survey.closeup import Closeup, find_closeup

LABELS = LabelSpace("chest", ("lung", "left", "right", "tube"))
SIDE = 1000
# Two bars above a lung, and a tube far below.
PARTS = {
    "lung": (100, 100, 900, 900),
    "left": (150, 200, 450, 225),
    "right": (550, 200, 850, 225),
    "tube": (400, 960, 600, 985),
}


def samples(parts=PARTS, side=SIDE, count=10):
    scale = side / SIDE
    return [
        Sample(
            f"{n}",
            Path(f"{n}.png"),
            (side, side),
            tuple(
                Instance(name, box(*(scale * (edge + n % 3) for edge in edges)))
                for name, edges in parts.items()
            ),
        )
        for n in range(count)
    ]


def test_thin_classes_that_lie_together_are_seen_larger():
    found = find_closeup(samples(), LABELS, 256)
    assert found is not None
    assert found.classes == ("left", "right")
    # 60 pixels around 703 by 28.
    assert (found.margin, found.height, found.width) == (60, 146, 821)
    assert found.zoom == pytest.approx((1e6 / (146 * 821)) ** 0.5)
    assert found.describe() == "left, right seen 2.9 times larger"


@pytest.mark.parametrize("side", [256, 384])
def test_a_crop_is_shown_as_many_pixels_as_an_image(side):
    found = find_closeup(samples(), LABELS, side)
    height, width = found.size_hw(side, 32)
    assert height % 32 == width % 32 == 0
    assert height * width == pytest.approx(side**2, rel=0.25)
    assert width / height == pytest.approx(found.width / found.height, rel=0.2)


def test_no_more_pixels_are_shown_than_there_are():
    # Of 360 pixels a network of 256 leaves out little.
    assert find_closeup(samples(side=360), LABELS, 256) is None
    found = find_closeup(samples(side=500), LABELS, 256)
    assert found.zoom == pytest.approx(500 / 256)
    assert found.size_hw(256, 32) == [64, 416]  # of 73 by 411


@pytest.mark.parametrize(
    "parts",
    [
        {"lung": (100, 100, 900, 900)},
        {"lung": (100, 100, 900, 900), "left": (200, 200, 500, 500)},  # thick
        {"lung": (10, 10, 990, 30), "left": (10, 970, 990, 990)},  # far from each other
    ],
)
def test_what_is_thick_or_everywhere_is_seen_well_enough(parts):
    labels = LabelSpace("chest", tuple(parts))
    found = find_closeup(samples(parts), labels, 256)
    assert found is None or len(found.classes) == 1


def test_what_is_seldom_or_many_is_not_looked_for():
    seldom = [
        replace(s, instances=tuple(i for i in s.instances if i.label == "lung" or n < 5))
        for n, s in enumerate(samples())
    ]
    assert find_closeup(seldom, LABELS, 256) is None
    many = [replace(s, instances=(*s.instances, *s.instances[1:])) for s in samples()]
    assert find_closeup(many, LABELS, 256) is None


def test_of_many_classes_two_are_not_worth_a_network():
    names = tuple(f"c{n}" for n in range(20))
    labels = LabelSpace("chest", (*LABELS.names, *names))
    assert find_closeup(samples(), labels, 256) is None


def test_a_class_that_is_absent_now_and_then_does_not_matter():
    some = samples()
    some[0] = replace(some[0], instances=some[0].instances[:2])
    assert find_closeup(some, LABELS, 256).classes == ("left", "right")
    assert isinstance(find_closeup(some, LABELS, 256), Closeup)
