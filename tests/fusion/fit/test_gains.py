"""Gains of related classes, drawn together."""

import numpy as np
import pytest

from fusion.fit.gains import BOTH_SIDES, ONE_SIDE, pool_gains
from fusion.metrics.intervals import Estimate


def gain(mean, sd):
    return Estimate(mean, (mean - BOTH_SIDES * sd, mean + BOTH_SIDES * sd))


def test_classes_that_do_not_differ_share_one_gain():
    found = pool_gains(
        [gain(0.01, 0.004), gain(0.01, 0.004), gain(0.012, 0.004), gain(0.008, 0.004)]
    )
    assert [g.mean for g in found] == pytest.approx([0.01] * 4)
    # Four measurements of one number: half the standard error of each.
    assert [g.interval[0] for g in found] == pytest.approx([0.01 - ONE_SIDE * 0.002] * 4)


def test_classes_that_differ_clearly_stay_apart():
    given = [gain(-0.05, 0.001), gain(0.0, 0.001), gain(0.05, 0.001)]
    for before, after in zip(given, pool_gains(given), strict=True):
        assert after.mean == pytest.approx(before.mean, abs=1e-4)
        assert after.interval[0] == pytest.approx(before.mean - ONE_SIDE * 0.001, abs=1e-4)


def test_an_unsure_class_moves_more_than_a_sure_one():
    sure, unsure, *_ = pool_gains([gain(0.02, 0.001), gain(0.02, 0.01), *[gain(0.0, 0.003)] * 4])
    assert 0 < unsure.mean < sure.mean < 0.02


def test_no_class_is_drawn_farther_than_its_own_evidence_allows():
    """What 44 chest radiographs said: a rare class, worse when fused, beside five that gain."""
    others = [(0.0005, 0.003), (0.01, 0.004), (0.013, 0.007), (0.031, 0.01), (0.023, 0.009)]
    *better, rare = pool_gains([*(gain(*one) for one in others), gain(-0.127, 0.08)])
    assert all(found.mean > 0 for found in better)
    assert rare.mean == pytest.approx(-0.127 + 0.08)
    assert rare.interval[0] == pytest.approx(rare.mean - ONE_SIDE * 0.08)


def test_means_and_intervals_hold_what_they_promise():
    """Simulated: classes' true gains, measured with noise; squared error and coverage of both."""
    rng = np.random.default_rng(0)
    errors, raw_errors, covered = [], [], []
    for _ in range(300):
        real, sd = rng.normal(0.01, 0.005, 8), rng.uniform(0.003, 0.012, 8)
        given = [gain(m, s) for m, s in zip(rng.normal(real, sd), sd, strict=True)]
        for truth, before, after in zip(real, given, pool_gains(given), strict=True):
            errors.append((after.mean - truth) ** 2)
            raw_errors.append((before.mean - truth) ** 2)
            covered.append(after.interval[0] <= truth)
    assert np.mean(errors) < 0.6 * np.mean(raw_errors)
    # The variance between classes is taken as known, so that somewhat fewer than 95 % are covered.
    assert 0.85 < np.mean(covered) < 0.97


@pytest.mark.parametrize("given", [[], [gain(0.1, 0.01)], [Estimate(0.1, None), gain(0.2, 0.01)]])
def test_too_few_classes_stay_as_they_are(given):
    assert pool_gains(given) == given


def test_classes_that_are_nowhere_say_nothing_of_others():
    nowhere = [Estimate(0.0, (0.0, 0.0))] * 10
    found = pool_gains([gain(0.1, 0.05), *nowhere, gain(0.2, 0.05)])
    assert found[1:-1] == nowhere
    assert [found[0].mean, found[-1].mean] == pytest.approx([0.15, 0.15], abs=0.03)


def test_equal_gains_without_spread():
    assert [g.mean for g in pool_gains([Estimate(0.1, (0.1, 0.1))] * 3)] == pytest.approx([0.1] * 3)
