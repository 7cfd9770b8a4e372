"""Where a data set is, that is named by its folder or by one of its files, and its format."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.files.below import files_below
from converters.files.images import is_image
from converters.recognition.registry import FORMATS, load_format, recognise_folder

# What is to be unpacked first.
_ARCHIVES = frozenset({".zip", ".gz", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"})
# Folders in a data set in which files are that speak of its images.
_PART = re.compile(r"annotations?|(train|val|valid|validation|test)\d*", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """Where a data set is.

    Attributes:
        folder: in which it lies.
        format: its name.
        annotations: the one of several annotation files that alone is meant; None: all.
    """

    folder: Path
    format: str
    annotations: Path | None = None


def locate(data: Path | str, format: str | None = None) -> Location:
    """Find a data set by its folder, or by one of its annotation files.

    Args:
        data: a folder, or a file such as COCO's `instances_val.json` or Ultralytics' `data.yaml`.
        format: the format's name; None recognises it.

    Raises:
        ValueError: it is missing, a file that annotates no images, or in no known format, or in
            several.
    """
    data = Path(data)
    if data.is_dir():
        return _of_folder(data, format or recognise_folder(data))
    if not data.is_file():
        raise ValueError(f"{data}: expected a data set's folder, found nothing there")
    if data.suffix.lower() in _ARCHIVES:
        raise ValueError(
            f"{data}: expected a data set's folder, found an archive: unpack it, and give the "
            "folder"
        )
    names = [format] if format else list(FORMATS)
    if found := next((place for name in names for place in _places(data, name)), None):
        _check_alone(found)
        return found
    what = "a data set's folder, or a file that annotates its images"
    folder = _folders_of(data)[0]
    raise ValueError(f"{data}: expected {what}, found another file: give its folder, {folder}")


def recognise(data: Path | str) -> str:
    """Return the name of the format that a data set is in, by its content.

    Raises:
        ValueError: as `locate`.
    """
    return locate(data).format


def _of_folder(folder: Path, format: str) -> Location:
    """Return where a data set is: where its file says, if that is elsewhere."""
    module = load_format(format)
    file = module.main_file(folder) if hasattr(module, "main_file") else None
    home = module.folder_of(file) if file else None
    return Location(home, format, file) if home else Location(folder, format)


def _places(file: Path, format: str) -> Iterator[Location]:
    """Yield where the data set may be that a file annotates; nothing where it is no such file."""
    module = load_format(format)
    if not hasattr(module, "annotation_files"):
        return
    if (own := module.folder_of(file) if hasattr(module, "folder_of") else None) is not None:
        yield Location(own, format, file)
    names = module.image_names if hasattr(module, "image_names") else None
    for folder in filter(module.matches, _folders_of(file, names)):
        # As the folder has it: of a file that is named from inside, other paths begin elsewhere.
        files = list(module.annotation_files(folder))
        for own in [path for path in files if path.resolve() == file.resolve()][:1]:
            yield Location(folder, format, own if len(files) > 1 else None)


def _folders_of(
    file: Path, image_names: Callable[[Path], Iterable[str]] | None = None
) -> list[Path]:
    """Where the data set of a file may be: its own folder, above it where that is but a part.

    A folder such as `val` that has images is a data set of its own, unless its file names all of
    them from the folder above.
    """
    beside = file.parent
    name = os.path.basename(os.path.abspath(beside))
    if not _PART.fullmatch(name):
        return [beside]
    above = beside / ".." if beside.name in ("", "..") else beside.parent
    if name.lower().startswith("annotation") or not any(map(is_image, files_below(beside))):
        return [above, beside]
    names = list(image_names(file)) if image_names else []
    are_above = bool(names) and _has_all(above, names) and not _has_all(beside, names)
    return [above, beside] if are_above else [beside, above]


def _has_all(folder: Path, names: Iterable[str]) -> bool:
    try:
        return all((folder / name).is_file() for name in names)
    except OSError:  # too long a name
        return False


def _check_alone(place: Location) -> None:
    reads = inspect.signature(load_format(place.format).read).parameters
    if place.annotations and "annotations" not in reads:
        raise ValueError(
            f"{place.annotations}: expected the folder, {place.folder}: it has other files of the "
            f"kind ('{place.format}'), which are read together; move them away, or give the folder"
        )
