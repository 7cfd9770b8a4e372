"""A step on a machine that shares no disk with the others: brought, done, and put back.

Each step has a folder of its own, in which the files that it needs lie as they lie at the head: a
command finds them by the same relative paths. What was brought once stays in a cache, by digest, of
which steps get hard links. While a step works, what it has made so far is put to the common place,
so that it goes on elsewhere where this machine dies.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from converters.files.atomic import claim, is_ours
from zoo.pipeline.execution import start_process, stop_process
from zoo.pipeline.record import files_of
from zoo.pipeline.storage.cache import Cache, node_folder
from zoo.pipeline.storage.transfer import Damaged, Place, Tree, copy, size_of
from zoo.pipeline.storage.working import State, Working, name_of
from zoo.progress import note

_TASKS, _LOG, _COPIES = "tasks", "log", "put"
# Decoded images, which a run makes anew for itself.
_NOT_MOVED = "cache"
# Seconds between looks; and of all the time, the most for putting down what has been made so far.
_LOOK, _SHARE = 1.0, 0.1
_MB = 1e6
_KEYS = "AWS_"
About = tuple[int, int, int]
"""Size, time and number of a file."""
Listing = dict[Path, About]


@dataclass(frozen=True)
class Order:
    """A step to be done on some node.

    Attributes:
        url: of the common place.
        working: folder there for what the step has made so far.
        command: after `zoo`; its paths are relative.
        folder: in which the command was given, absolute, at the head.
        needs: names of the lists of what the step needs, by absolute paths at the head.
        makes: absolute paths at the head.
        environment: of the head; what a node has of its own comes first.
        cores: that the step has for itself.
    """

    url: str = field(repr=False)
    working: str
    command: tuple[str, ...]
    folder: str
    needs: tuple[str, ...]
    makes: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    cores: int


def do_order(order: Order) -> int:
    """Do a step here; return its exit code.

    Raises:
        ValueError: something is damaged.
        OSError: the common place, or the disk.
    """
    take_keys(order.environment)
    place = Place(order.url, order.working.split("/")[1])
    working = Working(place, order.working)
    before = working.read()
    if before.has_ended:
        return 0
    with _own_folder(node_folder() / _TASKS) as task:
        brought = _bring_needed(place, order, task)
        found, told = _bring_made(working, before, order, task)
        courier = Courier(working, order, task, found)
        courier.begin_log(*brought, told)
        return _do(order, task, courier)


def keys_to_place() -> dict[str, str]:
    """Return the variables with keys to the common place."""
    return {key: value for key, value in os.environ.items() if key.startswith(_KEYS)}


def take_keys(environment: Mapping[str, str]) -> None:
    """Take the keys to the common place that the head has and this machine has not."""
    for key, value in environment.items():
        if key.startswith(_KEYS):
            os.environ.setdefault(key, value)


def _bring_needed(place: Place, order: Order, task: Path) -> tuple[int, int]:
    """Lay out what a step needs; return how many files, and bytes, were moved for it."""
    cache = Cache.of_node()
    needs: Tree = {}
    for name in order.needs:
        needs |= place.read_tree(name)
    moved = cache.bring(needs, place.get, task / "at")
    cache.trim()
    return moved


def _bring_made(working: Working, before: State, order: Order, task: Path) -> tuple[State, str]:
    """Lay out what a step has made elsewhere; return that, and what has to be said of it.

    The step will write to it: it is a copy of its own.
    """
    if not before.files:
        return before, ""
    try:
        working.bring(before, _makes(order, task), lambda size: None)
    except (FileNotFoundError, Damaged) as error:
        working.remove()
        for path in _makes(order, task):
            _remove(path)
        return State(), f"; what was made elsewhere is lost, it begins anew: {error}"
    size = size_of(before.files) / _MB
    return before, f"; goes on with {len(before.files)} files, {size:.1f} MB"


def _do(order: Order, task: Path, courier: Courier) -> int:
    own = {**order.environment, **os.environ, "OMP_NUM_THREADS": str(order.cores)}
    folder = _inside(task, order.folder)
    (task / _COPIES).mkdir()
    for path in (folder, *(path.parent for path in _makes(order, task))):
        path.mkdir(parents=True, exist_ok=True)
    code = 1
    with (task / _LOG).open("ab") as stream:
        process = start_process(order.command, stream, own, str(folder))
        try:
            with courier.at_work():
                code = process.wait()
        finally:
            if process.poll() is None:
                stop_process(process)
            # What a stopped step has made is not lost.
            courier.put_last(has_ended=code == 0)
    return code


def _inside(task: Path, path: str) -> Path:
    """Return where a path of the head lies in a step's folder."""
    return task / "at" / path.lstrip("/")


