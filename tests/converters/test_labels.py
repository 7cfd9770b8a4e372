"""The label files that are shipped."""

from __future__ import annotations

import pytest

import configs
from converters.types import LabelSpace

SIZES = {"hand_bones": 29, "waste": 11, "ram_h1200": 30, "ram_w600": 14}
DIGITS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "little": 5}


def test_all_are_tested():
    assert set(configs.names("labels")) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_number_of_classes_and_name(name):
    space = LabelSpace.load(name)
    assert (space.name, len(space)) == (name, SIZES[name])


@pytest.mark.parametrize("name", SIZES)
def test_comes_back_from_its_file(name, tmp_path):
    space = LabelSpace.load(name)
    space.save(tmp_path / "again.yaml")
    assert LabelSpace.load(str(tmp_path / "again.yaml")) == space


def test_waste_counts_as_its_categories():
    space = LabelSpace.load("waste")
    assert (space.names[0], space.names[1], space.names[10]) == (
        *("Background", "General trash"),
        "Clothing",
    )
    assert space.canonical("Backgroud") == "Background"
    assert space.canonical("UNKNOWN") is None


def test_ram_h1200_is_in_alphabetical_order():
    names = LabelSpace.load("ram_h1200").names
    assert list(names) == sorted(names)


@pytest.mark.parametrize("name", ["ram_h1200", "ram_w600"])
def test_groups_are_those_of_hand_bones(name):
    ours, theirs = LabelSpace.load("hand_bones"), LabelSpace.load(name)
    assert set(theirs.groups) == set(ours.groups)
    for label in theirs.names:
        if own := ours.canonical(label):
            assert theirs.group_of(label) == ours.group_of(own), label


@pytest.mark.parametrize(
    ("name", "nameless"),
    [
        ("ram_h1200", {"Pisifrom_Triquetrum", "Sesamoid", "SoftTissue"}),
        ("ram_w600", {"Pisifrom&Triquetrum"}),
    ],
)
def test_which_bones_are_ours(name, nameless):
    ours = LabelSpace.load("hand_bones")
    own = {label: ours.canonical(label) for label in LabelSpace.load(name).names}
    assert {label for label, mine in own.items() if mine is None} == nameless
    known = [mine for mine in own.values() if mine]
    assert len(known) == len(set(known))


def test_all_wrists_bones_have_a_name_in_the_hand():
    hand = LabelSpace.load("ram_h1200")
    assert all(map(hand.canonical, LabelSpace.load("ram_w600").names))


@pytest.mark.parametrize("digit", DIGITS.values(), ids=DIGITS)
def test_fingers_go_from_tip_to_base(digit):
    kinds = ("DP", "PP", "MC") if digit == DIGITS["thumb"] else ("DP", "MP", "PP", "MC")
    first = 1 if digit == DIGITS["thumb"] else 4 * digit - 4
    ours = LabelSpace.load("hand_bones")
    found = [ours.canonical(f"{kind}{digit}") for kind in kinds]
    assert found == [f"finger-{first + i}" for i in range(len(kinds))]
