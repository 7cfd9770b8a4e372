"""The hybrid rule against its formula in float64."""

import numpy as np
import pytest

from fusion import FUSIONS, Hybrid, Mean
from fusion.evidence import ZONES, ClassEvidence, Reliability, gather
from fusion.hybrid import ClassWeights, pool, spread, strongest, to_bytes
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


def formula(evidence, weights):
    """Logit F = b + sum_k w_kz logit P_k at every pixel, in float64."""
    p = evidence.prob.astype(np.float64) / 255
    p[evidence.prob == 128] = 0.5
    limit = 1 / (1 + np.exp(4.0))
    p = np.clip(p, limit, 1 - limit)
    total = np.full(evidence.zones.shape, weights.bias)
    for z, zone in enumerate(ZONES):
        inside = evidence.zones == z
        for k, w in enumerate(weights.weights[zone]):
            total[inside] += w * np.log(p[k] / (1 - p[k]))[inside]
    return total


WEIGHTS = [
    ClassWeights.equal(3),
    ClassWeights(0.3, {"alone": (0.5, 0.2, 0.1), "shared": (0.1, 0, 1.4), "outline": (1, 1, 1)}),
    ClassWeights(-1.5, dict.fromkeys(ZONES, (0.0, 0.7, 0.3))),
]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("trust", [{}, {2: Reliability((0.0, 1.0), (0.2, 0.8))}])
def test_pool_equals_the_formula(sources, labels, weights, trust):
    evidence = gather(sources, labels, trust)[0]
    assert set(np.unique(evidence.zones)) == {0, 1, 2}
    expected = formula(evidence, weights)
    found = pool(evidence, weights)
    # A step of the result is 1/32 of log odds, that is two levels where it is steepest.
    assert np.abs(found - 255 / (1 + np.exp(-expected))).max() <= 2
    clear = np.abs(expected) > 1e-4
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
    trust = {"yolo": Reliability((0.5,), (0.3,))}
    weights = ClassWeights.single(kept, NAMES)
    assert weights.keeps == NAMES[kept]
    rule = Hybrid(NAMES, {"finger-1": weights}, trust)
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
    assert np.abs(pool(evidence, ClassWeights.equal(2)).astype(int) - 128).max() <= 1


SILENT = [
    ((0.5, 0.25, 0.25), (True, False, False), (0.0, 0.5, 0.5)),
    ((0.5, 0.25, 0.25), (False, True, True), (1.0, 0.0, 0.0)),
    ((1.0, 0.0, 0.0), (True, False, False), (0.0, 0.5, 0.5)),
    ((0.2, 0.3, 0.5), (False, False, False), (0.2, 0.3, 0.5)),
]


@pytest.mark.parametrize(("row", "silent", "expected"), SILENT)
def test_weights_of_silent_sources_go_to_the_others(row, silent, expected):
    assert spread(row, np.array(silent)) == pytest.approx(expected)


def test_a_detector_that_found_nothing_has_no_influence(predict, sources, labels):
    silent = predict({}, "instance")
    alone = Hybrid()(sources[:2], labels)
    for order in ([*sources[:2], silent], [silent, *sources[:2]]):
        fused = Hybrid()(order, labels)
        for label in ("finger-1", "3"):
            assert np.abs(dense(fused, label).astype(int) - dense(alone, label)).max() <= 2
            assert np.array_equal(dense(fused, label) >= 128, dense(alone, label) >= 128)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_class_that_keeps_a_silent_detector_takes_the_others(bias, sources, labels):
    # Nothing but the bias would be left: the whole window would become bone.
    weights = ClassWeights(bias, dict.fromkeys(ZONES, (0.0, 0.0, 1.0)), "yolo")
    fused = Hybrid(NAMES, {"3": weights})(sources, labels)
    expected = Hybrid(("a", "b"), {"3": ClassWeights(bias, dict.fromkeys(ZONES, (0.5, 0.5)))})
    others = expected(sources[:2], labels)
    assert np.array_equal(dense(fused, "3") >= 128, dense(others, "3") >= 128)
    assert 0 < fused.binary("3").area < 0.9 * SIZE_HW[0] * SIZE_HW[1]


