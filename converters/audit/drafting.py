"""A draft of corrections: of what was found, the part that is fairly certain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converters.audit.findings import Finding

SURE = 0.9
"""Findings below this score stay for people."""
VERSION = 1
Claim = tuple[str, str, int | None]
_EXCLUDE = "exclude_images"
_SECTIONS = (
    *(_EXCLUDE, "exclude_groups", "swap_labels", "relabel"),
    *("drop", "replace", "regroup"),
)


def draft_edits(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return what an edits file should say (`converters.edits.edits.Edits.load`).

    Of findings with a score of .9 and more their corrections, the first one where several are
    about the same structure of an image; nothing else about images that are left out.
    """
    sure = [f for f in findings if f.edit and f.score >= SURE]
    entries = [item for f in sure for item in (f.edit or {}).items()]
    excluded = {entry["key"] for section, entry in entries if section == _EXCLUDE}
    sections: dict[str, list[dict[str, Any]]] = {}
    taken: list[Claim] = []
    for section, entry in entries:
        claims = _claims(section, entry)
        is_moot = section != _EXCLUDE and entry["key"] in excluded
        if is_moot or any(_clash(claim, other) for claim in claims for other in taken):
            continue
        taken += claims
        sections.setdefault(section, []).append(dict(entry))
    draft: dict[str, Any] = {"version": VERSION}
    return draft | {name: sections[name] for name in _SECTIONS if name in sections}


def _claims(section: str, entry: Mapping[str, Any]) -> list[Claim]:
    """What an entry speaks of: image, label, and polygon, where None is all of them."""
    key, part = str(entry["key"]), entry.get("part")
    labels = [*entry.get("labels", ()), *([entry["label"]] if "label" in entry else [])]
    if not labels:
        return [(key, f"\n{section}", None)]
    # `replace` says all of a label: nothing may be moved there as well.
    ends = [entry["to"]] if "to" in entry else [entry["label"]] if section == "replace" else []
    number = 0 if section == "relabel" else None
    return [(key, label, part) for label in labels] + [(key, f"\nto {e}", number) for e in ends]


def _clash(a: Claim, b: Claim) -> bool:
    """Whether two claims are about the same; two labels may be moved to a third one."""
    if a[:2] != b[:2] or (a[1].startswith("\nto ") and a[2] == b[2] == 0):
        return False
    return a[2] is None or b[2] is None or a[2] == b[2]
