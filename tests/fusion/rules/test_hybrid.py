"""The hybrid rule against its formula in float64."""

from dataclasses import replace

import numpy as np
import pytest

from fusion import Hybrid, Mean
from fusion.rules.calibration import Calibration, Curve, Gate, SourceReliability
from fusion.rules.evidence import ZONES, ClassEvidence, gather
from fusion.rules.hybrid import ClassWeights, pool, spread, strongest, to_bytes, weighted_mean
from fusion.types import Prediction, SoftMask

SIZE_HW = (90, 130)
NAMES = ("unet", "segformer", "yolo")


def dense(prediction, label):
    height, width = prediction.size_hw
    best = prediction.best(label)
    if best is None:
        return np.zeros(prediction.size_hw, np.uint8)
    return best[1].render((0, 0, width, height))


@pytest.fixture
def sources(predict, soft_plane):
    detection = SoftMask((20.0, 10.0, 65.0, 40.0), soft_plane(4, (20, 30)))
    return [
        predict({"finger-1": soft_plane(1), "3": soft_plane(5)}),
        predict({"finger-1": soft_plane(2, (45, 65)), "3": soft_plane(6)}),
        predict({"finger-1": (0.7, detection)}, "instance"),
    ]


def odds(values, calibration=None):
    """Log odds of bytes as the rule takes them, in float64."""
    c = calibration or Calibration()
    p = np.clip(values.astype(np.float64) / 255, 1e-6, 1 - 1e-6)
    found = np.clip(c.a * np.log(p) - c.b * np.log(1 - p) + c.c, -4, 4)
    return np.where((values == 128) & (c == Calibration()), 0, found)


def formula(evidence, weights, reliability, group):
    """Logit F = b + sum_k w_kz logit C_k(P_k) + v_z logit mean at every pixel, in float64."""
    seen = zip(reliability.gates, evidence.scores, evidence.overlaps, strict=True)
    worth = np.array([1 if g is None else g(s, o) for g, s, o in seen])
    mean = np.floor(np.tensordot(worth / worth.sum(), evidence.prob.astype(float), 1) + 0.5)
    logits = [odds(p, c) for p, c in zip(evidence.prob, reliability.of_group(group), strict=True)]
    common = sum(w * z for w, z in zip(worth, logits, strict=True)) / worth.sum()
    total = np.full(evidence.zones.shape, weights.bias)
    for z, zone in enumerate(ZONES):
        inside = evidence.zones == z
        *rows, last = weights.weights[zone]
        for w, g, logit in zip(rows, worth, logits, strict=True):
            total[inside] += w * (g * logit + (1 - g) * common)[inside]
        total[inside] += last * odds(mean.astype(np.uint8))[inside]
    return total


WEIGHTS = [
    ClassWeights.plain(3),
    ClassWeights(
        0.3, {"alone": (0.5, 0.2, 0.1, 0), "shared": (0.1, 0, 1.4, 0.4), "outline": (1, 1, 1, 1)}
    ),
    ClassWeights(-1.5, dict.fromkeys(ZONES, (0.0, 0.7, 0.3, 0.0))),
]
GATE = Gate(Curve((0.0, 1.0), (0.2, 0.8)), Curve((0.0, 1.0), (0.0, 1.0)))
RELIABILITIES = [
    SourceReliability((None,) * 3),
    SourceReliability((None, None, GATE)),
    SourceReliability(
        (None,) * 3, {"long": (Calibration(1.5, 0.8, 0.2), Calibration(), Calibration(0, 2, -1))}
    ),
]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reliability", RELIABILITIES)
def test_pool_equals_the_formula(sources, labels, weights, reliability):
    evidence = gather(sources, labels)[0]
    assert set(np.unique(evidence.zones)) == {0, 1, 2}
    expected = formula(evidence, weights, reliability, "long")
    found = pool(evidence, weights, reliability, "long")
    # A step of the result is 1/32 of log odds, that is two levels where it is steepest.
    # The mean is rounded to a byte, one way or the other.
    slack = 4 * weights.weights["alone"][-1]
    assert np.abs(found - 255 / (1 + np.exp(-expected))).max() <= 2 + slack
    clear = np.abs(expected) > 1e-4 + 0.04 * slack
    assert np.array_equal((found >= 128)[clear], (expected >= 0)[clear])


