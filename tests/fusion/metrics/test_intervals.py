"""Confidence intervals against SciPy's own bootstrap and a t test."""

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from fusion.metrics.intervals import RESAMPLES, mean_over_people, means_over_people


def test_the_interval_is_about_that_of_a_t_test():
    values = np.random.default_rng(0).normal(0.01, 0.02, 60)
    found = mean_over_people(values, [str(n) for n in range(60)])
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(values.mean())
    assert found.interval == pytest.approx((low, high), abs=1e-3)


def test_images_of_one_patient_count_as_one_observation():
    values = np.random.default_rng(0).normal(0, 0.02, 40)
    people = [str(n) for n in range(40)]
    alone = mean_over_people(values, people).interval
    copied = mean_over_people(np.repeat(values, 4), np.repeat(people, 4).tolist()).interval
    taken_for_others = mean_over_people(np.repeat(values, 4), [str(n) for n in range(160)]).interval
    assert copied == pytest.approx(alone)
    assert taken_for_others is not None
    assert alone is not None
    assert taken_for_others[1] - taken_for_others[0] < 0.7 * (alone[1] - alone[0])


def test_patients_with_more_images_count_more():
    found = mean_over_people(np.array([0.0, 0.0, 0.0, 4.0]), ["a", "a", "a", "b"])
    assert found.mean == 1
    assert found.interval == (0, 4)


def test_one_patient_has_no_interval():
    assert mean_over_people(np.array([0.1, 0.2]), ["a", "a"]).interval is None


def test_the_interval_is_scipys():
    rng = np.random.default_rng(3)
    values, people = rng.normal(0, 1, 70), rng.permutation(np.arange(70) % 25)
    sums, counts = np.bincount(people, values), np.bincount(people)

    def ratio(total, number, axis=-1):
        return total.sum(axis) / number.sum(axis)

    expected = bootstrap(
        (sums, counts),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    found = mean_over_people(values, [f"p_{n:02d}" for n in people])
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_columns_are_averaged_after_images():
    # By hand: column means 1 (two images) and 5 (one image), whose mean is 3.
    values = np.array([[0.0, np.nan], [2.0, 5.0]])
    assert mean_over_people(values, ["a", "b"]).mean == 3


def test_draws_without_a_value_are_left_out_of_the_interval():
    # A quarter of the draws are twice the person without a value.
    found = mean_over_people(np.array([np.nan, 2.0]), ["a", "b"])
    assert (found.mean, found.interval) == (2, (2, 2))


def test_selections_are_drawn_alike():
    rng = np.random.default_rng(0)
    values, people = rng.random((12, 4)), [str(n // 2) for n in range(12)]
    values[3, 1] = np.nan
    several = means_over_people(values, people, [[0, 1, 2, 3], [1], [3, 0]])
    for found, columns in zip(several, ([0, 1, 2, 3], [1], [3, 0]), strict=True):
        alone = mean_over_people(values[:, columns], people)
        assert found.mean == pytest.approx(alone.mean)
        assert found.interval == pytest.approx(alone.interval)


def test_a_column_without_values_has_no_estimate():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    found = means_over_people(values, ["a", "b"], [[0], [1], [0, 1]])
    assert found[1] is None
    assert found[0] == found[2]
    with pytest.raises(ValueError, match="expected values, found none in 2 rows"):
        mean_over_people(values[:, 1], ["a", "b"])


def test_every_row_has_a_person():
    with pytest.raises(ValueError, match="found 1 people for 2 images"):
        mean_over_people(np.zeros(2), ["a"])


def test_an_estimate_reads_well():
    found = mean_over_people(np.array([0.5, 0.5]), ["a", "b"])
    assert str(found) == "+0.5000 [+0.5000, +0.5000]"
    assert found.record() == {"mean": 0.5, "interval": (0.5, 0.5)}
    assert str(mean_over_people(np.array([0.5]), ["a"])) == "+0.5000 [one patient]"


def test_an_image_of_weight_three_is_three_images():
    rng = np.random.default_rng(0)
    values, people = rng.normal(size=(30, 4)), [str(n // 3) for n in range(30)]
    values[3, 1] = np.nan
    times = rng.integers(1, 4, 30)
    copied = mean_over_people(np.repeat(values, times, axis=0), np.repeat(people, times).tolist())
    weighted = mean_over_people(values, people, times / times.mean())
    assert weighted.mean == pytest.approx(copied.mean, abs=1e-12)
    assert weighted.interval == pytest.approx(copied.interval, abs=1e-12)
    assert weighted.mean != pytest.approx(mean_over_people(values, people).mean, abs=1e-3)
