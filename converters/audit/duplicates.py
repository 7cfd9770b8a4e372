"""Images that show the same radiograph, and patients that share one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from converters.audit.findings import Finding
from converters.audit.images import mirror_prints, unit_prints
from converters.audit.look import Look
from converters.subsets.keys import is_test_key

# Correlation of the coarse fingerprints from which two images are compared closely. Different
# phantom images reach .94, copies are above .99.
_WORTH_A_LOOK = 0.9
# Correlation of the fine ones from which they are copies: different images hardly exceed .65, but
# where much of both is the same edge of the beam (.85 once); copies are above .99.
_COPY = 0.95
# From here on it is proposed to leave the copy out; what is less alike is for somebody to look at.
_SURE = 0.99
# Images of one kind share more than edges of a beam: fundus photographs their round dark surround,
# microscopes theirs. What those that look alike from afar have in common, by a few that differ the
# most, is left out of a second comparison, which says no where both still have this part of their
# norm and correlate less than this. Fewer, and such that correlate more, may be copies of one.
_SAMPLED, _DIFFERENT = 48, 6
_NEARLY_ONE = 0.995
_OWN_PART = 0.1
_OWN_COPY = 0.5
_BLOCK = 512

Pair = tuple[int, int, float]
Print = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def find_duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield images that show what another one shows: mirrored, brighter or re-encoded as well.

    Each is reported beside the first one of its kind; the one to leave out is the one for
    training, or without annotations, or the later one. Where the two belong to two patients, that
    is reported as well.
    """
    seen = [one for one in looks if one.prints is not None]
    first: dict[int, int] = {}
    scores: dict[int, float] = {}
    for a, b, score in sorted(_pairs(seen), key=lambda pair: pair[:2]):
        if b not in first:
            first[b], scores[b] = first.get(a, a), score
    for b, a in first.items():
        yield _copy(seen[a], seen[b], scores[b])
        # The first one may be of the same patient, and a third one not.
        alike = [a, *(c for c, original in first.items() if original == a)]
        known = seen[b].group
        strangers = [seen[c] for c in alike if known and seen[c].group not in ("", known)]
        if strangers:
            yield _shared(strangers[0], seen[b], scores[b])


def _pairs(looks: Sequence[Look]) -> Iterator[Pair]:
    prints = [one.prints for one in looks if one.prints is not None]
    if len(prints) < 2:
        return
    fine = [one[1] for one in prints]
    coarse = unit_prints(np.stack([one[0] for one in prints]))
    common = _Common(fine)
    for start in range(0, len(coarse), _BLOCK):
        block = coarse[start : start + _BLOCK]
        alike = np.maximum(block @ coarse.T, mirror_prints(block) @ coarse.T) >= _WORTH_A_LOOK
        # Each pair once, the earlier image first.
        later = np.triu(alike, start + 1)
        for begin in range(start, len(coarse), _BLOCK):
            part = later[:, begin : begin + _BLOCK]
            rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
            if len(rows):
                one, other = (start + rows).tolist(), (begin + columns).tolist()
                scores = _compare(fine, one, other, alike[rows], common)
                scores[~part[np.ix_(rows, columns)]] = 0
                for i, j in np.argwhere(scores >= _COPY).tolist():
                    yield one[i], other[j], min(1.0, float(scores[i, j]))


def _compare(
    prints: Sequence[Print],
    rows: Sequence[int],
    columns: Sequence[int],
    alike: npt.NDArray[np.bool_],
    common: _Common,
) -> Floats:
    """Return how far images correlate, float32 (rows, columns); 0 where they are no copies.

    Args:
        prints: of all images.
        rows: the places of some.
        columns: those of others.
        alike: bool (rows, images), which look alike from afar.
        common: finds what these share.
    """
    one = unit_prints(np.stack([prints[i] for i in rows]))
    other = unit_prints(np.stack([prints[j] for j in columns]))
    straight, mirrored = one @ other.T, mirror_prints(one) @ other.T
    scores = np.maximum(straight, mirrored)
    near = np.flatnonzero((scores >= _COPY).any(axis=1)).tolist()
    found = {i: common.of(np.flatnonzero(alike[i])) for i in near}
    shares = {i: share for i, share in found.items() if share is not None}
    if not shares:
        return scores
    near, shared = list(shares), np.stack(list(shares.values()))
    # Products of what is left when that is taken away from both, of one image in the mirror where
    # it fits better so.
    with_shared = np.where(
        mirrored[near] > straight[near], mirror_prints(shared) @ other.T, shared @ other.T
    )
    own = (one[near] * shared).sum(axis=1, keepdims=True)
    norm = (shared**2).sum(axis=1, keepdims=True)
    product = scores[near] - with_shared - own + norm
    left, right = (np.maximum(1 - 2 * part + norm, 0) for part in (own, with_shared))
    have_own = np.minimum(left, right) >= _OWN_PART**2
    differ = have_own & (product < _OWN_COPY * np.sqrt(left * right))
    scores[near] = np.where(differ, 0, scores[near])
    return scores


class _Common:
    """What images that look alike from afar have in common.

    Args:
        prints: the fine ones of all images.
    """

    def __init__(self, prints: Sequence[Print]) -> None:
        self._prints = prints
        self._found: dict[tuple[int, ...], Floats | None] = {}

    def of(self, places: npt.NDArray[np.intp]) -> Floats | None:
        """Return the median of those few that differ the most, float32 (n,); None of too few."""
        sampled = np.linspace(0, len(places) - 1, min(len(places), _SAMPLED)).round().astype(int)
        key = tuple(places[sampled].tolist())
        if key not in self._found:
            units = unit_prints(np.stack([self._prints[place] for place in key]))
            nearest, chosen = units @ units[0], [0]
            while len(chosen) < _DIFFERENT and nearest.min() < _NEARLY_ONE:
                chosen.append(int(np.argmin(nearest)))
                nearest = np.maximum(nearest, units @ units[chosen[-1]])
            median = np.asarray(np.median(units[chosen], axis=0), np.float32)
            self._found = {key: median if len(chosen) == _DIFFERENT else None}
        return self._found[key]


def _ordered(first: Look, second: Look) -> tuple[Look, Look]:
    """The one to keep and the one to leave out."""
    kept, extra = sorted(
        (first, second), key=lambda one: (not is_test_key(one.key), not one.structures)
    )
    return kept, extra


def _copy(first: Look, second: Look, score: float) -> Finding:
    kept, extra = _ordered(first, second)
    what = f"expected another image, found the same as {kept.key}"
    edit = {"exclude_images": {"key": extra.key, "why": what}} if score >= _SURE else None
    return Finding("duplicate", extra.key, what, score, others=(kept.key,), edit=edit)


def _shared(first: Look, second: Look, score: float) -> Finding:
    kept, extra = _ordered(first, second)
    what = f"expected images of '{extra.group}', found one that '{kept.group}' has as well"
    return Finding("patient", extra.key, what, score, others=(kept.key,))
