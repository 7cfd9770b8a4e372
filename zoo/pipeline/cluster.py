"""The steps of a pipeline on a Ray cluster whose machines share a disk.

A step is a task with the processors and the GPU that it needs. Ray places it, and starts it again
elsewhere where its machine dies: the command then goes on with what the folder holds, training from
its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from zoo.machine.cluster import check_nodes, joined, working_nodes
from zoo.pipeline.execution import Capacity, Work, begin_log, read_end, start_process, stop_process
from zoo.pipeline.steps import Step

# How often a step is started again whose machine has died.
RETRIES = 3
PATIENCE = 60.0
# Not taken to another machine: what it has of its own.
_OWN = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HOSTNAME", "PWD")


class RayCluster:
    """Starts steps as tasks of a cluster.

    Args:
        on: which, as `zoo.machine.cluster.map_anywhere` takes it.
        needs: files and folders that every machine has to see at the same path.

    Raises:
        ValueError: `on` names no cluster.
        ChildProcessError: nobody answers, or a machine does not see what is needed.
    """

    through = ""

    def __init__(self, on: str, needs: Sequence[Path]) -> None:
        with ExitStack() as stack:
            self.ray = stack.enter_context(joined(on))
            check_nodes(self.ray, needs)
            self._nodes = [node["Resources"] for node in working_nodes(self.ray)]
            self._joined = stack.pop_all()

    def has_room(self, step: Step) -> bool:
        """Ray lets steps wait."""
        return True

    def start(self, step: Step, command: Sequence[str], log: Path) -> Work:
        """Give a step to Ray."""
        capacity = self.capacity(step)
        gpus, cores = capacity.gpus_of(step), capacity.cores_of(step)
        task = self.ray.remote(_work).options(
            num_cpus=cores, num_gpus=gpus, max_retries=RETRIES, name=step.name
        )
        place = log.absolute()
        begin_log(place, command)
        environment = {key: value for key, value in os.environ.items() if key not in _OWN}
        given = (list(command), str(place), str(Path.cwd()), environment, cores)
        return _Task(self.ray, task.remote(*given), place)

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        self._joined.close()

    def capacity(self, step: Step) -> Capacity:
        """Return what one machine has of which a step can be sure."""
        with_gpus = [node for node in self._nodes if node.get("GPU", 0)]
        if step.kind == "device" and with_gpus:
            most = max(node["GPU"] for node in with_gpus)
            wanted = min(step.devices, most)
            with_gpus = [node for node in with_gpus if node["GPU"] >= wanted]
            least = min(with_gpus, key=lambda node: float(node["CPU"]) / float(node["GPU"]))
            return Capacity(int(least["CPU"]), tuple(map(str, range(int(least["GPU"])))))
        return Capacity(int(min(node["CPU"] for node in self._nodes)))


class _Task:
    def __init__(self, ray: Any, task: Any, log: Path) -> None:
        self._ray, self._task, self._log = ray, task, log
        self._lost = ""

    def poll(self) -> int | None:
        done, _ = self._ray.wait([self._task], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.RayError as error:
            self._lost = (str(error).splitlines() or [type(error).__name__])[0]
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._task, force=False)
        with suppress(Exception):
            self._ray.get(self._task, timeout=PATIENCE)

    def last_words(self) -> str:
        told = f"\nzoo: Ray lost the step: {self._lost}\n" if self._lost else ""
        return read_end(self._log) + told


def _work(
    command: Sequence[str], log: str, folder: str, environment: Mapping[str, str], cores: int
) -> int:
    """Run a command on a machine of the cluster; return its exit code."""
    own = {**environment, **{key: os.environ[key] for key in _OWN if key in os.environ}}
    own["OMP_NUM_THREADS"] = str(cores)
    with open(log, "ab") as stream:
        process = start_process(command, stream, own, folder)
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                stop_process(process)
