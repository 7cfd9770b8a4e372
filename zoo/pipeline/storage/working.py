"""What a step has made so far, at the place that all machines reach.

It lies apart from what is done: a checkpoint is removed when a later one is there, and all of it
when the step's results have arrived.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from converters.files.atomic import unfinished
from converters.files.json_files import parse_json
from zoo.pipeline.storage.transfer import Place, Tree, as_tree, at_once, blob

WORKING = "working"
_STATE, _LOG = "state.json", "log"


@dataclass(frozen=True)
class State:
    """Which files a step has made so far.

    Attributes:
        files: by names as `name_of` gives them.
        has_ended: whether that is all, and the step ended well.
    """

    files: Tree = field(default_factory=dict)
    has_ended: bool = False


def name_of(file: Path, makes: Sequence[Path]) -> str:
    """Return the name of a file that a step makes, the same wherever its results lie.

    >>> name_of(Path("/out/b/c"), [Path("/out/a"), Path("/out/b")])
    '/1/c'
    """
    number = next(number for number, make in enumerate(makes) if file.is_relative_to(make))
    return "/".join(("", str(number), *file.relative_to(makes[number]).parts))


def path_of(name: str, makes: Sequence[Path]) -> Path:
    """Return where a file of that name lies.

    Raises:
        ValueError: the step makes no such file.
    """
    number, _, rest = name[1:].partition("/")
    if not (number.isdecimal() and int(number) < len(makes)):
        raise ValueError(f"{name}: expected a file of one of the {len(makes)} results of a step")
    return makes[int(number)] / rest


class Working:
    """A step's folder at the common place.

    Args:
        place: the common place.
        folder: there.
    """

    def __init__(self, place: Place, folder: str) -> None:
        self.place, self.folder = place, folder

    def read(self) -> State:
        """Read what has been made so far; nothing where that cannot be read."""
        text = self.place.read_text(f"{self.folder}/{_STATE}")
        try:
            found = parse_json(text.encode())
            return State(as_tree(found["files"]), found["ended"] is True)
        except (ValueError, TypeError, KeyError, AttributeError):
            return State()

    def put(self, files: Mapping[str, Path], state: State, before: State) -> None:
        """Put down what has been made; what was there before is removed when all of it is there.

        Args:
            files: of the state, by digest.
            state: what has been made.
            before: what was put down last.
        """
        known = _digests(before)
        absent = files.keys() - known
        # What is made of the same at another place need not be sent; a checkpoint never is.
        absent = self.place.missing(absent) if absent else absent
        at_once(lambda digest: self.place.put(files[digest], digest, self._blob(digest)), absent)
        text = json.dumps({"ended": state.has_ended, "files": state.files})
        self.place.write_text(f"{self.folder}/{_STATE}", text)
        self.place.remove_all([self._blob(digest) for digest in known - _digests(state)])

    def get(self, digest: str, file: Path) -> None:
        """Bring a file of the state."""
        try:
            self.place.get(digest, file, self._blob(digest))
        except FileNotFoundError:
            self.place.get(digest, file)

    def bring(self, state: State, makes: Sequence[Path], moved: Callable[[int], None]) -> None:
        """Bring all files of a state, each result as a whole.

        Args:
            state: what has been made.
            makes: where the results go.
            moved: is told the bytes of each file.

        Raises:
            Damaged: a file was damaged.
            OSError: a file is not there.
        """
        for make in makes:
            paths = {name: path_of(name, makes) for name in state.files}
            of = {name: path for name, path in paths.items() if path.is_relative_to(make)}
            if not of:
                continue
            with unfinished(make) as place:
                for name, path in of.items():
                    size, digest = state.files[name]
                    self.get(digest, place / path.relative_to(make))
                    moved(size)

    def finish(self, needed: Tree) -> None:
        """Keep files of a step that is done among those that other steps need; remove this.

        Args:
            needed: those that others need.
        """

        def keep(digest: str) -> None:
            if self.place.exists(self._blob(digest)):
                self.place.move(self._blob(digest), blob(digest))

        at_once(keep, self.place.missing(digest for _, digest in needed.values()))
        self.remove()

    def remove(self) -> None:
        """Remove all of this."""
        self.place.remove(self.folder)

    def read_log(self) -> str:
        """Return what the step has said so far."""
        return self.place.read_text(f"{self.folder}/{_LOG}")

    def write_log(self, text: str) -> None:
        """Put down what the step has said so far."""
        self.place.write_text(f"{self.folder}/{_LOG}", text)

    def _blob(self, digest: str) -> str:
        return f"{self.folder}/{blob(digest)}"


def _digests(state: State) -> set[str]:
    return {digest for _, digest in state.files.values()}
