"""What sources are worth: curves, gates, calibration, against closed forms and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fusion.rules.calibration import Calibration, Curve, Gate, SourceReliability
from fusion.rules.evidence import LOGIT_LIMIT, NEUTRAL, logit_table

KNOTS = Curve((0.2, 0.6), (0.5, 0.9))


@pytest.mark.parametrize(
    ("place", "expected"), [(0.0, 0.5), (0.2, 0.5), (0.4, 0.7), (0.6, 0.9), (1.0, 0.9)]
)
def test_a_curve_is_linear_between_knots_and_constant_beyond(place, expected):
    assert KNOTS(place) == pytest.approx(expected)


BAD_KNOTS = [
    ((), ()),
    ((0.1,), (0.1, 0.2)),
    ((0.5, 0.1), (0.1, 0.2)),
    ((0.1, 0.5), (0.2, 0.1)),
    ((0.1,), (1.1,)),
    ((float("nan"),), (0.5,)),
]


@pytest.mark.parametrize(("places", "values"), BAD_KNOTS)
def test_curves_that_cannot_be_are_refused(places, values):
    with pytest.raises(ValueError, match="curve: expected"):
        Curve(places, values)


def test_a_fitted_curve_never_falls_and_follows_the_data():
    rng = np.random.default_rng(0)
    places = rng.random(2000)
    found = Curve.fit(places, places**2 + rng.normal(scale=0.05, size=2000))
    assert all(found(x) == pytest.approx(x**2, abs=0.06) for x in np.linspace(0, 1, 11))


def test_a_curve_of_one_place():
    assert Curve.fit(np.array([0.5, 0.5]), np.array([0.2, 0.4]))(0.9) == pytest.approx(0.3)


def test_a_gate_tells_score_from_overlap():
    rng = np.random.default_rng(1)
    scores, overlaps = rng.random(4000), rng.random(4000)
    gate = Gate.fit(scores, overlaps, (0.5 + 0.5 * scores) * np.minimum(1, 2 * overlaps))
    assert gate(0.9, 0.9) > gate(0.2, 0.9) > gate(0.2, 0.2)
    # What is left at an overlap, relative to the best: the curve without the scores' part.
    assert gate.overlap(0.25) / gate.overlap(0.95) == pytest.approx(0.5, abs=0.17)
    assert gate.overlap(0.95) == pytest.approx(1, abs=0.02)


def test_what_a_gate_learns_is_short_enough_to_read():
    rng = np.random.default_rng(3)
    gate = Gate.fit(*rng.random((3, 200)))
    numbers = [*gate.score.values, *gate.overlap.values]
    assert numbers == [round(number, 4) for number in numbers]


def test_an_untouched_probability_keeps_its_log_odds():
    assert np.array_equal(Calibration().table(), logit_table())
    assert Calibration().table()[NEUTRAL] == 0


@pytest.mark.parametrize(
    "given", [Calibration(2, 2, 0), Calibration(1, 1, 0.7), Calibration(1.4, 0.6, -0.3)]
)
def test_calibration_finds_what_was_bent(given):
    """Pixels whose log odds are those of `given` exactly."""
    prob = np.linspace(0.02, 0.98, 49)
    z = given.a * np.log(prob) - given.b * np.log(1 - prob) + given.c
    inside = 1 / (1 + np.exp(-z))
    found = Calibration.fit(prob, inside, 1 - inside, prior=0)
    assert (found.a, found.b, found.c) == pytest.approx((given.a, given.b, given.c), abs=0.02)


def test_calibration_is_the_logistic_regression_of_scikit_learn():
    rng = np.random.default_rng(2)
    prob = np.linspace(0.03, 0.97, 16)
    inside, other = rng.integers(1, 400, (2, 16)).astype(float)
    inside.sort()
    other[::-1].sort()
    features = np.stack([np.log(prob), -np.log(1 - prob)], axis=1)
    model = LogisticRegression(C=np.inf, tol=1e-9, max_iter=10000)
    model.fit(
        np.repeat(features, 2, axis=0), np.tile([1, 0], 16), np.stack([inside, other], 1).ravel()
    )
    found = Calibration.fit(prob, inside, other, prior=0)
    assert (model.coef_ > 0).all()
    assert (found.a, found.b, found.c) == pytest.approx(
        (*model.coef_[0], model.intercept_[0]), abs=0.01
    )


def test_without_pixels_nothing_changes():
    nothing = np.zeros(16)
    assert Calibration.fit(np.linspace(0, 1, 16), nothing, nothing) == Calibration()


@pytest.mark.parametrize(
    "values", [(-0.1, 1, 0), (1, -1, 0), (1, 1, float("nan")), (float("inf"), 1, 0)]
)
def test_calibrations_that_cannot_be_are_refused(values):
    with pytest.raises(ValueError, match="calibration: expected"):
        Calibration(*values)


def test_log_odds_are_cut_at_the_limit():
    table = Calibration(3, 3, 0).table()
    assert (table[0], table[255]) == (-LOGIT_LIMIT, LOGIT_LIMIT)
    assert (np.diff(table) >= 0).all()


def test_where_nothing_is_reliable_all_that_is_said_counts_the_same():
    shut = Gate(Curve((0.5,), (0.0,)))
    found = SourceReliability((shut, shut, None)).worth(
        np.ones(3), np.ones(3), np.array([False, False, True])
    )
    assert found.tolist() == [1, 1, 0]


def test_reliability_is_looked_up_by_place_and_group():
    bent = (Calibration(2, 2, 0), Calibration())
    reliability = SourceReliability((None, Gate(KNOTS)), {"carpals": bent, "": bent[::-1]})
    scores, both = np.array([0.1, 0.4]), np.zeros(2, bool)
    assert reliability.worth(scores, np.ones(2), both) == pytest.approx([1, 0.7])
    assert reliability.worth(scores, np.ones(2), np.array([True, False])) == pytest.approx([0, 0.7])
    assert reliability.of_group("carpals") == bent
    assert reliability.of_group(None) == bent[::-1]
    assert reliability.of_group("fingers") == (Calibration(), Calibration())
