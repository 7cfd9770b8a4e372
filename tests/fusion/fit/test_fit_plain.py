"""Fits of averages, votes and choices: what they find, hold out, and write."""

from dataclasses import replace

import numpy as np
import pytest

from converters.masks import EMPTY, crop
from converters.parallel import Workers
from fusion import FUSIONS, Vote, Weighted
from fusion.fit import FITS
from fusion.fit.counted import Counted, count_plainly
from fusion.fit.counts import ClassCounts, dice_above
from fusion.fit.judging import Judge, Judged, compare
from fusion.fit.plain import vote_dice
from fusion.metrics.scores import dice
from fusion.rules.file import dump_rule, read_rule
from fusion.types import Prediction, SoftMask

pytestmark = pytest.mark.slow

SIZE_HW = (90, 130)
NAMES = ("unet", "segformer", "yolo")
PLAIN = [name for name in FITS if name != "hybrid"]


def count(images, labels):
    counts = (count_plainly(seen, labels) for seen in images)
    return Counted.of(counts, labels, len(images[0][0]))


def fit(method, images, labels, names=NAMES, jobs=1):
    fitting = FITS[method]()
    counts = (fitting.count(seen, labels) for seen in images)
    counted = Counted.of(counts, labels, len(names))
    with Workers(jobs) as workers:
        return fitting.solve(counted, names, labels, workers=workers)


def judge(found, images, labels, names=NAMES):
    judged = [Judge(found.held_out, found.plain, labels, found.can_lose)(s)[1] for s in images]
    return compare(found, Judged.stack(judged), [s[2] for s in images], names, labels)


@pytest.fixture(scope="module")
def images(world, flaw):
    """A good source, a fair one, a detector that misses some."""
    flaws = (flaw(1.5), flaw(4.0), flaw(3.0, kind="instance", misses=0.1))
    return world(flaws, 16, seed=0)


def shifted(images, by, places=(0, 1, 2)):
    """The images, in which some sources see too much, or too little: their log odds are moved."""
    p = np.clip(np.arange(256) / 255, 1e-3, 1 - 1e-3)
    odds = np.log(p / (1 - p))
    table = np.rint(255 / (1 + np.exp(-odds - by))).astype(np.uint8)

    def shift(prediction):
        masks = {
            n: tuple((s, SoftMask(m.box_xywh, table[m.prob])) for s, m in found)
            for n, found in prediction.masks.items()
        }
        return replace(prediction, masks=masks)

    return [
        (tuple(shift(p) if k in places else p for k, p in enumerate(seen)), truth, patient)
        for seen, truth, patient in images
    ]


def test_what_can_be_fitted_is_a_rule():
    assert set(FITS) <= set(FUSIONS)


@pytest.mark.parametrize("method", PLAIN)
def test_a_fitted_rule_survives_its_file(method, images, labels, tmp_path):
    found = fit(method, images, labels)
    assert isinstance(found.rule, FUSIONS[method])
    assert found.rule.sources == NAMES
    path = tmp_path / "rule.yaml"
    notes = {n: r.note() for n, r in judge(found, images, labels).report.items()}
    path.write_text(dump_rule(found.rule, notes), encoding="utf-8")
    assert read_rule(path) == found.rule


def test_the_number_of_processes_changes_nothing(images, labels):
    found = fit("weighted", images[:8], labels, jobs=2)
    assert found == fit("weighted", images[:8], labels)


@pytest.mark.parametrize("method", PLAIN)
def test_a_patient_s_rule_has_not_seen_the_patient(method, images, labels, monkeypatch):
    kind, seen = type(FITS[method]()), []
    train = kind.train

    def spy(self, counted, sources, labels):
        seen.append(set(counted.patients))
        return train(self, counted, sources, labels)

    monkeypatch.setattr(kind, "train", spy)
    found = fit(method, images, labels)
    everybody = {patient for _, _, patient in images}
    assert set(found.held_out) == everybody
    assert seen.pop() == everybody
    assert sorted(p for some in seen for p in everybody - some) == sorted(everybody)
    assert (found.images, found.patients) == (16, 8)


# --- what is found


@pytest.mark.parametrize("by", [-1.0, 0.0, 1.0])
def test_thresholds_go_where_the_sources_err(by, images, labels):
    """Where all see too much, the threshold rises; where they see what is there, it stays."""
    moved = shifted(images, by)
    found = fit("mean", moved, labels)
    for label in labels.names:
        threshold = found.rule.thresholds.get(label, 0.5)
        assert np.sign(threshold - 0.5) == np.sign(by) or abs(threshold - 0.5) < 0.06
    comparison = judge(found, moved, labels)
    assert comparison.gain.is_gain is (by != 0)
    assert ("does not surely beat the mean" in comparison.describe("mean")) is (by == 0)