def faint(peak, seed=0):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[30:60, 40 + seed : 80 + seed] = peak // 3
    plane[40:50, 50 + seed : 70 + seed] = peak
    return plane


def test_a_missing_object_is_recovered_from_the_most_certain_source(predict, labels):
    sources = [predict({"3": faint(60)}), predict({"3": faint(100, seed=20)})]
    fused = Hybrid()(sources, labels)
    # Its outline is put at half of its highest value.
    assert np.array_equal(fused.binary("3").full(SIZE_HW), faint(100, seed=20) >= 50)
    assert not Hybrid(recover=False)(sources, labels).binary("3").area


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
    fused = rule([predict({"3": faint(25)}), predict({}), predict({}, "instance")], labels)
    assert not fused.binary("3").area
    assert set(fused.masks) <= {"3"}
    assert not rule([predict({}), predict({}, "instance")], labels).masks


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("name", FUSIONS)
def test_images_of_a_pixel_or_a_line(name, predict, labels, size_hw):
    source = predict({"3": np.full(size_hw, 255, np.uint8)}, size_hw=size_hw)
    fused = FUSIONS[name]()([source, source], labels)
    assert fused.binary("3").area == size_hw[0] * size_hw[1]


@pytest.mark.parametrize("name", FUSIONS)
def test_a_bone_at_the_border_stays_there(name, predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[60:, 100:] = 255
    fused = FUSIONS[name]()([predict({"Ulna": plane}), predict({"Ulna": plane})], labels)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), plane // 255)


@pytest.mark.parametrize("name", FUSIONS)
def test_holes_and_parts_survive(name, predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[10:40, 10:40] = plane[50:60, 70:90] = 255
    plane[20:30, 20:30] = 0
    fused = FUSIONS[name]()([predict({"Ulna": plane})] * 3, labels)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), plane // 255)


@pytest.mark.parametrize("name", FUSIONS)
def test_overlapping_classes_keep_their_shared_pixels(name, predict, labels):
    first, second = np.zeros((2, *SIZE_HW), np.uint8)
    first[10:50, 10:60], second[30:80, 40:100] = 255, 255
    fused = FUSIONS[name]()([predict({"3": first, "Ulna": second})] * 3, labels)
    assert np.array_equal(fused.binary("3").full(SIZE_HW), first // 255)
    assert np.array_equal(fused.binary("Ulna").full(SIZE_HW), second // 255)


def test_a_rule_refuses_other_sources_than_its_own(sources, labels):
    for classes in ({}, {"3": ClassWeights.equal(3)}):
        with pytest.raises(ValueError, match=r"expected 3 sources \(unet, segformer, yolo\)"):
            Hybrid(NAMES, classes)(sources[:2], labels)


def test_a_rule_refuses_weights_of_unknown_classes(sources, labels):
    rule = Hybrid(NAMES, {"Talus": ClassWeights.equal(3)})
    with pytest.raises(ValueError, match=r"expected classes of 'shapes', found \['Talus'\]"):
        rule(sources, labels)


BAD_RULES = [
    (lambda: ClassWeights(0.0, {"alone": (1.0,)}), "expected zones"),
    (lambda: ClassWeights(float("nan"), dict.fromkeys(ZONES, (1.0,))), "expected finite numbers"),
    (lambda: ClassWeights(0, dict.fromkeys(ZONES, (float("inf"),))), "expected finite numbers"),
    (lambda: Hybrid(NAMES, {"3": ClassWeights.equal(2)}), "3 alone: expected 3 weights"),
    (lambda: Hybrid(NAMES, {}, {"mask": Reliability((0.5,), (0.5,))}), "sources that are not"),
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
    for rule in (make() for make in FUSIONS.values()):
        assert rule([source, source], labels).binary("3").area == 12


def test_pool_of_no_weight_is_the_bias():
    evidence = ClassEvidence(
        "3",
        (0, 0, 2, 1),
        np.array([[[0, 255]]], np.uint8),
        np.array([False]),
        np.zeros((1, 2), np.uint8),
    )
    found = pool(evidence, ClassWeights(-2.0, dict.fromkeys(ZONES, (0.0,))))
    assert np.abs(found - 255 / (1 + np.exp(2.0))).max() <= 1
