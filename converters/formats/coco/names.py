"""What COCO's categories are called, and the classes that they are."""

from __future__ import annotations

from converters.errors import Problems
from converters.formats.coco.documents import Document, Id
from converters.types import LabelSpace


def labels_of(document: Document, labels: LabelSpace, problems: Problems) -> dict[Id, str]:
    """Return the classes of a file's categories; one that is none is wrong if it is used."""
    uses = document.annotations.uses
    found: dict[Id, str] = {}
    for number, name in document.categories.items():
        if label := labels.canonical(name):
            found[number] = label
        elif uses[number] and name not in labels.ignored:
            problems.add(
                document.path,
                f"category {name!r}: expected it without annotations, as the group of all others "
                f"is called so; found {uses[number]}: give it another name",
            )
    return found
