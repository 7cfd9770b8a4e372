"""Names that look the same, whichever system or person wrote them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

_LONGEST = 4096
_SEPARATORS = re.compile(r"[\s_.-]+")
_DRAWN = frozenset({"mask", "masks", "label", "labels", "annotation", "annotations", "annot"})
_NUMBERS = re.compile(r"\d+")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s_.-]+(?=\d)")


def normal_name(name: str) -> str:
    """Return a name with its accents composed (Unicode's form NFC).

    macOS writes them decomposed, most other systems composed; both look alike.
    """
    return unicodedata.normalize("NFC", name)


def plain_path(name: str) -> str:
    """Return a path of any system with `/`, without what stands before its first folder."""
    parts = normal_name(name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def ends_of(path: str) -> Iterator[str]:
    """Yield a path, and what is left of it without its first folders, the longest first."""
    # What is longer is no path on any system, and would have too many ends.
    parts = path.split("/") if len(path) <= _LONGEST else []
    return ("/".join(parts[start:]) for start in range(len(parts)))


def is_of_annotations(folder: str) -> bool:
    """Tell whether a folder's name has a word for what is drawn on images.

    >>> is_of_annotations("test_masks"), is_of_annotations("Labels"), is_of_annotations("unmasked")
    (True, True, False)
    """
    return not _DRAWN.isdisjoint(re.findall("[a-z]+", folder.lower()))


def plain_name(name: str) -> str:
    """Return what is left of a name without case and separators, but for those between digits.

    >>> plain_name("Left_Lung") == plain_name("left lung"), plain_name("finger-1-1")
    (True, 'finger1/1')
    """
    plain = normal_name(name).casefold()
    return _SEPARATORS.sub("", _BETWEEN_DIGITS.sub("/", plain))


def of_same_numbers(name: str, others: Iterable[str]) -> list[str]:
    """Return the names that have the same numbers as a name: finger-1 is no misspelt finger-11.

    >>> of_same_numbers("fnger-1", ["finger-1", "finger-11", "Ulna"])
    ['finger-1']
    """
    numbers = _NUMBERS.findall(name)
    return [other for other in others if _NUMBERS.findall(other) == numbers]


def alike_names(uses: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return names that differ only in case or separators from one that is used more often.

    Args:
        uses: name -> how often.

    >>> alike_names({"Circle": 1, "circle": 9, "finger-1-1": 3, "finger-11": 3})
    [('Circle', 'circle')]
    """
    found: dict[str, list[str]] = {}
    for name in sorted(uses, key=lambda name: (-uses[name], name)):
        found.setdefault(plain_name(name), []).append(name)
    return [(name, usual) for usual, *rare in found.values() for name in rare]


def tell_alike(rare: str, usual: str) -> str:
    """Say of two classes that they are called alike, and how to join them."""
    return (
        f"classes '{rare}' and '{usual}' differ only in case or separators: if they are one, join "
        f"them by --labels FILE.yaml with 'aliases: {{{rare}: {usual}}}' and without '{rare}' "
        "among its 'names'"
    )
