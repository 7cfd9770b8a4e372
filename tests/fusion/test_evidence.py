"""Evidence at the image's pixels: log odds, damping, windows, zones."""

from dataclasses import replace

import numpy as np
import pytest

from fusion.evidence import (
    ALONE,
    LOGIT_LIMIT,
    NEUTRAL,
    OUTLINE,
    SHARED,
    Reliability,
    damp,
    gather,
    logit_table,
)
from fusion.types import SoftMask

BYTES = np.arange(256, dtype=np.uint8)


def test_log_odds_are_those_of_the_byte():
    p = BYTES[5:251].astype(float) / 255
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


@pytest.mark.parametrize("reliability", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_damping_does_not_move_the_outline(reliability):
    damped = damp(BYTES, reliability)
    assert np.array_equal(damped >= NEUTRAL, BYTES >= NEUTRAL)
    assert (np.diff(damped.astype(int)) >= 0).all()


def test_full_reliability_changes_nothing_but_certainty():
    assert np.array_equal(damp(BYTES, 1.0)[5:251], BYTES[5:251])


@pytest.mark.parametrize("reliability", [0.2, 0.7])
def test_damping_multiplies_the_log_odds(reliability):
    damped = damp(BYTES, reliability).astype(float)
    expected = 255 / (1 + np.exp(-reliability * logit_table().astype(float)))
    assert np.abs(damped - expected).max() <= 1


def test_no_reliability_is_almost_neutral():
    assert set(damp(BYTES, 0.0).tolist()) == {NEUTRAL - 1, NEUTRAL}


KNOTS = Reliability((0.2, 0.6), (0.5, 0.9))
SCORES = [(0.0, 0.5), (0.2, 0.5), (0.4, 0.7), (0.6, 0.9), (1.0, 0.9)]


@pytest.mark.parametrize(("score", "expected"), SCORES)
def test_reliability_is_linear_between_knots_and_constant_beyond(score, expected):
    assert KNOTS(score) == pytest.approx(expected)


BAD_KNOTS = [
    ((), ()),
    ((0.1,), (0.1, 0.2)),
    ((0.5, 0.1), (0.1, 0.2)),
    ((0.1, 0.5), (0.2, 0.1)),
    ((0.1,), (1.1,)),
    ((float("nan"),), (0.5,)),
]


@pytest.mark.parametrize(("scores", "values"), BAD_KNOTS)
def test_reliabilities_that_cannot_be_are_refused(scores, values):
    with pytest.raises(ValueError, match="reliability: expected"):
        Reliability(scores, values)


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


def test_a_source_s_reliability_damps_its_layer_alone(predict, soft_plane, labels):
    plane = soft_plane(1)
    sources = [predict({"3": (0.4, plane)}), predict({"3": (0.4, plane)}, "instance")]
    (found,) = gather(sources, labels, {1: KNOTS})
    assert np.array_equal(found.prob[0], plane)
    assert np.array_equal(found.prob[1], damp(plane, 0.7))


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
