"""Classes whose predictions lie on other classes' annotations, and networks that are merely bad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converters.masks import EMPTY, CropMask, crop
from fusion.checks.exchanged import Placement

SIZE_HW = (60, 90)
Masks = dict[str, CropMask]


def mask(x: int, y: int, width: int, height: int) -> CropMask:
    pixels = np.zeros(SIZE_HW, np.uint8)
    pixels[y : y + height, x : x + width] = 1
    return crop(pixels)


def truth(number: int) -> Masks:
    """Two lungs, and a heart that lies in the chest, which has more than half of its pixels."""
    chest = mask(36, 10 + number, 18, 30)
    return {
        "left": mask(5, 5 + number, 25, 40),
        "right": mask(60, 5 + number, 25, 40),
        "chest": chest,
        "heart": mask(37, 14 + number, 16, 24),
        "tube": mask(44, 0, 2, 20 + number),
    }


def told(change: Callable[[Masks, np.random.Generator], Masks]) -> list[tuple[str, str]]:
    rng, placement = np.random.default_rng(0), Placement("rest")
    for number in range(6):
        own = truth(number)
        placement.add(change(dict(own), rng), own, SIZE_HW)
    found = placement.misplaced()
    assert bool(placement.describe()) == bool(found)
    assert "\n" not in placement.describe()
    return [(one.name, one.on) for one in found]


def _exchanged(found: Masks, _: np.random.Generator) -> Masks:
    return found | {"left": found["right"], "right": found["left"]}


def _next_in_order(found: Masks, _: np.random.Generator) -> Masks:
    return found | {"left": found["right"], "right": found["chest"], "chest": found["left"]}


def _under_another_name(found: Masks, _: np.random.Generator) -> Masks:
    return {"left": found["right"]}


def _exchanged_thin(found: Masks, _: np.random.Generator) -> Masks:
    moved = mask(45, 0, 2, 20)
    return found | {"tube": found["left"], "left": moved}


@pytest.mark.parametrize(
    ("change", "pairs"),
    [
        (_exchanged, [("left", "right"), ("right", "left")]),
        (_next_in_order, [("chest", "left"), ("left", "right"), ("right", "chest")]),
        (_under_another_name, [("left", "right")]),
        (_exchanged_thin, [("left", "tube"), ("tube", "left")]),
    ],
)
def test_exchanged_names_are_told(
    change: Callable[[Masks, np.random.Generator], Masks], pairs: list[tuple[str, str]]
) -> None:
    assert told(change) == pairs


def _right(found: Masks, _: np.random.Generator) -> Masks:
    return found


def _nothing(found: Masks, _: np.random.Generator) -> Masks:
    return dict.fromkeys(found, EMPTY)


def _everywhere(found: Masks, _: np.random.Generator) -> Masks:
    return dict.fromkeys(found, mask(0, 0, 90, 60))


def _one_everywhere(found: Masks, _: np.random.Generator) -> Masks:
    return dict.fromkeys(found, EMPTY) | {"tube": mask(0, 0, 90, 60)}


def _at_random(found: Masks, rng: np.random.Generator) -> Masks:
    return {name: mask(*rng.integers(0, 40, 2), *rng.integers(5, 50, 2)) for name in found}


def _both_lungs_for_each(found: Masks, _: np.random.Generator) -> Masks:
    both = np.maximum(found["left"].full(SIZE_HW), found["right"].full(SIZE_HW))
    return found | {"left": crop(both), "right": crop(both)}


def _one_for_the_other(found: Masks, _: np.random.Generator) -> Masks:
    """The left lung is right, and the right one is found there, too."""
    return found | {"right": found["left"]}


def _within(found: Masks, _: np.random.Generator) -> Masks:
    """The heart's outline is that of the chest it lies in, and the chest's that of the heart."""
    return found | {"heart": found["chest"], "chest": found["heart"]}


def _by_chance_half(found: Masks, rng: np.random.Generator) -> Masks:
    return _exchanged(found, rng) if rng.random() < 0.4 else found


@pytest.mark.parametrize(
    "change",
    [
        *(_right, _nothing, _everywhere, _one_everywhere, _at_random, _both_lungs_for_each),
        *(_one_for_the_other, _within, _by_chance_half),
    ],
)
def test_bad_networks_and_classes_that_overlap_are_none(
    change: Callable[[Masks, np.random.Generator], Masks],
) -> None:
    assert told(change) == []


def test_the_background_is_told_in_an_exchange_alone() -> None:
    own = {"cell": mask(20, 20, 20, 20)}
    full = np.ones(SIZE_HW, np.uint8)
    own["rest"] = crop(full - own["cell"].full(SIZE_HW))
    for found, count in (
        ({"cell": own["rest"], "rest": own["cell"]}, 2),
        ({"cell": own["rest"], "rest": EMPTY}, 0),
    ):
        placement = Placement("rest")
        placement.add(found, own, SIZE_HW)
        assert len(placement.misplaced()) == count


def test_of_many_the_first_are_named() -> None:
    own = {f"finger-{number}": mask(9 * number, 5, 6, 30) for number in range(9)}
    names = list(own)
    found = {name: own[names[number - 1]] for number, name in enumerate(names)}
    placement = Placement()
    placement.add(found, own, SIZE_HW)
    said = placement.describe()
    assert "finger-1 on finger-0 (1.00, on its own 0.00)" in said
    assert "and 5 more: are the names of the classes, and their order, as they should be?" in said
