"""Mean, weighted mean and maximum against whole planes."""

import numpy as np
import pytest

from fusion import Mean
from fusion.rules.pooling import Max, Weighted, move_to_half
from fusion.types import Prediction, SoftMask

SIZE_HW = (90, 130)
ABC = ("a", "b", "c")


def planes_of(prediction, label):
    best = prediction.best(label)
    height, width = prediction.size_hw
    if best is None:
        return np.zeros(prediction.size_hw, np.uint8)
    return best[1].render((0, 0, width, height))


def inside(mask):
    x, y, width, height = mask.window(SIZE_HW)
    found = np.zeros(SIZE_HW, bool)
    found[y : y + height, x : x + width] = True
    return found


@pytest.fixture
def sources(predict, soft_plane):
    """Three sources: masks in different boxes, a class that one lacks, a class that all lack."""
    crop = SoftMask((20.0, 10.0, 65.0, 40.0), soft_plane(4, (20, 30)))
    return [
        predict({"finger-1": soft_plane(1), "3": soft_plane(5)}),
        predict({"finger-1": soft_plane(2, (45, 65)), "3": soft_plane(6)}),
        predict({"finger-1": (0.7, crop)}, "instance"),
    ]


@pytest.mark.parametrize("shares", [(), (1, 1, 1), (0.2, 3.0, 0.5), (0.97, 0.0, 1e-9)])
def test_the_mean_equals_the_dense_mean(sources, labels, shares):
    rule = Weighted(weights=dict(zip(ABC, shares, strict=True))) if shares else Mean()
    fused = rule(sources, labels)
    for label in ("finger-1", "3"):
        stack = np.stack([planes_of(p, label) for p in sources]).astype(np.float64)
        dense = np.average(stack, axis=0, weights=shares or (1, 1, 1))
        found, seen = planes_of(fused, label), inside(fused.best(label)[1])
        assert np.abs(found - dense)[seen].max() <= 0.51
        assert (stack[:, ~seen] < 13).all()
        assert np.array_equal(found >= 128, dense >= 127.5)


def test_the_maximum_equals_the_dense_maximum(sources, labels):
    fused = Max()(sources, labels)
    for label in ("finger-1", "3"):
        dense = np.max([planes_of(p, label) for p in sources], axis=0)
        found, seen = planes_of(fused, label), inside(fused.best(label)[1])
        assert np.array_equal(found[seen], dense[seen])
        assert (dense[~seen] < 13).all()


def test_the_mean_of_equal_sources_is_the_source(sources, labels):
    fused = Mean()([sources[0]] * 3, labels)
    source = planes_of(sources[0], "3")
    assert np.array_equal(planes_of(fused, "3")[source >= 13], source[source >= 13])


def test_an_absent_object_counts_as_nothing(sources, labels):
    # Two of three have class 3: their sum is divided by three.
    expected = (planes_of(sources[0], "3") + planes_of(sources[1], "3").astype(float)) / 3
    assert np.array_equal(planes_of(Mean()(sources, labels), "3") >= 128, expected >= 127.5)