def test_log_odds_become_bytes_without_moving_the_outline():
    logits = np.array([-100, -8, -1e-7, -0.0, 0.0, 1e-7, 8, 100], np.float32)
    assert to_bytes(logits).tolist() == [0, 0, 127, 128, 128, 128, 255, 255]


@pytest.mark.parametrize("rule", [Hybrid(), Hybrid(("unet",)), Hybrid(recover=False)])
def test_one_source_is_reproduced(rule, sources, labels):
    for source in sources:
        fused = rule([source], labels)
        for label in labels.names:
            expected = source.binary(label).full(SIZE_HW)
            assert np.array_equal(fused.binary(label).full(SIZE_HW), expected)


@pytest.mark.parametrize("kept", range(3))
def test_the_weights_of_one_source_reproduce_it(kept, sources, labels):
    """Not even what its probabilities mean, or its detections are worth, moves its outline."""
    calibrations = {"long": dict.fromkeys(NAMES, Calibration(2.0, 0.5, 1.0))}
    weights = ClassWeights.single(kept, NAMES)
    assert weights.keeps == NAMES[kept]
    rule = Hybrid(NAMES, {"finger-1": weights}, {"yolo": GATE}, calibrations)
    found = rule(sources, labels).binary("finger-1").full(SIZE_HW)
    assert np.array_equal(found, dense(sources[kept], "finger-1") >= 128)


def test_equal_weights_see_what_the_mean_sees_in_agreement(predict, soft_plane, labels):
    plane = soft_plane(7)
    sources = [predict({"3": plane})] * 4
    found, mean = Hybrid()(sources, labels), Mean()(sources, labels)
    assert np.array_equal(found.binary("3").full(SIZE_HW), mean.binary("3").full(SIZE_HW))


def test_opposite_opinions_of_the_same_strength_are_bone(predict, labels):
    # As with the mean, where 127.5 rounds to 128: no drift toward smaller masks.
    values = np.repeat(np.arange(20, 127, dtype=np.uint8)[None], 3, axis=0)
    size_hw = values.shape
    sources = [predict({"3": v}, size_hw=size_hw) for v in (values, 255 - values)]
    (evidence,) = gather(sources, labels)
    found = pool(evidence, ClassWeights.plain(2), SourceReliability((None, None)), None)
    assert np.abs(found.astype(int) - 128).max() <= 1


SPREAD = [
    ((0.5, 0.25, 0.25), (0, 1, 1), (0.0, 0.5, 0.5)),
    ((0.5, 0.25, 0.25), (1, 0, 0), (1.0, 0.0, 0.0)),
    ((1.0, 0.0, 0.0), (0, 1, 1), (0.0, 0.5, 0.5)),
    ((0.2, 0.3, 0.5), (1, 1, 1), (0.2, 0.3, 0.5)),
    ((0.2, 0.3, 0.5), (1, 1, 0.5), (0.3, 0.4, 0.3)),
    ((0.7,), (0.3,), (0.7,)),
]


@pytest.mark.parametrize(("row", "worth", "expected"), SPREAD)
def test_what_a_source_is_not_worth_goes_to_the_others(row, worth, expected):
    found = spread(row, np.array(worth, float))
    assert found == pytest.approx(expected)
    assert found.sum() == pytest.approx(sum(row))


def test_the_mean_is_weighted_by_worth():
    layers = np.array([[[127, 0, 255]], [[128, 1, 55]], [[9, 9, 9]]], np.uint8)
    assert weighted_mean(layers, np.array([1.0, 1.0, 0.0])).tolist() == [[128, 1, 155]]
    assert weighted_mean(layers, np.array([0.6, 0.2, 0.0])).tolist() == [[127, 0, 205]]


def test_a_detector_that_found_nothing_has_no_influence(predict, sources, labels):
    silent = predict({}, "instance")
    alone = Hybrid()(sources[:2], labels)
    for order in ([*sources[:2], silent], [silent, *sources[:2]]):
        fused = Hybrid()(order, labels)
        for label in ("finger-1", "3"):
            assert np.abs(dense(fused, label).astype(int) - dense(alone, label)).max() <= 2
            assert np.array_equal(dense(fused, label) >= 128, dense(alone, label) >= 128)


