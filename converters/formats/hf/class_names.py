"""What the class numbers of a Hugging Face data set are called.

`id2label.json` says it, as in a model's repository. Else the columns may: `datasets` puts the names
of a `ClassLabel` into each file. Only one in a list is meant, such as the classes of an image's
objects; one that stands alone is the class of a whole image, such as `scene_parse_150`'s scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.files.json_files import read_json
from converters.formats.hf.rows import read_features
from converters.formats.hf.splits import find_splits
from converters.formats.label_spaces import folder_space
from converters.types import LabelSpace

# How programs call what is no class.
_NO_CLASS = frozenset(
    {"background", "_background_", "__background__", "unlabeled", "unlabelled", "void", "ignore"}
)


def read_names(root: Path) -> dict[int, str] | None:
    """Return what `id2label.json` says; None without it; raises ValueError if it is broken."""
    path = root / "id2label.json"
    if not path.is_file():
        return None
    record = read_json(path, "numbers with class names")
    try:
        names = {int(number): name for number, name in record.items()}
    except (AttributeError, ValueError):
        names = {}
    if names and len(names) < len(record):
        twice = next(number for number in names if [*map(int, record)].count(number) > 1)
        raise ValueError(f"{path}: expected each number once, found {twice} twice")
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path}: expected numbers with class names, found {record!r:.80}")
    return names


def column_names(root: Path) -> tuple[str, ...]:
    """Return the names of the one list of classes among the columns; none where there is no one."""
    for file in (file for files in find_splits(root).values() for file in files):
        try:
            found = set(_listed_classes(read_features(file), is_listed=False))
        except (OSError, RecursionError, ValueError):
            continue
        return found.pop() if len(found) == 1 else ()
    return ()


def _listed_classes(feature: Any, *, is_listed: bool) -> Iterator[tuple[str, ...]]:
    """The names of each ClassLabel inside a list."""
    if isinstance(feature, list):
        # So older versions of `datasets` write a list.
        for one in feature:
            yield from _listed_classes(one, is_listed=True)
    elif isinstance(feature, Mapping):
        kind = feature.get("_type")
        if kind == "ClassLabel":
            if is_listed and (names := _texts(feature.get("names"))):
                yield names
        elif isinstance(kind, str):
            yield from _listed_classes(feature.get("feature"), is_listed=True)
        else:
            for one in feature.values():
                yield from _listed_classes(one, is_listed=is_listed)


def _texts(names: Any) -> tuple[str, ...]:
    """Names, each once; none where they are something else."""
    found = tuple(names) if isinstance(names, list) else ()
    are_texts = all(isinstance(name, str) and name for name in found)
    return found if are_texts and len(set(found)) == len(found) else ()


def has_no_class(names: Sequence[str]) -> bool:
    """Tell whether one of these names means what is no class."""
    return any(name.casefold() in _NO_CLASS for name in names)


def named_labels(root: Path, names: Sequence[str]) -> LabelSpace | None:
    """Return the label space of some names, in their order; what is called background is none."""
    others = tuple(name for name in names if name.casefold() in _NO_CLASS)
    kept = tuple(name for name in names if name not in others)
    return folder_space(root, kept, others) if kept else None
