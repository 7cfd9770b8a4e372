"""The folders and images below a folder, each looked at once."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import is_image
from converters.files.names import normal_name
from converters.files.provenance import PROVENANCE
from converters.formats.mask_folders.black_and_white import (
    LOSSY,
    MOST_BETWEEN,
    has_smoothed_edges,
    is_mostly_black,
    share_between,
)
from converters.formats.mask_pixels import used_values

# Of masks alone, which older programs write.
GIF = ".gif"
# What lies in a folder that is a data set of another format.
_DESCRIPTIONS = (PROVENANCE, "labels.yaml")
_WORD, _NUMBER, _NEARLY_ALL = re.compile(r"[^\W_]+"), re.compile(r"\d+"), 0.9
# Of a field of view so much is white at least; so much of what is drawn may lie outside.
_WIDE, _SLIP = 0.45, 0.02
_SAMPLED = 4096  # of an image's pixels tell most photographs
# Masks of the same objects by two people, or of two kinds, share more of what either covers.
_SAME = 0.5
# Two masks of which one lies in the other, by two people, share more than this.
_SAME_INSIDE = 0.8
# Folders of cases whose names of masks are compared.
_CASES = 16
# Pixels a side that are enough to compare masks.
_SMALL = 512
# So many files are looked at; a mask of one class has so many colours, one of several so many.
_LOOKED_AT, TWO_SIDES, FEW_COLOURS = 3, 2, 64
_MANY = 1 << 30
# A mask's pixels are mostly as the ones beside them, a photograph's are not.
_MOST_EQUAL = 0.9


class Tree:
    """What lies below a folder; what is asked twice is looked at once.

    Links to folders outside are followed, each place once; what they lead to inside is there under
    its own name.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()
        self._linked: dict[Path, Path] = {}
        self._inside: dict[Path, list[Path]] = {}
        self._files: dict[Path, list[Path]] = {}
        self._colours: dict[Path, tuple[int, float]] = {}
        self._planes: dict[Path, tuple[tuple[int, ...], npt.NDArray[np.bool_]]] = {}

    def inside(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted; not hidden ones, nor what we wrote."""
        if folder not in self._inside:
            self._look(folder)
        return self._inside[folder]

    def cases(self, case: Path) -> list[Path]:
        """Return the first folders of cases beside that of a case, and itself where it is one."""
        return self.inside(case.parent)[:_CASES]

    def files_in(self, folder: Path, *, deep: bool = False) -> Iterator[Path]:
        """Yield the files of images in a folder, sorted; hidden ones are none."""
        inside = self.inside(folder)
        yield from self._files[folder]
        for path in inside if deep else ():
            yield from self.files_in(path, deep=True)

    def files(self, folder: Path, *, deep: bool, of_masks: bool = False) -> dict[str, Path]:
        """Place below a folder, without suffix -> image; of two that differ only in it the first.

        Masks may be GIF.
        """
        found: dict[str, Path] = {}
        for path in self.files_in(folder, deep=deep):
            if of_masks or path.suffix.lower() != GIF:
                place = path.relative_to(folder).with_suffix("").as_posix()
                found.setdefault(normal_name(place), path)
        return found

    def all_files(self) -> list[Path]:
        """Return every file of an image."""
        return list(self.files_in(self.root, deep=True))

    def are_drawn(self, paths: Iterable[Path], most: int) -> bool:
        """Tell by a few files whether they have so few colours, as masks have.

        What JPEG has added to two sides does not count, nor do broken files, unless all are.
        """
        seen = (self._look_at(path)[0] for path in paths)
        found = list(islice((count for count in seen if count), _LOOKED_AT))
        return bool(found) and max(found) <= most

    def are_smoothed(self, paths: Iterable[Path]) -> bool:
        """Tell by a few files whether they are white on black but for smoothed edges."""
        found = list(islice((v for path in paths if (v := _decode(path)) is not None), _LOOKED_AT))
        return bool(found) and all(
            v.ndim == 2 and v.dtype == np.uint8 and has_smoothed_edges(v) and is_mostly_black(v)
            for v in found
        )

    def are_around(self, wide: Path, drawn: Path) -> bool:
        """Tell by a few files whether what each of one folder has lies in that of the other's.

        Files belong to each other by the first number in their names, or their first word; nearly
        all have to.
        """
        ours, theirs = (_by_numbers(self.files_in(folder)) for folder in (wide, drawn))
        both = sorted(ours.keys() & theirs.keys())
        if not both or len(both) < _NEARLY_ALL * max(len(ours), len(theirs)):
            return False
        for around_path, inside_path in [(ours[key], theirs[key]) for key in both[:_LOOKED_AT]]:
            around, inside = _decode(around_path), _decode(inside_path)
            if around is None or inside is None or around.shape[:2] != inside.shape[:2]:
                return False
            area, own = _is_set(around), _is_set(inside)
            is_two_sided = self._look_at(around_path)[0] <= TWO_SIDES
            if not is_two_sided or not _lies_in(own, area):
                return False
        return True

    def overlap(self, one: Path, other: Path) -> float | None:
        """Return what two masks share of what either covers; None where one shows nothing.

        Large ones are compared at every second pixel, or third, ...

        Raises:
            ValueError: one is broken, or they have different sizes.
        """
        (size, own), (other_size, their) = self._drawn(one), self._drawn(other)
        if size != other_size:
            raise ValueError(f"{other}: expected the size of {one}, {size}, found {other_size}")
        if not own.any() or not their.any():
            return None
        return float((own & their).sum() / (own | their).sum())

    def _drawn(self, path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.bool_]]:
        """A mask's height and width, and where it is not black, bool of `_SMALL` a side at most."""
        if path not in self._planes:
            values = _decode(path)
            if values is None:
                raise ValueError(f"{path}: expected an image, found none")
            step = max(1, -(-max(values.shape[:2]) // _SMALL))
            # It keeps nothing of the whole.
            drawn = (_is_set(values) & bool(values.max(initial=0)))[::step, ::step].copy()
            self._planes[path] = values.shape[:2], drawn
        return self._planes[path]

    def show_others(self, pairs: Iterable[tuple[Path, Path]]) -> bool:
        """Tell by a few masks of the same images whether the first and the second show others.

        That is, they hardly overlap, or one lies in the other in all of them and is smaller, as a
        cup lies in its disc. Of one image without an object in either nothing can be told.
        """
        overlaps: list[float] = []
        inside: list[tuple[bool, bool]] = []
        for one, other in pairs:
            try:
                shared = self.overlap(one, other)
            except ValueError:
                return False
            if shared is not None:
                (_, own), (_, their) = self._drawn(one), self._drawn(other)
                overlaps.append(shared)
                inside.append((_lies_in(own, their), _lies_in(their, own)))
            if len(overlaps) == _LOOKED_AT:
                break
        if not overlaps:
            return False
        is_nested = all(own for own, _ in inside) or all(their for _, their in inside)
        return bool(np.median(overlaps) < (_SAME_INSIDE if is_nested else _SAME))

    def are_wide(self, folder: Path) -> bool:
        """Tell by a few files whether they are white in a good part, as fields of view are."""
        seen = (_decode(path) for path in self.files_in(folder))
        found = list(islice((v for v in seen if v is not None), _LOOKED_AT))
        return all(_is_set(values).mean() >= _WIDE for values in found)

    def are_photographs(self, paths: Iterable[Path]) -> bool:
        """Tell by a few files whether they have many colours, and seldom one twice in a row."""
        seen = (self._look_at(path) for path in paths)
        found = list(islice((one for one in seen if one[0]), _LOOKED_AT))
        return bool(found) and all(
            count > FEW_COLOURS and equal < _MOST_EQUAL for count, equal in found
        )

    def _look(self, folder: Path) -> None:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            entries = []
        shown = [(folder / e.name, e) for e in entries if not e.name.startswith(".")]
        self._inside[folder] = [p for p, e in shown if _is_dir(p, e) and self._is_own(p)]
        self._files[folder] = [
            path
            for path, entry in shown
            if (is_image(path) or path.suffix.lower() == GIF) and _is_file(path, entry)
        ]

    def _is_own(self, folder: Path) -> bool:
        if any((folder / name).is_file() for name in _DESCRIPTIONS):
            return False
        if not folder.is_symlink():
            return True
        real = folder.resolve()
        is_around = any(p.resolve().is_relative_to(real) for p in (self._real, folder.parent))
        if is_around or real.is_relative_to(self._real):
            return False
        return self._linked.setdefault(real, folder) == folder

    def _look_at(self, path: Path) -> tuple[int, float]:
        """About how many colours a file has, 0 where it is broken; and pixels as the next."""
        if path not in self._colours:
            values = _decode(path)
            if values is None:
                found = (0, 0.0)
            elif path.suffix.lower() in LOSSY and share_between(values) > MOST_BETWEEN:
                found = (_MANY, _share_equal(values))
            else:
                plain = values // 128 if path.suffix.lower() in LOSSY else values
                found = (_count_colours(plain), _share_equal(plain))
            self._colours[path] = found
        return self._colours[path]


def _is_dir(path: Path, entry: os.DirEntry[str]) -> bool:
    """As `Path.is_dir`, which asks the disk; but for links the folder has said it already."""
    return path.is_dir() if entry.is_symlink() else entry.is_dir()


def _is_file(path: Path, entry: os.DirEntry[str]) -> bool:
    return path.is_file() if entry.is_symlink() else entry.is_file()


def _count_colours(values: npt.NDArray[Any]) -> int:
    """Return the number of colours, where it is above FEW_COLOURS a lower one that is, too."""
    flat = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)
    some = flat[:: max(1, len(flat) // _SAMPLED)]
    if len(found := np.unique(some, axis=0)) > FEW_COLOURS:
        return len(found)
    shifts = np.uint64(16) * np.arange(flat.shape[1], dtype=np.uint64)
    return len(used_values((flat.astype(np.uint64) << shifts).sum(axis=1)))


def _by_numbers(paths: Iterable[Path]) -> dict[tuple[str, int], Path]:
    """Files by what tells them apart, and how many before have the same: HRF has `01_dr`, `01_g`.

    That is the first number in their names, or their first word.
    """
    found: dict[tuple[str, int], Path] = {}
    seen: Counter[str] = Counter()
    for path in sorted(paths):
        told = next(iter(_NUMBER.findall(path.stem) or _WORD.findall(path.stem)), "")
        found[told, seen[told]] = path
        seen[told] += 1
    return found


def _is_set(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where a mask is not black, bool (H, W)."""
    flat = values if values.ndim == 2 else values[..., :3].max(axis=-1)
    return np.asarray(flat > flat.max(initial=0) // 2)


def _lies_in(own: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> bool:
    return bool((own & ~other).sum() <= _SLIP * own.sum())


def _share_equal(values: npt.NDArray[Any]) -> float:
    pixels = values.reshape(*values.shape[:2], -1)
    equal = (pixels[:, 1:] == pixels[:, :-1]).all(axis=2)
    return float(equal.mean()) if equal.size else 1.0


def _decode(path: Path) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        return None
