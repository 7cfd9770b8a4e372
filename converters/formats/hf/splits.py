"""Which files a Hugging Face data set has, and whether all are there that should be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.files.json_files import load_json
from converters.strict_yaml import parse_yaml

# The Hub's older files have a hash behind.
_PARQUET = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?\.parquet")
_ARROW = re.compile(r"data-(?P<number>\d+)-of-(?P<count>\d+)\.arrow")
_ORDER = ("train", "validation", "test")
_SHOWN = 3


def find_splits(root: Path) -> dict[str, list[Path]]:
    """Return split -> its files, in order; of a split in both forms the Arrow files.

    Arrow files lie in SPLIT/data-*.arrow, Parquet files in data/SPLIT-*.parquet.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted((root / "data").glob("*.parquet")):
        if match := _PARQUET.fullmatch(path.name):
            found.setdefault(match["split"], []).append(path)
    arrow: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/data-*.arrow")):
        if _ARROW.fullmatch(path.name):
            arrow.setdefault(path.parent.name, []).append(path)
    found |= arrow
    rank = {name: place for place, name in enumerate(_ORDER)}
    return {name: found[name] for name in sorted(found, key=lambda n: (rank.get(n, 9), n))}


# --- what should be there


def missing_files(root: Path, splits: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return what is not there though something else speaks of it, a line each.

    Files are numbered and say of how many; `state.json` lists a split's files, `dataset_dict.json`
    the splits, and a README where they are.

    Args:
        root: the data set's folder.
        splits: as `find_splits` returns them.
    """
    lines: list[str] = []
    for split, files in splits.items():
        lines += _numbers_missing(root, split, files)
    return lines


def missing_splits(root: Path, splits: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the splits that are named, but have no files; as `missing_files`."""
    named: dict[str, str] = {}
    for name in _list_in(root / "dataset_dict.json", "splits"):
        named.setdefault(str(name), "dataset_dict.json")
    for name, pattern in _card_files(root):
        if not any(root.glob(pattern)):
            named.setdefault(name, f"README.md ({pattern})")
    return [
        f"expected files of split '{name}' as {where} says, found none: put them back, or take the "
        "split out there"
        for name, where in named.items()
        if name not in splits
    ]


def row_counts(root: Path) -> Iterator[tuple[str, int, str]]:
    """Yield split, number of rows, and the file that says so: the card, or `dataset_infos.json`.

    What a split's own `dataset_info.json` says is left out: `datasets` leaves the numbers of the
    whole data set there when it writes a part.
    """
    record = _front_matter(root).get("dataset_info")
    for info in record if isinstance(record, list) else [record]:
        yield from _counts(info, "README.md")
    infos = _mapping_in(root / "dataset_infos.json")
    for info in infos.values():
        yield from _counts(info, "dataset_infos.json")


def own_row_count(root: Path, split: str) -> int | None:
    """Return the number of rows that our `write` has put down beside a split's Arrow files."""
    counts = list(_counts(_mapping_in(root / split / "dataset_info.json"), ""))
    return {name: rows for name, rows, _ in counts}.get(split)


def _numbers_missing(root: Path, split: str, files: Sequence[Path]) -> Iterator[str]:
    numbered: dict[int, list[Path]] = {}
    counts: set[int] = set()
    for path in files:
        match = _PARQUET.fullmatch(path.name) or _ARROW.fullmatch(path.name)
        if match:
            numbered.setdefault(int(match["number"]), []).append(path)
            counts.add(int(match["count"]))
    if len(counts) != 1:
        yield (
            f"expected the files of split '{split}' to be of one number, found {files[0].name} and "
            f"{files[-1].name}: keep those of one data set"
        )
        return
    (count,) = counts
    if missing := [number for number in range(count) if number not in numbered]:
        names = [_numbered(files[0], number, count) for number in missing[:_SHOWN]]
        more = ", ..." if len(missing) > _SHOWN else ""
        yield (
            f"expected {count} files of split '{split}' as their names say, found no "
            f"{', '.join(names)}{more}: put them back"
        )
    for same in numbered.values():
        if len(same) > 1:
            yield f"expected one of {' and '.join(path.name for path in same)}: take one away"
    if other := next((number for number in numbered if number >= count), None):
        yield f"expected numbers below {count}, found {numbered[other][0].name}"
    if files[0].suffix == ".arrow":
        there = {path.name for path in files}
        for entry in _list_in(root / split / "state.json", "_data_files"):
            name = entry.get("filename") if isinstance(entry, Mapping) else None
            if isinstance(name, str) and name not in there:
                yield f"expected {split}/{name:.80} as its state.json says, found none: put it back"


def _numbered(path: Path, number: int, count: int) -> str:
    head, _, _ = path.name.rpartition("-of-")
    stem, _, digits = head.rpartition("-")
    width = len(digits)
    return f"{stem}-{number:0{width}d}-of-{count:0{width}d}{path.suffix}"


# --- what says so


def _mapping_in(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none, or another one."""
    try:
        record = load_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _list_in(path: Path, member: str) -> list[Any]:
    found = _mapping_in(path).get(member)
    return found if isinstance(found, list) else []


def _front_matter(root: Path) -> dict[str, Any]:
    """What stands between the lines `---` at the top of a README."""
    try:
        text = (root / "README.md").read_text(encoding="utf-8-sig")
        record = parse_yaml(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, LookupError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _card_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield split and pattern of all files that the card names below the folder."""
    configs = _front_matter(root).get("configs")
    for config in configs if isinstance(configs, list) else []:
        files = config.get("data_files") if isinstance(config, Mapping) else None
        for entry in files if isinstance(files, list) else []:
            if not isinstance(entry, Mapping):
                continue
            paths = entry.get("path")
            for path in paths if isinstance(paths, list) else [paths]:
                if isinstance(path, str) and not re.search(r"^/|://|\.\.", path):
                    yield str(entry.get("split")), path


def _counts(info: Any, where: str) -> Iterator[tuple[str, int, str]]:
    splits = info.get("splits") if isinstance(info, Mapping) else None
    entries = list(splits.values()) if isinstance(splits, Mapping) else splits
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("num_examples"), int):
            yield str(entry.get("name")), entry["num_examples"], where
