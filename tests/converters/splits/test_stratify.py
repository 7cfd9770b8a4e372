"""Folds that resemble each other, on phantom hands and on samples with few classes."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from converters.posture import is_bent
from converters.splits.split import make_split
from converters.splits.stratify import areas_of, strata_of
from converters.splits.table import describe
from converters.types import Instance, LabelSpace, Sample
from zoo.phantom.anatomy import draw_hands
from zoo.phantom.annotation import draw_polygons

pytestmark = pytest.mark.slow

SIZE = 256
PEOPLE, BENT = 60, 12
FOLDS = 4
LABELS = LabelSpace.load("hand_bones")


def hands(person: int) -> list[Sample]:
    rngs = [np.random.default_rng([person, i]) for i in range(5)]
    drawn = draw_hands(rngs[0], tuple(rngs[1:3]), int(person < BENT), SIZE)
    made = []
    for i, hand in enumerate(drawn):
        polygons = draw_polygons(hand, rngs[3 + i], 0.0)
        bones = tuple(Instance(LABELS.names[b], Polygon(points)) for b, points in polygons)
        key = f"ID{person:03d}/image_{i}"
        made.append(Sample(key, Path("x.png"), (SIZE, SIZE), bones, f"ID{person:03d}"))
    return made


@pytest.fixture(scope="module")
def phantom() -> list[Sample]:
    return [sample for person in range(PEOPLE) for sample in hands(person)]


def folds_of(samples, **options):
    split = make_split(samples, folds=FOLDS, **options)
    by_key = {sample.key: sample for sample in samples}
    return [[by_key[key] for key in keys] for keys in split.folds]


def bent_people(fold):
    return len({sample.group for sample in fold if is_bent(sample, LABELS)})


def mean_areas(fold):
    areas = [areas_of(sample) for sample in fold]
    return [np.mean([found[name] for found in areas]) for name in LABELS.names]


def area_deviation(folds):
    areas = [mean_areas(fold) for fold in folds]
    return float(np.abs(np.array(areas) / np.mean(areas, axis=0) - 1).mean())


@pytest.mark.parametrize("seed", range(3))
def test_bent_hands_are_spread_evenly(phantom, seed):
    folds = folds_of(phantom, seed=seed, strategy="stratified", labels=LABELS)
    assert [bent_people(fold) for fold in folds] == [BENT // FOLDS] * FOLDS


def test_folds_resemble_each_other_more_than_those_of_equal_size(phantom):
    deviation = {
        strategy: np.mean(
            [area_deviation(folds_of(phantom, seed=s, strategy=strategy)) for s in range(5)]
        )
        for strategy in ("group", "stratified")
    }
    assert deviation["stratified"] < 0.75 * deviation["group"]


def test_folds_stay_of_about_equal_size(phantom):
    folds = folds_of(phantom, strategy="stratified", labels=LABELS)
    expected = len(phantom) / FOLDS
    assert all(abs(len(fold) - expected) <= 4 for fold in folds)


def test_no_patient_is_torn_apart(phantom):
    folds = folds_of(phantom, strategy="stratified", labels=LABELS)
    groups = [{sample.group for sample in fold} for fold in folds]
    assert sum(map(len, groups)) == PEOPLE
    assert all(not a & b for a, b in pairwise(groups))


def test_order_of_the_samples_does_not_matter(phantom):
    shuffled = list(phantom)
    random.Random(1).shuffle(shuffled)
    made = [make_split(s, strategy="stratified", labels=LABELS) for s in (phantom, shuffled)]
    assert made[0].digest == made[1].digest


def test_seed_matters(phantom):
    made = [make_split(phantom, strategy="stratified", seed=seed).digest for seed in (0, 1)]
    assert made[0] != made[1]


# --- data in which not every image has every class


def scene(i: int, *names: str, side: int = 10, group: str = "") -> Sample:
    things = tuple(Instance(name, box(0, 0, side, side)) for name in names)
    return Sample(f"image_{i}", Path("x.png"), (100, 80), things, group)


def test_a_rare_class_is_in_every_fold():
    samples = [scene(i, "paper", *(["battery"] if i < 6 else [])) for i in range(60)]
    for seed in range(5):
        split = make_split(samples, folds=3, seed=seed, strategy="stratified")
        rare = {f"image_{i}" for i in range(6)}
        assert [len(rare & set(keys)) for keys in split.folds] == [2, 2, 2]


def test_strata_of_a_group_with_and_without_a_class():
    members = {
        "a": [scene(0, "paper", side=10), scene(1, "paper", side=30)],
        "b": [scene(2, "paper", "glass", side=40)],
        "c": [scene(3, "paper", side=5)],
        "d": [scene(4)],
    }
    strata = strata_of(members)
    assert strata.shape == (4, 2 + 2 * 3 + 3)
    glass, paper = strata[:, 0], strata[:, 1]
    assert glass.tolist() == [False, True, False, False]
    assert paper.tolist() == [True, True, True, False]
    thirds_of_paper = strata[:, 5:8]
    # Means of the areas: 500, 1600, 25 and nothing.
    assert thirds_of_paper.astype(int).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_nothing_to_stratify_by():
    with pytest.raises(ValueError, match="expected annotated images, found none; take 'group'"):
        make_split([scene(i) for i in range(9)], strategy="stratified")


def test_one_group_a_fold():
    samples = [scene(i, "paper", group=f"g{i}") for i in range(4)]
    split = make_split(samples, folds=4, strategy="stratified")
    assert [len(keys) for keys in split.folds] == [1] * 4


# --- the table


def test_table_of_the_folds(phantom):
    split = make_split(phantom, folds=FOLDS, strategy="stratified", labels=LABELS)
    table = describe(split, phantom, LABELS)
    whole, *folds = table.rows
    assert (whole.images, whole.groups) == (2 * PEOPLE, PEOPLE)
    assert whole.bent == pytest.approx(BENT / PEOPLE)
    assert whole.areas == pytest.approx({"fingers": 1, "carpals": 1, "forearm": 1})
    assert sum(row.images for row in folds) == whole.images
    areas = [areas_of(s) for s in phantom]
    held = [areas_of(s) for s in phantom if s.key in split.val(2)]
    of_radius = [np.mean([a[name] for a in held]) for name in ("Radius", "Ulna")]
    of_all = [np.mean([a[name] for a in areas]) for name in ("Radius", "Ulna")]
    assert folds[2].areas["forearm"] == pytest.approx(np.mean(np.divide(of_radius, of_all)))
    assert [row.rare + row.absent for row in table.rows] == [()] * (FOLDS + 1)


def test_table_names_classes_that_a_fold_lacks():
    labels = LabelSpace("waste", ("paper", "glass", "battery", "never"))
    samples = [
        scene(i, "paper", *["glass"] * (i not in range(1, 10)), *["battery"] * (i > 9))
        for i in range(30)
    ]
    split = make_split(samples, folds=2)
    folds = ([f"image_{i}" for i in range(10)], [f"image_{i}" for i in range(10, 30)])
    split = type(split)(1, 0, "group", tuple(map(tuple, folds)), split.groups)
    first = describe(split, samples, labels).rows[1]
    assert (first.rare, first.absent) == (("glass",), ("battery",))
    assert first.bent is None
    text = str(describe(split, samples, labels))
    assert "fold 0: no battery\nfold 0: few of glass" in text
    assert "never" not in text


def test_table_leaves_out_what_was_excluded(phantom):
    split = make_split(phantom, folds=FOLDS)
    gone = split.val(0)[0]
    table = describe(split, [s for s in phantom if s.key != gone], LABELS)
    assert table.rows[1].images == len(split.val(0)) - 1
