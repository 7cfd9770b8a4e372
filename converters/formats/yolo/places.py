"""Where the images of Ultralytics' data sets are, and their labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from converters.files.images import is_image
from converters.files.names import normal_name
from converters.subsets.names import test_folders

# What else Ultralytics calls a subset, or those who write for it; in CVAT it is "Validation".
OTHER_NAMES = {"val": ("validation", "valid")}
Skip = Callable[[Path], bool]
# Where the images are that no file speaks of.
_UNNAMED = ("images/{}", "{}/images", "{}")
_SHOWN = 3


def named_base(file: Path, record: Mapping[str, Any]) -> Path | None:
    """Return the folder that `path` names, if it is there."""
    path = record.get("path")
    if not isinstance(path, str) or not path:
        return None
    # Without `..`, so that the folder's files are below it by their names, too.
    folder = Path(os.path.normpath(file.parent / Path(path).expanduser()))
    return folder if is_there(folder) and folder.is_dir() and not _is_machine(folder) else None


def named_place(base: Path, name: str) -> Path | None:
    """Return what a path means from a folder, if it is there.

    `..` does not count: Roboflow writes `../train/images` for what is beside its file.
    """
    is_exact = Path(name).is_absolute()
    path = Path(os.path.normpath(name)) if is_exact else base.joinpath(*parts_of(name))
    return path if is_there(path) and not _is_machine(path) else None


def _is_machine(folder: Path) -> bool:
    """Tell whether all of a machine is below a folder, as no data set is."""
    return os.path.dirname(os.path.abspath(folder)) == os.path.abspath(folder)


def is_there(path: Path) -> bool:
    """Tell whether something is there; of too long a name nothing is."""
    try:
        return path.exists()
    except OSError:
        return False


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a path is below a folder, or is it, by its name or by where links lead."""
    is_named_so = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return is_named_so or path.resolve().is_relative_to(folder.resolve())


def home_of(place: Path) -> Path:
    """Return the folder of a data set by a place of images in it: the one above `images`.

    Labels lie below it; without such a folder, beside the images.
    """
    parts = place.parts
    if "images" in parts:
        return Path(*parts[: len(parts) - 1 - parts[::-1].index("images")])
    return place if place.is_dir() else place.parent


def is_whole(path: str) -> bool:
    """Tell whether a path is whole, on this system or another one."""
    return Path(path).is_absolute() or PureWindowsPath(path).is_absolute()


def parts_of(path: str) -> list[str]:
    """Return the names in a path of any system, without `..`."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def existing_place(base: Path, parts: Iterable[str]) -> Path | None:
    """Return what is there below a folder, however its names write their accents."""
    place = base.joinpath(*parts)
    try:
        if place.exists() or place.as_posix().isascii():
            return place if place.exists() else None
        for part in parts:
            if not (base / part).exists():
                names = {normal_name(path.name): path.name for path in base.iterdir()}
                part = names.get(normal_name(part), part)
            base /= part
    except OSError:
        # Too long a name, or a file where a folder should be.
        return None
    return base if base.exists() else None


def label_place(image: Path) -> Path:
    """Return where Ultralytics looks for an image's labels: the last `images` becomes `labels`.

    >>> label_place(Path("images/train/a.png")).as_posix()
    'labels/train/a.txt'
    """
    *folders, name = image.parts
    last = len(folders) - 1 - folders[::-1].index("images") if "images" in folders else -1
    swapped = ["labels" if i == last else folder for i, folder in enumerate(folders)]
    return Path(*swapped, name).with_suffix(".txt")


def files_below(folder: Path, seen: set[str], skips: Skip = lambda path: False) -> Iterator[Path]:
    """Yield the files below a folder, also in folders that are links.

    A folder that is called as an image is one of them: whoever reads it says what it is.

    Args:
        folder: where they are.
        seen: real paths of folders that have been gone through, which are not again; filled.
        skips: tells which folders are passed over.
    """
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for place, below, names in (found for start in waiting for found in os.walk(start)):
            if (real := os.path.realpath(place)) in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = [name for name in sorted(below) if not skips(Path(place, name))]
            # What is there under its own name comes first.
            links += [path for name in below if (path := Path(place, name)).is_symlink()]
            named = [name for name in below if is_image(Path(name))]
            yield from (Path(place, name) for name in sorted([*names, *named]))
        waiting = links


def unnamed_places(root: Path) -> dict[str, list[str]]:
    """Return the subsets' folders where there are some; else all that is there is to learn from."""
    found = {kind: _existing_places(root, kind) for kind in ("train", "val")}
    found["test"] = test_places(root)
    if not found["train"]:
        found["train"] = _places_beside_tests(root, found["test"])
    return found


def _places_beside_tests(root: Path, tests: Sequence[str]) -> list[str]:
    """Return the folders of images beside those of test images; all that is there without these."""
    base = root / "images" if (root / "images").is_dir() else root
    everything = [base.relative_to(root).as_posix()]
    if not tests or any(map(is_image, base.iterdir())):
        return everything
    others = set(test_folders(base))
    return _with_images(root, [p for p in sorted(base.iterdir()) if p not in others]) or everything


def test_places(root: Path) -> list[str]:
    """Return the folders of test images, however they are called."""
    usual = _existing_places(root, "test")
    folders = [*test_folders(root), *test_folders(root / "images")]
    return list(dict.fromkeys([*usual, *_with_images(root, folders)]))


def _with_images(root: Path, folders: Iterable[Path]) -> list[str]:
    """Return those of folders, or the `images` in them, that have images, from the root on."""
    shown = [path for path in folders if path.is_dir() and not path.name.startswith(".")]
    homes = [path / "images" if (path / "images").is_dir() else path for path in shown]
    filled = (home for home in homes if any(map(is_image, files_below(home, set()))))
    return [home.relative_to(root).as_posix() for home in filled]


def _existing_places(root: Path, kind: str) -> list[str]:
    """Return the usual folder of a subset's images, if it is there."""
    names = (kind, *OTHER_NAMES.get(kind, ()))
    places = (place.format(name) for place in _UNNAMED for name in names)
    return [place for place in places if (root / place).is_dir()][:1]


def some(names: Iterable[str], what: str) -> str:
    """Say how many there are, and the first of them.

    >>> some("abcd", "{} letters")
    '4 letters (a, b, c, ...)'
    """
    listed = list(names)
    shown = ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
    return f"{what.format(len(listed))} ({shown})"
