"""Hard voting: the sources' masks, counted pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, Union

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.rules.base import ClassRule, ClassVotes, check_names
from fusion.rules.evidence import NEUTRAL, claimed_by_mean
from fusion.types import Prediction, Window

_T = TypeVar("_T", str, int)
_Nested: TypeAlias = Union[_T, tuple["_Nested[_T]", ...]]  # noqa: UP007 (no type joins a string)
Voter: TypeAlias = _Nested[str]
"""A source's name, or several voters whose own vote is one vote."""
_Place: TypeAlias = _Nested[int]
_Says = npt.NDArray[np.bool_]


def read_voters(raw: Any, where: str) -> tuple[Voter, ...]:
    """Return voters from a YAML file's nested lists of names.

    Raises:
        ValueError: anything else; names the place.
    """
    if not isinstance(raw, list | tuple) or not raw:
        raise ValueError(f"{where}: expected a list of sources, or of such lists, found {raw!r}")
    voters: list[Voter] = []
    for entry in raw:
        if isinstance(entry, str | int) and not isinstance(entry, bool):
            voters.append(str(entry))
        else:
            voters.append(read_voters(entry, where))
    return tuple(voters)


@dataclass(frozen=True)
class Vote(ClassRule):
    """Hard voting: a pixel belongs to a class where at least `k` votes say so.

    A source's mask is where it gives at least one half; what it has looked for and not found is a
    vote against. One that abstains has no vote: the majority is that of the others, and `k` is at
    most their number. It is majority voting (Lam and Suen, IEEE Transactions on Systems, Man, and
    Cybernetics A, 1997).

    Attributes:
        k: votes that are needed; 0 means more than half, and a tie goes as `prefer` says.
        votes: who has a vote: names of sources, and lists of them, whose majority is one vote.
            Left out, every source has one.
        prefer: sources from the best on. The first of them that votes decides a tie. Where none of
            them does, the mean of all probabilities that were asked decides, as the rule `mean`
            would; of masks without probabilities a tie is a half, and a half is a yes.

    Raises:
        ValueError: a negative `k`, names that are not among the sources, a voter that comes twice
            in a list, or a source without a vote.
    """

    k: int = 0
    votes: tuple[Voter, ...] = field(default=(), metadata={"read": read_voters})
    prefer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_ballot(self.votes)
        named = list(_leaves(self.votes))
        sources = check_names("vote", self.sources, [*named, *self.prefer])
        object.__setattr__(self, "sources", sources)
        if named and (idle := [name for name in sources if name not in named]):
            raise ValueError(f"vote: expected a vote of each source, none has {', '.join(idle)}")
        if self.k < 0:
            raise ValueError(f"vote: 'k': expected 0 or more, found {self.k}")

    is_pixelwise = True

    def check(self, predictions: Sequence[Prediction], labels: LabelSpace) -> None:
        """Raise ValueError where `k` exceeds the votes, or the rule does not fit."""
        super().check(predictions, labels)
        count = len(self.votes) or len(predictions)
        if self.k > count:
            raise ValueError(f"vote: 'k': expected 0 to {count}, found {self.k}")

    def fuse(self, votes: ClassVotes, labels: LabelSpace) -> tuple[Window, Bytes]:
        """Return 255 where the vote says so, elsewhere 0."""
        window = votes.window(NEUTRAL)
        nothing = np.zeros((window[3], window[2]), np.uint8)
        layers = {**dict.fromkeys(votes.masks, nothing), **dict(votes.layers(window))}
        elected = elect(self._voters(max(layers) + 1), layers, self._ranks(), self.k)
        return window, np.where(elected, 255, 0).astype(
            np.uint8
        ) if elected is not None else nothing

    def _voters(self, count: int) -> tuple[_Place, ...]:
        if not self.votes:
            return tuple(range(count))
        return tuple(self._place(voter) for voter in self.votes)

    def _place(self, voter: Voter) -> _Place:
        if isinstance(voter, str):
            return self.sources.index(voter)
        return tuple(self._place(inner) for inner in voter)

    def _ranks(self) -> Mapping[int, int]:
        return {self.sources.index(name): rank for rank, name in enumerate(self.prefer)}


def elect(
    voters: Sequence[_Place], layers: Mapping[int, Bytes], ranks: Mapping[int, int], k: int = 0
) -> _Says | None:
    """Return where a vote says yes, None where none of the voters speaks.

    Args:
        voters: places of sources, and tuples of such whose majority is one vote.
        layers: place -> the source's probability, uint8, all of one shape; who abstains is absent.
        ranks: place -> its rank where a tie is to be decided, the smallest first; a tie among
            others goes as the mean of the layers does, whatever their order.
        k: votes that are needed; 0 means more than half.
    """
    ballots: list[tuple[float, _Says]] = []
    for voter in voters:
        said = _said(voter, layers, ranks)
        if said is not None:
            asked = (place for place in _leaves(voter) if place in layers)
            ballots.append((min(ranks.get(place, math.inf) for place in asked), said))
    if not ballots:
        return None
    votes = np.sum([said for _, said in ballots], axis=0, dtype=np.uint16)
    if k:
        return np.asarray(votes >= min(k, len(ballots)))
    if len(ballots) % 2:
        return np.asarray(2 * votes > len(ballots))
    rank, decides = min(ballots, key=lambda entry: entry[0])
    if math.isinf(rank):
        places = dict.fromkeys(place for voter in voters for place in _leaves(voter))
        decides = claimed_by_mean([layers[place] for place in places if place in layers])
    return np.asarray(2 * votes + decides > len(ballots))


def _said(voter: _Place, layers: Mapping[int, Bytes], ranks: Mapping[int, int]) -> _Says | None:
    if not isinstance(voter, int):
        return elect(voter, layers, ranks)
    return layers[voter] >= NEUTRAL if voter in layers else None


def _check_ballot(voters: Sequence[Voter]) -> None:
    if twice := sorted({str(voter) for voter in voters if voters.count(voter) > 1}):
        raise ValueError(
            f"vote: expected each voter of a list once, found twice: {', '.join(twice)}"
        )
    for voter in voters:
        if not isinstance(voter, str):
            _check_ballot(voter)


def _leaves(voter: _Nested[_T]) -> Iterator[_T]:
    if not isinstance(voter, tuple):
        yield voter
    else:
        for inner in voter:
            yield from _leaves(inner)