KEPT = ClassWeights(0.5, dict.fromkeys(ZONES, (0.0, 0.0, 1.0, 0.0)), "yolo")


def test_a_class_that_keeps_a_silent_detector_takes_the_others(sources, labels):
    # Nothing but the bias would be left: the whole window would become bone.
    labels = replace(labels, once=True)
    fused = Hybrid(NAMES, {"3": KEPT})(sources, labels)
    others = Hybrid()(sources[:2], labels)
    assert np.array_equal(dense(fused, "3") >= 128, dense(others, "3") >= 128)
    assert 0 < fused.binary("3").area < 0.9 * SIZE_HW[0] * SIZE_HW[1]


def test_where_classes_may_be_absent_a_kept_detector_says_so(sources, labels):
    assert not labels.once
    assert sources[2].best("3") is None
    assert Hybrid(NAMES, {"3": KEPT})(sources, labels).best("3") is None
    # What does not speak of the class has not looked for it.
    elsewhere = replace(sources[2], classes=frozenset(sources[2].masks))
    fused = Hybrid(NAMES, {"3": KEPT})([*sources[:2], elsewhere], labels)
    others = Hybrid()(sources[:2], labels)
    assert np.array_equal(dense(fused, "3") >= 128, dense(others, "3") >= 128)


@pytest.mark.parametrize("soft_edge", [0.0, 0.1])
def test_semantic_sources_fill_in_what_a_box_cuts_off(predict, labels, soft_edge):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[30:60, 40:80] = 200
    cut = SoftMask((40.0, 30.0, 37.0, 30.0), np.full((30, 37), 250, np.uint8))
    sources = [predict({"3": plane}), predict({"3": (0.9, cut)}, "instance")]
    rule = Hybrid(
        ("a", "b"), {"3": ClassWeights(0, dict.fromkeys(ZONES, (0.5, 0.5, 0)))}, {}, {}, soft_edge
    )
    assert (rule(sources, labels).binary("3").area == 30 * 40) is (soft_edge > 0)


def faint(peak, seed=0):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[30:60, 40 + seed : 80 + seed] = peak // 3
    plane[40:50, 50 + seed : 70 + seed] = peak
    return plane


def test_a_missing_object_is_recovered_from_the_most_certain_source(predict, labels):
    labels = replace(labels, once=True)
    sources = [predict({"3": faint(60)}), predict({"3": faint(100, seed=20)})]
    fused = Hybrid()(sources, labels)
    # Its outline is put at half of its highest value.
    assert np.array_equal(fused.binary("3").full(SIZE_HW), faint(100, seed=20) >= 50)
    assert not Hybrid(recover=False)(sources, labels).binary("3").area
    # What may be absent from an image is not made up.
    assert not Hybrid()(sources, replace(labels, once=False)).binary("3").area


def test_a_detection_is_as_certain_as_its_score(predict, labels):
    detection = predict({"3": (0.3, faint(255, seed=20))}, "instance")
    semantic = predict({"3": faint(100)})
    _, mask = strongest("3", [detection, semantic])
    assert np.array_equal(mask.prob >= 128, faint(100) >= 50)
    _, mask = strongest("3", [detection, predict({"3": faint(60)})])
    assert np.array_equal(mask.prob, faint(255, seed=20))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_mask_that_is_too_faint_hides_no_other(predict, order):
    pair = [predict({"3": faint(25)}), predict({"3": (0.05, faint(255, 20))}, "instance")]
    _, mask = strongest("3", [pair[i] for i in order])
    assert np.array_equal(mask.prob, faint(255, 20))


@pytest.mark.parametrize("rule", [Hybrid(), Hybrid(recover=False)])
def test_an_object_is_left_empty_only_when_nothing_supports_it(predict, labels, rule):
    labels = replace(labels, once=True)
    fused = rule([predict({"3": faint(25)}), predict({}), predict({}, "instance")], labels)
    assert not fused.binary("3").area
    assert set(fused.masks) <= {"3"}
    assert not rule([predict({}), predict({}, "instance")], labels).masks


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (9, 1)])
def test_images_of_a_pixel_or_a_line(predict, labels, size_hw):
    source = predict({"3": np.full(size_hw, 255, np.uint8)}, size_hw=size_hw)
    fused = Hybrid()([source, source], labels)
    assert fused.binary("3").area == size_hw[0] * size_hw[1]


