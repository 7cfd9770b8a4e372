from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from converters.errors import DataError
from converters.splits.split import Split, check_leakage, make_split
from converters.types import Sample


def people(count: int, hands: int = 2) -> list[Sample]:
    return [
        Sample(f"train/DCM/ID{p:03d}/image{p}_{h}", Path("x.png"), (4, 4), group=f"ID{p:03d}")
        for p in range(count)
        for h in range(hands)
    ]


@pytest.fixture
def split() -> Split:
    return make_split(people(10), folds=5, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_is_torn_apart(seed):
    samples = people(13)
    split = make_split(samples, folds=4, seed=seed)
    for fold in range(4):
        train = {split.groups[key] for key in split.train(fold)}
        val = {split.groups[key] for key in split.val(fold)}
        assert val
        assert not train & val
        assert sorted((*split.train(fold), *split.val(fold))) == sorted(s.key for s in samples)


def test_every_image_is_held_out_once(split):
    assert sorted(split.keys) == sorted(s.key for s in people(10))
    assert [len(keys) for keys in split.folds] == [4] * 5


def test_order_of_the_samples_does_not_matter(split):
    shuffled = people(10)
    random.Random(3).shuffle(shuffled)
    assert make_split(shuffled).digest == split.digest


def test_seed_matters(split):
    assert make_split(people(10), seed=1).digest != split.digest


def test_samples_without_a_group_are_their_own():
    samples = [Sample(f"image{i}", Path("x.png"), (4, 4)) for i in range(4)]
    assert [len(keys) for keys in make_split(samples, folds=4).folds] == [1] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 11}, "at least 11 groups for 11 folds, found 10"),
        ({"folds": 1}, "at least 2 folds, found 1"),
        ({"strategy": "random"}, "expected one of group, stratified"),
    ],
)
def test_make_split_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        make_split(people(10), **options)


@pytest.mark.parametrize("fold", [-1, 5])
def test_fold_that_is_not_there(split, fold):
    with pytest.raises(ValueError, match=f"fold {fold}: expected 0 to 4"):
        split.val(fold)


def test_check_names_the_difference(split):
    samples = people(10)
    split.check(samples)
    with pytest.raises(
        ValueError, match="2 of its images are not in the data, such as 'train/DCM/ID0"
    ):
        split.check(samples[2:])
    with pytest.raises(
        ValueError, match="2 images are in no fold, such as 'train/DCM/ID010/image10_0'"
    ):
        split.check(people(11))


# --- the file


def test_file_round_trip(split, tmp_path):
    split.save(tmp_path / "deep" / "split.json")
    again = Split.load(tmp_path / "deep" / "split.json")
    assert again == split
    assert again.digest == split.digest
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["split.json"]


def test_layout_of_the_file(split, tmp_path):
    split.save(tmp_path / "split.json")
    record = json.loads((tmp_path / "split.json").read_text())
    assert set(record) == {"version", "seed", "strategy", "folds", "groups"}
    assert (record["version"], record["seed"], record["strategy"]) == (1, 0, "group")
    assert all(set(fold) == {"val"} for fold in record["folds"])


def swap_hands(record):
    first, second = record["folds"][0]["val"], record["folds"][1]["val"]
    first[0], second[0] = second[0], first[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (swap_hands, r"group 'ID\d+' is in folds \d and \d .*must stay together"),
        (lambda r: r["folds"][0]["val"].append(r["folds"][1]["val"][0]), "held out twice"),
        (lambda r: r["folds"][0]["val"].append("new"), "'new' has no group"),
        (lambda r: r["groups"].update(new="ID9"), "'new' has a group but is in no fold"),
        (lambda r: r.update(version=2), "expected version 1, found 2"),
        (lambda r: r.update(folds=r["folds"][:1]), "at least 2 folds|no fold"),
        (lambda r: r.pop("groups"), "found no 'groups'"),
        (lambda r: r.update(groups=[]), "expected a split file"),
        (lambda r: r.update(folds=[1, 2]), "expected a split file"),
    ],
)
def test_load_refuses(split, tmp_path, spoil, message):
    path = tmp_path / "split.json"
    split.save(path)
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message) as error:
        Split.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, "", "[]", '{"version": 1'])