def test_a_source_that_errs_less_weighs_more(images, labels):
    found = fit("weighted", images, labels).rule
    for label in labels.names:
        weights = found.classes[label]
        assert weights["unet"] > max(weights["segformer"], weights["yolo"])
        assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    comparison = judge(fit("weighted", images, labels), images, labels)
    assert comparison.gain.is_gain
    assert comparison.plain == comparison.mean


def test_equal_sources_weigh_about_the_same(world, flaw, labels):
    found = fit("weighted", world((flaw(3.0),) * 3, 16), labels).rule
    for weights in found.classes.values():
        assert max(weights.values()) - min(weights.values()) < 0.15


def test_votes_that_are_needed_follow_the_sources(world, flaw, labels):
    """Where every source misses objects, one vote is enough; ties go to the best."""
    flaws = (flaw(1.0, kind="instance", misses=0.5), flaw(0.5, kind="instance", misses=0.5))
    found = fit("vote", world(flaws, 24), labels, ("a", "b")).rule
    assert found.k == 1
    assert isinstance(found, Vote)
    sure = fit("vote", world((flaw(3.0), flaw(0.5), flaw(3.0)), 12), labels).rule
    assert (sure.k, sure.prefer[0]) == (0, "segformer")


def test_every_class_comes_from_the_source_that_is_best_on_it(world, flaw, labels):
    images = [
        ((mixed(good, bad, ("Ulna",)), mixed(bad, good, ("Ulna",))), truth, patient)
        for (good, bad), truth, patient in world((flaw(0.5), flaw(5.0)), 16)
    ]
    found = fit("classwise", images, labels, ("a", "b"))
    assert {n: found.takes[n] for n in labels.names} == {
        **dict.fromkeys(labels.names, "a"),
        "Ulna": "b",
    }
    report = judge(found, images, labels, ("a", "b")).report
    assert {n: r.keeps for n, r in report.items()} == dict(found.takes)
    assert not any(r.worth for r in report.values())


def mixed(one, other, labels):
    """A prediction whose masks of some classes are another's."""
    return replace(one, masks={n: (other if n in labels else one).masks[n] for n in one.masks})


def test_one_lucky_class_does_not_leave_its_group(world, flaw, labels):
    """Sources that are equally good differ on some class, by chance."""
    images = world((flaw(3.0), flaw(3.0)), 12, seed=5)
    found = fit("classwise", images, labels, ("a", "b"))
    counted = count(images, labels)
    best = {
        n: ("a", "b")[int(counted.alone(n).mean(axis=1).argmax())] for n in ("finger-1", "Ulna")
    }
    assert len(set(best.values())) == 2, "expected chance to differ within the group"
    assert found.takes["finger-1"] == found.takes["Ulna"]


# --- what is judged


@pytest.mark.parametrize("method", FITS)
def test_it_is_judged_by_the_rules_themselves(method, images, labels):
    found = fit(method, images[:8], labels)
    comparison = judge(found, images[:8], labels)
    values = [
        [dice(found.held_out[patient](p, labels).binary(n), t[n]) for n in labels.names]
        for p, t, patient in images[:8]
    ]
    assert comparison.fused == pytest.approx(np.mean(values), abs=1e-12)
    plain = [
        [dice(found.plain(p, labels).binary(n), t[n]) for n in labels.names]
        for p, t, _ in images[:8]
    ]
    assert comparison.plain == pytest.approx(np.mean(plain), abs=1e-12)
    assert f"{comparison.plain:.4f}" in comparison.describe(method)


def test_what_is_lost_without_a_source_is_what_the_others_reach(images, labels):
    found = fit("vote", images[:8], labels)
    report = judge(found, images[:8], labels).report
    for label in labels.names:
        lost = []
        for p, truth, patient in images[:8]:
            rule = found.held_out[patient]
            mute = replace(p[0], masks={}, classes=frozenset())
            both = [rule(given, labels).binary(label) for given in (p, (mute, *p[1:]))]
            lost.append(dice(both[0], truth[label]) - dice(both[1], truth[label]))
        assert report[label].worth["unet"] == pytest.approx(np.mean(lost), abs=1e-12)


def test_images_that_cannot_be_fitted_are_refused(images, labels):
    with pytest.raises(ValueError, match="at least two patients, found 1 in 2 images"):
        count(images[:2], labels)


# --- counts


def shapes():
    """A hole, two parts, one at the border that overlaps the hole's ring, the whole image."""
    planes = {n: np.zeros(SIZE_HW, np.uint8) for n in ("finger-1", "wrist_2", "3", "Ulna")}
    planes["finger-1"][20:60, 30:80] = 255
    planes["finger-1"][30:50, 45:65] = 0
    planes["wrist_2"][5:15, 5:25] = planes["wrist_2"][70:80, 100:120] = 255
    planes["3"][50:, 60:] = 255
    planes["Ulna"][:] = 255
    return planes