def test_a_bone_at_the_border_stays_there(predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[60:, 100:] = 255
    fused = Hybrid()([predict({"Ulna": plane}), predict({"Ulna": plane})], labels)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), plane // 255)


def test_holes_and_parts_survive(predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[10:40, 10:40] = plane[50:60, 70:90] = 255
    plane[20:30, 20:30] = 0
    fused = Hybrid()([predict({"Ulna": plane})] * 3, labels)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), plane // 255)


def test_overlapping_classes_keep_their_shared_pixels(predict, labels):
    first, second = np.zeros((2, *SIZE_HW), np.uint8)
    first[10:50, 10:60], second[30:80, 40:100] = 255, 255
    fused = Hybrid()([predict({"3": first, "Ulna": second})] * 3, labels)
    assert np.array_equal(fused.binary("3").full(SIZE_HW), first // 255)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), second // 255)


def test_a_rule_refuses_other_sources_than_its_own(sources, labels):
    for classes in ({}, {"3": ClassWeights.plain(3)}):
        with pytest.raises(ValueError, match=r"expected 3 sources \(unet, segformer, yolo\)"):
            Hybrid(NAMES, classes)(sources[:2], labels)


def test_a_rule_refuses_weights_of_unknown_classes(sources, labels):
    rule = Hybrid(NAMES, {"Talus": ClassWeights.plain(3)})
    with pytest.raises(ValueError, match=r"expected classes of 'shapes', found \['Talus'\]"):
        rule(sources, labels)


BAD_RULES = [
    (lambda: ClassWeights(0.0, {"alone": (1.0,)}), "expected zones"),
    (lambda: ClassWeights(float("nan"), dict.fromkeys(ZONES, (1.0,))), "expected finite numbers"),
    (lambda: ClassWeights(0, dict.fromkeys(ZONES, (float("inf"),))), "expected finite numbers"),
    (
        lambda: Hybrid(NAMES, {"3": ClassWeights.plain(2)}),
        "3 alone: expected 3 weights and that of",
    ),
    (
        lambda: Hybrid(NAMES, {}, {"mask": Gate()}),
        r"expected names of its sources, found \['mask'\]",
    ),
    (lambda: Hybrid(NAMES, {}, {}, {"long": {"mask": Calibration()}}), r"found \['mask'\]"),
    (lambda: Hybrid(("a",), {"3": ClassWeights.single(0, ("b",))}), r"found \['b'\]"),
]


@pytest.mark.parametrize(("make", "message"), BAD_RULES)
def test_rules_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fusing_is_pure(sources, labels):
    before = [mask.prob.copy() for p in sources for _, _, _, mask in p.rows()]
    first, second = (Hybrid()(sources, labels) for _ in range(2))
    after = [mask.prob for p in sources for _, _, _, mask in p.rows()]
    assert all(map(np.array_equal, before, after))
    assert np.array_equal(dense(first, "3"), dense(second, "3"))


def test_read_only_rasters_are_fused(labels):
    # As the store reads them.
    raster = np.frombuffer(bytes([255] * 12), np.uint8).reshape(3, 4)
    source = Prediction("x", (3, 4), "semantic", {"3": ((1.0, SoftMask((0, 0, 4, 3), raster)),)})
    assert Hybrid()([source, source], labels).binary("3").area == 12


def test_pool_of_no_weight_is_the_bias():
    evidence = ClassEvidence(
        "3",
        (0, 0, 2, 1),
        np.array([[[0, 255]]], np.uint8),
        np.array([False]),
        np.zeros((1, 2), np.uint8),
        np.ones(1),
        np.ones(1),
    )
    weights = ClassWeights(-2.0, dict.fromkeys(ZONES, (0.0, 0.0)))
    found = pool(evidence, weights, SourceReliability((None,)), None)
    assert np.abs(found - 255 / (1 + np.exp(2.0))).max() <= 1