def test_weights_are_renormalised_among_those_who_speak(sources, predict, labels, soft_plane):
    plane = soft_plane(7)
    silent = Prediction(
        sources[0].key, SIZE_HW, "semantic", sources[0].masks, frozenset(sources[0].masks)
    )
    speaking = [predict({"Ulna": plane}), predict({"Ulna": plane // 2})]
    rule = Weighted(weights={"a": 5.0, "b": 1.0, "c": 1.0})
    fused = rule([silent, *speaking], labels)
    seen = inside(fused.best("Ulna")[1])
    expected = (plane.astype(float) + plane // 2) / 2
    assert np.abs(planes_of(fused, "Ulna") - expected)[seen].max() <= 0.51


def test_a_class_is_stronger_than_its_group(sources, labels):
    """`long` is finger-1 and Ulna; wrist_2 is in another group, 3 in none."""
    rule = Weighted(
        weights={"a": 1.0, "b": 0.0, "c": 0.0},
        classes={"long": {"a": 0.0, "b": 1.0}, "3": {"b": 1.0, "a": 0.0}},
    )
    fused = rule(sources, labels)
    for label in ("finger-1", "3"):
        assert np.array_equal(planes_of(fused, label) >= 128, planes_of(sources[1], label) >= 128)
    both = Weighted(weights=rule.weights, classes={**rule.classes, "finger-1": {"a": 1, "b": 0}})
    assert np.array_equal(
        planes_of(both(sources, labels), "finger-1") >= 128,
        planes_of(sources[0], "finger-1") >= 128,
    )


def test_sources_are_those_that_the_weights_name():
    assert Weighted(weights={"b": 1.0}, classes={"3": {"a": 1.0, "b": 2.0}}).sources == ("b", "a")
    assert Weighted(("a", "b"), {"b": 1.0, "a": 2.0}).sources == ("a", "b")


BAD = {
    "negative": ({"weights": {"a": -1.0}}, r"weights: expected finite weights >= 0.*-1"),
    "nan": ({"weights": {"a": float("nan")}}, "weights: expected finite weights"),
    "infinite": ({"weights": {"a": float("inf")}}, "weights: expected finite weights"),
    "of a class": ({"classes": {"3": {"a": -1.0}}}, "weighted: 3: expected finite weights"),
    "unknown source": ({"sources": ("a",), "weights": {"b": 1.0}}, "sources of a; found b"),
    "twice": ({"sources": ("a", "a"), "weights": {"a": 1.0}}, "found twice: a"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        Weighted(**options)


UNFIT = {
    "none": ({}, "expected a weight of each source in a fusion config"),
    "one missing": ({"sources": ABC, "weights": {"a": 1, "b": 1}}, "finger-1: .* missing c"),
    "all zero": ({"sources": ABC, "weights": dict.fromkeys(ABC, 0)}, "expected a weight above 0"),
    "too few": ({"weights": {"a": 1, "b": 1}}, r"expected 2 sources \(a, b\), found 3"),
    "no such class": (
        {"weights": dict.fromkeys(ABC, 1), "classes": {"toes": {"a": 1}}},
        "expected classes or groups of 'shapes', found toes",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_weights_that_do_not_fit_are_refused(name, sources, labels):
    options, message = UNFIT[name]
    with pytest.raises(ValueError, match=message):
        Weighted(**options)(sources, labels)


@pytest.mark.parametrize("rule", [Mean, lambda **o: Weighted(weights={"a": 1.0}, **o)])
@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [({}, 0.5), ({"long": 0.3}, 0.3), ({"long": 0.3, "Ulna": 0.62}, 0.62), ({"3": 0.3}, 0.5)],
)
def test_a_class_is_cut_at_its_threshold(rule, thresholds, expected, predict, soft_plane, labels):
    plane = soft_plane(3)
    ((_, mask),) = rule(thresholds=thresholds)([predict({"Ulna": plane})], labels).masks["Ulna"]
    found = mask.binary(SIZE_HW).full(SIZE_HW).astype(bool)
    assert np.array_equal(found, plane >= 255 * expected)
    assert not np.array_equal(found, plane >= 255 * 0.45)


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.5, 0.7, 0.98])
def test_a_moved_threshold_keeps_the_order_and_the_ends(threshold):
    moved = move_to_half(np.arange(256, dtype=np.uint8)[None], threshold)[0]
    assert (moved[0], moved[-1]) == (0, 255)
    assert (np.diff(moved.astype(int)) >= 0).all()
    assert np.array_equal(moved >= 128, np.arange(256) >= 255 * threshold)


BAD_THRESHOLDS = [
    ({"3": 0.0}, "thresholds: 3: expected more than 0, less than 1, found 0.0"),
    ({"3": 1.0}, "thresholds: 3: expected more than 0"),
    ({"3": float("nan")}, "thresholds: 3: expected more than 0"),
    ({"cup": 0.5}, "mean: expected classes or groups of 'shapes', found cup"),
]


@pytest.mark.parametrize(("thresholds", "message"), BAD_THRESHOLDS)
def test_thresholds_that_mean_nothing_are_refused(thresholds, message, predict, labels):
    with pytest.raises(ValueError, match=message):
        Mean(thresholds=thresholds)([predict({})], labels)
