"""Mean and vote against whole planes."""

import numpy as np
import pytest

from fusion import Mean, Vote
from fusion.types import SoftMask

SIZE_HW = (90, 130)


def planes_of(prediction, label):
    best = prediction.best(label)
    height, width = prediction.size_hw
    if best is None:
        return np.zeros(prediction.size_hw, np.uint8)
    return best[1].render((0, 0, width, height))


@pytest.fixture
def sources(predict, soft_plane):
    """Three sources: masks in different boxes, a class that one lacks, a class that all lack."""
    crop = SoftMask((20.0, 10.0, 65.0, 40.0), soft_plane(4, (20, 30)))
    return [
        predict({"finger-1": soft_plane(1), "3": soft_plane(5)}),
        predict({"finger-1": soft_plane(2, (45, 65)), "3": soft_plane(6)}),
        predict({"finger-1": (0.7, crop)}, "instance"),
    ]


@pytest.mark.parametrize("weights", [(), (1, 1, 1), (0.2, 3.0, 0.5)])
def test_mean_equals_the_dense_mean(sources, labels, weights):
    fused = Mean(weights)(sources, labels)
    shares = np.array(weights or (1, 1, 1), float)
    for label in ("finger-1", "3"):
        stack = np.stack([planes_of(p, label) for p in sources]).astype(np.float32)
        dense = np.average(stack, axis=0, weights=shares)
        found = planes_of(fused, label)
        x, y, width, height = fused.best(label)[1].window(SIZE_HW)
        inside = np.zeros(SIZE_HW, bool)
        inside[y : y + height, x : x + width] = True
        assert np.abs(found - dense)[inside].max() <= 0.51
        assert (stack[:, ~inside] < 13).all()
        assert np.array_equal(found >= 128, dense >= 127.5)


def test_mean_of_equal_sources_is_the_source(sources, labels):
    fused = Mean()([sources[0]] * 3, labels)
    source = planes_of(sources[0], "3")
    assert np.array_equal(planes_of(fused, "3")[source >= 13], source[source >= 13])


def test_the_weights_order_is_the_sources_order(sources, labels):
    fused = Mean((1e6, 1.0, 1.0))(sources, labels)
    assert np.array_equal(planes_of(fused, "3") >= 128, planes_of(sources[0], "3") >= 128)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("count", [4, 5])
def test_vote_equals_counting(predict, soft_plane, labels, k, count):
    sources = [predict({"3": soft_plane(seed)}) for seed in range(count)]
    votes = sum((planes_of(p, "3") >= 128).astype(int) for p in sources)
    first = planes_of(sources[0], "3") >= 128
    majority = (2 * votes > count) | ((2 * votes == count) & first)
    expected = votes >= k if k else majority
    assert np.array_equal(Vote(k)(sources, labels).binary("3").full(SIZE_HW), expected)


def test_vote_breaks_a_tie_as_the_first_source_says(predict, labels):
    full, none = np.full(SIZE_HW, 255, np.uint8), np.zeros(SIZE_HW, np.uint8)
    yes, no = predict({"3": full}), predict({"3": none})
    assert Vote()([yes, no], labels).binary("3").area == full.size
    assert Vote()([no, yes], labels).binary("3").area == 0


@pytest.mark.parametrize("rule", [Mean(), Vote(), Vote(3)])
def test_a_class_that_nobody_saw_stays_absent(rule, sources, labels):
    fused = rule(sources, labels)
    assert set(fused.masks) == {"finger-1", "3"}
    assert (fused.key, fused.size_hw) == (sources[0].key, sources[0].size_hw)


def test_an_absent_object_counts_against_it(sources, labels):
    # Two of three have class 3: their sum is divided by three; three votes are never reached.
    expected = (planes_of(sources[0], "3") + planes_of(sources[1], "3").astype(float)) / 3
    assert np.array_equal(planes_of(Mean()(sources, labels), "3") >= 128, expected >= 127.5)
    assert Vote(3)(sources, labels).binary("3").area == 0


@pytest.mark.parametrize("rule", [Mean(), Vote()])
def test_masks_outside_the_image_are_no_evidence(rule, predict, labels):
    outside = SoftMask((500.0, 0.0, 9.0, 9.0), np.full((2, 2), 255, np.uint8))
    assert not rule([predict({"3": outside})], labels).masks


@pytest.mark.parametrize("weights", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (float("nan"), 1, 1)])
def test_weights_that_are_not_positive_are_refused(weights):
    with pytest.raises(ValueError, match="expected positive weights"):
        Mean(weights)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0, 1.0)])
def test_weights_of_other_sources_are_refused(weights, sources, labels):
    with pytest.raises(ValueError, match="expected 3 weights"):
        Mean(weights)(sources, labels)


@pytest.mark.parametrize("k", [-1, 4])
def test_impossible_majorities_are_refused(k, sources, labels):
    with pytest.raises(ValueError, match="expected k of 0 to 3"):
        Vote(k)(sources, labels)


@pytest.mark.parametrize("rule", [Mean(), Vote()])
def test_predictions_of_different_images_are_refused(rule, predict, labels):
    first = predict({})
    for other in (predict({}, key="other"), predict({}, size_hw=(130, 90))):
        with pytest.raises(ValueError, match=r"expected ID001/image_1_R \(90, 130\), found"):
            rule([first, other], labels)
    with pytest.raises(ValueError, match="at least one source"):
        rule([], labels)
