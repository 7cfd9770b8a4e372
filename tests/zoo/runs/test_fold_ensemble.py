"""The mean of several networks of one recipe, against the mean at the images' own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from converters.types import LabelSpace
from fusion.types import Box, Evidence, Prediction, SoftMask, soft_mask
from zoo.runs.fold_ensemble import mean_prediction

ONCE = LabelSpace("bones", ("a", "b"), once=True)
MANY = LabelSpace("waste", ("a", "b"))
SIZE = (60, 90)
KEY = "p_1/image_1_L"
Bytes = npt.NDArray[np.uint8]


def _draw(kind: str, number: int, rows: int = 20, cols: int = 30) -> Bytes:
    """A network's raster of one object, smooth, slightly another one for each network."""
    plane = np.zeros((rows, cols), np.uint8)
    if kind == "full":
        return np.full((rows, cols), 250 + number, np.uint8)
    if kind == "empty":
        return plane
    if kind == "border":
        plane[:8, -9:] = 255
    elif kind == "hole":
        cv2.circle(plane, (14 + number, 10), 8, 255, -1)
        cv2.circle(plane, (14 + number, 10), 3, 0, -1)
    else:
        plane[3:8, 4 + number : 10] = plane[12:17, 18:26] = 255
    return cv2.GaussianBlur(plane, (5, 5), 1.0)


def _semantic(**rasters: Bytes) -> Prediction:
    box = (0.0, 0.0, float(SIZE[1]), float(SIZE[0]))
    masks = {}
    for label, raster in rasters.items():
        if (mask := soft_mask(raster, box)) is not None:
            masks[label] = ((int(raster.max()) / 255, mask),)
    return Prediction(KEY, SIZE, "semantic", masks)


def _pixels(prediction: Prediction, label: str) -> Bytes:
    best = prediction.best(label)
    whole = (0, 0, SIZE[1], SIZE[0])
    return np.zeros(SIZE, np.uint8) if best is None else best[1].render(whole)


def _shrunk(prediction: Prediction, step: int) -> dict[str, tuple[Evidence, ...]]:
    """The masks of an image that is so much smaller."""
    return {
        label: tuple((s, SoftMask(_divide(m.box_xywh, step), m.prob)) for s, m in evidence)
        for label, evidence in prediction.masks.items()
    }


def _divide(box: Box, step: int) -> Box:
    x, y, width, height = (side / step for side in box)
    return x, y, width, height


@pytest.mark.parametrize("kind", ["hole", "two parts", "border", "full", "empty"])
def test_a_mean_of_rasters_is_the_mean_of_whole_planes(kind: str) -> None:
    drawn = {"a": [_draw(kind, n) for n in range(3)], "b": [_draw("hole", n) for n in range(3)]}
    mean = mean_prediction(
        [_semantic(a=a, b=b) for a, b in zip(*drawn.values(), strict=True)], ONCE
    )
    for label, planes in drawn.items():
        expected = np.rint(np.mean(planes, axis=0)).astype(np.uint8)
        # Cells of a pixel each: nothing is enlarged.
        small = Prediction(KEY, (20, 30), "semantic", _shrunk(mean, 3))
        seen = small.masks[label][0][1].render((0, 0, 30, 20)) if label in small.masks else 0
        # Of each raster, cells below 2 may be missing.
        assert np.abs(expected.astype(int) - seen).max() <= 1
    assert ("a" in mean.masks) == (kind != "empty")


@pytest.mark.parametrize("kind", ["hole", "two parts", "border", "full"])
def test_outlines_are_those_of_the_mean_of_pixels(kind: str) -> None:
    found = [_semantic(a=_draw(kind, n)) for n in range(3)]
    expected = np.mean([_pixels(p, "a") for p in found], axis=0) >= 127.5
    ours = mean_prediction(found, ONCE).binary("a").full(SIZE) > 0
    assert 2 * (ours & expected).sum() / (ours.sum() + expected.sum()) > 0.98


def test_it_keeps_the_resolution_of_the_networks() -> None:
    mean = mean_prediction([_semantic(a=_draw("hole", n)) for n in range(3)], ONCE)
    score, mask = mean.masks["a"][0]
    assert mask.box_xywh[2] / mask.prob.shape[1] == 3
    assert mask.prob.size < 20 * 30
    assert score == mask.prob.max() / 255


