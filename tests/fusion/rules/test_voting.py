"""Votes against counting on whole planes."""

import numpy as np
import pytest

from fusion import Vote
from fusion.rules.voting import read_voters
from fusion.types import Prediction

SIZE_HW = (90, 130)


@pytest.fixture
def sources(predict, soft_plane):
    return [predict({"3": soft_plane(seed)}) for seed in range(5)]


def said(prediction, label="3"):
    return prediction.binary(label).full(SIZE_HW).astype(bool)


def majority(votes, decides):
    count = sum(vote.astype(int) for vote in votes)
    return (2 * count > len(votes)) | ((2 * count == len(votes)) & decides)


def mean_says(predictions, label="3"):
    planes = [p.best(label)[1].render((0, 0, *SIZE_HW[::-1])).astype(int) for p in predictions]
    return (2 * sum(planes) + len(planes)) // (2 * len(planes)) >= 128


def silenced(prediction):
    return Prediction(prediction.key, SIZE_HW, "semantic", {}, frozenset({"Ulna"}))


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("count", [4, 5])
def test_a_vote_is_counting(sources, labels, k, count):
    votes = [said(p) for p in sources[:count]]
    decides = mean_says(sources[:count])
    expected = sum(v.astype(int) for v in votes) >= k if k else majority(votes, decides)
    assert np.array_equal(said(Vote(k=k)(sources[:count], labels)), expected)


def test_a_tie_of_masks_is_a_half_and_a_yes(predict, labels):
    full, none = np.full(SIZE_HW, 255, np.uint8), np.zeros(SIZE_HW, np.uint8)
    yes, no = predict({"3": full}), predict({"3": none})
    for both in ([yes, no], [no, yes]):
        assert Vote()(both, labels).binary("3").area == full.size


@pytest.mark.parametrize(("sure", "unsure", "is_in"), [(250, 100, True), (140, 20, False)])
def test_a_tie_goes_as_the_mean_does(predict, labels, sure, unsure, is_in):
    planes = [np.full(SIZE_HW, value, np.uint8) for value in (sure, unsure)]
    for pair in (planes, planes[::-1]):
        fused = Vote()([predict({"3": plane}) for plane in pair], labels)
        assert (fused.binary("3").area == planes[0].size) is is_in


@pytest.mark.parametrize("prefer", [("c",), ("b", "c"), ("d", "b", "a", "c")])
def test_a_tie_goes_as_the_preferred_source_says(sources, labels, prefer):
    votes = dict(zip("abcd", map(said, sources), strict=False))
    rule = Vote(tuple("abcd"), prefer=prefer)
    expected = majority(list(votes.values()), votes[prefer[0]])
    assert np.array_equal(said(rule(sources[:4], labels)), expected)


def test_who_abstains_does_not_decide_a_tie(sources, labels):
    rule = Vote(tuple("abc"), prefer=("c", "b"))
    fused = rule([*sources[:2], silenced(sources[2])], labels)
    votes = [said(p) for p in sources[:2]]
    assert np.array_equal(said(fused), majority(votes, votes[1]))


@pytest.mark.parametrize(("k", "needed"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_k_is_at_most_the_number_of_those_who_vote(sources, labels, k, needed):
    predictions = [*sources[:2], *map(silenced, sources[2:4])]
    expected = sum(said(p).astype(int) for p in sources[:2]) >= needed
    assert np.array_equal(said(Vote(k=k)(predictions, labels)), expected)


def test_what_was_not_found_is_a_vote_against(sources, predict, labels):
    nothing = predict({}, "instance")
    assert Vote(k=2)([sources[0], nothing], labels).binary("3").area == 0
    assert Vote()([sources[0], nothing, nothing], labels).binary("3").area == 0


def test_a_list_of_sources_has_one_vote(sources, labels):
    rule = Vote(votes=(("a", "b", "c"), "d", "e"))
    assert rule.sources == tuple("abcde")
    first = majority([said(p) for p in sources[:3]], said(sources[0]))
    expected = majority([first, said(sources[3]), said(sources[4])], first)
    found = said(rule(sources, labels))
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, said(Vote()(sources, labels)))


def test_lists_may_hold_lists(sources, labels):
    rule = Vote(votes=("a", ("b", ("c", "d", "e"))), prefer=("d",))
    a, b, c, d, e = map(said, sources)
    inner = majority([c, d, e], d)
    # The innermost list holds the preferred source: it decides both ties.
    expected = majority([a, majority([b, inner], inner)], majority([b, inner], inner))
    assert np.array_equal(said(rule(sources, labels)), expected)


def test_a_list_whose_sources_all_abstain_has_no_vote(sources, labels):
    rule = Vote(k=2, votes=(("a", "b"), "c", "d"))
    fused = rule([*map(silenced, sources[:2]), *sources[2:4]], labels)
    assert np.array_equal(said(fused), said(sources[2]) & said(sources[3]))


def test_a_source_may_vote_in_several_lists(sources, labels):
    rule = Vote(votes=(("a", "b", "c"), ("a", "d", "e"), "a"))
    a, b, c, d, e = map(said, sources)
    expected = majority([majority([a, b, c], a), majority([a, d, e], a), a], a)
    assert np.array_equal(said(rule(sources, labels)), expected)


BAD = {
    "negative k": ({"k": -1}, "'k': expected 0 or more, found -1"),
    "unknown voter": ({"sources": ("a",), "votes": ("a", "b")}, "sources of a; found b"),
    "unknown preference": ({"sources": ("a",), "prefer": ("x",)}, "sources of a; found x"),
    "without a vote": ({"sources": ("a", "b"), "votes": ("a",)}, "none has b"),
    "twice in a list": ({"votes": ("a", ("b", "b"))}, "found twice: b"),
    "twice the same list": ({"votes": (("a", "b"), ("a", "b"))}, "found twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        Vote(**options)


@pytest.mark.parametrize(
    ("rule", "count"), [(Vote(k=4), 3), (Vote(k=3, votes=(("a", "b"), ("c", "d", "e"))), 2)]
)
def test_impossible_majorities_are_refused(rule, count, sources, labels):
    given = sources if rule.votes else sources[:3]
    with pytest.raises(ValueError, match=f"'k': expected 0 to {count}, found {rule.k}"):
        rule(given, labels)


def test_voters_are_read_from_nested_lists():
    assert read_voters(["a", ["b", 3]], "votes") == ("a", ("b", "3"))
    for raw in ([], "a", [None], ["a", []], [True], [{"a": 1}]):
        with pytest.raises(ValueError, match="votes: expected a list of sources"):
            read_voters(raw, "votes")
