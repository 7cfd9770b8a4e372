"""Many runs side by side: the settings in which they differ, and their scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import one_line
from converters.files.outputs import check_file
from converters.files.provenance import atomic_write_text, read_provenance
from converters.splits.split import Split
from converters.strict_yaml import read_mapping
from zoo.config import as_space
from zoo.options import as_text, flatten
from zoo.run_files.metrics import Row, best_row, read_rows

# A sweep's folder among others is two deep.
DEPTH = 3
# Where a run was made, not what it learns from or how.
_UNTOLD = ("labels",)
# Characters of a cell that are shown.
_WIDEST = 32
# The column of what runs were to find out: the last one, which is shown whole.
_NOTE = "note"


@dataclass(frozen=True)
class RunSummary:
    """A run's settings and scores.

    Attributes:
        name: its folder, relative to the folder that was given.
        path: its folder.
        settings: `family`, `fold`, `split.seed`, `split` (the start of its hash), and the config's
            keys, as text.
        best: the highest validation Dice; None where nothing was scored.
        epoch: when that was, counted from 1.
        last: the validation Dice of the last epoch that was scored.
        groups: group -> mean Dice of its classes in the best epoch.
        seconds: that it trained.
        note: what it was to find out, as its config's key `note` said.
    """

    name: str
    path: Path
    settings: Mapping[str, str]
    best: float | None
    epoch: int
    last: float | None
    groups: Mapping[str, float]
    seconds: float
    note: str = ""


def find_runs(folders: Sequence[Path]) -> list[RunSummary]:
    """Read all runs at or below folders, sorted by name.

    Raises:
        ValueError: no such folder, no run in one, or a run that cannot be read.
    """
    found: dict[Path, RunSummary] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: expected a folder with runs, found none")
        here = [path for path in _run_folders(folder) if path.resolve() not in found]
        if not here and not any(_run_folders(folder)):
            raise ValueError(
                f"{folder}: expected runs of `zoo train` in it or below, found none; a run has "
                "config.yaml with the key 'family'"
            )
        for path in here:
            name = path.name if path == folder else str(path.relative_to(folder))
            found[path.resolve()] = read_run(path, name)
    return sorted(found.values(), key=lambda run: run.name)


def _run_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    # Below a run lies what its vendor writes, which may look like one.
    file = folder / "config.yaml"
    if file.is_file() and file.read_bytes().startswith(b"family:"):
        yield folder
    elif depth:
        for child in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _run_folders(child, depth - 1)


def read_run(path: Path, name: str) -> RunSummary:
    """Read a run's settings and scores; the family's libraries are not needed.

    Raises:
        ValueError: its config is no YAML.
    """
    file = path / "config.yaml"
    config = read_mapping(file, "a run's settings")
    record = read_provenance(path)
    settings = {"family": str(config.pop("family", ""))}
    settings["fold"] = as_text(record.get("config", {}).get("fold"))
    if (path / "split.json").is_file():
        split = Split.load(path / "split.json")
        settings |= {"split.seed": str(split.seed), "split": split.digest[:8]}
    settings |= flatten(config)
    rows = [row for row in read_rows(path / "metrics.csv") if row.get("val_dice")]
    best = best_row(rows, "val_dice")
    note = one_line(str(record.get("note", "")))
    if best is None:
        return RunSummary(name, path, settings, None, 0, None, {}, 0.0, note)
    return RunSummary(
        name=name,
        path=path,
        settings=settings,
        best=float(best["val_dice"]),
        epoch=int(best["epoch"]),
        last=float(rows[-1]["val_dice"]),
        groups=_groups(best, settings.get("labels", "")),
        seconds=float(rows[-1].get("seconds") or 0),
        note=note,
    )


def _groups(row: Row, given: Any) -> dict[str, float]:
    try:
        labels = as_space(given)
    except (KeyError, TypeError, ValueError):
        # The file that the run was trained with may be elsewhere; its scores are still here.
        return {}
    found = {}
    for group, members in labels.groups.items():
        values = [float(row[name]) for name in members if row.get(name)]
        if values:
            found[group] = sum(values) / len(values)
    return found


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """Return the settings in which runs differ, in the order of their configs."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    kept = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
    return [key for key in kept if key not in _UNTOLD]


# --- the table


def tabulate(
    runs: Sequence[RunSummary], sort: str = "best", public: Mapping[str, float] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of runs.

    Args:
        runs: at least one.
        sort: a column; scores fall, anything else rises.
        public: run -> public score.

    Raises:
        ValueError: no such column.
    """
    keys = differing(runs)
    groups = list(dict.fromkeys(group for run in runs for group in run.groups))
    columns = ["run", *keys, "best", "epoch", "last", *groups]
    columns += ["public"] if public else []
    columns += [_NOTE] if any(run.note for run in runs) else []
    if sort not in columns:
        raise ValueError(f"--sort {sort}: expected one of {', '.join(columns)}")
    cells: list[dict[str, Any]] = []
    for run in runs:
        row: dict[str, Any] = {"run": run.name, **{k: run.settings.get(k, "") for k in keys}}
        row |= {"best": run.best, "epoch": run.epoch or "", "last": run.last, **run.groups}
        row |= {_NOTE: run.note}
        cells.append(row | ({"public": public.get(run.name)} if public else {}))
    scores = {"best", "last", "public", *groups}
    cells.sort(key=lambda row: _rank(row.get(sort), sort in scores))
    return columns, [[_cell(row.get(column)) for column in columns] for row in cells]


def _rank(value: Any, falls: bool) -> tuple[int, float, str]:
    # What is missing comes last; numbers that configs hold as text are numbers.
    if value is None or value == "":
        return 2, 0.0, ""
    try:
        number = float(value)
    except ValueError:
        return 1, 0.0, str(value)
    return 0, -number if falls else number, ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _cut(cell: str) -> str:
    return cell if len(cell) <= _WIDEST else cell[: _WIDEST - 3] + "..."


def shown_columns(runs: Sequence[RunSummary], columns: Sequence[str], sort: str) -> list[str]:
    """Return the columns that a terminal shows: without settings that whole families lack.

    Runs of several families differ in nearly all of theirs; `write_table` keeps these.
    """
    known: dict[str, set[str]] = {}
    for run in runs:
        known.setdefault(run.settings.get("family", ""), set()).update(run.settings)
    common = set.intersection(*known.values())
    partial = set.union(*known.values()) - common
    return [column for column in columns if column == sort or column not in partial]


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as lines of text; long cells are cut, but for names (first) and notes.

    A list of augmentations is longer than a terminal is wide; `write_table` keeps all of it.
    """
    whole = [i == 0 or column == _NOTE for i, column in enumerate(columns)]
    lines = [
        [cell if is_whole else _cut(cell) for cell, is_whole in zip(line, whole, strict=True)]
        for line in (columns, *rows)
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def check_table(path: Path | None) -> None:
    """Say before the work whether a table may be written.

    Raises:
        ValueError: a file is there that is no table of runs.
    """
    if path is not None:
        check_file(path, "a table of runs", _is_table)


def _is_table(text: str) -> bool:
    columns = text.partition("\n")[0].strip().split(",")
    return columns[0] == "run" and {"best", "epoch", "last"} <= set(columns)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table as CSV.

    Raises:
        ValueError: as `check_table`.
    """
    check_table(path)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    atomic_write_text(path, text.getvalue())
