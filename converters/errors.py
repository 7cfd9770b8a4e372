"""Errors that a user can cause and mend."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

SHOWN = 20
OUTLINE = (
    "export the annotations for segmentation, or have outlines drawn into the boxes (CVAT and "
    "Roboflow do it with SAM)"
)
"""What to do where annotations are boxes."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ImageError(ValueError):
    """What is wrong with an image's own file, whichever annotations name it.

    Attributes:
        image: the file.
    """

    def __init__(self, image: Path, what: object) -> None:
        self.image = image
        super().__init__(str(what))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        where: the file below the data set's folder, or the image's key.
        what: what was expected and what was found.
        key: of the sample that cannot be trusted because of it; "" where it is not one sample's.
        group: that sample's group, where it is known.
    """

    where: str
    what: str
    key: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class Problems:
    """Collects what is wrong, so that all of it can be reported at once."""

    root: Path
    found: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, where: Path | str, what: object, *, key: str = "", group: str = "") -> None:
        """Take down one problem; a path below the data set is shown relative to it.

        An `ImageError` is that of its image, where a file of annotations has led to it.
        Names in files of others may have line breaks and other control characters, which are shown
        as spaces: one problem is one line.
        """
        if isinstance(what, ImageError) and isinstance(where, Path):
            where = what.image
        if isinstance(where, Path) and where.is_relative_to(self.root):
            where = where.relative_to(self.root).as_posix()
        self.found.append(Problem(_printable(where), _printable(what), key, group))

    def note(self, text: str) -> None:
        """Take down what is no error, but has to be said, such as what was left out."""
        self.notes.append(text)

    def check(self, excluded: Collection[str] = ()) -> None:
        """Raise what was found.

        Args:
            excluded: keys and groups whose problems do not matter.

        Raises:
            DataError: all problems in one error, sorted.
        """
        if left := self._left(excluded):
            keys = {problem.key for problem in left}
            raise DataError(self.root, sorted(map(str, left)), 0 if "" in keys else len(keys))

    def skip(self, excluded: Collection[str] = ()) -> frozenset[str]:
        """Return the keys of images that cannot be trusted; their problems become a note.

        What is wrong with the data set as a whole is left for `check`.

        Args:
            excluded: as in `check`.
        """
        left = [problem for problem in self._left(excluded) if problem.key]
        keys = frozenset(problem.key for problem in left)
        if keys:
            listed = "; ".join(str(problem) for problem in left[:SHOWN])
            more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            self.note(f"{self.root}: left out {len(keys)} broken images: {listed}{more}")
            self.found = [problem for problem in self.found if problem.key not in keys]
        return keys

    def _left(self, excluded: Collection[str]) -> list[Problem]:
        return [p for p in self.found if p.key not in excluded and p.group not in excluded]


def _printable(text: object) -> str:
    return _CONTROL.sub(" ", str(text))


def boxes_only(count: int) -> str:
    """Say that a data set of so many boxes, for detection, has no outlines, and what to do."""
    return f"expected outlines of objects, found nothing but {count} boxes (detection): {OUTLINE}"


class DataError(ValueError):
    """Everything that is wrong with a data set, one line a problem.

    Attributes:
        problems: all of them; the message shows the first 20 and counts the rest, and says how to
            go on where all that is wrong is that of some images.
    """

    def __init__(self, where: object, problems: Sequence[str], images: int = 0) -> None:
        self.problems = tuple(problems)
        count = len(problems)
        goes_on = "--broken skip goes on without"
        more = f"; {goes_on} {images} image{'s' if images > 1 else ''}" if images else ""
        if count == 1:
            lines = [f"{where}: {problems[0]}{more}"]
        else:
            lines = [f"{where}: found {count} problems{more}"]
            lines += [f"  {problem}" for problem in problems[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  and {count - SHOWN} more")
        super().__init__("\n".join(lines))


class MissingDependency(ImportError):  # noqa: N818 (it reads as what is wrong)
    """A library that only some commands need is not installed; the message says how to get it."""


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Say what was expected where Python would say what it could not do with a value.

    Raises:
        ValueError: in the place of what reading plain values of other types raises.

    >>> with expecting("'size': [height, width]"):
    ...     height, width = 5
    Traceback (most recent call last):
    ValueError: 'size': [height, width], found another value
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(f"{what}, found another value") from None
    except ValueError as error:
        # Of texts that are no numbers, and of too few or too many values.
        if "unpack" in str(error) or "invalid literal" in str(error):
            raise ValueError(f"{what}, found another value") from None
        raise


def one_line(error: object) -> str:
    r"""Return what an error says as one line, for a message that goes on.

    >>> one_line(ValueError("no such\n  file"))
    'no such file'
    >>> one_line(UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"))
    'byte 0xff at 1: save it as UTF-8'
    >>> one_line(FileNotFoundError(2, "No such file or directory", "a.json"))
    'No such file or directory'
    """
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} at {error.start}: save it as UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return, for a message, which known word was meant by an unknown one; "" where none is near.

    >>> did_you_mean("ulnna", ["Radius", "Ulna"]), did_you_mean("x", ["Ulna"])
    (" (did you mean 'Ulna'?)", '')
    """
    words = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), words, 1, cutoff)
    return f" (did you mean '{words[near[0]]}'?)" if near else ""


def import_optional(name: str, extra: str) -> ModuleType:
    """Import a library that not every installation has.

    Args:
        name: of the module.
        extra: our extra that installs it, such as `train`.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = f"pip install 'maskzoo[{extra}]'"
        raise MissingDependency(f"this needs '{error.name}': install it by {hint}") from error
