"""Whose an image is, where a data set's files do not say it: by folder, name, table or field."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from converters.errors import did_you_mean
from converters.files.dicom import read_element
from converters.files.lines import TABLE_SUFFIXES
from converters.tables.image_columns import PERSON
from converters.tables.sample_tables import column_of, find_table, read_columns
from converters.types import Sample

_SHOWN, _NAMED = 3, 20
_DICOM = "dicom"
# Roboflow writes versions of NAME.jpg as NAME_jpg.rf.HASH.jpg, turned, cut, brighter.
_VERSION = re.compile(r"(.+[_.](?:jpe?g|png|bmp|tiff?|webp|gif))\.rf\.\w+", re.IGNORECASE)


def group_by(samples: Sequence[Sample], by: str, tables: Sequence[Path] = ()) -> list[Sample]:
    """Return samples with groups, such as the patient.

    Args:
        samples: any.
        by: `folder`: the folder that an image lies in. `FILE.csv:COLUMN`: a table with a column of
            the images' names, stems or keys, or of the groups that they have already.
            `dicom:KEYWORD`: an element of the images' DICOM headers, such as `dicom:PatientID`. The
            name of an attribute that all samples have. Else a regular expression, looked for in
            each key: its first group in brackets, or what it finds.
        tables: files beside the data: of them is a table that lies nowhere else, and a message
            names their columns.

    Raises:
        ValueError: an image of no group, a table without such columns or with an image in two
            groups, or no regular expression.
    """
    found = _rule(samples, by, tables)
    groups = {sample.key: found(sample) for sample in samples}
    if lacking := [key for key, group in groups.items() if not group]:
        table, _, _ = by.rpartition(":")
        is_table = table.lower().endswith(TABLE_SUFFIXES)
        what = f"add rows to {table}" if is_table else _known(samples, by, tables)
        raise ValueError(
            f"--group-by {by}: expected a group of each image, found none of {len(lacking)}: "
            f"{', '.join(lacking[:_SHOWN])}{', ...' if len(lacking) > _SHOWN else ''}; {what}"
        )
    return [replace(sample, group=groups[sample.key]) for sample in samples]


def likely_columns(tables: Sequence[Path]) -> list[str]:
    """Return those columns of tables, as `FILE:COLUMN`, that tell whose an image is by their names.

    Args:
        tables: files.
    """
    return [f"{t.name}:{name}" for t in tables for name in read_columns(t) if PERSON.search(name)]


def _known(samples: Sequence[Sample], by: str, tables: Sequence[Path]) -> str:
    """Say what there is to group by: attributes of the images, and columns of tables."""
    attributes = sorted({str(name) for sample in samples for name in sample.attributes})
    columns_of = {path: read_columns(path) for path in tables}
    # A submission, which often lies there, tells nobody's images apart.
    found = [(path, name) for path, own in columns_of.items() if "rle" not in own for name in own]
    columns = [f"{path}:{column}" for path, column in found]
    last = {column: f"{path.name}:{column}" for path, column in found}
    meant = did_you_mean(by, [*attributes, *last, *last.values()])
    for column, whole in last.items():
        meant = meant.replace(f"'{column}'", f"'{whole}'")
    if own := [f"{by}:{column}" for path, column in found if by in (path.name, str(path))]:
        # A table without its column: not the first one will do, but that of persons.
        likely = next((whole for whole in own if PERSON.search(whole.rpartition(":")[2])), "")
        meant = f"; a column of the table is missing{f', such as {likely}' if likely else ''}"
    return (
        f"there are the attributes {_listed(attributes)} and the columns {_listed(columns)}{meant}"
    )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join([*names[:_NAMED], *([f"and {rest} more"] if rest > 0 else [])]) or "(none)"


def original_of(key: str) -> str:
    """Return the name of the image that one is a version of, by Roboflow's names; "" for none.

    >>> original_of("train/a_jpg.rf.8b00d1e2c3f4a5968b00d1e2c3f4a596"), original_of("train/a")
    ('a_jpg', '')
    """
    match = _VERSION.fullmatch(PurePosixPath(key).name)
    return match[1] if match else ""


def group_versions(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples in which versions of one image, by Roboflow's names, are one group.

    What has a group keeps it, and an image without another version gets none.
    """
    originals = {s.key: name for s in samples if not s.group and (name := original_of(s.key))}
    counts = Counter(originals.values())
    return [
        replace(sample, group=name) if counts[name := originals.get(sample.key, "")] > 1 else sample
        for sample in samples
    ]


def with_groups(samples: Sequence[Sample], groups: Mapping[str, str]) -> list[Sample]:
    """Return samples with groups that were remembered, where they have none themselves."""
    return [
        replace(sample, group=group)
        if not sample.group and (group := groups.get(sample.key, "")) != sample.key and group
        else sample
        for sample in samples
    ]


def known_groups(groups: Mapping[str, str]) -> dict[str, str]:
    """Return those of a split's groups that are somebody's, not an image's own."""
    return {key: group for key, group in groups.items() if group != key}


def _rule(samples: Sequence[Sample], by: str, tables: Sequence[Path]) -> Callable[[Sample], str]:
    if by == "folder":
        return lambda sample: PurePosixPath(sample.key).parent.name
    file, _, column = by.rpartition(":")
    if file.lower().endswith(TABLE_SUFFIXES):
        return column_of(samples, find_table(file, tables), column)
    if file == _DICOM:
        return partial(_of_header, column)
    if any(by in sample.attributes for sample in samples):
        return lambda sample: str(sample.attributes.get(by, ""))
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ValueError(
            f"--group-by {by}: expected folder, FILE.csv:COLUMN, dicom:KEYWORD, an attribute or a "
            f"regular expression, found none: {error}"
        ) from None

    def search(sample: Sample) -> str:
        match = pattern.search(sample.key)
        return (match[1] or "" if pattern.groups else match[0]) if match else ""

    return search


def _of_header(keyword: str, sample: Sample) -> str:
    try:
        return read_element(io.BytesIO(sample.image.read_bytes()), keyword)
    except OSError as error:
        raise ValueError(f"{sample.image}: expected an image: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--group-by {_DICOM}:{keyword}: {sample.image}: {error}") from None
