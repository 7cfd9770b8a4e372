"""A data set's images divided into folds."""

from __future__ import annotations

from pathlib import Path

from converters.files.outputs import check_file, json_with
from converters.splits.split import Split, check_leakage, make_split
from converters.splits.table import describe as describe_split
from converters.types import LabelSpace
from zoo.source import DataSource


def split(
    data: DataSource,
    out: Path,
    labels_name: str,
    folds: int,
    strategy: str,
    seed: int,
    *,
    describe: bool,
    replace: bool = False,
) -> str:
    """Divide a data set's train images into folds; return what was made, in words.

    Raises:
        ValueError: too few patients, an unknown strategy, or the same image in two folds, or in a
            fold and among the test images; another file at `out`, or other folds without `replace`.
    """
    check_file(out, "a split", json_with("folds", "groups"))
    labels = LabelSpace.load(labels_name)
    samples = data.read(labels)
    made = make_split(samples, folds=folds, seed=seed, strategy=strategy, labels=labels)
    check_leakage(made, data.read(labels, "all"))
    if out.exists() and out.stat().st_size and not replace and not _is_same(out, made):
        raise ValueError(
            f"{out}: expected the same folds, found others: runs that were made with these would "
            "not fit any more; give --replace, or choose another --out"
        )
    made.save(out)
    sizes = ", ".join(str(len(keys)) for keys in made.folds)
    groups = len(set(made.groups.values()))
    line = f"{out}: {len(samples)} images of {groups} groups; folds {sizes}"
    return f"{line}\n{describe_split(made, samples, labels)}" if describe else line


def _is_same(path: Path, made: Split) -> bool:
    try:
        return Split.load(path).digest == made.digest
    except ValueError:
        return False
