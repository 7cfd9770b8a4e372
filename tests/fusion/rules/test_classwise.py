"""Each class from whom it is meant to come from."""

import numpy as np
import pytest

from converters.types import LabelSpace
from fusion import Hybrid, Mean, Vote
from fusion.rules.classwise import Classwise
from fusion.rules.pooling import Max
from fusion.types import Prediction

SIZE_HW = (90, 130)


@pytest.fixture
def sources(predict, soft_plane, labels):
    return [
        predict({label: soft_plane(10 * i + j) for j, label in enumerate(labels.names)})
        for i in range(3)
    ]


def test_each_class_comes_from_its_source_as_it_is(sources, labels):
    rule = Classwise(classes={"long": "a", "wrist_2": "b", "Ulna": "c"}, rest="b")
    fused = rule(sources, labels)
    origin = {"finger-1": 0, "wrist_2": 1, "3": 1, "Ulna": 2}
    for label, place in origin.items():
        assert fused.masks[label] == sources[place].masks[label]


def test_order_of_the_sources_is_by_name(sources, labels):
    rule = Classwise(("c", "a", "b"), {"long": "a"}, "c")
    fused = rule(sources, labels)
    assert fused.masks["Ulna"] == sources[1].masks["Ulna"]
    assert fused.masks["3"] == sources[0].masks["3"]


@pytest.mark.parametrize("inner", [Mean(("b", "c")), Max(("b", "c")), Hybrid(("b", "c"))])
def test_a_rule_hears_its_own_sources(inner, sources, labels):
    fused = Classwise(tuple("abc"), {"carpals": inner}, "a")(sources, labels)
    alone = inner(sources[1:], labels)
    assert np.array_equal(fused.best("wrist_2")[1].prob, alone.best("wrist_2")[1].prob)
    assert fused.masks["3"] == sources[0].masks["3"]


def test_a_rule_without_sources_hears_all(sources, labels):
    fused = Classwise(tuple("abc"), rest=Vote())(sources, labels)
    alone = Vote()(sources, labels)
    for label in labels.names:
        assert np.array_equal(fused.best(label)[1].prob, alone.best(label)[1].prob)


def test_rules_nest(sources, labels):
    inner = Classwise(classes={"3": "a"}, rest="b")
    fused = Classwise(classes={"long": "c"}, rest=inner)(
        [sources[2], sources[0], sources[1]], labels
    )
    assert fused.masks["Ulna"] == sources[2].masks["Ulna"]
    assert fused.masks["3"] == sources[0].masks["3"]
    assert fused.masks["wrist_2"] == sources[1].masks["wrist_2"]


@pytest.mark.parametrize("chosen", ["b", Mean(("b",)), Hybrid(("b",))])
def test_where_the_chosen_abstain_the_rest_steps_in(chosen, sources, labels):
    cut = Prediction(sources[0].key, SIZE_HW, "semantic", {}, frozenset({"3"}))
    fused = Classwise(("a", "b"), {"carpals": chosen}, "a")([sources[0], cut], labels)
    assert fused.masks["wrist_2"] == sources[0].masks["wrist_2"]


def test_what_the_chosen_have_not_found_stays_absent(sources, predict, labels):
    fused = Classwise(("a", "b"), {"carpals": "b"}, "a")([sources[0], predict({})], labels)
    assert set(fused.masks) == {"finger-1", "3", "Ulna"}


def test_several_objects_of_a_class_are_joined(sources, predict):
    many = LabelSpace("waste", ("cup",))
    left, right = np.zeros((2, *SIZE_HW), np.uint8)
    left[10:20, 10:30], right[50:70, 90:130] = 255, 200
    seen = Prediction(
        *("k", SIZE_HW, "instance"),
        {"cup": tuple((0.9, predict({"cup": p}).best("cup")[1]) for p in (left, right))},
    )
    fused = Classwise(rest="a")([seen], many)
    assert np.array_equal(fused.best("cup")[1].render((0, 0, 130, 90)), np.maximum(left, right))


def test_a_class_without_a_choice_is_refused(sources, labels):
    with pytest.raises(ValueError, match="classwise: '3': expected a source for it"):
        Classwise(classes={"long": "a", "carpals": "b"})(sources[:2], labels)


def test_a_choice_for_no_class_is_refused(sources, labels):
    with pytest.raises(ValueError, match="expected classes or groups of 'shapes', found toes"):
        Classwise(classes={"toes": "a"}, rest="b")(sources[:2], labels)


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected sources of a; found b"):
        Classwise(("a",), {"long": Mean(("b",))}, "a")


def test_a_rule_inside_that_does_not_fit_is_refused(sources, labels):
    with pytest.raises(ValueError, match="vote: 'k': expected 0 to 3, found 4"):
        Classwise(tuple("abc"), rest=Vote(k=4))(sources, labels)
