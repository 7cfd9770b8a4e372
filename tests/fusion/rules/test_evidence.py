"""Evidence at the image's pixels: log odds, damping, windows, zones."""

from dataclasses import replace

import numpy as np
import pytest

from fusion.rules.evidence import (
    ALONE,
    FAINT,
    LOGIT_LIMIT,
    NEUTRAL,
    OUTLINE,
    SHARED,
    claimed_by_mean,
    fade_beyond,
    gather,
    logit_table,
)
from fusion.rules.hybrid import weighted_mean
from fusion.types import Prediction, SoftMask


def test_log_odds_are_those_of_the_byte():
    p = np.arange(5, 251) / 255
    expected = np.log(p / (1 - p))
    expected[NEUTRAL - 5] = 0
    assert np.allclose(logit_table()[5:251], expected, atol=1e-5)
    assert logit_table()[[0, 255]].tolist() == [-LOGIT_LIMIT, LOGIT_LIMIT]


def test_log_odds_change_sign_at_the_neutral_byte():
    table = logit_table()
    assert table[NEUTRAL] == 0
    assert (table[:NEUTRAL] < 0).all()
    assert (np.diff(table) >= 0).all()


def test_opposite_bytes_cancel():
    table = logit_table()
    assert np.allclose((table + table[::-1])[:127], 0, atol=1e-5)


def test_the_window_holds_all_sources(predict, labels):
    raster = np.full((4, 4), 255, np.uint8)
    sources = [
        predict({"3": SoftMask((10.5, 20.0, 8.0, 9.5), raster)}),
        predict({"3": SoftMask((100.0, 5.0, 50.0, 4.0), raster)}),
    ]
    (found,) = gather(sources, labels)
    assert found.window_xywh == (10, 5, 120, 25)
    assert found.prob.shape == (2, 25, 120)
    assert found.zones.shape == (25, 120)