def test_a_network_that_sees_nothing_counts() -> None:
    mean = mean_prediction([_semantic(a=_draw("full", 5)), _semantic()], ONCE)
    assert np.unique(mean.masks["a"][0][1].prob).tolist() == [128]


def test_networks_of_other_resolutions_are_refused() -> None:
    found = [_semantic(a=_draw("full", 0)), _semantic(a=_draw("full", 0, 30, 45))]
    with pytest.raises(ValueError, match=r"image_1_L: expected .* one resolution, .* --size"):
        mean_prediction(found, ONCE)


def test_rasters_off_the_grid_are_refused() -> None:
    mask = SoftMask((1.0, 0.0, 30.0, 30.0), np.full((10, 10), 200, np.uint8))
    found = Prediction(KEY, SIZE, "semantic", {"a": ((1.0, mask),)})
    with pytest.raises(ValueError, match=r"whole cells .* 0\.33 x 0\.00 cells"):
        mean_prediction([found], ONCE)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "at least one prediction, found none"),
        ([_semantic(), Prediction("other", SIZE, "semantic", {})], "found .'other'"),
        ([_semantic(), Prediction(KEY, SIZE, "instance", {})], "'instance'"),
    ],
)
def test_predictions_that_do_not_go_together(found: Sequence[Prediction], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mean_prediction(found, ONCE)


# --- instances


def _detection(score: float, x: int, prob: int = 255) -> Evidence:
    """A square of 20 pixels from column x on, in the resolution of the image."""
    return score, SoftMask((float(x), 10.0, 20.0, 20.0), np.full((20, 20), prob, np.uint8))


def _instances(*found: Evidence) -> Prediction:
    ordered = tuple(sorted(found, key=lambda e: -e[0]))
    return Prediction(KEY, SIZE, "instance", {"a": ordered} if ordered else {})


def test_masks_count_by_their_scores() -> None:
    mean = mean_prediction([_instances(_detection(0.9, 10)), _instances(_detection(0.3, 12))], ONCE)
    ((score, _),) = mean.masks["a"]
    assert score == pytest.approx(0.6)
    row = _pixels(mean, "a")[20]
    assert row[8:34].tolist() == [0] * 2 + [191] * 2 + [255] * 18 + [64] * 2 + [0] * 2


def test_those_that_missed_it_lower_the_score_alone() -> None:
    found = [_instances(_detection(0.9, 10)), _instances(), _instances()]
    mean = mean_prediction(found, ONCE)
    assert mean.masks["a"][0][0] == pytest.approx(0.3)
    assert mean.masks["a"][0][1] is found[0].masks["a"][0][1]


def test_the_object_that_most_agree_on_is_left() -> None:
    sure_but_alone = _instances(_detection(0.95, 60))
    found = [sure_but_alone, _instances(_detection(0.6, 10)), _instances(_detection(0.6, 11))]
    ((score, mask),) = mean_prediction(found, ONCE).masks["a"]
    assert score == pytest.approx(0.4)
    assert mask.box_xywh[0] == 10
    several = mean_prediction(found, MANY).masks["a"]
    assert [round(score, 4) for score, _ in several] == [0.4, 0.3167]


def test_objects_of_a_class_are_told_apart() -> None:
    found = [_instances(_detection(0.9, 10), _detection(0.5, 60)) for _ in range(2)]
    mean = mean_prediction(found, MANY)
    assert [round(score, 4) for score, _ in mean.masks["a"]] == [0.9, 0.5]
    assert [mask.box_xywh[0] for _, mask in mean.masks["a"]] == [10, 60]


def test_two_of_one_network_are_not_one_object() -> None:
    doubled = _instances(_detection(0.9, 10), _detection(0.8, 11))
    assert len(mean_prediction([doubled], MANY).masks["a"]) == 2


@pytest.mark.parametrize("further", [[_instances()], [_instances(_detection(0.0, 10, 3))]])
def test_detections_without_pixels_or_score(further: Any) -> None:
    mean = mean_prediction([_instances(_detection(0.0, 10, 100)), *further], ONCE)
    assert mean.masks["a"][0][0] == 0
