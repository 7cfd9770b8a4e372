"""Bones that are not annotated, or more than once."""

from dataclasses import replace

import pytest
from shapely.affinity import scale, translate
from shapely.geometry import Point, box

from converters.audit.search import audit
from converters.errors import Problem
from converters.types import Frame

pytestmark = pytest.mark.slow


def kinds(found, key):
    return [(f.kind, f.labels) for f in found if f.key == key]


@pytest.fixture
def spoiled(hands, labels):
    """Audits the hands with one of them changed; gives what is found of it."""

    def find(sample, *, few=False):
        rest = [hand for hand in hands if hand.key != sample.key][: 5 if few else None]
        return [f for f in audit([sample, *rest], [], labels) if f.key == sample.key]

    return find


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("label", ["finger-1", "Pisiform", "Ulna"])
@pytest.mark.slow
def test_a_missing_bone_is_found(hands, spoil, spoiled, label, few):
    (found,) = spoiled(spoil.redraw(hands[3], label), few=few)
    assert (found.kind, found.labels, found.edit) == ("missing", (label,), None)


@pytest.mark.slow
def test_bones_that_most_images_lack_are_not_missing(hands, labels, spoil):
    wrists = [spoil.redraw(spoil.redraw(h, "finger-1"), "finger-2") for h in hands[:20]]
    found = audit([*wrists, *hands[20:32]], [], labels)
    assert [f for f in found if f.kind == "missing"] == []


@pytest.mark.slow
def test_a_crop_lacks_bones(hands, spoil, spoiled):
    crop = replace(spoil.redraw(hands[3], "finger-1"), frame=Frame((0, 0, 256, 256), (256, 256)))
    assert spoiled(crop) == []


@pytest.mark.slow
def test_an_image_without_annotations_is_found(hands, labels):
    bare = replace(hands[3], instances=())
    found = audit([bare, *hands[4:]], [], labels)
    assert kinds(found, bare.key) == [("missing", ())]


@pytest.mark.slow
def test_test_images_need_no_annotations(hands, labels):
    bare = [
        replace(hand, key=hand.key.replace("train", "test"), instances=()) for hand in hands[:3]
    ]
    found = audit([*bare, *hands[3:]], [], labels)
    assert [f.kind for f in found] == []


@pytest.mark.slow
def test_a_file_that_could_not_be_read_lacks_nothing_else(hands, labels, spoil):
    half = spoil.redraw(hands[3], "Ulna")
    problem = Problem("a.json", "annotation 4: expected points", half.key, half.group)
    found = audit([half, *hands[4:]], [problem], labels)
    assert kinds(found, half.key) == [("unreadable", ())]
    assert found[0].edit["exclude_images"]["key"] == half.key


@pytest.mark.slow
def test_a_bone_in_two_parts_is_one_bone(hands, spoil, spoiled):
    (bone,) = spoil.polygons(hands[3], "finger-7")
    x0, y0, x1, y1 = bone.bounds
    middle = (y0 + y1) / 2
    halves = [
        bone.intersection(box(x0, y0, x1, middle)),
        bone.intersection(box(x0, middle, x1, y1)),
    ]
    assert spoiled(spoil.redraw(hands[3], "finger-7", *halves)) == []


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.slow
def test_a_bone_drawn_twice_is_found(hands, spoil, spoiled, few):
    (bone,) = spoil.polygons(hands[3], "finger-9")
    (found,) = spoiled(spoil.redraw(hands[3], "finger-9", bone, translate(bone, 1, 1)), few=few)
    assert (found.kind, found.labels) == ("double", ("finger-9",))
    assert found.edit["drop"]["part"] in (0, 1)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.slow
def test_the_part_that_is_another_bone_is_dropped(hands, spoil, spoiled, first):
    (right,), (wrong,) = (spoil.polygons(hands[3], name) for name in ("finger-5", "Capitate"))
    parts = (wrong, right) if first else (right, wrong)
    (found,) = spoiled(spoil.redraw(hands[3], "finger-5", *parts))
    assert (found.kind, found.labels) == ("double", ("finger-5",))
    assert "around Capitate" in found.what
    assert found.edit["drop"]["part"] == (0 if first else 1)


@pytest.mark.slow
def test_a_bone_under_its_neighbours_label_gets_its_own(hands, spoil, spoiled):
    sample = hands[3]
    (mine,), (other,) = (spoil.polygons(sample, name) for name in ("finger-6", "finger-5"))
    wrong = spoil.redraw(spoil.redraw(sample, "finger-5"), "finger-6", other, mine)
    missing, double = sorted(spoiled(wrong), key=lambda f: f.kind, reverse=True)
    assert (missing.kind, missing.labels) == ("missing", ("finger-5",))
    entry = double.edit["relabel"]
    assert (entry["label"], entry["part"], entry["to"]) == ("finger-6", 0, "finger-5")


@pytest.mark.slow
def test_a_click_beside_a_bone_is_dropped(hands, spoil, spoiled):
    (bone,) = spoil.polygons(hands[3], "finger-7")
    (found,) = spoiled(spoil.redraw(hands[3], "finger-7", bone, box(4, 4, 5, 5)))
    assert (found.kind, found.edit["drop"]["part"]) == ("tiny", 1)


@pytest.mark.slow
def test_a_sesamoid_is_an_outlier_for_people(hands, spoil, spoiled):
    (bone,) = spoil.polygons(hands[3], "finger-3")
    x0, _, _, y1 = bone.bounds
    small = scale(Point(x0 - 6, y1 + 6).buffer(1), 2, 2)
    (found,) = spoiled(spoil.redraw(hands[3], "finger-3", bone, small))
    assert (found.kind, found.edit) == ("outlier", None)
    assert "a small one" in found.what
