"""Rows of a table in sections, one a group of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from converters.types import LabelSpace

RowType = TypeVar("RowType")


def by_group(
    rows: Mapping[str, RowType], labels: LabelSpace
) -> list[tuple[str, tuple[RowType, ...]]]:
    """Return classes' rows by group, in the label space's order; groups without rows are left out.

    Args:
        rows: class name -> row.
        labels: the classes and their groups.

    Returns:
        Title and rows; the title is "" where the label space has no groups.
    """
    grouped = {name for names in labels.groups.values() for name in names}
    parts = dict(labels.groups)
    parts["other classes" if parts else ""] = tuple(n for n in labels.names if n not in grouped)
    found = [(title, tuple(rows[n] for n in names if n in rows)) for title, names in parts.items()]
    return [(title, part) for title, part in found if part]