@pytest.fixture
def odd(predict, labels):
    """One image of shapes, seen by three sources; the second finds instances, one of them none."""
    planes = shapes()
    rolled = {n: np.roll(p, 3, 1) for n, p in planes.items()}
    fewer = {n: p // 3 * 2 for n, p in rolled.items() if n != "wrist_2"}
    sources = (predict(planes), predict(fewer, "instance"), predict(rolled))
    return sources, {n: crop(np.roll(p, 2, 0) // 255) for n, p in planes.items()}, "ID_1"


@pytest.mark.parametrize("kind", ["whole", "abstains", "nothing", "none"])
def test_counts_give_votes_and_single_sources_their_real_dice(kind, odd, labels):
    (a, b, c), truth, patient = odd
    change = {
        "whole": {},
        "abstains": {"classes": frozenset({"3"}), "masks": {"3": b.masks["3"]}},
        "nothing": {"masks": {}},
        "none": {"masks": {}, "classes": frozenset()},
    }
    predictions = (a, replace(b, **change[kind]), c)
    counted = count_plainly((predictions, truth, patient), labels)
    rules = {k: Vote(NAMES, k=k, prefer=("yolo",)) for k in range(4)}
    for label in labels.names:
        table = counted.tables[label]
        for k in range(3):
            expected = dice(predictions[k].binary(label), truth[label])
            assert table.dice_alone(k) == pytest.approx(expected, abs=1e-12)
        speak = [p.speaks_of(label) for p in predictions]
        assert (~table.silent).tolist() == speak
        for k, rule in rules.items():
            found = vote_dice(table, {2: 0, 0: 1, 1: 2}, k)
            real = dice(rule(predictions, labels).binary(label), truth[label])
            assert found == pytest.approx(real, abs=1e-12), (label, k)


def test_a_class_that_nobody_sees_is_counted(labels):
    nothing = Prediction("k", SIZE_HW, "semantic", {})
    full = crop(np.ones(SIZE_HW, np.uint8))
    counted = count_plainly(([nothing] * 2, {"3": full}, "p"), labels)
    assert counted.tables["3"].dice_alone(0) == 0
    assert counted.tables["Ulna"].dice_alone(1) == 1
    for label, expected in (("3", 0), ("Ulna", 1)):
        table = counted.tables[label]
        found = dice_above(table, table.average(np.ones(2)), np.array([0.3, 0.5]))
        assert found.tolist() == [expected, expected]


def test_dice_above_thresholds_is_that_of_the_rows(images, labels):
    table: ClassCounts = count(images[:4], labels).tables["3"][0]
    values, thresholds = table.average(np.array([1.0, 2.0, 0.5])), np.array([0.2, 0.5, 0.83, 1.0])
    expected = [table.dice_of(values >= t) for t in thresholds]
    assert dice_above(table, values, thresholds) == pytest.approx(expected, abs=1e-12)


def test_averages_of_counts_are_about_those_of_the_rule(images, labels):
    weights, counted = {"unet": 1.0, "segformer": 2.0, "yolo": 0.5}, count(images, labels)
    for threshold in (0.4, 0.5, 0.6):
        rule = Weighted(weights=weights, thresholds=dict.fromkeys(labels.names, threshold))
        for label in labels.names:
            real = [dice(rule(p, labels).binary(label), t.get(label, EMPTY)) for p, t, _ in images]
            rows = [
                dice_above(t, t.average(np.array([1.0, 2.0, 0.5])), np.array([threshold]))[0]
                for t in counted.tables[label]
            ]
            assert np.mean(rows) == pytest.approx(np.mean(real), abs=0.004)


# --- images that count more than others


@pytest.mark.parametrize("method", PLAIN)
def test_an_image_of_weight_three_is_three_images(method, images, labels):
    """Some images are blurred by one source: how much they count changes what is fitted."""
    others = shifted(images, 1.5, (0,))
    mixed = [o if n % 4 == 0 else i for n, (i, o) in enumerate(zip(images, others, strict=True))]
    times = np.array([3 if n % 4 == 0 else 1 for n in range(len(mixed))])
    fitting = FITS[method]()
    counts = [fitting.count(seen, labels) for seen in mixed]
    copied = Counted.of([counts[i] for i in np.repeat(range(16), times)], labels, 3)
    weighted = Counted.of(counts, labels, 3, times / times.mean())
    assert fitting.train(weighted, NAMES, labels) == fitting.train(copied, NAMES, labels)


def test_what_is_judged_counts_as_much_as_its_image(images, labels):
    found, weights = fit("mean", images, labels), np.array([3.0, 1.0] * 8)
    judged = [Judge(found.held_out, found.plain, labels)(s)[1] for s in images]
    patients = [s[2] for s in images]
    told = compare(found, Judged.stack(judged), patients, NAMES, labels, weights)
    fused = np.array([j.fused.mean() for j in judged])
    assert told.fused == pytest.approx(weights @ fused / weights.sum())
    column = np.array([j.single[1, 2] for j in judged])
    single = told.report[labels.names[2]].single["segformer"]
    assert single == pytest.approx(weights @ column / weights.sum())
