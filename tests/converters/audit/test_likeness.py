"""Distances against SciPy's, and what keeps faults from counting as usual."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from converters.audit.likeness import Likeness, cross_learned

RNG = np.random.default_rng(3)
MIX = RNG.normal(size=(4, 4))
ROWS = RNG.normal(size=(300, 4)) @ MIX


def reference(model, row, columns):
    inverse = np.linalg.inv(model.covariance[np.ix_(columns, columns)])
    standard = (row - model.middle) / model.scale
    return mahalanobis(standard[columns], np.zeros(len(columns)), inverse) ** 2


def test_distances_are_those_of_scipy():
    model = Likeness.learn(ROWS)
    expected = [reference(model, row, [0, 1, 2, 3]) for row in ROWS[:20]]
    assert model.distance2(ROWS[:20]) == pytest.approx(expected)


@pytest.mark.parametrize("missing", [[0], [1, 3], [0, 1, 2]])
def test_what_is_not_known_is_left_out(missing):
    model = Likeness.learn(ROWS)
    rows = ROWS[:5].copy()
    rows[2:, missing] = np.nan
    known = [column for column in range(4) if column not in missing]
    expected = [reference(model, row, [0, 1, 2, 3]) for row in ROWS[:2]]
    expected += [reference(model, row, known) for row in ROWS[2:5]]
    assert model.distance2(rows) == pytest.approx(expected)


def test_a_few_wild_rows_hardly_change_what_is_usual():
    wild = ROWS.copy()
    wild[:15] += 500
    before, after = Likeness.learn(ROWS), Likeness.learn(wild)
    assert after.scale == pytest.approx(before.scale, rel=0.2)
    assert (after.distance2(wild[:15]) > 50 * after.distance2(wild[15:]).max()).all()


def test_nobody_is_judged_by_what_was_learned_from_them():
    rows = RNG.normal(size=(40, 2))
    rows[:4] = [[90.0, 90.0]] * 4
    groups = ["odd"] * 4 + [f"person {n // 2}" for n in range(36)]
    seen = []
    for model, held_out in cross_learned(rows, groups):
        inside = {groups[n] for n in held_out}
        assert not inside & {groups[n] for n in set(range(40)) - set(held_out.tolist())}
        if "odd" in inside:
            assert np.abs(model.middle).max() < 1
        seen += held_out.tolist()
    assert sorted(seen) == list(range(40))


def test_samples_without_groups_are_judged_one_by_one():
    rows = RNG.normal(size=(12, 2))
    folds = [held_out for _, held_out in cross_learned(rows, [""] * 12)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(12))
    assert max(map(len, folds)) == 3
