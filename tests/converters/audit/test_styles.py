"""A class that part of the images have in another style is found, with the images of each side."""

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box

from converters.audit.drafting import draft_edits
from converters.audit.forms import two_sizes
from converters.audit.search import audit
from converters.edits.edits import Edits
from converters.edits.entries import read_entries
from converters.files.json_files import dump_json

CHOSEN = slice(0, 24, 2)


@pytest.mark.parametrize("count", [20, 60])
@pytest.mark.parametrize("seed", range(5))
def test_two_sizes_are_told_from_one(count, seed):
    rng = np.random.default_rng(seed)
    one = rng.normal(0, 0.03, count)
    assert not two_sizes(one)[0].any()
    assert not two_sizes(rng.uniform(-0.3, 0.3, count))[0].any()
    is_short = rng.permutation(np.arange(count) < count // 3)
    short, step = two_sizes(one - 0.3 * is_short)
    assert (short == is_short).all()
    assert step == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(("few", "step"), [(3, 0.3), (9, 0.05)])
def test_a_few_or_slight_ones_are_no_style(few, step):
    sizes = np.linspace(0, 0.01, 40)
    sizes[:few] -= step
    assert not two_sizes(sizes)[0].any()


def test_too_few_images_say_nothing():
    assert not two_sizes(np.repeat([0.0, 1.0], 9))[0].any()
    assert two_sizes(np.repeat([0.0, 1.0], 10))[0].tolist() == [True] * 10 + [False] * 10


def upper_end_off(bone):
    x0, y0, x1, y1 = bone.bounds
    return bone.intersection(box(x0, y0 + 0.3 * (y1 - y0), x1, y1))


def spoiled(hands, spoil, how):
    hands = [*hands]
    for n in range(len(hands))[CHOSEN]:
        (bone,) = spoil.polygons(hands[n], "finger-15")
        if how == "short":
            parts = [upper_end_off(bone)]
        elif how == "absent":
            parts = []
        else:
            x0, y0, x1, y1 = bone.bounds
            middle = (y0 + y1) / 2
            gap = box(x0, middle - 1, x1, middle + 1)
            parts = list(bone.difference(gap).geoms)
        hands[n] = spoil.redraw(hands[n], "finger-15", *parts)
    return hands


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("short", "finger-15: expected one style, found it drawn narrower by"),
        ("absent", "finger-15: expected one style, found it annotated in 28 of 40 images"),
        ("parts", "finger-15: expected one style, found it drawn of several parts in 12 of 40"),
    ],
)
@pytest.mark.slow
def test_a_class_in_two_styles_is_found_and_can_be_dropped(
    hands, labels, spoil, tmp_path, how, said
):
    given = spoiled(hands, spoil, how)
    (found,) = (f for f in audit(given, [], labels) if f.kind == "style")
    assert found.what.startswith(said)
    keys = {hand.key for hand in hands[CHOSEN]}
    others = {hand.key for hand in hands} - keys
    smaller, larger = (others, keys) if how == "absent" else (keys, others)
    assert set(found.edit["drop_class"]["keys"]) == smaller
    assert found.key in smaller
    assert set(found.others) <= larger
    assert draft_edits([found]) == {"version": 1}
    entry = {"version": 1, "drop_class": [found.edit["drop_class"]]}
    (tmp_path / "edits.yaml").write_text(dump_json(entry))
    edits = Edits(read_entries(tmp_path / "edits.yaml"))
    left = edits.apply(given, subset="train", labels=labels)
    assert {s.key for s in left if "finger-15" not in {i.label for i in s.instances}} >= smaller


@pytest.mark.slow
def test_sound_hands_have_one_style(hands, labels):
    assert [f for f in audit(hands, [], labels) if f.kind == "style"] == []


@pytest.mark.slow
def test_a_class_of_the_sick_is_no_style_where_classes_may_occur_often(hands, labels, spoil):
    often = replace(labels, once=False)
    found = audit(spoiled(hands, spoil, "absent"), [], often)
    assert [f for f in found if f.kind in ("style", "swapped")] == []
