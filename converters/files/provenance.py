"""Result folders that appear whole or not at all, and the record of where they came from."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.files.atomic import unfinished
from converters.files.json_files import load_json, read_json
from converters.files.outputs import check_result, listing, real_place

PROVENANCE = "provenance.json"
_OF = "of"
# Distributions whose version can change a result; those that are not installed are left out.
_RECORDED = (
    *("maskzoo", "numpy", "opencv-python-headless", "opencv-python", "shapely", "scikit-learn"),
    *("pyarrow", "pillow", "pydicom", "torch", "torchvision", "lightning", "transformers"),
    *("datasets", "segmentation-models-pytorch", "timm", "albumentations"),
    *("ultralytics", "ultralytics-opencv-headless"),
)


@contextmanager
def result_folder(
    out: Path, kind: str, provenance: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """Give a folder to write into that becomes `out` when the block ends without an error.

    An error leaves `out` as it was. A previous result of the same kind is replaced as a whole. See
    `converters.files.atomic`.

    Args:
        out: where the result will be.
        kind: what it is, such as a format's name; goes to `provenance.json`.
        provenance: further entries: command, config, seed, split.

    Raises:
        ValueError: `out` exists and is not such a result, or something was put into it.
    """
    check_place(out, kind)
    target = real_place(out)
    record = {"kind": kind, **(provenance or {}), **environment()}
    with unfinished(target) as folder:
        folder.mkdir()
        _write_record(folder, record)
        yield folder
        files = listing(folder, (PROVENANCE,))
        _write_record(folder, {**(read_provenance(folder) or record), "files": files})
        # The work may have taken hours, in which somebody put something there.
        check_result(target, kind, PROVENANCE)


def check_place(out: Path, kind: str) -> None:
    """Say before the work whether `result_folder` will take a place.

    Raises:
        ValueError: as `result_folder`.
    """
    target = real_place(out)
    check_result(target, kind, PROVENANCE)
    # Whoever stands in a folder that is replaced stands in none.
    if target.is_dir() and target.samefile(os.curdir):
        raise ValueError(
            f"{out}: expected a place to write, found the folder that you are in, which would be "
            f"replaced: name a new one, such as {kind}"
        )


def write_provenance(
    folder: Path,
    command: object,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    split_digest: str | None = None,
    *,
    kind: str = "run",
    labels: Mapping[str, Any] | None = None,
) -> None:
    """Write `provenance.json` into a folder that is not a `result_folder`.

    Args:
        folder: exists.
        command: what the user called, as text or as a list of arguments.
        config: the effective config, as JSON can hold it.
        seed: of the random numbers.
        split_digest: `Split.digest` of the folds that were used.
        kind: what the folder is.
        labels: the whole label space, as `LabelSpace.record` gives it.
    """
    record = {"command": command, "config": config, "labels": labels, "seed": seed}
    record["split"] = split_digest
    given = {name: value for name, value in record.items() if value is not None}
    _write_record(folder, {"kind": kind, **given, **environment()})


def made_of(out: Path, source: Path) -> dict[str, str]:
    """Return the entry that says what a result was made of, as it is seen from the result.

    Args:
        out: where the result will be.
        source: the file or folder.
    """
    try:
        seen = os.path.relpath(os.path.realpath(source), real_place(out))
    except ValueError:  # on another drive
        return {}
    return {_OF: Path(seen).as_posix()}


def source_of(folder: Path) -> Path | None:
    """Return what a result was made of, if that is noted; the path is resolved."""
    noted = read_provenance(folder).get(_OF)
    return Path(os.path.realpath(folder / noted)) if isinstance(noted, str) and noted else None


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read a folder's `provenance.json`; empty where there is none that can be read."""
    try:
        record = load_json(folder / PROVENANCE)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def require_provenance(folder: Path) -> dict[str, Any]:
    """Read a folder's `provenance.json` where something depends on it; empty where there is none.

    Raises:
        ValueError: there is one, but not such a record.
    """
    path = folder / PROVENANCE
    if not path.exists():
        return {}
    record = read_json(path, "the record of how this folder came about")
    if not isinstance(record, dict):
        found = type(record).__name__
        raise ValueError(f"{path}: expected an object, found a {found}; put the file back")
    return record


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_record(folder / PROVENANCE, record)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record of where a result came from, such as one beside a file."""
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
    atomic_write_text(path, text + "\n")


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in _RECORDED:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


@cache
def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    # An installed package may lie below somebody else's repository.
    if not (root / ".git").exists():
        return None
    # It only looks: others may be at work there.
    git = ["git", "--no-optional-locks", "-C", str(root)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment() -> dict[str, Any]:
    """Return versions, and the commit of the project's checkout where it runs from one."""
    record: dict[str, Any] = {"versions": dict(_versions())}
    commit = _git_commit()
    return {**record, "git": commit} if commit else record


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file that is either there as a whole or as it was before."""
    with unfinished(path) as place:
        place.write_text(text, encoding="utf-8", newline="\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file at `target`: a hard link where the file system allows it, else a copy.

    Raises:
        OSError: no such file, or `target` exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A link to a symbolic link would break when the result is moved.
    original = os.path.realpath(source)
    try:
        os.link(original, target)
    except FileExistsError:
        # Copying would write through a link that is there, into somebody's image.
        raise
    except OSError:
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content; file systems that can let both share it until one is changed.

    Raises:
        OSError: no such file, or `target` exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("xb") as written:
        if not _share(read.fileno(), written.fileno(), os.fstat(read.fileno()).st_size):
            written.seek(0)
            written.truncate()
            read.seek(0)
            shutil.copyfileobj(read, written, 1 << 20)


def _share(source: int, target: int, length: int) -> bool:
    """Let the system copy, as copy_file_range(2) does; tell whether it has."""
    if not hasattr(os, "copy_file_range"):
        return False
    left = length
    try:
        while left and (copied := os.copy_file_range(source, target, left)):
            left -= copied
    except OSError:
        return False
    return not left
