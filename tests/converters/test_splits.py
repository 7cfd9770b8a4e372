from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from converters.splits import Split, make_split
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
        ({"strategy": "stratified"}, "expected 'group'"),
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
