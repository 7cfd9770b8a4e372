"""What COCO's categories are called, and the classes that they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import yaml

import configs
from converters.errors import Problems
from converters.formats.coco.documents import Document, Id, normal_id
from converters.types import LabelSpace


def known_documents(
    documents: Sequence[Document], root: Path, labels: LabelSpace, problems: Problems
) -> Sequence[Document]:
    """Leave out the files that are about other classes, and say so.

    Raises:
        ValueError: all are; the message has a label space for them.
    """
    if not any(document.annotations for document in documents):
        return documents
    known = [d for d in documents if not d.annotations or any(_known(d.categories, labels))]
    if not any(document.annotations for document in known):
        names = dict.fromkeys(name for d in documents for name in d.categories.values())
        raise ValueError(
            f"{root}: expected categories of '{labels.name}', found {', '.join(names):.80}: "
            f"{_remedy(names, root)}"
        )
    for document in documents:
        if document not in known:
            place = document.path.relative_to(root).as_posix()
            problems.note(
                f"{root}: {place}: left out, none of its categories is a class of '{labels.name}'"
            )
    return known


def _known(categories: Mapping[Id, str], labels: LabelSpace) -> Iterable[bool]:
    return (labels.canonical(name) is not None for name in categories.values())


def labels_of(document: Document, labels: LabelSpace, problems: Problems) -> dict[Id, str]:
    """Return the classes of those categories that are one; the others, if used, are wrong."""
    uses = Counter(normal_id(a.get("category_id")) for a in document.annotations)
    found: dict[Id, str] = {}
    for number, name in document.categories.items():
        if label := labels.canonical(name):
            found[number] = label
        elif uses[number] and name not in labels.ignored:
            fitting = _fitting([name])
            remedy = f"choose --labels {fitting}" if fitting else "add it to the label space's "
            remedy += "" if fitting else "'names', 'aliases' or 'ignored'"
            problems.add(
                document.path,
                f"category {name!r}: expected a class of '{labels.name}' or an alias, "
                f"found another one with {uses[number]} annotations: {remedy}",
            )
    return found


def _fitting(names: Collection[str]) -> str:
    """Name the shipped label spaces that have most of these classes; "" where none has half."""
    spaces = [LabelSpace.load(name) for name in configs.names("labels")]
    known = {space.name: sum(map(bool, map(space.canonical, names))) for space in spaces}
    most = max(known.values())
    return " or ".join(n for n, times in known.items() if 2 * most >= len(names) and times == most)


def _remedy(names: Collection[str], root: Path) -> str:
    """Name the shipped label spaces that have most of the classes, or write one."""
    if fitting := _fitting(names):
        return f"choose --labels {fitting}"
    record = {"name": root.resolve().name or "mine", "names": list(names)}
    text = yaml.safe_dump(
        record, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10**6
    )
    return f"put these lines into a file and choose --labels FILE.yaml\n{text}".rstrip()