def test_load_refuses_other_files(tmp_path, content):
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"split\.json: "):
        Split.load(path)


# --- leakage


@pytest.fixture
def with_images(tmp_path) -> list[Sample]:
    samples = people(6)
    for number in range(len(samples)):
        (tmp_path / f"{number}.png").write_bytes(b"%02d" % number)
    return [replace(s, image=tmp_path / f"{n}.png") for n, s in enumerate(samples)]


def test_no_leakage(with_images):
    check_leakage(make_split(with_images, folds=3), with_images)


def test_no_leakage_into_test_images_of_others(with_images):
    check_leakage(make_split(with_images[:8], folds=3), with_images)


def leak(samples, *, split=None, named):
    with pytest.raises(DataError) as error:
        check_leakage(split or make_split(samples, folds=3), samples)
    assert [all(word in p for word in named) for p in error.value.problems] == [True]


def test_the_same_image_in_two_folds(with_images):
    split = make_split(with_images, folds=3)
    first, second = (next(s for s in with_images if s.key in split.val(f)) for f in (0, 2))
    second.image.write_bytes(first.image.read_bytes())
    leak(with_images, split=split, named=(first.key, second.key, "fold 0", "fold 2"))


def test_the_same_image_in_one_fold_is_no_leakage(with_images):
    with_images[1].image.write_bytes(with_images[0].image.read_bytes())
    check_leakage(make_split(with_images, folds=3), with_images)


def test_the_same_image_in_train_and_test(with_images):
    split = make_split(with_images[:10], folds=3)
    with_images[11].image.write_bytes(with_images[0].image.read_bytes())
    named = (with_images[0].key, with_images[11].key, "fold", "(test)")
    leak(with_images, split=split, named=named)


def test_the_same_image_that_is_no_file_on_disk(with_images):
    class Cell:
        name, stem, suffix = "x.png", "x", ".png"

        def read_bytes(self):
            return b"pixels"

    split = make_split(with_images, folds=3)
    chosen = {split.val(0)[0], split.val(1)[0]}
    changed = [replace(s, image=Cell()) if s.key in chosen else s for s in with_images]
    leak(changed, split=split, named=chosen)


def test_a_patient_in_train_and_test(with_images):
    leak(with_images, split=make_split(with_images[:11], folds=3), named=("ID005", "test", "fold"))


def test_a_patient_that_the_data_puts_elsewhere(with_images):
    split = make_split(with_images, folds=3)
    other = replace(with_images[0], group="ID999")
    leak([other, *with_images[1:]], split=split, named=(other.key, "'ID000'", "'ID999'"))


def test_two_patients_that_turn_out_to_be_one(with_images):
    split = make_split(with_images, folds=3)
    here, there = (next(s for s in with_images if s.key in split.val(f)) for f in (0, 1))
    changed = [replace(s, group=here.group) if s.group == there.group else s for s in with_images]
    with pytest.raises(DataError) as error:
        check_leakage(split, changed)
    assert [p for p in error.value.problems if "in one place" in p and here.group in p]


def test_a_key_that_comes_twice(with_images):
    leak(
        [*with_images, with_images[3]], split=make_split(with_images, folds=3), named=["found two"]
    )


def test_an_image_that_is_not_there(with_images):
    with_images[2].image.unlink()
    leak(with_images, named=(with_images[2].key, "No such file"))


# --- corrections


def test_excluded_images_may_be_absent(split):
    samples = people(10)
    gone = [samples[0].key, samples[5].group]
    left = [s for s in samples if s.key not in gone and s.group not in gone]
    split.check(left, gone)
    split.check(samples, gone)
    with pytest.raises(ValueError, match="1 of its images are not in the data"):
        split.check(left, gone[1:])
