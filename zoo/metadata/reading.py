"""What tables or data sets say of images, for training and for prediction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import did_you_mean
from converters.tables.sample_tables import NoRowsError, column_of, find_table, tables_beside
from converters.types import Sample
from zoo.data.reading import Row
from zoo.metadata.columns import Columns, as_text, fit_column
from zoo.metadata.config import MetadataConfig
from zoo.progress import note

Rows = Mapping[str, Row]
"""Key of a sample -> what is known of it, as numbers, see `Columns.encode`."""

_NAMED = 20


@dataclass(frozen=True)
class Metadata:
    """What is known of images, as it was read.

    Attributes:
        values: key of a sample -> name of a column -> value.
        where: they come from, for messages.
        file: the table; "" for the data set's own attributes.
    """

    values: Mapping[str, Mapping[str, object]]
    where: str
    file: str = ""

    def fit(self, config: MetadataConfig, keys: Collection[str]) -> Columns:
        """Return the columns as training images have them.

        Args:
            config: which.
            keys: the training images.

        Raises:
            ValueError: as `zoo.metadata.columns.fit_column`.
        """
        fitted = []
        for name, kind in config.columns.items():
            values = {key: found.get(name) for key, found in self.values.items()}
            fitted.append(fit_column(name, kind, values, keys, self.where))
        return Columns(tuple(fitted), self.file)

    def rows(self, columns: Columns) -> dict[str, Row]:
        """Return the images' rows.

        Raises:
            ValueError: a text where numbers are expected; names the image.
        """
        rows = {}
        for key, values in self.values.items():
            try:
                rows[key] = columns.encode(values)
            except ValueError as error:
                raise ValueError(
                    f"{self.where}: {error} of '{key}'; mend it, or leave it empty"
                ) from None
        return rows

    def notes(self, columns: Columns) -> list[str]:
        """Say what a network that predicts is shown as missing, in a line each."""
        names = columns.names
        known = sum(
            any(as_text(values.get(name)) is not None for name in names)
            for values in self.values.values()
        )
        if self.values and not known:
            return [
                f"metadata: found no {', '.join(names)} of any of {len(self.values)} images "
                f"({self.where}): the network is shown them as missing"
            ]
        odd = [pair for values in self.values.values() for pair in columns.unknown(values)]
        return [
            f"metadata: '{name}': no training image has '{text:.40}': it is shown as missing"
            for name, text in dict.fromkeys(odd)
        ]


def read_to_train(config: MetadataConfig, samples: Sequence[Sample], data: Path) -> Metadata:
    """Read what is known of a data set's images.

    Args:
        config: which columns, and where.
        samples: all that are learned from or scored on.
        data: the data set's folder, where the table may lie.

    Raises:
        ValueError: no such table, or column; or none of the images is in it.
    """
    if config.file is None:
        _check_attributes(config.columns, samples)
        return _of_attributes(config.columns, samples)
    return _of_table(config.columns, samples, find_table(config.file, tables_beside(data)))


def read_to_predict(
    config: MetadataConfig, columns: Columns, samples: Sequence[Sample], table: Path | None = None
) -> Metadata:
    """Read what is known of images that are predicted; that may be nothing.

    Args:
        config: of the run.
        columns: likewise.
        samples: what is predicted.
        table: read this one; None takes the run's, by its name or where it lay in training, and
            where it is gone what the data set says by itself.

    Raises:
        ValueError: `table` is none; or a table lacks a column, or says two things of an image.
    """
    known = [Path(name) for name in (config.file, columns.file) if name]
    return _read_known(columns, known, samples, table)


def _read_known(
    columns: Columns, known: Sequence[Path], samples: Sequence[Sample], table: Path | None
) -> Metadata:
    """Read a table, else the first of the known ones that is there, else the attributes."""
    found = table or next((path for path in known if path.is_file()), None)
    if found is None or not samples:
        told = _of_attributes(columns.names, samples)
        return Metadata(told.values, f"{known[0]} is not there", "") if known else told
    try:
        return _of_table(columns.names, samples, found)
    except NoRowsError:
        return Metadata({sample.key: {} for sample in samples}, f"{found} has none of them")


def rows_of_run(
    run: Path,
    config: MetadataConfig | None,
    samples: Sequence[Sample],
    table: Path | None = None,
) -> dict[str, Row] | None:
    """Read what the network of a run is shown of images; says what it is not, on standard error.

    Args:
        run: its folder.
        config: of its metadata; None: the network is shown none, and so is the result.
        samples: the images.
        table: as in `read_to_predict`.

    Raises:
        ValueError: as `read_to_predict` and `Columns.load`, or a text where numbers are expected.
    """
    if config is None:
        return None
    columns = Columns.load(run)
    found = read_to_predict(config, columns, samples, table)
    if config.is_input:
        _say_missing(found, columns)
    return found.rows(columns)


def rows_of_export(
    columns: Columns, samples: Sequence[Sample], data: Path, table: Path | None = None
) -> dict[str, Row]:
    """Read what an exported network is shown of images, as `rows_of_run`.

    Args:
        columns: what it is shown; their `file` is a table's name, without where it lay.
        samples: the images.
        data: the data set's folder, where a table of that name may lie, as in training.
        table: read this one; None takes that of the name, else what the data set says by itself.

    Raises:
        ValueError: `table` is none; or a table lacks a column, says two things of an image, or has
            a text where numbers are expected.
    """
    known = [Path(columns.file), data / columns.file] if columns.file else []
    found = _read_known(columns, known, samples, table)
    _say_missing(found, columns)
    return found.rows(columns)


def _say_missing(found: Metadata, columns: Columns) -> None:
    for line in found.notes(columns):
        note(line)


def _of_table(names: Iterable[str], samples: Sequence[Sample], path: Path) -> Metadata:
    cells = {name: column_of(samples, path, name) for name in names}
    values = {s.key: {name: cell(s) for name, cell in cells.items()} for s in samples}
    return Metadata(values, str(path), str(path.resolve()))


def _of_attributes(names: Iterable[str], samples: Sequence[Sample]) -> Metadata:
    values = {s.key: {name: s.attributes.get(name) for name in names} for s in samples}
    return Metadata(values, "the data set's own attributes")


def _check_attributes(names: Iterable[str], samples: Sequence[Sample]) -> None:
    known = sorted({str(name) for sample in samples for name in sample.attributes})
    for name in names:
        if name not in known:
            rest = f", and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            raise ValueError(
                f"metadata.columns: '{name}'{did_you_mean(name, known)}: expected an attribute of "
                f"the data set's images, found {', '.join(known[:_NAMED]) or 'none'}{rest}; give a "
                "table in metadata.file for others"
            )
