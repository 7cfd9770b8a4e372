"""The images below a folder, found by the names that annotations of other programs give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from converters.errors import Problems
from converters.files.below import files_below
from converters.files.images import is_image
from converters.files.names import ends_of, normal_name, plain_path
from converters.subsets.keys import test_samples
from converters.types import Sample

_IMAGES = "images"
_ANNOTATIONS = frozenset({"annotation", "annotations"})
# What folders of test images are called, and those in or around them; and what else is drawn there.
_TEST = re.compile(r"test(ing|set|ed)?(\d{4})?([ _-]?(images?|imgs?|data|set))?", re.IGNORECASE)
_PLAIN = ("images", "imgs", "image", "img", "data")
_DRAWN = re.compile(r"[_-](mask|pred|result|overlay|vis|gt|label|seg|plot|crop|thumb)")


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
        self.paths = list(filter(is_image, files_below(root)))
        for path in self.paths:
            place = normal_name(self._place(path))
            for known in (place, place.removesuffix(path.suffix)):
                self._whole.setdefault(known, path)
                for end in ends_of(known):
                    self._ends.setdefault(end, []).append(path)
        # Whoever is named twice is told so where the second one looks for its image.
        distinct = {tuple(map(plain_path, own)) for own in names}
        self._named = Counter(
            end for own in distinct for end in {end for name in own for end in ends_of(name)}
        )

    def find(self, names: Sequence[str]) -> Path:
        """Return the image that one of these names means; each image once.

        Raises:
            ValueError: there is none, several may be meant, or another name has it already.
        """
        # What annotations name may lie in what a command has written.
        ways = (find for find in (self._find, self._exact))
        places = (path for find in ways for name in names if (path := find(plain_path(name))))
        found = next(places, None)
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
        shown = [path for path in others if is_test[path]]
        tests: list[Path] = []
        if shown and not any(is_test[path] for path in self._uses):
            # The same file again is one to learn from.
            known: dict[str, list[Path]] = {}
            for path in self._uses:
                known.setdefault(path.name, []).append(path)
            tests = [
                path
                for path in shown
                if not any(_are_same(path, other) for other in known.get(path.name, ()))
            ]
            answered = set(tests)
            others = [path for path in others if path not in answered]
        if others:
            problems.note(
                f"{self._root}: left out {len(others)} images without annotations "
                f"({self._place(others[0])})"
            )
        return [] if subset == "train" else test_samples(self._root, tests, problems)

    def _is_test(self, path: Path) -> bool:
        """Tell whether an image lies in a folder of test images, or that one's `images`.

        Not what was drawn or predicted of them, which lies further down, or is called so.
        """
        *folders, name = self._place(path).split("/")
        inside = [folder for folder in folders if folder.lower() not in _PLAIN]
        is_one = len(inside) == 1 and _TEST.fullmatch(inside[0])
        return bool(is_one) and not _DRAWN.search(name.lower())

    def _place(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _exact(self, name: str) -> Path | None:
        path = self._root / name
        try:
            return path if is_image(path) and path.is_file() else None
        except OSError:  # too long a name
            return None

    def _find(self, name: str) -> Path | None:
        for place in (f"{_IMAGES}/{name}", name):
            if place in self._whole:
                return self._whole[place]
        for end in ends_of(name):
            found = self._ends.get(end, [])
            if len(found) > 1 or (found and self._named[end] > 1):
                raise ValueError(
                    f"expected one image '{name:.80}', found several that end in '{end:.80}': put "
                    "the images into folders as they are named"
                )
            if found:
                return found[0]
        return None


def _are_same(path: Path, other: Path) -> bool:
    """Tell whether two files have the same content."""
    is_as_long = path.stat().st_size == other.stat().st_size
    return is_as_long and path.read_bytes() == other.read_bytes()
