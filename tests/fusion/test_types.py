"""Soft masks at the image's pixels against cv2.resize and a plain bilinear formula."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fusion.types import Prediction, SoftMask, soft_mask

SIZES = [(12, 20), (20, 12), (1, 7), (7, 1), (1, 1)]


def log_odds(prob):
    p = (prob + 0.5) / 256
    return np.log(p / (1 - p))


def bilinear(mask, size_hw):
    """The definition, in float64: linear log odds between cell centres, constant beyond; else 0."""
    x, y, width, height = mask.box_xywh
    rows, cols = mask.prob.shape
    odds = log_odds(mask.prob.astype(float))
    out = np.zeros(size_hw)
    for i in range(size_hw[0]):
        for j in range(size_hw[1]):
            if not (x <= j + 0.5 < x + width and y <= i + 0.5 < y + height):
                continue
            u = np.clip((j + 0.5 - x) * cols / width - 0.5, 0, cols - 1)
            v = np.clip((i + 0.5 - y) * rows / height - 0.5, 0, rows - 1)
            left, top = int(u), int(v)
            right, below = min(left + 1, cols - 1), min(top + 1, rows - 1)
            upper = odds[top, left] * (1 - u + left) + odds[top, right] * (u - left)
            lower = odds[below, left] * (1 - u + left) + odds[below, right] * (u - left)
            out[i, j] = 256 / (1 + np.exp(-(upper * (1 - v + top) + lower * (v - top)))) - 0.5
    return out


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_whole_image_renders_as_resize(soft_plane, shape, scale):
    prob = soft_plane(1, shape) if min(shape) > 1 else np.full(shape, 77, np.uint8)
    height, width = shape[0] * scale, shape[1] * scale
    mask = SoftMask((0, 0, width, height), prob)
    odds = cv2.resize(log_odds(prob.astype(float)), (width, height), interpolation=cv2.INTER_LINEAR)
    found, expected = mask.render((0, 0, width, height)), 256 / (1 + np.exp(-odds)) - 0.5
    assert np.abs(found - expected).max() <= (4 if scale > 1 else 0.5)
    sure = np.abs(expected - 127.5) > 4
    assert np.array_equal((found >= 128)[sure], (expected >= 127.5)[sure])


# Boxes: whole pixels, fractions, leaving the image on each side, smaller than a pixel's distance.
BOXES = [
    (0, 0, 26, 18),
    (3, 2, 12, 9),
    (2.3, 4.7, 11.9, 8.2),
    (-5.5, 3.0, 14.0, 9.0),
    (17.2, 9.9, 30.0, 30.0),
    (-4.0, -4.0, 60.0, 50.0),
    (0.5, 0.5, 25.0, 1.0),
    (40.0, 40.0, 9.0, 9.0),
    (0, 0, 52, 36),
    (-8, -4, 39, 27),
]


@pytest.mark.parametrize("box", BOXES)
def test_render_is_bilinear_between_cell_centres(soft_plane, box):
    # Four levels: log odds are bytes, and OpenCV may round a position to 1/32 of a cell.
    mask = SoftMask(box, soft_plane(2, (9, 13), contrast=1.0))
    found = mask.render((0, 0, 26, 18)).astype(float)
    expected = bilinear(mask, (18, 26))
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize("box", BOXES)
def test_windows_agree_where_they_meet(soft_plane, box):
    mask = SoftMask(box, soft_plane(3, (9, 13)))
    whole = mask.render((0, 0, 26, 18)).astype(int)
    for x, y, width, height in [(0, 0, 13, 9), (3, 2, 13, 10), (25, 17, 1, 1), (4, 5, 1, 12)]:
        part = mask.render((x, y, width, height)).astype(int)
        assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 1


@pytest.mark.parametrize("window", [(0, 0, 13, 9), (3, 2, 13, 10), (7, 5, 1, 1), (13, 9, 13, 9)])
def test_steep_slopes_are_the_same_in_every_window(window):
    prob = np.random.default_rng(0).integers(0, 256, (9, 13), np.uint8)
    mask = SoftMask((-8, -4, 52, 36), prob)
    x, y, width, height = window
    whole = mask.render((0, 0, 26, 18))
    assert np.array_equal(mask.render(window), whole[y : y + height, x : x + width])


@pytest.mark.parametrize("box", BOXES)
def test_nothing_is_set_outside_the_window_of_the_mask(box):
    mask = SoftMask(box, np.full((4, 4), 255, np.uint8))
    x, y, width, height = mask.window((18, 26))
    outside = mask.render((0, 0, 26, 18))
    outside[y : y + height, x : x + width] = 0
    assert not outside.any()


def test_rows_are_y_and_columns_are_x():
    prob = np.zeros((2, 4), np.uint8)
    prob[0, 3] = 255
    found = SoftMask((0, 0, 40, 10), prob).binary((10, 40))
    assert found.box_xywh == (30, 0, 10, 5)
    assert found.full((10, 40)).shape == (10, 40)


@pytest.mark.parametrize("scale", [1, 4])
def test_cutting_a_raster_does_not_change_its_pixels(scale):
    prob = np.zeros((30, 50), np.uint8)
    cv2.ellipse(prob, (12, 9), (7, 5), 30, 0, 360, 255, -1)
    prob = cv2.GaussianBlur(prob, (0, 0), 1.5)
    window = (0, 0, 50 * scale, 30 * scale)
    cut = soft_mask(prob, tuple(map(float, window)))
    assert cut.prob.size < prob.size / 2
    difference = cut.render(window).astype(int) - SoftMask(window, prob).render(window)
    assert np.abs(difference).max() <= 1


def test_cutting_at_the_border_keeps_the_border():
    prob = np.zeros((6, 8), np.uint8)
    prob[:2, 6:] = 200
    cut = soft_mask(prob, (0.0, 0.0, 8.0, 6.0))
    assert cut.box_xywh == (5, 0, 3, 3)
    assert np.array_equal(cut.render((0, 0, 8, 6)), prob)


@pytest.mark.parametrize("value", [0, 1])
def test_a_raster_that_says_nothing_is_no_mask(value):
    assert soft_mask(np.full((5, 6), value, np.uint8), (0, 0, 6, 5)) is None


def test_a_mask_outside_the_image_is_empty():
    mask = SoftMask((50.0, 2.0, 5.0, 5.0), np.full((3, 3), 255, np.uint8))
    assert mask.binary((20, 30)).area == 0
    assert mask.render((0, 0, 30, 20)).max() == 0


@pytest.mark.parametrize(("level", "expected"), [(100, 3), (101, 2), (255, 1)])
def test_binary_takes_values_from_the_level_on(level, expected):
    mask = SoftMask((0, 0, 4, 1), np.array([[99, 100, 200, 255]], np.uint8))
    assert mask.binary((1, 4), level).area == expected


BAD_RASTERS = [
    np.zeros((2, 2), np.float32),
    np.zeros((2, 2), bool),
    np.zeros((2, 2, 1), np.uint8),
    np.zeros((0, 2), np.uint8),
]


@pytest.mark.parametrize("prob", BAD_RASTERS)
def test_rasters_of_another_form_are_refused(prob):
    with pytest.raises(ValueError, match="expected a uint8 raster"):
        SoftMask((0, 0, 2, 2), prob)


@pytest.mark.parametrize("box", [(0, 0, 0, 2), (0, 0, 2, -1), (np.nan, 0, 2, 2), (0, 0, np.inf, 2)])
def test_boxes_without_area_are_refused(box):
    with pytest.raises(ValueError, match="expected a box with area"):
        SoftMask(box, np.zeros((2, 2), np.uint8))


DOT = SoftMask((0, 0, 1, 1), np.full((1, 1), 255, np.uint8))
BAD_PREDICTIONS = [
    ({"kind": "panoptic"}, "expected semantic or instance"),
    ({"size_hw": (0, 4)}, "expected a positive size"),
    ({"masks": {"a": ((0.2, DOT), (0.9, DOT))}}, "expected sorted scores"),
    ({"masks": {"a": ((1.2, DOT),)}}, "expected sorted scores in 0..1"),
    ({"masks": {"a": ((float("nan"), DOT),)}}, "expected sorted scores in 0..1"),
]


@pytest.mark.parametrize(("change", "message"), BAD_PREDICTIONS)
def test_predictions_that_cannot_be_are_refused(change, message):
    good = {"key": "x", "size_hw": (3, 4), "kind": "instance", "masks": {}}
    with pytest.raises(ValueError, match=message):
        Prediction(**{**good, **change})


def test_prediction_speaks_of_its_best_evidence():
    other = SoftMask((2, 1, 1, 1), np.full((1, 1), 200, np.uint8))
    found = Prediction("x", (3, 4), "instance", {"a": ((0.9, other), (0.4, DOT)), "b": ()})
    assert found.best("a") == (0.9, other)
    assert found.best("b") is None
    assert found.best("absent") is None
    assert found.binary("a").box_xywh == (2, 1, 1, 1)
    assert found.binary("absent").area == 0
    assert [(label, rank) for label, rank, _, _ in found.rows()] == [("a", 0), ("a", 1)]


@pytest.mark.parametrize(
    ("kind", "once", "level", "area"),
    [
        ("instance", True, 128, 1),
        ("instance", False, 128, 3),
        ("instance", False, 201, 2),
        ("semantic", False, 128, 1),
    ],
)
def test_pixels_of_a_class_are_its_best_object_s_or_all(kind, once, level, area):
    best, other, unlikely = (
        SoftMask((x, 1, width, 1), np.full((1, 1), value, np.uint8))
        for x, width, value in ((0, 1, 200), (2, 2, 255), (6, 1, 255))
    )
    masks = {"a": ((0.9, best), (0.6, other), (0.4, unlikely))}
    found = Prediction("x_1", (3, 8), kind, masks)
    assert found.binary("a", level, once).area == area
    assert found.binary("absent", level, once).area == 0


def test_a_source_speaks_of_the_classes_that_it_has(predict):
    plane = np.full((90, 130), 200, np.uint8)
    seen = replace(predict({"Ulna": plane}), classes=frozenset({"Ulna", "3"}))
    assert seen.speaks_of("Ulna")
    assert seen.speaks_of("3")
    assert not seen.speaks_of("finger-1")
    with pytest.raises(ValueError, match="expected classes that the source has"):
        replace(predict({"Ulna": plane}), classes=frozenset({"3"}))


@pytest.mark.parametrize(
    ("box", "speaks"),
    [
        pytest.param((40, 30, 20, 20), True, id="inside"),
        pytest.param((20, 30, 20, 20), False, id="cut on the left"),
        pytest.param((40, 50, 20, 30), False, id="cut below"),
        pytest.param((110, 30, 20, 20), True, id="at the image's own border"),
        pytest.param(None, False, id="not found"),
    ],
)
def test_what_looked_at_a_part_says_nothing_of_what_is_cut_or_elsewhere(predict, box, speaks):
    plane = np.zeros((90, 130), np.uint8)
    if box:
        plane[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
    seen = replace(predict({"3": plane} if box else {}), domain_xywh=(20, 10, 110, 70))
    assert seen.speaks_of("3") is speaks
    assert replace(seen, domain_xywh=None).speaks_of("3")


def test_an_outline_between_sure_cells_has_no_steps():
    """A half-plane seen by a network whose log odds are exact: enlarged, its edge is straight."""
    rows, cols = np.mgrid[:24, :24] + 0.5
    distance = (cols - 12) + 0.3 * (rows - 12)
    prob = np.rint(255 / (1 + np.exp(-4 * distance))).astype(np.uint8)
    found = SoftMask((0, 0, 192, 192), prob).render((0, 0, 192, 192)) >= 128
    rows, cols = (np.mgrid[:192, :192] + 0.5) / 8
    exact = (cols - 12) + 0.3 * (rows - 12) >= 0
    steps = cv2.resize(prob, (192, 192), interpolation=cv2.INTER_LINEAR) >= 128
    assert np.count_nonzero(found != exact) < 0.4 * np.count_nonzero(steps != exact)


def detections(*boxes, scores=None, size_hw=(20, 30)):
    """A prediction of squares of 255 and less: the further back, the fainter."""
    found = []
    for i, (x, y, width, height) in enumerate(boxes):
        prob = np.full((2, 3), 255 - 20 * i, np.uint8)
        score = scores[i] if scores else 0.9
        found.append((score, SoftMask((x, y, width, height), prob)))
    return Prediction("a_1", size_hw, "instance", {"cup": tuple(found)})


def test_all_detections_of_a_class_are_one_evidence():
    prediction = detections((2, 3, 6, 5), (5, 4, 9, 9.5), (25.5, 15, 20, 20))
    whole = (0, 0, 30, 20)
    layers = [mask.render(whole) for _, mask in prediction.masks["cup"]]
    score, joined = prediction.evidence("cup", once=False)
    assert score == 0.9
    assert np.array_equal(joined.render(whole), np.max(layers, axis=0))
    assert joined.window((20, 30)) == (2, 3, 28, 17)


def test_of_a_class_that_occurs_once_the_best_detection_is_the_evidence():
    prediction = detections((2, 3, 6, 5), (15, 4, 9, 9), scores=(0.8, 0.7))
    assert prediction.evidence("cup", once=True) == prediction.best("cup")
    assert prediction.evidence("saw", once=True) is prediction.evidence("saw", once=False) is None


@pytest.mark.parametrize(("scores", "kept"), [((0.9, 0.3), 1), ((0.5, 0.4), 1), ((0.4, 0.3), 0)])
def test_poor_detections_are_no_evidence(scores, kept):
    prediction = detections((2, 3, 6, 5), (15, 4, 9, 9), scores=scores)
    found = prediction.evidence("cup", once=False)
    assert found == (prediction.best("cup") if kept else None)
    both = prediction.evidence("cup", once=False, least_score=0.2)
    assert both[1].window((20, 30)) == (2, 3, 22, 10)


def test_detections_off_the_image_are_no_evidence():
    assert detections((40, 3, 6, 5), (50, 4, 9, 9)).evidence("cup", once=False) is None
    near = detections((40, 3, 6, 5), (5, 4, 9, 9)).evidence("cup", once=False)
    assert near[1].window((20, 30)) == (5, 4, 9, 9)
