"""Rows in Arrow and Parquet files, as `datasets` lays them out: written in order, read by number.

An Arrow file is mapped into memory: a row costs its own bytes. Parquet is read in row groups, of
which the last few are kept.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from converters.files.json_files import parse_json
from converters.types import NamedFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_PER_FILE = 100
ROWS_PER_BATCH = 8
# Of Parquet, which compresses: what is larger and hardly takes room in its file is no data set.
LARGEST_PART = 1 << 31
_MOST_TIMES_SMALLER = 100

_TEXT, _NUMBER = ({"dtype": dtype, "_type": "Value"} for dtype in ("string", "int32"))
_FIELDS = {
    "key": _TEXT,
    "group": _TEXT,
    "height": _NUMBER,
    "width": _NUMBER,
    "attributes": _TEXT,
    "frame": _TEXT,
}
CLASSES_PER_MASK = 32

Row = Mapping[str, Any]
Features = Mapping[str, Mapping[str, str]]
# Which file it was: its path, and what changes when somebody replaces it.
_Stamp = tuple[str, int, int, int]


def mask_columns(classes: int) -> list[str]:
    """Return the columns of masks, each of which holds 32 classes.

    >>> mask_columns(29), mask_columns(80)
    (['mask'], ['mask', 'mask_1', 'mask_2'])
    """
    count = max(1, -(-classes // CLASSES_PER_MASK))
    return ["mask", *(f"mask_{number}" for number in range(1, count))]


def features(classes: int) -> Features:
    """Return the columns of our rows, as `datasets` describes them."""
    masks: Features = {name: {"_type": "Image"} for name in mask_columns(classes)}
    return {"image": {"_type": "Image"}, **masks, **_FIELDS}


@dataclass(frozen=True)
class RowImage(NamedFile):
    """An image that lies in a row; stands where other samples have a path.

    Attributes:
        file: Arrow or Parquet file.
        row: its number in that file.
        name: base name of the image, with suffix.
        column: the column that holds it.
    """

    file: Path
    row: int
    name: str
    column: str = "image"

    def read_bytes(self) -> bytes:
        """Read the image file's content.

        Raises:
            OSError: the file is gone.
            ValueError: the row holds no image.
        """
        table, row = _locate(self.file, self.row)
        content = (table.column(self.column)[row].as_py() or {}).get("bytes")
        if content is None:
            raise ValueError(f"{self}: expected an image's bytes in the row, found none")
        return cast("bytes", content)

    def __str__(self) -> str:
        return f"{self.file}, row {self.row} ({self.name})"


@dataclass(frozen=True)
class Rows:
    """All rows of some files, by number; can be pickled and read by several threads at once.

    Attributes:
        files: Arrow or Parquet files, in order.
        ends: for each file, the number of rows up to its end.
    """

    files: tuple[Path, ...]
    ends: tuple[int, ...]

    @classmethod
    def open(cls, files: Sequence[Path]) -> Rows:
        """Count the rows of files; none is read.

        Raises:
            OSError: a file is missing.
            ValueError: a file is broken.
        """
        return cls(tuple(files), tuple(accumulate(_starts(_stamp(f))[-1] for f in files)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a row; images are bytes and a name, not decoded."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index}: expected one of {len(self)}")
        number = bisect_right(self.ends, place)
        table, row = _locate(self.files[number], place - (self.ends[number - 1] if number else 0))
        return cast("dict[str, Any]", table.slice(row, 1).to_pylist()[0])

    def keys(self) -> list[str]:
        """Read the key of each row; images stay where they are.

        Raises:
            OSError: a file is gone.
            ValueError: a broken file.
        """
        files = self.files
        return [str(row["key"]) for file in files for row in scan_rows(file, "image", ["key"])]


# --- writing


def write_rows(files: Sequence[Path], rows: Iterable[Row], columns: Features) -> None:
    """Write rows into files of `ROWS_PER_FILE`; a few rows are in memory at a time."""
    import pyarrow as pa

    schema, left = _schema(columns), iter(rows)
    for path in files:
        with _writer(path, schema) as to:
            part = islice(left, ROWS_PER_FILE)
            while batch := list(islice(part, ROWS_PER_BATCH)):
                to.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def _writer(path: Path, schema: pa.Schema) -> AbstractContextManager[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".arrow":
        return cast("AbstractContextManager[Any]", pa.ipc.new_stream(str(path), schema))
    # Images are compressed already.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    return cast("AbstractContextManager[Any]", pq.ParquetWriter(str(path), schema, **options))


def _schema(columns: Features) -> pa.Schema:
    import pyarrow as pa

    file = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    types = {"Image": file, "string": pa.string(), "int32": pa.int32()}
    fields = [(n, types[f.get("dtype", f["_type"])]) for n, f in columns.items()]
    info = json.dumps({"info": {"features": columns}})
    return pa.schema(fields, metadata={"huggingface": info})


# --- reading


def read_columns(file: Path) -> dict[str, bool]:
    """Read the names of a file's columns, and whether they hold images.

    Raises:
        OSError: no such file.
        ValueError: a broken file.
    """
    import pyarrow as pa

    return {
        field.name: pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        for field in _read_schema(file)
    }


def read_features(file: Path) -> dict[str, Any]:
    """Read what `datasets` has put down about a file's columns; empty where it has not.

    Raises:
        OSError: no such file.
        ValueError: a broken file.
    """
    metadata = _read_schema(file).metadata or {}
    found: Any = parse_json(metadata.get(b"huggingface") or b"{}")
    for member in ("info", "features"):
        found = found.get(member) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _read_schema(file: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            return stream.schema
    return pq.read_schema(str(file))


def scan_rows(file: Path, image: str, others: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of the rows of a file without their images' bytes, a few at a time.

    Args:
        file: Arrow or Parquet file.
        image: the column of images; a row holds their paths only.
        others: all other columns that a row shall have.

    Raises:
        OSError: no such file.
        ValueError: a broken file, or one without these columns.
    """
    for batch in _batches(file, [*others, f"{image}.path"]):
        if missing := [name for name in (image, *others) if name not in batch.schema.names]:
            wanted = ", ".join((image, *others))
            raise ValueError(f"expected columns {wanted}; found no {missing[0]}")
        images = batch.column(image)
        has_path = images.type.get_field_index("path") >= 0
        names = images.field("path").to_pylist() if has_path else [None] * len(images)
        for row, name in zip(batch.select(others).to_pylist(), names, strict=True):
            yield {**row, image: {"bytes": None, "path": name}}