def files_made(makes: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of a step's results that are moved."""
    for place in makes:
        for file in [place] if place.is_file() else files_of(place):
            if _NOT_MOVED not in file.relative_to(place).parts[:1]:
                yield file


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _makes(order: Order, task: Path) -> list[Path]:
    return [_inside(task, path) for path in order.makes]


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder; it goes at the end, and so does what killed steps left."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if is_ours(left):
            # One that somebody works in is let be.
            with suppress(ValueError, OSError):
                claim(left, "a step's folder").remove()
    held = claim(folder / uuid.uuid4().hex[:12], "a step's folder")
    try:
        yield held.folder
    finally:
        held.remove()


class Courier:
    """Puts what a step makes, and what it says, to the common place while it works.

    Args:
        working: the step's folder there.
        order: the step.
        task: its folder here.
        before: what it had made elsewhere.
    """

    def __init__(self, working: Working, order: Order, task: Path, before: State) -> None:
        self._working, self._order, self._task = working, order, task
        self._put, self._said = before, ""
        self._seen: Listing = {}
        self._copied: dict[Path, tuple[About, str]] = {}
        self._end = threading.Event()

    def begin_log(self, files: int, size: int, further: str) -> None:
        """Write where the step works, and on what it goes on, after what it said elsewhere."""
        told = f"zoo: note: on {socket.gethostname()}: {files} files brought, {size / _MB:.1f} MB"
        text = f"{self._working.read_log()}{told}{further}\n"
        (self._task / _LOG).write_text(text, encoding="utf-8")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Put things as they are made, within the block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def put_last(self, has_ended: bool) -> None:
        """Put what has been made in the end.

        Raises:
            OSError: the common place does not take it.
        """
        if has_ended or self._has_news():
            self._put_files(has_ended)
        self._put_log()

    def _watch(self) -> None:
        wait = _LOOK
        while not self._end.wait(wait):
            since = time.monotonic()
            try:
                if self._has_news():
                    self._put_files(False)
                self._put_log()
            except (OSError, ValueError) as error:
                # The next look may find it better; without it less is kept where this machine dies.
                note(f"not put to the common place: {error}")
            wait = max(_LOOK, (time.monotonic() - since) * (1 / _SHARE - 1))

    def _listing(self) -> Listing:
        found = {}
        for file in files_made(_makes(self._order, self._task)):
            with suppress(FileNotFoundError):
                about = file.stat()
                found[file] = about.st_size, about.st_mtime_ns, about.st_ino
        return found

    def _has_news(self) -> bool:
        return self._listing() != self._seen

    def _put_files(self, has_ended: bool) -> None:
        """Put what there is at one moment: copies, for files may grow while they are sent."""
        listing, makes = self._listing(), _makes(self._order, self._task)
        tree: Tree = {}
        try:
            for file, about in listing.items():
                digest = self._copy(file, about)
                tree[name_of(file, makes)] = about[0], digest
        except FileNotFoundError:
            return
        if self._listing() != listing:
            # Something was written meanwhile; what belongs together is put at the next look.
            return
        state = State(tree, has_ended)
        files = {digest: self._task / _COPIES / digest for _, digest in tree.values()}
        self._working.put(files, state, self._put)
        self._put, self._seen = state, listing
        for path in (self._task / _COPIES).iterdir():
            if path.name not in files:
                path.unlink()
            elif has_ended:
                Cache.of_node().keep(path, path.name)

    def _copy(self, file: Path, about: About) -> str:
        """Copy a file aside, unless that was done; return its digest."""
        before = self._copied.get(file)
        if before and before[0] == about and (self._task / _COPIES / before[1]).is_file():
            return before[1]
        folder = self._task / _COPIES
        with file.open("rb") as source, (folder / "new").open("wb") as target:
            digest = copy(source, target)
        (folder / "new").replace(folder / digest)
        self._copied[file] = about, digest
        return digest

    def _put_log(self) -> None:
        said = (self._task / _LOG).read_text(encoding="utf-8", errors="replace")
        if said != self._said:
            self._working.write_log(said)
            self._said = said
