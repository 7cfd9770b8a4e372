"""What a fit is to win: its text, its counts against dense planes, its gradient, what it gains."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import check_grad

from converters.masks import EMPTY
from fusion import Hybrid, Mean
from fusion.fit.choice import Contest, choose_fit
from fusion.fit.counted import Counted, count_evidence
from fusion.fit.hybrid import HybridFit
from fusion.fit.judging import Judge, Judged, compare
from fusion.fit.objective import Objective, image_values, linear_ratio
from fusion.fit.report import HeldOutReport, report_classes
from fusion.fit.stacks import Stack
from fusion.fit.weights import Mixture
from fusion.metrics.intervals import mean_over_people, ratios_over_people
from fusion.metrics.measures import measure_image
from fusion.metrics.scores import ImageScore, Scores, score_image
from fusion.metrics.summary import summarize
from fusion.rules.calibration import SourceReliability
from fusion.rules.evidence import OUTLINE, ZONES, gather

SIZE_HW = (90, 130)
NAMES = ("unet", "segformer", "yolo")
UNTOUCHED = SourceReliability((None,) * 3)
OVERLAPS = Objective(dice=0.0, shared=1.0)


@pytest.fixture(scope="module")
def sources(flaw):
    """Two that are blind in overlaps, and one of instances that is noisy but sees them."""
    return (flaw(2.0, blind=True), flaw(2.5, blind=True), flaw(4.5, kind="instance"))


@pytest.fixture(scope="module")
def train(world, sources):
    return world(sources, 24, seed=0)


@pytest.fixture(scope="module")
def test_images(world, sources):
    return world(sources, 24, seed=1)


@pytest.fixture(scope="module")
def counted(train, labels):
    counts = (count_evidence(seen, labels, 0.05, overlaps=True) for seen in train)
    return Counted.of(counts, labels, len(NAMES))


# --- its text


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("dice", Objective(), "dice"),
        (" shared ", Objective(dice=0, shared=1), "shared"),
        ("nsd", Objective(dice=0, nsd=1), "nsd"),
        ("nsd:3", Objective(dice=0, nsd=1), "nsd"),
        ("dice:.7,shared:.3", Objective(dice=0.7, shared=0.3), "dice:0.7,shared:0.3"),
        ("nsd:1, dice:3", Objective(dice=0.75, nsd=0.25), "dice:0.75,nsd:0.25"),
    ],
)
def test_texts(text, expected, said):
    found = Objective.parse(text)
    assert found == expected
    assert (str(found), found.is_dice) == (said, said == "dice")


@pytest.mark.parametrize(
    "text",
    ["", "iou", "dice,shared", "dice:0", "dice:-1,nsd:2", "dice:x", "dice:1,dice:2", "nsd:inf"],
)
def test_bad_texts_are_one_line(text):
    with pytest.raises(
        ValueError, match=r"^--objective: expected dice, shared, nsd, or "
    ) as caught:
        Objective.parse(text)
    assert str(caught.value).endswith(f"found '{text}'")


def test_stand_ins_follow_from_counts():
    found = Objective(dice=0.5, shared=0.25, nsd=0.25).stand_ins(has_overlaps=True)
    assert found[0] == Objective(dice=2 / 3, shared=1 / 3)
    assert Objective() in found
    assert all(not each.nsd for each in found)
    plain = Objective(dice=0, nsd=1).stand_ins(has_overlaps=False)
    assert len(plain) == 3
    assert not any(each.shared for each in plain)


# --- its values


def test_the_mean_of_a_linear_ratio_is_the_ratio():
    rng = np.random.default_rng(0)
    wholes = rng.integers(50, 90, 40).astype(float)
    parts = wholes * rng.uniform(0.6, 0.9, 40)
    weights = rng.uniform(0.5, 2, 40)
    values = linear_ratio(parts, wholes, weights)
    assert np.average(values, weights=weights) == pytest.approx(
        (parts * weights).sum() / (wholes * weights).sum()
    )
    # Its interval is about that of the ratio itself.
    people = [f"p_{i // 2}" for i in range(40)]
    (ratio,) = ratios_over_people([(parts[:, None], wholes[:, None])], people, [[0]])
    linear = mean_over_people(linear_ratio(parts, wholes), people)
    assert linear.mean == pytest.approx(ratio.mean)
    assert linear.interval == pytest.approx(ratio.interval, abs=0.002)
    assert linear_ratio(np.zeros(3), np.zeros(3)).tolist() == [1, 1, 1]


def test_values_of_images_come_to_what_scores_say(train, labels):
    scored = [
        measure_image(
            str(i), {n: p[0].binary(n) for n in labels.names}, truth, labels, SIZE_HW, ("nsd",)
        )
        for i, (p, truth, _) in enumerate(train)
    ]
    scores = Scores(labels, scored)
    assert scores.overlapping == labels.names
    nsd = summarize(scores, "nsd").overall.mean
    for objective, expected in (
        (Objective(), scores.mean()),
        (OVERLAPS, scores.shared_pooled()),
        (Objective(dice=0, nsd=1), nsd),
        (
            Objective(dice=0.5, shared=0.3, nsd=0.2),
            0.5 * scores.mean() + 0.3 * scores.shared_pooled() + 0.2 * nsd,
        ),
    ):
        assert image_values(scores, objective).mean() == pytest.approx(expected)


# --- its counts


def test_shared_pixels_are_counted_as_on_dense_planes(train, labels, counted):
    assert counted.overlapping == set(labels.names)
    for n in labels.names:
        parts = counted.shared_alone(n)
        for i, (predictions, truth, _) in enumerate(train):
            real = {m: truth.get(m, EMPTY).full(SIZE_HW) > 0 for m in labels.names}
            others = np.any([real[m] for m in labels.names if m != n], axis=0)
            table = counted.tables[n][i]
            evidence = next(e for e in gather(predictions, labels) if e.label == n)
            x, y, w, h = evidence.window_xywh
            place = slice(y, y + h), slice(x, x + w)
            assert table.shared.truth == np.count_nonzero(real[n] & others)
            assert table.shared.claimed.sum() == np.count_nonzero(others[place])
            assert table.shared.hit.sum() == np.count_nonzero((real[n] & others)[place])
            for k, layer in enumerate(evidence.prob):
                if evidence.silent[k]:
                    continue
                said = (layer >= 128) & others[place]
                both = 2 * np.count_nonzero(said & real[n][place])
                whole = np.count_nonzero(said) + np.count_nonzero(real[n] & others)
                assert parts[k, :, i].tolist() == [both, whole]


def test_nothing_is_counted_that_nobody_asked_for(train, labels):
    image = count_evidence(train[0], labels, 0.05)
    assert all(table.shared is None for table in image.tables.values())
    assert Counted.of([image, replace(image, patient="other")], labels, 3).overlapping == set()


def test_a_class_that_nobody_sees_shares_pixels_all_the_same(train, labels):
    predictions, truth, patient = train[0]
    blind = [
        replace(p, masks={n: m for n, m in p.masks.items() if n != "3"}, kind="semantic")
        for p in predictions
    ]
    image = count_evidence((blind, truth, patient), labels, 0.05, overlaps=True)
    table = image.tables["3"]
    assert (len(table.inside), len(table.shared.hit)) == (0, 0)
    others = np.any([truth[m].full(SIZE_HW) for m in labels.names if m != "3"], axis=0)
    assert table.shared.truth == np.count_nonzero(others & (truth["3"].full(SIZE_HW) > 0)) > 0
    assert table.shared.dice_parts(np.zeros(0, bool)) == (0, table.shared.truth)


@pytest.mark.parametrize("part", ["shared", "outlines", "mixture"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_finite_differences(counted, part, weighted):
    few = counted.only(range(4))
    weights = np.array([1.0, 3.0, 0.5, 1.0]) if weighted else None
    tables = few.tables["wrist_2"]
    stack = Stack.of(tables, UNTOUCHED, "carpals", weights=weights)
    shared, outlines = stack.of_shared(tables), stack.near_outlines()
    goal = {
        "shared": shared,
        "outlines": outlines,
        "mixture": Mixture(((0.6, stack), (0.3, shared), (0.1, outlines))),
    }[part]
    value = {
        "shared": lambda p: loss_in_float64(shared, p),
        "outlines": lambda p: loss_in_float64(outlines, p),
        "mixture": lambda p: (
            0.6 * loss_in_float64(stack, p)
            + 0.3 * loss_in_float64(shared, p)
            + 0.1 * loss_in_float64(outlines, p)
        ),
    }[part]
    parameters = np.random.default_rng(0).random(4 * len(ZONES) + 1)
    assert check_grad(value, lambda p: goal.soft_loss(p)[1], parameters) < 1e-5
    assert goal.soft_loss(parameters)[0] == pytest.approx(value(parameters), abs=1e-6)


def loss_in_float64(stack, parameters):
    design = np.concatenate([*stack.design.blocks()]).astype(np.float64)
    p = 1 / (1 + np.exp(-design @ parameters))
    edges = [*stack.starts, len(p)]
    rows = [slice(a, b) for a, b in pairwise(edges)]
    hits = np.array([2 * (stack.inside[r] * p[r]).sum() for r in rows])
    both = stack.truth + np.array([(stack.total[r] * p[r]).sum() for r in rows])
    if stack.pooled:
        return 1 - (stack.weights @ hits) / (stack.weights @ both)
    return 1 - stack.weights @ (hits / both)


def test_hard_dice_of_shared_pixels_is_pooled(counted):
    tables = counted.tables["Ulna"]
    shared = Stack.of(tables, UNTOUCHED, "long").of_shared(tables)
    parameters = np.random.default_rng(1).random(4 * len(ZONES) + 1)
    parts, wholes = shared.dice_parts(parameters)
    logits = shared.logits(parameters)
    assert shared.mean_dice_above(logits, 0.0) == pytest.approx(parts.sum() / wholes.sum())
    near = Stack.of(tables, UNTOUCHED, "long").near_outlines()
    assert near.total.sum() == sum((t.inside + t.other)[t.zones == OUTLINE].sum() for t in tables)
    assert near.truth.sum() == near.inside.sum()


# --- what it gains


def reached(rule, images, labels):
    found = []
    for i, (p, truth, _) in enumerate(images):
        fused = rule(p, labels)
        found.append(score_image(str(i), {n: fused.binary(n) for n in labels.names}, truth, labels))
    return Scores(labels, found)


@pytest.mark.slow
def test_a_fit_wins_what_it_is_told_to_win(world, sources, labels):
    """In the mean of three worlds: in a single one chance decides about a few thousandths."""
    half = Objective(0.5, 0.5)
    dice, shared, mixed = dict[str, float](), dict[str, float](), dict[str, float]()
    worlds = [[world(sources, 24, seed=seed) for seed in (2 * k, 2 * k + 1)] for k in range(3)]
    for text in ("dice", "shared", "dice:.5,shared:.5"):
        fit = HybridFit(objective=Objective.parse(text), gate=False, calibrate=False)
        scores = [reached(fit(seen, NAMES, labels).rule, unseen, labels) for seen, unseen in worlds]
        dice[text] = np.mean([s.mean() for s in scores])
        shared[text] = np.mean([s.shared_pooled() for s in scores])
        mixed[text] = np.mean([image_values(s, half).mean() for s in scores])
    assert shared["shared"] > shared["dice"] + 0.01
    assert dice["dice"] > dice["shared"] + 0.01
    assert mixed["dice:.5,shared:.5"] > mixed["dice"] + 0.002


@pytest.mark.slow
def test_dice_is_what_it_was(train, labels):
    plain = HybridFit(factors=(1.0,))(train[:12], NAMES, labels)
    told = HybridFit(factors=(1.0,), objective=Objective.parse("dice:2"))(train[:12], NAMES, labels)
    assert (told.rule, told.report) == (plain.rule, plain.report)


def test_a_class_keeps_the_source_that_wins(counted, labels):
    """Where fusion is of no use, by Dice one that is blind in overlaps, else the one that sees."""
    useless = HeldOutReport.empty(counted)
    for parts in useless.shared.values():
        parts[1] = 100
    by_dice = report_classes(counted, useless, NAMES, labels, "worse")
    by_shared = report_classes(counted, useless, NAMES, labels, "worse", OVERLAPS)
    assert {r.keeps for r in by_dice.values()} <= {"unet", "segformer"}
    assert {r.keeps for r in by_shared.values()} == {"yolo"}
    for n, report in by_shared.items():
        parts, wholes = counted.shared_alone(n)[2]
        assert report.gain.mean == pytest.approx(-parts.sum() / wholes.sum())
        assert report.single == by_dice[n].single


def test_nothing_overlaps(train, labels):
    apart = [
        (p, {n: m for n, m in truth.items() if n in ("finger-1", "3")}, patient)
        for p, truth, patient in train[:6]
    ]
    with pytest.raises(ValueError, match="--objective shared: expected classes that overlap"):
        HybridFit(objective=OVERLAPS)(apart, NAMES, labels)


@pytest.mark.slow
def test_it_is_judged_by_the_objective_on_held_out_people(train, labels):
    images, patients = train[:12], [patient for *_, patient in train[:12]]
    fit = HybridFit(factors=(1.0,), objective=OVERLAPS)(images, NAMES, labels)
    judge = Judge(fit.held_out, fit.plain, labels, objective=OVERLAPS)
    judged = Judged.stack([judge(seen)[1] for seen in images])
    found = compare(fit, judged, patients, NAMES, labels, objective=OVERLAPS)
    fused = [(fit.held_out[patient](p, labels), p, truth) for (p, truth, patient) in images]
    own = Scores(
        labels,
        [
            score_image(str(i), {n: f.binary(n) for n in labels.names}, truth, labels)
            for i, (f, _, truth) in enumerate(fused)
        ],
    )
    assert found.won.fused == pytest.approx(own.shared_pooled())
    assert found.won.mean == pytest.approx(reached(Mean(), images, labels).shared_pooled())
    assert found.won.plain == pytest.approx(reached(Hybrid(), images, labels).shared_pooled())
    first = reached(lambda p, _: p[0], images, labels)
    assert found.won.single["unet"] == pytest.approx(first.shared_pooled())
    assert found.won.gain.mean == pytest.approx(found.won.fused - found.won.plain)
    lines = found.describe("hybrid").splitlines()
    assert lines[0].startswith(
        f"held-out shared: fitted hybrid {found.won.fused:.4f}, pool without"
    )
    assert lines[1].startswith("held-out mean Dice: ")


# --- chosen among several


class Rules(dict):
    """Patient -> a rule of this name."""

    def __init__(self, name, patients):
        super().__init__({p: f"{name} without {p}" for p in patients})


def test_the_fit_that_wins_is_chosen_without_the_patient(labels, fitted_like):
    patients = [f"p_{i}" for i in range(5)]
    # The first is ahead by its last patient alone: without that one, the second is the best.
    values = {"a": [0.5, 0.5, 0.5, 0.5, 1.0], "b": [0.55] * 5, "c": [0.1] * 5}
    fits = {name: replace(fitted_like, held_out=Rules(name, patients)) for name in values}
    scored = [[image(labels, f"i_{i}", values[name][i]) for name in values] for i in range(5)]
    nsd = Objective(dice=0, nsd=1)
    found = choose_fit(fits, scored, patients, nsd, labels)
    assert found.rule is fitted_like.rule
    assert "of 3 fits the one for a was chosen by it" in found.note
    assert "(a 0.6000, b 0.5500, c 0.1000)" in found.note
    assert found.held_out["p_4"] == "b without p_4"
    assert all(found.held_out[p] == f"a without {p}" for p in patients[:4])
    weights = np.array([1.0, 1, 1, 1, 0.1])
    assert "the one for b" in choose_fit(fits, scored, patients, nsd, labels, weights).note


@pytest.fixture(scope="module")
def fitted_like(train, labels):
    return HybridFit(factors=(1.0,))(train[:6], NAMES, labels)


def image(labels, key, nsd):
    plain = dict.fromkeys(labels.names, 0.5)
    return ImageScore(key, plain, {}, measures={"nsd": dict.fromkeys(labels.names, nsd)})


def test_a_contest_scores_each_fit_by_its_held_out_rule(train, labels):
    seen = train[0]
    rules = ({seen[2]: Mean()}, {seen[2]: Hybrid()})
    first, second = Contest(rules, Objective(dice=0, nsd=1), labels)(seen)
    for found, rule in ((first, Mean()), (second, Hybrid())):
        masks = {n: rule(seen[0], labels).binary(n) for n in labels.names}
        assert found == measure_image(seen[0][0].key, masks, seen[1], labels, SIZE_HW, ("nsd",))