def _batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    if file.suffix == ".arrow":
        # The other columns' bytes are mapped, but never touched.
        with pa.memory_map(str(file)) as source:
            for batch in pa.ipc.open_stream(source):
                # Offsets of a damaged file would lead out of the mapped memory.
                batch.validate(full=True)
                yield batch
        return
    with _open_parquet(str(file)) as source:
        # Arrow's threads may abort a command that ends while they do (apache/arrow#34314).
        yield from source.iter_batches(
            batch_size=ROWS_PER_BATCH, columns=columns, use_threads=False
        )


def _locate(file: Path, row: int) -> tuple[pa.Table, int]:
    """Return a table that holds a row of a file, and the row's number there."""
    stamp = _stamp(file)
    if file.suffix == ".arrow":
        return _arrow_table(stamp), row
    starts = _starts(stamp)
    group = bisect_right(starts, row) - 1
    return _row_group(stamp, group), row - starts[group]


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _arrow_table(stamp: _Stamp) -> pa.Table:
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.memory_map(stamp[0])).read_all()
    table.validate(full=True)
    return table


@lru_cache(maxsize=64)
def _starts(stamp: _Stamp) -> tuple[int, ...]:
    """First row of each part of a file that is read at once, and the number of all rows."""
    if stamp[0].endswith(".arrow"):
        return 0, _arrow_table(stamp).num_rows
    with _open_parquet(stamp[0]) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return tuple(accumulate(groups, initial=0))


@lru_cache(maxsize=4)
def _row_group(stamp: _Stamp, group: int) -> pa.Table:
    with _open_parquet(stamp[0]) as file:
        return file.read_row_group(group, use_threads=False)


def _open_parquet(path: str) -> pq.ParquetFile:
    """Open a file whose parts fit into memory, as far as its footer says.

    Raises:
        ValueError: a broken file, or a few bytes that would become gigabytes.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).total_byte_size
        if size > LARGEST_PART and size > _MOST_TIMES_SMALLER * Path(path).stat().st_size:
            file.close()
            raise ValueError(
                f"expected parts of at most {LARGEST_PART} bytes, or files of about their size, "
                f"found {size} bytes in a file of {Path(path).stat().st_size}"
            )
    return file
