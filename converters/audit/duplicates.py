"""Images that show the same radiograph, and patients that share one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from converters.audit.findings import Finding
from converters.audit.images import mirror_prints, unit_prints
from converters.audit.look import Look

# Correlation of the coarse fingerprints from which two images are compared closely. Different
# phantom images reach .94, copies are above .99.
_WORTH_A_LOOK = 0.9
# Correlation of the fine ones from which they are copies: different images hardly exceed .65, but
# where much of both is the same edge of the beam (.85 once); copies are above .99.
_COPY = 0.95
# Images of one kind share more than edges of a beam: fundus photographs their round dark surround,
# microscopes theirs. What as many others as this have, too, is left out of a second comparison,
# which says no where both still have this part of their norm and correlate less than this.
_OTHERS = 16
_OWN_PART = 0.1
_OWN_COPY = 0.75
_BLOCK = 512

Pair = tuple[int, int, float]


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
    for start in range(0, len(coarse), _BLOCK):
        block = coarse[start : start + _BLOCK]
        alike = np.maximum(block @ coarse.T, mirror_prints(block) @ coarse.T) >= _WORTH_A_LOOK
        for i, row in enumerate(alike, start):
            yield from _copies(i, [j for j in np.flatnonzero(row).tolist() if j != i], fine)


def _copies(i: int, alike: Sequence[int], prints: Sequence[npt.NDArray[np.int8]]) -> Iterator[Pair]:
    """The later ones of those that are worth a look that are copies of an image."""
    common: npt.NDArray[np.float32] | None = None
    for j in alike:
        if j < i or (score := _closely(prints[i], prints[j])) < _COPY:
            continue
        if common is None:
            common = _common([prints[k] for k in alike])
        if not _differ(prints[i], prints[j], common):
            yield i, j, min(1.0, score)


def _closely(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> float:
    one, other = unit_prints(a), unit_prints(b)
    return float(max(one @ other, mirror_prints(one) @ other))


def _common(prints: Sequence[npt.NDArray[np.int8]]) -> npt.NDArray[np.float32]:
    """What images that look alike from afar share: float32 (n,), of a few of them."""
    some = np.linspace(0, len(prints) - 1, min(len(prints), _OTHERS)).round().astype(int)
    median = np.median(unit_prints(np.stack([prints[k] for k in some])), axis=0)
    return np.asarray(median, np.float32)


def _differ(
    a: npt.NDArray[np.int8], b: npt.NDArray[np.int8], common: npt.NDArray[np.float32]
) -> bool:
    """Whether two images have parts of their own, and these are not the same."""
    one, other = unit_prints(a), unit_prints(b)
    if one @ mirror_prints(other) > one @ other:
        other = mirror_prints(other)
    own = np.stack([one, other]) - common
    parts = np.linalg.norm(own, axis=1)
    return bool(parts.min() >= _OWN_PART and own[0] @ own[1] < _OWN_COPY * parts.prod())


def _ordered(first: Look, second: Look) -> tuple[Look, Look]:
    """The one to keep and the one to leave out."""
    kept, extra = sorted((first, second), key=lambda one: (not _is_test(one), not one.structures))
    return kept, extra


def _copy(first: Look, second: Look, score: float) -> Finding:
    kept, extra = _ordered(first, second)
    what = f"expected another image, found the same as {kept.key}"
    edit = {"exclude_images": {"key": extra.key, "why": what}}
    return Finding("duplicate", extra.key, what, score, others=(kept.key,), edit=edit)


def _shared(first: Look, second: Look, score: float) -> Finding:
    kept, extra = _ordered(first, second)
    what = f"expected images of '{extra.group}', found one that '{kept.group}' has as well"
    return Finding("patient", extra.key, what, score, others=(kept.key,))


def _is_test(one: Look) -> bool:
    return "test" in one.key.split("/")[:-1]
