"""Images that show the same radiograph, and patients that share one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from converters.audit.findings import Finding
from converters.audit.images import mirror_prints, unit_prints
from converters.audit.look import Look

# Correlation of the coarse fingerprints from which two images are compared closely. Different
# phantom hands reach .94, copies are above .99.
_WORTH_A_LOOK = 0.9
# Correlation of the fine ones from which they are copies: different hands hardly exceed .65, but
# where much of both is the same edge of the beam (.85 once); copies are above .99.
_COPY = 0.95
_BLOCK = 512

Pair = tuple[int, int, float]


def find_duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield images that show what another one shows: mirrored, brighter or re-encoded as well.

    Each is reported beside the first one of its kind; the one to leave out is the one for
    training, or without annotations, or the later one. Where the two belong to two patients, that
    is reported as well.
    """
    seen = [one for one in looks if one.prints is not None]
    originals: dict[int, int] = {}
    for a, b, score in sorted(_pairs(seen), key=lambda pair: pair[:2]):
        first = originals.get(a, a)
        if b in originals:
            continue
        originals[b] = first
        yield from _report(seen[first], seen[b], score)


def _pairs(looks: Sequence[Look]) -> Iterator[Pair]:
    prints = [one.prints for one in looks if one.prints is not None]
    if len(prints) < 2:
        return
    coarse = unit_prints(np.stack([one[0] for one in prints]))
    for start in range(0, len(coarse), _BLOCK):
        block = coarse[start : start + _BLOCK]
        alike = np.maximum(block @ coarse.T, mirror_prints(block) @ coarse.T)
        for i, j in np.argwhere(alike >= _WORTH_A_LOOK).tolist():
            if start + i < j:
                score = _closely(prints[start + i][1], prints[j][1])
                if score >= _COPY:
                    yield start + i, j, min(1.0, score)


def _closely(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> float:
    one, other = unit_prints(a), unit_prints(b)
    return float(max(one @ other, mirror_prints(one) @ other))


def _report(first: Look, second: Look, score: float) -> Iterator[Finding]:
    kept, extra = sorted((first, second), key=lambda one: (not _is_test(one), not one.bones))
    what = f"expected a radiograph of its own, found the same as {kept.key}"
    edit = {"exclude_images": {"key": extra.key, "why": what}}
    yield Finding("duplicate", extra.key, what, score, others=(kept.key,), edit=edit)
    if first.group != second.group:
        what = f"expected images of '{extra.group}', found one that '{kept.group}' has as well"
        yield Finding("patient", extra.key, what, score, others=(kept.key,))


def _is_test(one: Look) -> bool:
    return "test" in one.key.split("/")[:-1]
