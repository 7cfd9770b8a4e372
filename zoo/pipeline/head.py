"""The steps of a pipeline on a Ray cluster whose machines share no disk: the head's part.

What a step needs is put to a place that all machines reach, where it is not there yet; what it made
is brought from there into the pipeline's folder. Both go on in the background, while other steps
work.
"""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import configs
from converters.files.atomic import unfinished
from converters.files.json_files import read_json
from converters.files.provenance import atomic_write_text
from zoo.machine.cluster import ask_nodes
from zoo.pipeline.cluster import PATIENCE, RETRIES, RayCluster
from zoo.pipeline.execution import Work, begin_log, read_end
from zoo.pipeline.node import Order, do_order, keys_to_place, take_keys
from zoo.pipeline.record import TRANSFERS, History, slug
from zoo.pipeline.steps import Step
from zoo.pipeline.storage.transfer import Moving, Place, Tree, size_of
from zoo.pipeline.storage.working import State, Working

_LOOK = 2.0
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
        self.place = Place(url)
        self._steps, self._history = steps, history
        self._folder = Path.cwd()
        self._trees: dict[Path, Tree] = {}
        self.putting = threading.Lock()
        super().__init__(on, ())
        try:
            _check_nodes(self.ray, self.place)
            self._file = history.out / TRANSFERS
            self._name = _read_name(self._file)
            self.moving = Moving(self._tell)
            self._tell({})
        except BaseException:
            self.close()
            raise

    def start(self, step: Step, command: Sequence[str], log: Path) -> Work:
        """Begin to move what a step needs; Ray gets the step when that is there."""
        begin_log(log, command)
        record = self._history.read(step.name)
        key = record.key if record else ""
        needs = self._needs(step, command)
        order = Order(
            self.place.url,
            f"working/{self._name}/{slug(step.name)}-{key}",
            self._relative(command),
            str(self._folder),
            "",
            tuple(os.path.abspath(path) for path in step.makes),
            dict(os.environ),
            self.capacity(step).cores_of(step),
        )
        return _Errand(self, step, order, needs, self._begun(step), log)

    def remote(self, step: Step, order: Order) -> Any:
        """Give a step to Ray."""
        capacity = self.capacity(step)
        task = self.ray.remote(do_order).options(
            num_cpus=order.cores,
            num_gpus=1 if capacity.needs_gpu(step) else 0,
            max_retries=RETRIES,
            name=step.name,
        )
        return task.remote(order)

    def _needs(self, step: Step, command: Sequence[str]) -> Tree:
        """Return the files that a step needs, by absolute paths."""
        found: Tree = {}
        for path in step.reads:
            place = Path(os.path.abspath(path))
            if not place.is_relative_to(Path(configs.__file__).parent):
                if place not in self._trees:
                    self._trees[place] = self._history.digests.tree(place, is_read=True)
                found.update(self._trees[place])
        for path in needed_results(step, command, self._steps, self._history.out):
            tree = self._history.digests.tree(path)
            found.update({n: about for n, about in tree.items() if Path(n).name != _LEFT_OUT})
        return found

    def _begun(self, step: Step) -> Tree:
        """Return what of a step's results is here already."""
        found: Tree = {}
        for path in step.makes:
            found.update(self._history.digests.tree(Path(os.path.abspath(path))))
        return found

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
        self._history.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"pipeline": self._name, "waiting": waiting})
        atomic_write_text(self._file, text + "\n")


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
    inside = [Path(word) for word in words if word == root or word.startswith(root + os.sep)]
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


def _read_name(file: Path) -> str:
    """Return what a pipeline is called at the common place; always the same."""
    with suppress(ValueError):
        found = read_json(file, "what waits to be moved") if file.is_file() else {}
        name = found.get("pipeline") if isinstance(found, dict) else None
        if isinstance(name, str) and name.isalnum():
            return name
    return uuid.uuid4().hex[:12]


def _check_nodes(ray: Any, place: Place) -> None:
    """Make sure that every node that works has this version, and reaches the same place.

    Raises:
        ChildProcessError: one does not.
    """
    word, name = uuid.uuid4().hex, f"partial/{uuid.uuid4().hex}"
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
        self, cluster: ApartCluster, step: Step, order: Order, needs: Tree, begun: Tree, log: Path
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
            needs = self._put()
            if self._is_stopped:
                return
            self._task = self._cluster.remote(self._step, replace(self._order, needs=needs))
            while not self._cluster.ray.wait([self._task], timeout=_LOOK)[0]:
                self._read_log()
            code = int(self._cluster.ray.get(self._task))
            self._read_log()
            if code == 0:
                self._bring()
            self._code = code
        except errors.RayTaskError as error:
            self._say(f"{error.cause}")
        except errors.RayError as error:
            self._say(f"Ray lost the step: {(str(error).splitlines() or [''])[0]}")
        except (OSError, ValueError) as error:
            self._say(str(error))

    def _put(self) -> str:
        """Put what the step needs where it is not there yet; return the digest of its tree."""
        what = f"{self._step.name}: to the place"
        moved = self._cluster.moving.begin(what, size_of(self._needs))
        files = {digest: Path(path) for path, (_, digest) in self._needs.items()}
        try:
            with self._cluster.putting:
                self._cluster.place.put_all(files, moved)
            if self._begun and not self._working.read().files:
                begun = {digest: Path(path) for path, (_, digest) in self._begun.items()}
                self._working.put(begun, State(self._begun), State())
        finally:
            self._cluster.moving.end(what)
        return self._cluster.place.write_tree(self._needs)

    def _bring(self) -> None:
        """Bring what the step made, each result as a whole."""
        state = self._working.read()
        what = f"{self._step.name}: to the pipeline's folder"
        moved = self._cluster.moving.begin(what, size_of(state.files))
        try:
            for make in self._order.makes:
                under = make + os.sep
                of = {p: a for p, a in state.files.items() if p == make or p.startswith(under)}
                if not of:
                    continue
                with unfinished(Path(make)) as place:
                    for path, (size, digest) in of.items():
                        self._working.get(
                            digest, place / path[len(under) :] if path != make else place
                        )
                        moved(size)
        finally:
            self._cluster.moving.end(what)
        self._working.finish(state)

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
