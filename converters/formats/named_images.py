"""The images below a folder, found by the names that annotations of other programs give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from converters.errors import Problems
from converters.files.images import is_image
from converters.files.names import is_of_annotations, normal_name
from converters.formats.writing import as_test_key, is_test_key, test_samples
from converters.types import Sample

_IMAGES = "images"
_ANNOTATIONS = frozenset({"annotation", "annotations"})
_LONGEST = 4096
# Folders of what was predicted of images, or drawn of them to be looked at.
_DRAWN = re.compile(r".*(result|pred|overlay|visuali[sz]|preview|plot|crop|mask).*|vi[sz]")


def annotation_folders(root: Path) -> list[Path]:
    """Return the folders in a folder that are called `annotations`."""
    below = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in below if path.name.lower() in _ANNOTATIONS and path.is_dir()]


class NamedImages:
    """Finds images by names whose folders may be those of another machine.

    A name is a path below the folder or below its `images`; else the image is meant whose path
    ends as the name does, if no other image and no other name ends so. Names without a suffix, as
    frames of films have them, are found too. Nothing outside the folder can be found.

    Args:
        root: the data set's folder.
        names: for each annotated image, what it may be called, the best first.
    """

    def __init__(self, root: Path, names: Iterable[Sequence[str]]) -> None:
        self._root = root
        self._ends: dict[str, list[Path]] = {}
        self._whole: dict[str, Path] = {}
        self._uses: dict[Path, str] = {}
        self.paths = [path for path in sorted(root.rglob("*")) if _is_shown(path, root)]
        for path in self.paths:
            place = normal_name(self._place(path))
            for known in (place, place.removesuffix(path.suffix)):
                self._whole.setdefault(known, path)
                for end in _ends(known):
                    self._ends.setdefault(end, []).append(path)
        # Whoever is named twice is told so where the second one looks for its image.
        distinct = {tuple(map(_normal, own)) for own in names}
        self._named = Counter(
            end for own in distinct for end in {end for name in own for end in _ends(name)}
        )

    def find(self, names: Sequence[str]) -> Path:
        """Return the image that one of these names means; each image once.

        Raises:
            ValueError: there is none, several may be meant, or another name has it already.
        """
        found = next((path for name in names if (path := self._find(_normal(name)))), None)
        if found is None:
            raise ValueError(
                f"expected its image '{names[0]:.80}' in this folder or in {_IMAGES}/, found none: "
                "put the images there"
            )
        if other := self._uses.get(found):
            raise ValueError(
                f"expected an image of its own, found that of '{other:.80}': {self._place(found)}"
            )
        self._uses[found] = names[0]
        return found

    def unanswered(self, subset: str, problems: Problems) -> list[Sample]:
        """Return the images of folders of test images, where no name has found one there.

        How many other images no name has found is said.

        Args:
            subset: `train`, which has none of these, `test` or `all`.
            problems: takes down images that are broken.
        """
        is_test = {path: self._is_test(path) for path in self.paths}
        others = [path for path in self.paths if path not in self._uses]
        tests = []
        if not any(is_test[path] for path in self._uses):
            tests = [path for path in others if is_test[path]]
            others = [path for path in others if not is_test[path]]
        if others:
            problems.note(
                f"{self._root}: left out {len(others)} images without annotations "
                f"({self._place(others[0])})"
            )
        return [] if subset == "train" else test_samples(self._root, tests, problems)

    def _is_test(self, path: Path) -> bool:
        place = self._place(path)
        folders = place.split("/")[:-1]
        is_drawn = any(is_of_annotations(own) or _DRAWN.fullmatch(own.lower()) for own in folders)
        return not is_drawn and is_test_key(as_test_key(place))

    def _place(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _find(self, name: str) -> Path | None:
        for place in (f"{_IMAGES}/{name}", name):
            if place in self._whole:
                return self._whole[place]
        for end in _ends(name):
            found = self._ends.get(end, [])
            if len(found) > 1 or (found and self._named[end] > 1):
                raise ValueError(
                    f"expected one image '{name:.80}', found several that end in '{end:.80}': put "
                    "the images into folders as they are named"
                )
            if found:
                return found[0]
        return None


def _is_shown(path: Path, root: Path) -> bool:
    return is_image(path) and not any(p.startswith(".") for p in path.relative_to(root).parts)


def _normal(name: str) -> str:
    parts = normal_name(name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _ends(name: str) -> Iterator[str]:
    """The name, and what is left of it without its first folders, the longest first."""
    # What is longer is no path on any system, and would have too many ends.
    parts = name.split("/") if len(name) <= _LONGEST else []
    return ("/".join(parts[start:]) for start in range(len(parts)))
