"""The fit: its tables against real masks, its gradient, and what it gains on held-out images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from converters.masks import EMPTY, crop
from fusion import Hybrid, Mean
from fusion.fit.counted import Counted
from fusion.fit.counts import AT_MOST_SOURCES, LEVEL_ODDS, LEVELS, SILENT, tabulate
from fusion.fit.hybrid import HybridFit
from fusion.fit.stacks import Stack
from fusion.fit.weights import tune_bias
from fusion.metrics.scores import Scores, dice, score_image
from fusion.rules.calibration import Calibration, Curve, Gate, SourceReliability
from fusion.rules.evidence import ZONES, gather, logit_table
from fusion.rules.file import dump_rule, read_rule
from fusion.rules.hybrid import ClassWeights
from fusion.types import Prediction, SoftMask

pytestmark = pytest.mark.slow

SIZE_HW = (90, 130)
NAMES = ("unet", "segformer", "yolo")
UNTOUCHED = SourceReliability((None,) * 3)


@pytest.fixture(scope="module")
def sources(flaw):
    """Two semantic sources that fail in overlaps, one of instances that misses some."""
    blind = flaw(2.5, blind=True)
    return (blind, blind, flaw(3.0, kind="instance", misses=0.1))


@pytest.fixture(scope="module")
def train(world, sources):
    return world(sources, 24, seed=0)


@pytest.fixture(scope="module")
def held_out(world, sources):
    return world(sources, 24, seed=1)


@pytest.fixture(scope="module")
def fitted(train, labels):
    return HybridFit()(train, NAMES, labels)


def score(rule, images, labels):
    scored = [
        score_image("x", {n: rule(p, labels).binary(n) for n in labels.names}, truth, labels)
        for p, truth, _ in images
    ]
    return Scores(labels, scored).mean()


def alone(k):
    return lambda predictions, labels: predictions[k]


def tables_of(images, labels, label):
    tables = []
    for predictions, truth, _ in images:
        found = {e.label: e for e in gather(predictions, labels)}
        tables.append(tabulate(found.get(label), truth.get(label, EMPTY), len(predictions)))
    return tables


def test_the_hybrid_beats_the_mean_and_every_source(fitted, held_out, labels):
    hybrid = score(fitted.rule, held_out, labels)
    assert hybrid > score(Mean(), held_out, labels) + 0.01
    assert hybrid > score(Hybrid(), held_out, labels) + 0.005
    assert hybrid > max(score(alone(k), held_out, labels) for k in range(3)) + 0.03


def test_the_detector_leads_where_the_others_are_blind(fitted):
    for weights in fitted.rule.classes.values():
        unet, segformer, yolo, _ = weights.weights["shared"]
        assert yolo > unet + segformer


def test_the_report_says_what_held_out_images_say(fitted, train, held_out, labels):
    fused = np.mean([r.fused for r in fitted.report.values()])
    assert fused == pytest.approx(score(fitted.rule, held_out, labels), abs=0.02)
    for k, name in enumerate(NAMES):
        single = np.mean([r.single[name] for r in fitted.report.values()])
        assert single == pytest.approx(score(alone(k), train, labels), abs=1e-9)
    assert (fitted.images, fitted.patients) == (24, 12)


def test_every_patient_has_a_rule_that_has_not_seen_them(fitted, train, labels):
    assert set(fitted.held_out) == {patient for _, _, patient in train}
    assert len(set(map(id, fitted.held_out.values()))) == 5
    held_out = [
        dice(fitted.held_out[patient](p, labels).binary(n), truth[n])
        for p, truth, patient in train
        for n in labels.names
    ]
    fused = np.mean([r.fused for r in fitted.report.values()])
    assert np.mean(held_out) == pytest.approx(fused, abs=0.003)


def test_notes_name_every_class_and_source(fitted, labels):
    notes = fitted.notes()
    assert set(notes) == set(labels.names)
    assert all(name in note for note in notes.values() for name in NAMES)


def test_the_fitted_rule_survives_its_file(fitted, held_out, labels, tmp_path):
    path = tmp_path / "rule.yaml"
    path.write_text(dump_rule(fitted.rule, fitted.notes()), encoding="utf-8")
    loaded = read_rule(path)
    assert score(loaded, held_out, labels) == pytest.approx(
        score(fitted.rule, held_out, labels), abs=1e-4
    )


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_a_useless_source_does_not_hurt(kind, world, flaw, labels):
    flaws = (flaw(2.5), flaw(2.5), flaw(0.0, useless=True, kind=kind))
    found = HybridFit()(world(flaws, 16, seed=0), NAMES, labels)
    images = world(flaws, 16, seed=1)
    pairs = [(p[:2], truth, group) for p, truth, group in images]
    assert score(found.rule, images, labels) > score(Mean(), pairs, labels) - 0.002
    # A detection's weight counts by what the detections are worth.
    worth = max((max(g.score.values) for g in found.rule.gates.values()), default=1)
    for name, weights in found.rule.classes.items():
        good, also_good, useless, _ = weights.weights["outline"]
        assert useless * worth < 0.75 * min(good, also_good)
        assert found.report[name].worth["yolo"] < min(
            found.report[name].worth[n] for n in NAMES[:2]
        )


def test_a_class_keeps_a_source_that_cannot_be_bettered(world, flaw, labels):
    flaws = (flaw(0.0), flaw(0.0, useless=True))
    found = HybridFit()(world(flaws, 8), ("true", "noise"), labels)
    assert {r.keeps for r in found.report.values()} == {"true"}
    assert set(found.rule.classes) == set(labels.names)
    for weights in found.rule.classes.values():
        assert weights == ClassWeights.single(0, ("true", "noise"))
    assert 'keeps: "true"' in dump_rule(found.rule) or "keeps: 'true'" in dump_rule(found.rule)


def test_a_class_that_no_image_has_keeps_no_source(world, flaw, labels):
    """A source that says nothing of it, whatever else it can do, would be its best one."""
    gone, images = labels.names[0], []
    for (fair, mute), truth, patient in world((flaw(1.0), flaw(0.0)), 8):
        silent = replace(mute, masks={n: m for n, m in mute.masks.items() if n != gone})
        images.append(([silent, fair], {n: m for n, m in truth.items() if n != gone}, patient))
    found = HybridFit(fall_back="unsure")(images, ("mute", "fair"), labels)
    assert [n for n, r in found.report.items() if not r.is_seen] == [gone]
    assert found.report[gone].keeps == found.rule.classes[gone].keeps == ""
    assert found.notes()[gone].startswith("no image has it")
    assert {found.report[n].keeps for n in labels.names[1:]} == {"mute"}


def test_the_best_source_scores_as_reported_when_it_is_kept(world, flaw, labels):
    # A detector that misses objects is credited with nothing for them.
    flaws = (flaw(0.0, kind="instance", misses=0.3), flaw(0.0, useless=True))
    images = world(flaws, 8)
    found = HybridFit()(images, ("yolo", "noise"), labels)
    for label in labels.names:
        real = [dice(p[0].binary(label), truth[label]) for p, truth, _ in images]
        assert found.report[label].single["yolo"] == pytest.approx(np.mean(real))


# --- tables


@pytest.mark.parametrize("k", range(3))
def test_tables_give_one_source_its_real_dice(train, labels, k):
    for label in labels.names:
        for table, (predictions, truth, _) in zip(
            tables_of(train[:6], labels, label), train, strict=False
        ):
            expected = dice(predictions[k].binary(label), truth[label])
            assert table.dice_alone(k) == pytest.approx(expected, abs=1e-12)


def test_stacked_tables_give_each_image_its_dice(train, labels):
    stack = Stack.of(tables_of(train[:6], labels, "3"), UNTOUCHED, None)
    first_alone = np.zeros(4 * len(ZONES) + 1)
    first_alone[:12:4] = 1
    expected = [dice(p[0].binary("3"), truth["3"]) for p, truth, _ in train[:6]]
    assert stack.dice(first_alone) == pytest.approx(expected, abs=1e-12)


def test_an_image_of_weight_three_is_three_images_to_the_loss(train, labels):
    tables, times = tables_of(train[:6], labels, "3"), np.array([1, 3, 1, 2, 1, 1])
    weighted = Stack.of(tables, UNTOUCHED, None, weights=times / times.mean())
    copied = Stack.of([tables[i] for i in np.repeat(range(6), times)], UNTOUCHED, None)
    parameters = np.random.default_rng(0).uniform(0, 0.6, 4 * len(ZONES) + 1)
    (loss, gradient), (expected, slope) = (s.soft_loss(parameters) for s in (weighted, copied))
    assert loss == pytest.approx(expected, abs=1e-9)
    assert gradient == pytest.approx(slope, abs=1e-7)
    logits = [s.logits(parameters) for s in (weighted, copied)]
    assert weighted.mean_dice_above(logits[0], 0.3) == pytest.approx(
        copied.dice_above(logits[1], 0.3).mean(), abs=1e-12
    )


@pytest.mark.parametrize("fall_back", ["never", "worse", "unsure"])
def test_classes_fall_back_by_their_likely_gain(world, flaw, labels, fall_back):
    """One source is by far the best one: there is little to gain."""
    images = world((flaw(1.0), flaw(6.0), flaw(6.0)), 12, seed=4)
    found = HybridFit(fall_back=fall_back, factors=(1.0,))(images, NAMES, labels)
    gains = {n: r.likely_gain for n, r in found.report.items()}
    assert any(not gain.is_gain for gain in gains.values())
    expected = {
        "never": set(),
        "worse": {n for n, gain in gains.items() if gain.mean <= 0},
        "unsure": {n for n, gain in gains.items() if not gain.is_gain},
    }
    kept = {n for n, r in found.report.items() if r.keeps}
    assert kept == expected[fall_back] == {n for n, c in found.rule.classes.items() if c.keeps}
    assert {found.report[n].keeps for n in kept} <= {"unet"}


def test_images_that_count_more_decide_about_weights(train, world, flaw, labels):
    """On half of the images another source is the good one."""
    sources = (flaw(1.0), flaw(6.0), flaw(3.0, kind="instance"))
    others = world((sources[1], sources[0], sources[2]), 12, seed=3)
    images, fit = [*world(sources, 12, seed=2), *others], HybridFit(factors=(1.0,))
    counts = [fit.count(seen, labels) for seen in images]
    for weights in (np.repeat([9.0, 1.0], 12), np.repeat([1.0, 9.0], 12)):
        rule = fit.solve(Counted.of(counts, labels, 3, weights), NAMES, labels).rule
        rows = [w for c in rule.classes.values() for w in c.weights.values()]
        first, second, *_ = np.mean(rows, axis=0)
        assert (first > second) == (weights[0] > 1)


def test_tables_give_the_pool_about_its_real_dice(train, fitted, labels):
    for label, weights in fitted.rule.classes.items():
        rule = replace(fitted.rule, classes={label: weights}, recover=False)
        rows = [w for zone in ZONES for w in weights.weights[zone]]
        tables = tables_of(train, labels, label)
        stack = Stack.of(tables, rule.reliability(3), labels.group_of(label))
        real = [dice(rule(p, labels).binary(label), truth[label]) for p, truth, _ in train]
        assert np.abs(stack.dice(np.array([*rows, weights.bias])) - real).mean() < 0.005


def test_tables_count_every_pixel_once(train, labels):
    (predictions, truth, _) = train[0]
    for evidence in gather(predictions, labels):
        table = tabulate(evidence, truth[evidence.label], 3)
        assert table.inside.sum() + table.missed == truth[evidence.label].area
        assert (table.inside + table.other).sum() == evidence.zones.size
        assert np.array_equal(np.unique(table.zones), np.unique(evidence.zones))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6])
def test_rows_are_those_of_sorted_pixels(predict, soft_plane, labels, count):
    """However the pixels are counted: by few codes at once, or by sorting."""
    sources = [predict({"3": soft_plane(seed)}) for seed in range(count)]
    sources.append(predict({}, kind="instance"))
    (evidence,) = gather(sources, labels)
    truth = crop((soft_plane(9) >= 128).astype(np.uint8))
    table = tabulate(evidence, truth, count + 1)
    edges = (0, 0.2, 0.4, 0.65, 0.95, 1.3, 1.7, 2.2, 2.8, 3.4, 4)
    edges = edges if count + 1 <= 3 else (0, 0.4, 0.95, 1.7, 2.8, 4)
    middles = (np.array(edges[1:]) + edges[:-1]) / 2
    columns = [evidence.zones.ravel()]
    for layer in evidence.prob[:-1]:
        odds = logit_table()[layer.ravel()]
        column = np.digitize(np.abs(odds), edges[1:-1])
        columns.append(np.where(odds >= 0, middles[column], -middles[column]))
    rows, place = np.unique(np.stack(columns), axis=1, return_inverse=True)
    real = truth.window(evidence.window_xywh).ravel()
    assert np.array_equal(table.zones, rows[0])
    assert np.allclose(LEVEL_ODDS[table.levels[:, :-1]], rows[1:].T)
    assert (table.levels[:, -1] == SILENT).all()
    assert np.array_equal(table.inside, np.bincount(place.ravel(), real, rows.shape[1]))
    assert np.array_equal(table.other, np.bincount(place.ravel(), 1 - real, rows.shape[1]))


def test_true_pixels_outside_every_window_are_missed(predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[10:20, 10:20] = 1
    nothing = tabulate(None, crop(plane), 2)
    assert (nothing.missed, len(nothing.inside)) == (100, 0)
    assert nothing.dice_alone(1) == 0
    assert tabulate(None, EMPTY, 2).dice_alone(1) == 1
    stack = Stack.of([nothing, tabulate(None, EMPTY, 2)], SourceReliability((None, None)), None)
    assert stack.dice(np.ones(10)).tolist() == [0, 1]
    loss, gradient = stack.soft_loss(np.ones(10))
    assert np.isfinite(loss)
    assert not gradient.any()


def test_true_pixels_outside_the_window_are_missed(predict, labels):
    seen = predict({"3": SoftMask((10.0, 10.0, 20.0, 10.0), np.full((2, 2), 255, np.uint8))})
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[15:40, 20:50] = 1
    truth = crop(plane)
    (evidence,) = gather([seen], labels)
    table = tabulate(evidence, truth, 1)
    assert (int(table.inside.sum()), table.missed) == (50, 25 * 30 - 50)
    assert table.dice_alone(0) == pytest.approx(dice(seen.binary("3"), truth))


def test_a_silent_detector_s_weight_goes_to_the_others_as_in_the_rule(train, labels):
    # The bias alone would make the whole window the object.
    weights = ClassWeights(0.4, dict.fromkeys(ZONES, (0.1, 0.1, 0.6, 0.2)))
    parameters = np.array([*(0.1, 0.1, 0.6, 0.2) * len(ZONES), 0.4])
    rule = Hybrid(NAMES, {"3": weights}, recover=False)
    images = [((*p[:2], replace(p[2], masks={})), t, g) for p, t, g in train[:6]]
    real = [dice(rule(p, labels).binary("3"), truth["3"]) for p, truth, _ in images]
    assert min(real) > 0.5
    found = Stack.of(tables_of(images, labels, "3"), UNTOUCHED, None).dice(parameters)
    assert found == pytest.approx(real, abs=0.02)


@pytest.mark.parametrize("k", range(3))
def test_a_source_can_be_left_out_of_a_table(train, labels, k):
    """The Dice without a source is that of a rule to which it says nothing."""
    weights = ClassWeights(0.1, dict.fromkeys(ZONES, (0.3, 0.1, 0.2, 0.4)))
    parameters = np.array([*(0.3, 0.1, 0.2, 0.4) * len(ZONES), 0.1])
    rule = Hybrid(NAMES, {"3": weights}, recover=False)
    mute = [
        [replace(s, classes=frozenset(), masks={}) if j == k else s for j, s in enumerate(p)]
        for p, _, _ in train[:6]
    ]
    real = [
        dice(rule(p, labels).binary("3"), t["3"]) for p, (_, t, _) in zip(mute, train, strict=False)
    ]
    found = Stack.of(tables_of(train[:6], labels, "3"), UNTOUCHED, None, without=k).dice(parameters)
    assert found == pytest.approx(real, abs=0.03)


def test_reliability_counts_in_tables_as_in_the_rule(train, labels):
    gate = Gate(Curve((0.0, 1.0), (0.1, 0.9)), Curve((0.5, 1.0), (0.2, 1.0)))
    calibrations = {
        "long": {"unet": Calibration(1.4, 0.7, 0.3), "segformer": Calibration(0.8, 1.2, 0)}
    }
    weights = ClassWeights(-0.1, dict.fromkeys(ZONES, (0.2, 0.3, 0.9, 0.1)))
    rule = Hybrid(NAMES, {"Ulna": weights}, {"yolo": gate}, calibrations, recover=False)
    real = [dice(rule(p, labels).binary("Ulna"), t["Ulna"]) for p, t, _ in train]
    stack = Stack.of(tables_of(train, labels, "Ulna"), rule.reliability(3), "long")
    found = stack.dice(np.array([*(0.2, 0.3, 0.9, 0.1) * len(ZONES), -0.1]))
    assert np.abs(found - real).mean() < 0.005


@pytest.mark.parametrize("shift", [-0.75, 0.75])
def test_the_bias_is_tuned_to_where_dice_is_best(world, flaw, labels, shift):
    stack = Stack.of(
        tables_of(world([flaw(1.0)], 6), labels, "3"), SourceReliability((None,)), None
    )
    columns = stack.design.columns
    columns += shift * (columns != 0)
    start = np.array([1.0, 0.0] * len(ZONES) + [0.0])
    tuned = tune_bias(stack, start)
    assert tuned[-1] * shift < 0
    assert stack.dice(tuned).mean() > stack.dice(start).mean()
    assert np.array_equal(tuned[:-1], start[:-1])


def test_as_many_sources_as_a_code_can_hold(predict, soft_plane, labels):
    assert len(ZONES) * (LEVELS + 1) ** AT_MOST_SOURCES < 2**63
    assert len(ZONES) * (LEVELS + 1) ** (AT_MOST_SOURCES + 1) >= 2**63
    sources = [predict({"3": soft_plane(seed)}) for seed in range(AT_MOST_SOURCES)]
    (evidence,) = gather(sources, labels)
    truth = sources[-1].binary("3")
    table = tabulate(evidence, truth, len(sources))
    assert table.dice_alone(AT_MOST_SOURCES - 1) == 1
    assert table.dice_alone(0) == pytest.approx(dice(sources[0].binary("3"), truth))


def test_more_sources_are_refused(predict, soft_plane, labels):
    sources = [predict({"3": soft_plane(0)})] * (AT_MOST_SOURCES + 1)
    (evidence,) = gather(sources, labels)
    with pytest.raises(ValueError, match="expected at most 12 sources, found 13"):
        tabulate(evidence, EMPTY, len(sources))


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_gradient_is_that_of_finite_differences(train, labels, scale):
    stack = Stack.of(tables_of(train[:4], labels, "wrist_2"), UNTOUCHED, "carpals")
    parameters = scale * np.random.default_rng(0).random(4 * len(ZONES) + 1)

    # The value in float64: differences of float32 sums are noise.
    def value(p):
        return soft_loss(stack, p)

    def gradient(p):
        return stack.soft_loss(p)[1]

    assert check_grad(value, gradient, parameters) < 1e-5
    assert stack.soft_loss(parameters)[0] == pytest.approx(value(parameters), abs=1e-6)


def soft_loss(stack, parameters):
    """1 - mean soft Dice, image by image in float64."""
    design = np.concatenate([*stack.design.blocks()]).astype(np.float64)
    p = 1 / (1 + np.exp(-design @ parameters))
    values = []
    edges = [*stack.starts, len(p)]
    for i, truth in enumerate(stack.truth):
        rows = slice(edges[i], edges[i + 1])
        hit, area = (stack.inside[rows] * p[rows]).sum(), (stack.total[rows] * p[rows]).sum()
        values.append(2 * hit / (truth + area))
    return 1 - np.mean(values)


# --- inputs


def test_the_fit_is_deterministic(fitted, train, labels):
    assert HybridFit()(train, NAMES, labels).rule == fitted.rule


def test_the_order_of_the_images_does_not_matter(fitted, train, labels, held_out):
    order = np.random.default_rng(0).permutation(len(train))
    shuffled = HybridFit()((train[i] for i in order), NAMES, labels)
    for label in labels.names:
        assert shuffled.report[label].fused == pytest.approx(fitted.report[label].fused, abs=2e-3)
    assert score(shuffled.rule, held_out, labels) == pytest.approx(
        score(fitted.rule, held_out, labels), abs=2e-3
    )


def test_a_patient_s_images_are_never_on_both_sides(train, labels, monkeypatch):
    """Neither where weights are fitted, nor where the strength of the shrinkage is chosen."""
    seen = []
    fit = HybridFit._fit

    def spy(self, counted, labels):
        seen.append(set(counted.patients))
        return fit(self, counted, labels)

    monkeypatch.setattr(HybridFit, "_fit", spy)
    HybridFit(folds=4)(train[:16], NAMES, labels)
    everybody = {patient for _, _, patient in train[:16]}
    assert [len(s) for s in seen] == [6, 6, 6, 6, 8]
    assert sorted(p for s in seen for p in everybody - s) == sorted(everybody)


def test_inner_folds_divide_by_patient_too(train, labels):
    counted = Counted.of((HybridFit().count(seen, labels) for seen in train[:12]), labels, 3)
    for chosen, others in counted.folds(3):
        sides = [{counted.patients[i] for i in places} for places in (chosen, others)]
        assert not sides[0] & sides[1]
        assert sorted([*chosen, *others]) == list(range(12))
        assert counted.only(others).patients == [train[i][2] for i in others]


BAD_IMAGES = [
    (lambda images: [], "at least two patients, found 0 in 0 images"),
    (lambda images: images[:2], "at least two patients, found 1 in 2 images"),
    (lambda images: [(p[:2], t, g) for p, t, g in images], "expected 3 sources, found 2"),
]


@pytest.mark.parametrize(("change", "message"), BAD_IMAGES)
def test_images_that_cannot_be_fitted_are_refused(train, labels, change, message):
    with pytest.raises(ValueError, match=message):
        HybridFit()(change(train[:6]), NAMES, labels)


def test_a_class_that_no_image_has_is_fitted_too(train, labels):
    def without(image):
        predictions, truth, group = image
        masks = [{n: m for n, m in p.masks.items() if n != "Ulna"} for p in predictions]
        kept = [replace(p, masks=m) for p, m in zip(predictions, masks, strict=True)]
        return kept, {n: m for n, m in truth.items() if n != "Ulna"}, group

    images = [without(image) for image in train[:8]]
    found = HybridFit()(images, NAMES, labels)
    assert found.report["Ulna"].single == dict.fromkeys(NAMES, 1.0)
    assert score(found.rule, images, labels) > 0.8


def test_sources_without_any_detection_are_fitted(train, labels):
    images = [
        ((p[0], Prediction(p[0].key, p[0].size_hw, "instance", {})), truth, group)
        for p, truth, group in train[:8]
    ]
    found = HybridFit()(images, ("unet", "yolo"), labels)
    assert not found.rule.gates
    assert score(found.rule, images, labels) >= score(alone(0), images, labels) - 1e-9


def test_progress_is_told(train, labels):
    told = []
    HybridFit(folds=2)(train[:4], NAMES, labels, told.append)
    assert told == ["counting pixels", "cross-validating", "fitting"]


@pytest.mark.parametrize(
    "changes",
    [
        {"zones": False},
        {"calibrate": False},
        {"gate": False},
        {"factors": (1.0,)},
        {"soft_edge": 0.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_part_of_the_fit_can_be_left_out(changes, train, held_out, labels):
    whole = {"gate": True, "calibrate": True}
    found = HybridFit(folds=2, **{**whole, **changes})(train, NAMES, labels)
    # Where sources are blind in overlaps, zones are what helps most.
    handicap = 0.01 if changes == {"zones": False} else -0.01
    assert score(found.rule, held_out, labels) > score(Mean(), held_out, labels) - handicap
    for weights in found.rule.classes.values():
        assert (len(set(weights.weights.values())) == 1) is (changes == {"zones": False})
    assert bool(found.rule.gates) is ("gate" not in changes)
    assert bool(found.rule.calibrations) is ("calibrate" not in changes)


def test_gates_shut_out_detections_in_the_wrong_place(world, flaw, labels):
    """A detector that is sharp, and sure of itself, but often mixes up two classes."""
    images = []
    for (semantic, detector), truth, patient in world((flaw(5.0), flaw(0.5, kind="instance")), 24):
        masks = dict(detector.masks)
        if patient[-1] in "024":
            masks["3"], masks["finger-1"] = masks["finger-1"], masks["3"]
        images.append(((semantic, replace(detector, masks=masks)), truth, patient))
    options = {"folds": 3, "factors": (1.0,)}
    found = HybridFit(**options)(images, ("unet", "yolo"), labels)
    gate = found.rule.gates["yolo"]
    assert gate(0.9, 0.0) < 0.1 * gate(0.9, 0.9)
    without = HybridFit(**options, gate=False)(images, ("unet", "yolo"), labels)
    assert found.rule == HybridFit(**options, gate=True)(images, ("unet", "yolo"), labels).rule
    better = [found.report[n].fused - without.report[n].fused for n in labels.names]
    assert np.mean(better) > 0.005


def _fade(prediction, power):
    """Return a prediction whose probabilities are too low: p to a power."""
    table = np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    masks = {
        n: tuple((score, SoftMask(m.box_xywh, table[m.prob])) for score, m in found)
        for n, found in prediction.masks.items()
    }
    return replace(prediction, masks=masks)


@pytest.mark.parametrize(("noise", "power"), [((1.5, 3.0), 6.0), ((2.0, 2.0), 1.0)])
def test_probabilities_are_calibrated_where_held_out_images_gain(noise, power, world, flaw, labels):
    """A source that is more careful than right beside a noisy one, or two just alike."""
    seen = world((flaw(noise[0]), flaw(noise[1])), 24)
    images = [((_fade(p[0], power), p[1]), truth, patient) for p, truth, patient in seen]
    names, options = ("first", "second"), {"folds": 3, "factors": (3.0,)}
    fits = {
        calibrate: HybridFit(**options, calibrate=calibrate)(images, names, labels)
        for calibrate in (None, True, False)
    }
    reached = {c: np.mean([r.fused for r in fit.report.values()]) for c, fit in fits.items()}
    assert reached[None] > max(reached.values()) - 0.001
    if power != 1:
        assert reached[True] > reached[False] + 0.005
        assert fits[None].rule == fits[True].rule
