"""What an audit finds: one thing that looks wrong, how sure it is, and what would mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.masks import Box

# kind -> what it means, for people; in the order in which a report shows them.
KINDS: dict[str, str] = {
    "unreadable": "a file that cannot be read",
    "swapped": "two structures' labels look exchanged",
    "missing": "a structure that every image has is not annotated",
    "double": "a structure is annotated more than once",
    "crossing": "an outline crosses itself",
    "outside": "an outline leaves the image",
    "tiny": "an outline is far too small to be its structure",
    "inside": "a structure lies wholly inside another one",
    "alike": "two classes differ only in case or separators",
    "style": "a class is drawn in another style in part of the images",
    "outlier": "a shape or size unlike this structure on other images",
    "duplicate": "two files hold the same image",
    "patient": "images of one patient are under two patients",
}


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Attributes:
        kind: one of KINDS.
        key: of the image; "" where the problem is not one image's.
        what: one line for people: what was expected, what was found.
        score: how sure the audit is, 0 to 1; findings of a kind are ranked by it.
        labels: the classes it is about.
        box_xywh: where to look, in the image's pixels; None is the whole image.
        others: keys of further images to look at, such as the twin of a duplicate.
        edit: section of an edits file -> the entry that would mend it; None where only a person
            can say.

    Raises:
        ValueError: an unknown kind, or a score outside 0 to 1.
    """

    kind: str
    key: str
    what: str
    score: float
    labels: tuple[str, ...] = ()
    box_xywh: Box | None = None
    others: tuple[str, ...] = ()
    edit: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"finding: expected a kind of {', '.join(KINDS)}, found '{self.kind}'")
        if not 0 <= self.score <= 1:
            raise ValueError(f"finding: expected a score from 0 to 1, found {self.score}")