def test_a_faint_trace_does_not_widen_the_window(predict, labels):
    plane = box(100, 50, 160, 120)
    plane[199, 299] = 12
    (found,) = gather([predict({"3": plane, "Ulna": plane // 22}, size_hw=(200, 300))], labels)
    # One cell more than what counts, on each side.
    assert (found.label, found.window_xywh) == ("3", (99, 49, 62, 72))


def test_layers_are_what_the_sources_render(predict, soft_plane, labels):
    planes = soft_plane(1), soft_plane(2)
    (found,) = gather([predict({"Ulna": plane}) for plane in planes], labels)
    assert np.array_equal(found.prob, planes)
    assert not found.silent.any()


def test_only_a_detector_that_found_nothing_is_silent(predict, soft_plane, labels):
    sources = [predict({"3": soft_plane(1)}), predict({}), predict({}, "instance")]
    (found,) = gather(sources, labels)
    assert found.label == "3"
    assert found.silent.tolist() == [False, False, True]
    assert not found.prob[1].any()
    assert (found.prob[2] == NEUTRAL).all()


def box(x0, y0, x1, y1, value=255, size_hw=(200, 300)):
    plane = np.zeros(size_hw, np.uint8)
    plane[y0:y1, x0:x1] = value
    return plane


def zones_of(sources, labels, label="3"):
    (found,) = [e for e in gather(sources, labels) if e.label == label]
    x, y, width, height = found.window_xywh
    zones = np.full(sources[0].size_hw, 255, np.uint8)
    zones[y : y + height, x : x + width] = found.zones
    return zones


def test_zones_of_a_drawn_case(predict, labels):
    # At 200 x 300 an outline reaches one pixel to both sides of it.
    planes = {"3": box(100, 50, 160, 120), "Ulna": box(140, 100, 200, 180)}
    zones = zones_of([predict(planes, size_hw=(200, 300))], labels)
    expected = np.full((200, 300), 255)  # beyond the window
    expected[49:121, 99:161] = OUTLINE
    expected[51:119, 101:159] = ALONE
    expected[100:120, 140:160] = SHARED
    assert np.array_equal(zones, expected)


def test_pixels_are_shared_when_different_sources_claim_them(predict, labels):
    first = predict({"3": box(100, 50, 160, 120)}, size_hw=(200, 300))
    second = predict({"Ulna": box(140, 100, 200, 180)}, size_hw=(200, 300))
    shared = zones_of([first, second], labels) == SHARED
    assert np.array_equal(shared, box(140, 100, 160, 120) > 0)


def test_two_sources_that_claim_one_class_share_nothing(predict, labels):
    source = predict({"3": box(100, 50, 160, 120)}, size_hw=(200, 300))
    assert not (zones_of([source] * 3, labels) == SHARED).any()


def test_a_silent_source_claims_nothing_and_moves_no_outline(predict, labels):
    planes = {"3": box(100, 50, 160, 120), "Ulna": box(140, 100, 200, 180, 90)}
    alone = predict(planes, size_hw=(200, 300))
    silent = predict({}, "instance", size_hw=(200, 300))
    assert np.array_equal(zones_of([alone], labels), zones_of([alone, silent], labels))


def test_the_image_s_border_is_no_outline(predict, labels):
    zones = zones_of([predict({"3": box(0, 0, 60, 200)}, size_hw=(200, 300))], labels)
    assert (zones[:, :59] == ALONE).all()
    assert (zones[:, 59:61] == OUTLINE).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (9, 1)])
def test_images_of_a_pixel_or_a_line(predict, labels, size_hw):
    (found,) = gather([predict({"3": np.full(size_hw, 255, np.uint8)}, size_hw=size_hw)], labels)
    assert found.prob.shape == (1, *size_hw)
    assert (found.zones == ALONE).all()


def test_no_evidence_is_nothing(predict, labels):
    assert gather([predict({}), predict({}, "instance")], labels) == []


def test_a_source_that_does_not_speak_of_a_class_is_silent(predict, labels, soft_plane):
    whole = predict({n: soft_plane(i) for i, n in enumerate(labels.names)})
    part = replace(predict({"Ulna": soft_plane(9)}), classes=frozenset({"Ulna"}))
    for evidence in gather((whole, part), labels):
        assert evidence.silent.tolist() == [False, evidence.label != "Ulna"]
        assert evidence.label == "Ulna" or (evidence.prob[1] == NEUTRAL).all()


def test_a_class_of_which_nobody_speaks_is_left_out(predict, labels, soft_plane):
    seen = predict({n: soft_plane(i) for i, n in enumerate(labels.names)})
    cut = replace(seen, domain_xywh=(5, 5, 100, 70))
    assert gather((cut, cut), labels) == []


@pytest.mark.parametrize("sources", [1, 2, 3, 12])
def test_a_mean_of_one_half_claims_a_pixel(sources):
    """Halves are rounded up to the neutral byte, as the pooled mean's are."""
    lowest = NEUTRAL * sources - sources // 2
    layers = np.zeros((sources, 1, 2), np.uint8)
    for below in range(2):
        left = lowest - below
        for layer in layers:
            layer[0, below] = min(255, left)
            left -= int(layer[0, below])
    assert claimed_by_mean(layers).tolist() == [[True, False]]
    assert (weighted_mean(layers, np.ones(sources)) >= NEUTRAL).tolist() == [[True, False]]


# --- detections that a box cuts off


def cut_disk():
    """A disk of radius 20 about (50, 40), in a box that cuts off its right third."""
    rows, cols = np.mgrid[20:60, 30:57] + 0.5
    inside = (cols - 50) ** 2 + (rows - 40) ** 2 < 400
    return SoftMask((30.0, 20.0, 27.0, 40.0), inside.astype(np.uint8) * np.uint8(255))


def rendered(mask, labels, soft_edge, size_hw=(80, 100)):
    """The layer of one detection beside a source that leaves no pixel out."""
    seen = Prediction("a", size_hw, "instance", {"3": ((0.9, mask),)})
    everywhere = SoftMask((0, 0, size_hw[1], size_hw[0]), np.full((1, 1), FAINT, np.uint8))
    unsure = Prediction("a", size_hw, "semantic", {"3": ((1.0, everywhere),)})
    (found,) = gather([seen, unsure], labels, soft_edge)
    assert found.window_xywh == (0, 0, size_hw[1], size_hw[0])
    return found.prob[0]


@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_cut_detection_fades_out_beyond_its_box(labels, share, cells):
    mask = cut_disk()
    mask = replace(mask, prob=np.ascontiguousarray(mask.prob[::cells, ::cells]))
    before, after = mask.render((0, 0, 100, 80)), rendered(mask, labels, share)
    assert np.array_equal(after >= NEUTRAL, before >= NEUTRAL)
    assert np.array_equal(after[20:60, 30:57], before[20:60, 30:57])
    beyond = after[40, 57:].astype(int)
    assert 89 < beyond[0] < NEUTRAL
    assert (np.diff(beyond) <= 0).all()
    # A normal error: at its standard deviation, 16 % are left.
    assert beyond[round(share * 27)] == pytest.approx(255 * 0.16, abs=25)
    assert beyond[-1] == 0


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_what_is_left_beyond_a_box_is_a_normal_distribution_s_tail(share, shift):
    stats = pytest.importorskip("scipy.stats")
    box, window = (40 + shift, 30.0, 20.0, 12.0), (5, 10, 80, 50)
    mask = SoftMask(box, np.full((3, 4), 255, np.uint8))
    layer = mask.render(window)
    fade_beyond(mask, share, window, layer)
    at_x, at_y = np.arange(5, 85) + 0.5, np.arange(10, 60) + 0.5
    doubts = []
    for at, edge, side in ((at_x, box[0], 20), (at_y, box[1], 12)):
        away = np.maximum(edge - at, at - edge - side)
        doubts.append(np.where(away > 0, stats.norm.sf(away, scale=share * side), 1))
    # Once cut to bytes beside the box, once above and below it.
    assert layer == pytest.approx(255 * np.outer(doubts[1], doubts[0]), abs=2)


def test_each_side_of_a_cut_mask_fades_as_it_ends():
    """A corner that is cut: what ends within the box goes on as nothing."""
    prob = np.zeros((10, 10), np.uint8)
    prob[:5, :5] = 255
    mask, window = SoftMask((10.0, 10.0, 10.0, 10.0), prob), (0, 0, 30, 30)
    layer = mask.render(window)
    fade_beyond(mask, 0.2, window, layer)
    assert np.array_equal(layer[10:20, 10:20], prob)
    beside = int(layer[9, 12])
    assert beside == layer[12, 9] > 90
    assert layer[9, 9] == pytest.approx(beside**2 / 255, abs=2)
    assert not layer[20:].any()
    assert not layer[:, 20:].any()


@pytest.mark.parametrize(
    ("mask", "share"),
    [
        pytest.param(cut_disk(), 0.0, id="no softening"),
        pytest.param(
            SoftMask((3.0, 3.0, 9.0, 9.0), np.pad([[255]], 9).astype(np.uint8)), 0.1, id="whole"
        ),
    ],
)
def test_what_is_not_cut_does_not_fade(labels, mask, share):
    assert np.array_equal(rendered(mask, labels, share), mask.render((0, 0, 100, 80)))


def test_bone_beyond_a_box_is_left_to_the_semantic_sources(labels):
    """Beyond the cut the detection is in doubt, far away it says no."""
    layer = rendered(cut_disk(), labels, 0.2)
    beside, far = layer[40, 58], layer[40, -1]
    assert logit_table()[beside] > -1
    assert logit_table()[far] < -2


# --- what detections are measured by


def test_scores_and_overlaps_are_those_of_detections(predict, labels):
    semantic = predict({"3": box(100, 50, 160, 120), "Ulna": box(0, 0, 20, 20)}, size_hw=(200, 300))
    detected = predict(
        {"3": (0.7, box(100, 50, 160, 90)), "Ulna": (0.4, box(100, 50, 160, 90))},
        "instance",
        size_hw=(200, 300),
    )
    once = replace(labels, once=True)
    first, second = gather([semantic, detected, semantic], once)
    assert (first.label, second.label) == ("3", "Ulna")
    assert first.scores.tolist() == [1, 0.7, 1]
    assert first.overlaps == pytest.approx([1, 2 * 40 / (40 + 70), 1])
    assert second.overlaps.tolist() == [1, 0, 1]


def test_without_semantic_sources_there_is_nothing_to_overlap_with(predict, labels):
    detected = predict({"3": (0.7, box(100, 50, 160, 90))}, "instance", size_hw=(200, 300))
    (found,) = gather([detected, detected], labels)
    assert found.overlaps.tolist() == [1, 1]


def test_several_objects_of_a_class_are_all_evidence(labels):
    """Where a class may occur more than once, the best detection is not all there is."""
    left, right = (SoftMask((x, 10, 10, 10), np.full((1, 1), 255, np.uint8)) for x in (10, 60))
    seen = Prediction("a", (90, 130), "instance", {"3": ((0.9, left), (0.8, right))})
    (several,) = gather([seen], labels)
    (one,) = gather([seen], replace(labels, once=True))
    assert (several.prob[0] >= NEUTRAL).sum() == 2 * (one.prob[0] >= NEUTRAL).sum() == 200
