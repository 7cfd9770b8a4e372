"""What of a pipeline is done, and what went into it: nothing is done twice, nothing old is taken.

A step's key is a digest of its command, of the files it reads and of what the steps before it
made. Files are known by their contents, which are read again only where size or time differ. What
was made under another key is kept aside, and taken back when that key comes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

from converters.files.atomic import is_leftover
from converters.files.json_files import read_json
from converters.files.provenance import PROVENANCE, atomic_write_text
from zoo.pipeline.steps import Step, Word, below
from zoo.pipeline.storage.transfer import Tree, digest_file

STEPS, ASIDE, LOGS = "steps", "earlier", "logs"
_FILES = "files.json"
# Of these the contents tell times and places, not what was made.
_TOLD = frozenset((PROVENANCE, "metrics.csv", "last.ckpt", "report.html"))
# Of a data set these are nobody's annotations or images.
_NOT_READ = frozenset(
    (".log", ".md", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".ipynb", ".py", ".sh")
)
_NAMED_ALIKE = frozenset(("Thumbs.db", "desktop.ini"))
_MISSING = "missing"
# The list of digests is long where there are many files.
_SECONDS_BETWEEN = 5.0
State = Literal["begun", "done", "failed"]


@dataclass(frozen=True)
class Record:
    """What became of a step.

    Attributes:
        key: of what went into it.
        state: how far it is.
        command: after `zoo`.
        seconds: that it took, all starts together.
        message: its last words, where it failed.
        made: digest of what it made.
        place: size and time of what it made, by file.
        through: the common place at which lies what it has made so far; "" where that is here.
    """

    key: str
    state: State
    command: tuple[str, ...] = ()
    seconds: float = 0.0
    message: str = ""
    made: str = ""
    place: str = ""
    through: str = ""


class Digests:
    """Contents of files as digests, kept from one start to the next.

    Args:
        folder: where they are kept; None keeps them for this process only.
        without: a folder that is no part of those that it lies in.
    """

    def __init__(self, folder: Path | None, without: Path | None = None) -> None:
        self._without = without.resolve() if without else None
        self._file = folder / _FILES if folder else None
        self._known: dict[str, list[object]] = {}
        if self._file and self._file.is_file():
            # What is damaged is found out anew.
            with suppress(ValueError):
                found = read_json(self._file, "digests")
                self._known = found if isinstance(found, dict) else {}
        self._before = dict(self._known)
        self._is_new = False
        self._saved = time.monotonic()

    def of(self, path: Path, is_read: bool = False) -> str:
        """Return the digest of a file, or of a folder's files with their names; "" for neither.

        Args:
            path: of the file or the folder.
            is_read: whether texts about a data set, and what systems leave in any folder, are no
                part of it.
        """
        digest = hashlib.sha256()
        if path.is_file():
            return self._of_file(path)
        if not path.is_dir():
            return ""
        for file in self._files(path, is_read):
            if file.name not in _TOLD:
                name = file.relative_to(path).as_posix()
                digest.update(f"{name}\0{self._of_file(file)}\n".encode())
        return digest.hexdigest()

    def _files(self, path: Path, is_read: bool) -> Iterator[Path]:
        without = self._without if self._without and path.resolve() != self._without else None
        for file in files_of(path, without):
            if not (is_read and _is_aside_of_data(file)):
                yield file

    def changes(self, path: Path) -> list[str]:
        """Return what is new, other or gone of a folder that is read, since it was last looked at.

        Nothing where it never was, or lay elsewhere.
        """
        top = Path(os.path.abspath(path))
        before = {name: known[-1] for name, known in self._before.items() if below(Path(name), top)}
        files = self._files(top, is_read=True) if before else ()
        other = [str(file) for file in files if before.get(str(file)) != self._of_file(file)]
        gone = [name for name in before if not (os.path.exists(name) or self._is_result(name))]
        return sorted(Path(name).relative_to(top).as_posix() for name in (*other, *gone))

    def _is_result(self, name: str) -> bool:
        without = self._without
        return without is not None and below(Path(os.path.realpath(name)), without) is not None

    def tree(self, path: Path, is_read: bool = False) -> Tree:
        """Return a file, or all of a folder's files, by absolute paths; nothing for neither.

        Args:
            path: of the file or the folder.
            is_read: whether results of commands that lie in it are no part of it.
        """
        place = Path(os.path.abspath(path))
        files = [place] if place.is_file() else files_of(place, self._without if is_read else None)
        return {str(file): (file.stat().st_size, self._of_file(file)) for file in files}

    def save(self, seconds: float = 0.0) -> None:
        """Keep what was found, if that was not done within the last seconds."""
        if self._file and self._is_new and time.monotonic() - self._saved >= seconds:
            atomic_write_text(self._file, json.dumps(self._known))
            self._is_new, self._saved = False, time.monotonic()

    def _of_file(self, path: Path) -> str:
        about = path.stat()
        name, now = os.path.abspath(path), [about.st_size, about.st_mtime_ns]
        known = self._known.get(name)
        if isinstance(known, list) and known[:2] == now and isinstance(known[-1], str):
            return known[-1]
        found = digest_file(path)
        self._known[name] = [*now, found]
        self._is_new = True
        return found


class History:
    """The steps' records in a pipeline's folder.

    Args:
        out: the pipeline's folder.
        data: the data set's, which may be called otherwise on another machine.
        digests: of files.
    """

    def __init__(self, out: Path, data: Path, digests: Digests) -> None:
        self.out, self.data, self.digests = out, data, digests
        # A data set is walked once.
        self._read: dict[Path, str] = {}

    def read(self, name: str) -> Record | None:
        """Return what became of a step; None where it never began."""
        file = self._file(name)
        return read_record(file) if file.is_file() else None

    def write(self, name: str, record: Record) -> None:
        """Keep what became of a step."""
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self._file(name), json.dumps(asdict(record), indent=1) + "\n")

    def key(self, step: Step, made: Mapping[str, str]) -> str:
        """Return the digest of what goes into a step, wherever that lies.

        Args:
            step: which.
            made: step -> digest of what it made, of those that ended well.
        """
        words = [self._placeless(word, step) for word in step.parts(made)]
        before = {name: made[name] for name in step.waits_for if name in made}
        read = [self._digest_of_read(path) for path in step.reads]
        parts = [metadata.version("maskzoo"), words, sorted(before.items()), read]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _digest_of_read(self, path: Path) -> str:
        """Return the digest of what no step makes, as it was when it was first asked for."""
        if path not in self._read:
            self._read[path] = self.digests.of(path, is_read=True)
        return self._read[path]

    def is_done(self, step: Step, key: str) -> Record | None:
        """Return the record of a step that is done with this key and whose results are whole."""
        found = self.read(step.name)
        if found is None or found.state != "done" or found.key != key:
            return None
        place = place_of(step.makes)
        if found.place == place:
            return found
        if place == _MISSING or found.made != self.made(step, key):
            return None
        # It was copied, with what it belongs to.
        found = replace(found, place=place)
        self.write(step.name, found)
        return found

    def seconds(self, step: Step) -> float | None:
        """Return what a step took when it was last done; None where it never was."""
        found = self.read(step.name)
        return found.seconds if found and found.state == "done" else None

    def begin(self, step: Step, key: str, command: Sequence[str]) -> Record:
        """Take down that a step begins; what it made from other things is put aside.

        A step that was stopped goes on with what it has made so far.
        """
        before = self.read(step.name)
        if before and before.key != key:
            self._put_aside(step, before)
            before = self._take_back(step, key)
            if done := self.is_done(step, key):
                return done
        if before and before.state == "done":
            # Somebody changed what it made: it is made anew from nothing.
            self._put_aside(step, before)
            before = None
        spent, through = (before.seconds, before.through) if before else (0.0, "")
        begun = Record(key, "begun", tuple(command), spent, through=through)
        self.write(step.name, begun)
        return begun

    def end(self, step: Step, begun: Record, seconds: float, message: str | None) -> Record:
        """Take down how a step ended.

        Args:
            step: which.
            begun: what `begin` returned.
            seconds: that it took.
            message: its last words, where it failed; None where it ended well.
        """
        spent = replace(begun, seconds=begun.seconds + seconds)
        if message is not None:
            record = replace(spent, state="failed", message=message)
        else:
            made, place = self.made(step, begun.key), place_of(step.makes)
            record = replace(spent, state="done", made=made, place=place, through="")
        self.write(step.name, record)
        self.digests.save(_SECONDS_BETWEEN)
        return record

    def made(self, step: Step, key: str) -> str:
        """Return the digest of what a step made; of one that makes nothing, what went into it."""
        found = [self.digests.of(path) for path in step.makes]
        return hashlib.sha256("\n".join(found or [key]).encode()).hexdigest()[:16]

    def earlier(self) -> tuple[int, int]:
        """Return how many results of other recipes are kept aside, and their bytes."""
        place = self.out / ASIDE
        kept = [path for path in place.glob("*") if path.is_dir() and _record_of(path).is_file()]
        return len(kept), sum(file.stat().st_size for file in files_of(place))

    def forget(self) -> None:
        """Remove what is kept aside: a recipe as it was before would be carried out anew."""
        shutil.rmtree(self.out / ASIDE, ignore_errors=True)

    def log(self, name: str) -> Path:
        """Return the file of what a step says."""
        return self.out / LOGS / f"{slug(name)}.log"

    def _file(self, name: str) -> Path:
        return self.out / STEPS / f"{slug(name)}.json"

    def _placeless(self, word: Word, step: Step) -> str:
        """Return a word that is the same wherever what its paths lead to lies.

        A name such as that of a config stays, also where a folder is called so.
        """
        if isinstance(word, tuple):
            return "".join(self._placeless(part, step) for part in word)
        if isinstance(word, Path):
            named = {f"READ{number}": path for number, path in enumerate(step.reads)}
            for name, place in {"OUT": self.out, "DATA": self.data, **named}.items():
                if (rest := below(word, place)) is not None:
                    return name + rest
        return str(word)

    def _aside(self, step: Step, key: str) -> Path:
        return self.out / ASIDE / f"{slug(step.name)}-{key}"

    def _put_aside(self, step: Step, record: Record) -> None:
        place = self._aside(step, record.key)
        shutil.rmtree(place, ignore_errors=True)
        there = [path for path in step.makes if path.exists()]
        if not (there or record.through):
            return
        place.mkdir(parents=True)
        for path in there:
            os.replace(path, place / path.name)
        atomic_write_text(_record_of(place), json.dumps(asdict(record)))

    def _take_back(self, step: Step, key: str) -> Record | None:
        place = self._aside(step, key)
        file = _record_of(place)
        if not file.is_file():
            return None
        for path in step.makes:
            if (place / path.name).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(place / path.name, path)
        self.write(step.name, read_record(file))
        shutil.rmtree(place, ignore_errors=True)
        file.unlink()
        return self.read(step.name)


def _record_of(aside: Path) -> Path:
    """Return the file with the record of what is kept aside; a model's name may have a point."""
    return aside.with_name(f"{aside.name}.json")


