"""What a `rle_table.yaml` beside a table says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.formats.rle_table.detection import Said
from converters.strict_yaml import read_mapping

OPTIONS = "rle_table.yaml"
_KEYS = ("order", "first_pixel", "relative", "image", "class", "rle", "classes", "object")


@dataclass(frozen=True)
class Options:
    """What is known of the tables of a folder, beside what they show.

    Attributes:
        said: how pixels are counted.
        columns: of `image`, `class` and `rle`, what the table calls them.
        names: what the table calls a class -> its name.
        object: the class of all objects of a table without classes; "" where nobody has named it.
    """

    said: Said = field(default_factory=Said)
    columns: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    object: str = ""


def read_options(root: Path) -> Options:
    """Read a folder's `rle_table.yaml`; where there is none, nothing is known.

    Raises:
        ValueError: it is broken, or has other keys or values.
    """
    path = root / OPTIONS
    # A link that leads nowhere is no file, but somebody meant one.
    if not os.path.lexists(path):
        return Options()
    record = read_mapping(path, f"any of {', '.join(_KEYS)}")
    if unknown := sorted(map(str, set(record) - set(_KEYS))):
        raise ValueError(f"{path}: '{unknown[0]}': expected one of {', '.join(_KEYS)}")
    try:
        return _options(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _options(record: Mapping[str, Any]) -> Options:
    order = _one_of(record, "order", ("columns", "rows"))
    first = _one_of(record, "first_pixel", (0, 1))
    relative = _one_of(record, "relative", (True, False))
    columns = {role: _text(record, role) for role in ("image", "class", "rle") if role in record}
    name = _text(record, "object") if "object" in record else ""
    by_columns = None if order is None else order == "columns"
    return Options(Said(by_columns, first, relative), columns, _names(record), name)


def _one_of(record: Mapping[str, Any], key: str, values: tuple[Any, ...]) -> Any:
    if key not in record:
        return None
    value = record[key]
    if not any(type(value) is type(one) and value == one for one in values):
        known = " or ".join(str(one).lower() for one in values)
        raise ValueError(f"'{key}': expected {known}, found {value!r:.40}")
    return value


def _text(record: Mapping[str, Any], key: str) -> str:
    if not isinstance(record[key], str) or not record[key].strip():
        raise ValueError(f"'{key}': expected a text, found {record[key]!r:.40}")
    return str(record[key])


def _names(record: Mapping[str, Any]) -> dict[str, str]:
    classes = record.get("classes", [])
    if isinstance(classes, list):
        classes = dict(zip(classes, classes, strict=True)) if all(map(_is_name, classes)) else None
        if classes is not None and len(classes) < len(record.get("classes", [])):
            raise ValueError("'classes': expected each name once, found one twice")
    if isinstance(classes, dict) and all(map(_is_name, (*classes, *classes.values()))):
        return {str(number): str(name) for number, name in classes.items()}
    raise ValueError(
        f"'classes': expected a list of names, or what the table calls them with their names, "
        f"found {record['classes']!r:.40}"
    )


def _is_name(value: object) -> bool:
    """Tell whether YAML holds a text or a whole number, as numbers of classes are."""
    return bool(isinstance(value, str) and value.strip()) or type(value) is int
