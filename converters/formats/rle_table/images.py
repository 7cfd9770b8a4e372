"""Which image of a folder a table means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from converters.files.below import is_result
from converters.files.images import SUFFIXES, is_image
from converters.files.names import is_of_annotations
from converters.subsets.names import part_of


@dataclass
class ImageIndex:
    """The images below a folder, by everything that a table may call them.

    Of a mask or a label the name is often that of its image: what lies in folders that are called
    so (`masks`, `test_masks`) is none, unless a table names such a folder of several words.

    Attributes:
        root: the folder.
        elsewhere: paths in other folders by which images were found, by their last part alone.
    """

    root: Path
    elsewhere: list[str] = field(default_factory=list, init=False)
    _known: dict[str, list[Path]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for path in _images(self.root):
            place = path.relative_to(self.root)
            names = (place.as_posix(), place.with_suffix("").as_posix(), path.name, path.stem)
            # Of a table's fields the blanks at their ends do not count.
            for name in dict.fromkeys((*names, *map(str.strip, names))):
                self._known.setdefault(name, []).append(path)

    @property
    def paths(self) -> list[Path]:
        """All of them, sorted."""
        every = {path for found in self._known.values() for path in found}
        return sorted(path for path in every if not self._is_drawn(path))

    def knows(self, name: str) -> bool:
        """Tell whether an image is called so."""
        return not all(map(self._is_drawn, self._known.get(name, [])))

    def find(self, name: str, table: Path, part: str = "") -> Path:
        """Return an image by its path or name, with or without its suffix.

        Of several that are called so, the one in the folder that is called as the table counts.

        Args:
            name: the path or name.
            table: that has it.
            part: `train` or `test` where the table is of that part: it means no image in a folder
                of the other one, unless it names the folder. "": any.

        Raises:
            ValueError: no such image, or several.
        """
        place = PurePosixPath(name)
        called = self._known.get(name, []), self._known.get(place.name, []), self._stems(place)
        found = next(
            filter(None, ([p for p in own if self._may_be(p, place, part)] for own in called)),
            [],
        )
        if len(found) > 1:
            found = [path for path in found if self._ends_so(path, place)] or found
            found = [path for path in found if self._is_beside(path, table)] or found
        if len(found) != 1:
            what = f"found {len(found)}" if found else "found none"
            where = f", such as {' and '.join(map(self._place, found[:2]))}" if found else ""
            others = [] if found else [path for own in called for path in own]
            if others:
                is_drawn = self._is_drawn(others[0])
                kind = (
                    "in a folder of masks or labels by its name" if is_drawn else "of another part"
                )
                where = f", but {self._place(others[0])} {kind}"
            raise ValueError(f"expected one image '{name:.80}' in the folder, {what}{where}")
        if not self._ends_so(found[0], place):
            self.elsewhere.append(name)
        return found[0]

    def _is_of_part(self, path: Path, place: PurePosixPath, part: str) -> bool:
        own = part_of(path.relative_to(self.root).parent.as_posix())
        return not (own and part) or own in (part, part_of(place.parent.as_posix()))

    def _is_drawn(self, path: Path) -> bool:
        return any(map(is_of_annotations, path.relative_to(self.root).parts[:-1]))

    def _may_be(self, path: Path, place: PurePosixPath, part: str) -> bool:
        is_said = any(map(is_of_annotations, place.parts[:-1]))
        return self._is_of_part(path, place, part) and (is_said or not self._is_drawn(path))

    def _stems(self, place: PurePosixPath) -> list[Path]:
        """Images of another suffix than that of a name; a dot in a name begins none."""
        return self._known.get(place.stem, []) if place.suffix.lower() in SUFFIXES else []

    def _ends_so(self, path: Path, place: PurePosixPath) -> bool:
        own = path.relative_to(self.root).with_suffix("").parts
        return own[-len(place.parts) :] in (place.parts, place.with_suffix("").parts)

    def _place(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _is_beside(self, path: Path, table: Path) -> bool:
        word = re.split(r"[^a-z0-9]", table.stem.lower())[0]
        folders = path.relative_to(self.root).parts[:-1]
        return bool(folders) and re.split(r"[^a-z0-9]", folders[0].lower())[0] == word


def _images(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    here = above | {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            # A link to a folder above would be gone through for ever.
            is_drawn = path.name.isalpha() and is_of_annotations(path.name)
            is_own = not (is_drawn or is_result(path))
            if is_own and path.resolve() not in here:
                yield from _images(path, here)
        elif is_image(path):
            yield path