def read_record(file: Path) -> Record:
    """Read what became of a step.

    Raises:
        ValueError: the file holds something else.
    """
    found = read_json(file, "a step's record")
    texts = ("key", "state", "message", "made", "place", "through")
    is_sound = (
        isinstance(found, dict)
        and found.keys() <= {field.name for field in fields(Record)}
        and {"key", "state"} <= found.keys()
        and all(isinstance(found.get(name, ""), str) for name in texts)
        and found["state"] in get_args(State)
        and type(found.get("seconds", 0.0)) in (int, float)
        and isinstance(found.get("command", []), list)
    )
    if not is_sound:
        raise ValueError(
            f"{file}: expected what became of a step, found something else: remove the file, and "
            "the step is done anew"
        )
    return Record(**{**found, "command": tuple(map(str, found.get("command", ())))})


def slug(name: str) -> str:
    """Return a step's name as one of a file."""
    return name.replace(" ", "-").replace("/", "-")


def files_of(folder: Path, without: Path | None = None) -> Iterator[Path]:
    """Yield a folder's files in order; results of commands that lie in it are no part of it."""
    for parent, folders, names in os.walk(folder):
        kept = [Path(parent, name) for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [path.name for path in kept if not _is_apart(path, without)]
        for name in sorted(names):
            path = Path(parent, name)
            if not is_leftover(path) and path.is_file():
                yield path


def _is_aside_of_data(file: Path) -> bool:
    """Tell a text about data, and what a system leaves in a folder, from data."""
    name = file.name
    return name.startswith((".", "~$")) or name in _NAMED_ALIKE or file.suffix.lower() in _NOT_READ


def _is_apart(path: Path, without: Path | None) -> bool:
    if without is None:
        return False
    return path.resolve() == without or (path / PROVENANCE).is_file()


def place_of(paths: Iterable[Path]) -> str:
    """Return what tells whether results were touched: names, sizes and times of their files.

    Returns:
        A digest; another word where one of them is not there.
    """
    digest = hashlib.sha256()
    for path in paths:
        if not path.exists():
            return _MISSING
        for file in [path] if path.is_file() else files_of(path):
            about = file.stat()
            text = f"{file.name}\0{about.st_size}\0{about.st_mtime_ns}\n"
            digest.update(text.encode())
    return digest.hexdigest()[:16]
