"""The steps of a pipeline on a Ray cluster whose machines share no disk: the head's part.

What a step needs is put to a place that all machines reach, where it is not there yet; what it made
is brought from there into the pipeline's folder. Both go on in the background, while other steps
work.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import configs
from zoo.machine.cluster import ask_nodes
from zoo.pipeline.cluster import PATIENCE, RETRIES, RayCluster
from zoo.pipeline.execution import Work, begin_log, read_end
from zoo.pipeline.node import Order, do_order, files_made, keys_to_place, take_keys
from zoo.pipeline.record import History
from zoo.pipeline.steps import Step
from zoo.pipeline.storage.holdings import Holdings
from zoo.pipeline.storage.transfer import (
    Damaged,
    Moving,
    Place,
    Tree,
    digest_file,
    partial_name,
    size_of,
)
from zoo.pipeline.storage.working import State, Working, name_of
from zoo.pipeline.transfers import Transfers, working_folder

_LOOK = 2.0
# How often what a step needs is put before it fails for what is missing at the place.
_PUTS = 3
# Not needed by later steps: from it training would go on.
_LEFT_OUT = "last.ckpt"
_TOGETHER = re.compile(r"[=,\[\]]")


class ApartCluster(RayCluster):
    """Starts steps as tasks of a cluster, and moves files for them.

    Args:
        on: which, as `zoo.machine.cluster.map_anywhere` takes it.
        url: of the place that all machines reach.
        steps: the whole graph.
        history: of the pipeline.

    Raises:
        ValueError: `on` names no cluster, or `url` no place.
        ChildProcessError: nobody answers, or a machine does not reach the place.
    """

    def __init__(self, on: str, url: str, steps: Mapping[str, Step], history: History) -> None:
        kept = Transfers.read(history.out)
        name = kept.pipeline or uuid.uuid4().hex[:12]
        self.place, self.through = Place(url, name), url
        self._steps, self._history = steps, history
        self._folder = Path.cwd()
        self._trees: dict[Path, Tree] = {}
        self._lists: dict[Path, str] = {}
        self._putting = threading.Lock()
        super().__init__(on, ())
        try:
            _check_nodes(self.ray, self.place)
            self._kept = Transfers(name, tuple(dict.fromkeys((*kept.through, url))))
            self.holdings = Holdings(self.place, name)
            self._tell({})
            self.sign()
            self.moving = Moving(self._tell)
        except BaseException:
            self.close()
            raise

    def start(self, step: Step, command: Sequence[str], log: Path) -> Work:
        """Begin to move what a step needs; Ray gets the step when that is there."""
        begin_log(log, command)
        record = self._history.read(step.name)
        key, through = (record.key, record.through) if record else ("", "")
        order = Order(
            self.place.url,
            working_folder(self._kept.pipeline, step, key),
            self._relative(command),
            str(self._folder),
            (),
            tuple(os.path.abspath(path) for path in step.makes),
            dict(os.environ),
            self.capacity(step).cores_of(step),
        )
        needs = self._needs(step, command)
        # What it has made elsewhere since is later than what is at the place.
        begun = {} if through == self.through else self._begun(step)
        return _Errand(self, step, order, needs, begun, log)

    def remote(self, step: Step, order: Order) -> Any:
        """Give a step to Ray."""
        capacity = self.capacity(step)
        task = self.ray.remote(do_order).options(
            num_cpus=order.cores,
            num_gpus=capacity.gpus_of(step),
            max_retries=RETRIES,
            name=step.name,
        )
        return task.remote(order)

    def sign(self) -> None:
        """Give the common place a sign of life, now and then."""
        self.holdings.sign(f"{socket.gethostname()}:{self._history.out.absolute()}")

    def put(
        self, needs: Mapping[Path, Tree], moved: Callable[[int], None], anew: bool
    ) -> list[str]:
        """Put what a step needs where it is not there yet; return the names of its lists.

        Args:
            needs: files by the file or folder that they are of.
            moved: is told the bytes of each file.
            anew: also ask for what was there before.
        """
        with self._putting:
            for path, tree in needs.items():
                if path not in self._lists or anew:
                    self._lists[path] = self.holdings.hold(tree)
                    files = {digest: Path(name) for name, (_, digest) in tree.items()}
                    self.place.put_all(files, moved)
            return [self._lists[path] for path in needs]

    def _needs(self, step: Step, command: Sequence[str]) -> dict[Path, Tree]:
        """Return the files that a step needs, by what they are of, both by absolute paths."""
        found: dict[Path, Tree] = {}
        for path in step.reads:
            place = Path(os.path.abspath(path))
            if not place.is_relative_to(Path(configs.__file__).parent):
                if place not in self._trees:
                    self._trees[place] = self._history.digests.tree(place, is_read=True)
                found[place] = self._trees[place]
        for path in needed_results(step, command, self._steps, self._history.out):
            found[path] = needed_later(self._history.digests.tree(path))
        return found

    def _begun(self, step: Step) -> dict[str, Path]:
        """Return what of a step's results is here already, by names as `name_of` gives them."""
        makes = [Path(os.path.abspath(path)) for path in step.makes]
        return {name_of(file, makes): file for file in files_made(makes)}

    def _relative(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return a command whose paths are the same wherever the folder of all files lies."""
        known = {path for step in self._steps.values() for path in step.reads}
        places = {os.path.abspath(path) for path in (*known, self._history.out)}
        ordered = sorted(places, key=len, reverse=True)
        either = "|".join(map(re.escape, ordered))
        pattern = re.compile(rf"(?:(?<=[=,\[])|^)(?:{either})(?=$|[/,\]:])")
        return tuple(
            pattern.sub(lambda m: os.path.relpath(m[0], self._folder), word) for word in command
        )

    def _tell(self, waiting: Mapping[str, int]) -> None:
        replace(self._kept, waiting=waiting).write(self._history.out)


def needed_results(
    step: Step, command: Sequence[str], steps: Mapping[str, Step], out: Path
) -> Iterator[Path]:
    """Yield the files and folders, absolute, that a step's command takes and other steps make.

    Args:
        step: which.
        command: its command.
        steps: the whole graph.
        out: the pipeline's folder.
    """
    root = os.path.abspath(out)
    words = {
        os.path.abspath(part) for word in command[1:] for part in _TOGETHER.split(word) if part
    }
    words |= {os.path.abspath(path) for path in step.takes}
    # A name such as that of a config is none of the folder, also where that is called so.
    inside = [Path(word) for word in words if word.startswith(root + os.sep)]
    own = {os.path.abspath(path) for path in step.makes}
    before = _all_before(step, steps)
    for path in (Path(os.path.abspath(path)) for name in before for path in steps[name].makes):
        is_named = any(word.is_relative_to(path) or path.is_relative_to(word) for word in inside)
        if is_named and str(path) not in own:
            yield path


def _all_before(step: Step, steps: Mapping[str, Step]) -> list[str]:
    found: dict[str, None] = {}
    left = list(step.waits_for)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = None
            left += steps[name].waits_for
    return list(found)


def needed_later(tree: Tree) -> Tree:
    """Return those of a step's files that other steps need: none goes on from a checkpoint."""
    return {name: about for name, about in tree.items() if Path(name).name != _LEFT_OUT}


def _check_nodes(ray: Any, place: Place) -> None:
    """Make sure that every node that works has this version, and reaches the same place.

    Raises:
        ChildProcessError: one does not.
    """
    word, name = uuid.uuid4().hex, partial_name()
    place.write_text(name, word)
    try:
        about = place.url, name, keys_to_place()
        for where, (version, said) in ask_nodes(ray, _reach, about):
            if version != metadata.version("maskzoo"):
                raise ChildProcessError(
                    f"maskzoo: expected version {metadata.version('maskzoo')} on every node of the "
                    f"cluster, found {version} on {where}"
                )
            if said != word:
                raise ChildProcessError(
                    "--through: expected a place that every node of the cluster reaches by the "
                    f"same URL, found that {where} does not: {said or 'it is another place'}"
                )
    finally:
        place.remove(name)


def _reach(about: tuple[str, str, dict[str, str]]) -> tuple[str, str]:
    """Return this node's version, and what it reads at the place."""
    url, name, environment = about
    take_keys(environment)
    try:
        return metadata.version("maskzoo"), Place(url).read_text(name)
    except (OSError, ValueError, ImportError) as error:
        return metadata.version("maskzoo"), str(error)


class _Errand:
    """A step whose files are moved and that works elsewhere, in a thread of its own."""

    def __init__(
        self,
        cluster: ApartCluster,
        step: Step,
        order: Order,
        needs: Mapping[Path, Tree],
        begun: Mapping[str, Path],
        log: Path,
    ) -> None:
        self._cluster, self._step, self._order, self._needs = cluster, step, order, needs
        self._working = Working(cluster.place, order.working)
        self._begun, self._log = begun, log
        self._start = log.stat().st_size
        self._said = ""
        self._task: Any = None
        self._code = 1
        self._is_stopped = False
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def stop(self) -> None:
        self._is_stopped = True
        if self._task is not None:
            self._cluster.ray.cancel(self._task, force=False)
        self._thread.join(PATIENCE)

    def last_words(self) -> str:
        return read_end(self._log)

    def _carry(self) -> None:
        errors = self._cluster.ray.exceptions
        try:
            self._put_begun()
            for left in reversed(range(_PUTS)):
                try:
                    self._code = self._work(is_again=left < _PUTS - 1)
                    return
                except (errors.RayTaskError, FileNotFoundError, Damaged) as error:
                    # Another pipeline has removed what it alone knew of, or it was damaged there.
                    cause = getattr(error, "cause", error)
                    if not left or not isinstance(cause, FileNotFoundError | Damaged):
                        raise
                    self._say(f"note: once more: {cause}")
        except errors.RayTaskError as error:
            self._say(f"{error.cause}")
        except errors.RayError as error:
            self._say(f"Ray lost the step: {(str(error).splitlines() or [''])[0]}")
        except (OSError, ValueError) as error:
            self._say(str(error))

    def _work(self, is_again: bool) -> int:
        """Have the step done, and bring what it made; return its exit code."""
        needs = self._put(is_again)
        if self._is_stopped:
            return 1
        self._task = self._cluster.remote(self._step, replace(self._order, needs=needs))
        while not self._cluster.ray.wait([self._task], timeout=_LOOK)[0]:
            self._read_log()
            self._sign()
        code = int(self._cluster.ray.get(self._task))
        self._read_log()
        if code == 0:
            self._bring()
        return code

    def _put_begun(self) -> None:
        """Put what the step has made here, in place of what it had made there before."""
        if not self._begun:
            return
        made = {
            name: (path.stat().st_size, digest_file(path)) for name, path in self._begun.items()
        }
        files = {digest: self._begun[name] for name, (_, digest) in made.items()}
        self._working.remove()
        self._working.put(files, State(made), State())

    def _put(self, is_again: bool) -> tuple[str, ...]:
        """Put what the step needs where it is not there yet; return the names of its lists."""
        what = f"{self._step.name}: to the place"
        size = sum(size_of(tree) for tree in self._needs.values())
        moved = self._cluster.moving.begin(what, size)
        try:
            return tuple(self._cluster.put(self._needs, moved, is_again))
        finally:
            self._cluster.moving.end(what)

    def _bring(self) -> None:
        """Bring what the step made, each result as a whole."""
        state = self._working.read()
        what = f"{self._step.name}: to the pipeline's folder"
        moved = self._cluster.moving.begin(what, size_of(state.files))
        try:
            self._working.bring(state, [Path(path) for path in self._order.makes], moved)
        except (FileNotFoundError, Damaged):
            # It is made anew.
            self._working.remove()
            raise
        finally:
            self._cluster.moving.end(what)
        needed = needed_later(state.files)
        self._cluster.holdings.hold(needed)
        self._working.finish(needed)

    def _sign(self) -> None:
        # The place may not answer just now.
        with suppress(OSError):
            self._cluster.sign()

    def _read_log(self) -> None:
        """Bring what the step says; it stays as it was where the place does not answer just now."""
        with suppress(OSError):
            said = self._working.read_log()
            if said and said != self._said:
                self._said = said
                with self._log.open("r+b") as stream:
                    stream.seek(self._start)
                    stream.write(said.encode())
                    stream.truncate()

    def _say(self, what: str) -> None:
        with self._log.open("ab") as stream:
            stream.write(f"\nzoo: {what.splitlines()[0] if what else 'failed'}\n".encode())
