"""What a pipeline and its machines are at: steps, GPUs, processors, memory, disk."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from zoo.config import NoticeConfig, check_config
from zoo.machine.cluster import ask_nodes, joined
from zoo.machine.facts import list_gpus, read_free_ram, read_ram
from zoo.pipeline.display import duration, last_progress
from zoo.pipeline.execution import read_end
from zoo.pipeline.pipeline import RECIPE, facts_of, is_pipeline
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.record import LOGS, STEPS, State, read_record, slug
from zoo.pipeline.steps import DATA, FUSION, Builder
from zoo.pipeline.storage.cache import Cache, node_folder
from zoo.pipeline.transfers import Transfers
from zoo.tracking.alerts import Notifier, read_utilisation

_GB = 1e9
# Of a log, that tell what happened.
LAST_LINES = 12


def describe_status(folder: Path | None, on: str) -> list[str]:
    """Return how far a pipeline is, and what its machines do, as lines.

    Args:
        folder: the pipeline's; None tells of the machines alone.
        on: the Ray cluster whose nodes are asked; "" asks this machine.

    Raises:
        ValueError: another folder, or `on` names no cluster.
        ChildProcessError: no cluster answers.
    """
    lines = [*describe_steps(folder), *describe_moves(folder)] if folder else []
    place = str((folder or Path()).absolute())
    if not on:
        return [*lines, f"here: {describe_machine(place)}"]
    with joined(on) as ray:
        free, all_in_all = ray.available_resources(), ray.cluster_resources()
        for name in ("CPU", "GPU"):
            if total := all_in_all.get(name, 0):
                lines.append(f"{name}s: {total - free.get(name, 0):.0f} of {total:.0f} taken")
        told = ask_nodes(ray, describe_node, place)
    return [*lines, *(f"{node}: {text}" for node, text in told)]


def describe_steps(folder: Path) -> list[str]:
    """Return how many of a pipeline's steps are done, and those that work or failed.

    Raises:
        ValueError: not the folder of a pipeline.
    """
    lines = []
    steps = list_steps(folder)
    for step in steps:
        if step.state == "begun":
            lines.append(f"  {step.name}: {step.progress or 'works, or was stopped'}")
        elif step.state == "failed":
            lines.append(f"  {step.name}: failed after {duration(step.seconds)}: {step.message}")
    return [f"{folder}: steps: {count_states(steps)}", *lines]


@dataclass(frozen=True)
class StepStatus:
    """How far a step is.

    Attributes:
        name: as its files are called, such as `train-unet-0`.
        state: `begun`, `done`, `failed`, or `waiting` where it has not begun.
        seconds: that it took; of one that works, since it was started last.
        progress: the last line in which its command says how far it is.
        message: its last words, where it failed.
        last_lines: the end of its log.
        command: after `zoo`.
    """

    name: str
    state: State | Literal["waiting"]
    seconds: float
    progress: str
    message: str
    last_lines: tuple[str, ...]
    command: tuple[str, ...]

    @property
    def out(self) -> Path | None:
        """What its command writes, by its option `--out`; None without one."""
        words = list(self.command)
        at = words.index("--out") + 1 if "--out" in words else len(words)
        return Path(words[at]) if at < len(words) else None


def recipe_of(folder: Path) -> Recipe | None:
    """Return the recipe of a pipeline, with places as they are from here; None without one.

    Raises:
        ValueError: a recipe that cannot be read.
    """
    path = folder / RECIPE
    return Recipe.load(str(path)) if path.is_file() else None


def data_of(folder: Path) -> Path | None:
    """Return the data set that a pipeline is about, as its recipe names it; None without one.

    Raises:
        ValueError: a recipe that cannot be read.
    """
    recipe = recipe_of(folder)
    if recipe is None:
        return None
    place = folder / DATA if recipe.phantom else Path(recipe.data) if recipe.data else None
    return place if place and place.is_dir() else None


def rule_of(folder: Path) -> Path | None:
    """Return the fusion config that a pipeline fuses by; None where there is none yet.

    Raises:
        ValueError: a recipe that cannot be read.
    """
    recipe = recipe_of(folder)
    if recipe is not None and recipe.fusion.config:
        return Path(recipe.fusion.config)
    return folder / FUSION if (folder / FUSION).is_file() else None


def list_steps(folder: Path) -> list[StepStatus]:
    """Return the steps of a pipeline.

    In the order of the graph, those that have not begun among them, where the recipe and its data
    set are there. What has begun and is none of the recipe's comes last; it is all that is
    known without them, in the order in which it last changed.

    Raises:
        ValueError: not the folder of a pipeline.
    """
    if not is_pipeline(folder):
        raise ValueError(f"{folder}: expected the folder of `zoo run`, found another or none")
    files = sorted((folder / STEPS).glob("*.json"), key=lambda path: path.stat().st_mtime)
    begun = {file.stem: file for file in files}
    steps = [
        _status(folder, begun.pop(name)) if name in begun else _waiting(name, words)
        for name, words in _planned(folder)
    ]
    return [*steps, *(_status(folder, file) for file in begun.values())]


def _planned(folder: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names and commands of all steps of the recipe; none where it cannot be told."""
    recipe = folder / RECIPE
    try:
        return _laid_out(folder, recipe.stat().st_mtime_ns)
    except (OSError, ValueError):
        # Of another machine: its data set is not here.
        return ()


@lru_cache(maxsize=8)
def _laid_out(folder: Path, changed_ns: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    # The data set is read for it, and a page asks every few seconds.
    recipe = Recipe.load(str(folder / RECIPE))
    steps = Builder(recipe, folder, facts_of(recipe)).steps()
    commands = {
        slug(name): tuple(step.command(steps)) for name, step in steps.items() if step.words
    }
    return tuple(commands.items())


def _waiting(name: str, words: tuple[str, ...]) -> StepStatus:
    return StepStatus(name, "waiting", 0.0, "", "", (), words)


def _status(folder: Path, file: Path) -> StepStatus:
    record = read_record(file)
    said = read_end(folder / LOGS / f"{file.stem}.log")
    works = record.state == "begun"
    return StepStatus(
        file.stem,
        record.state,
        max(0.0, time.time() - file.stat().st_mtime) if works else record.seconds,
        last_progress(said) if works else "",
        record.message,
        tuple(said.splitlines()[-LAST_LINES:]),
        record.command,
    )


def count_states(steps: Sequence[StepStatus]) -> str:
    """Return how many steps are in which state, in words."""
    states = Counter(step.state for step in steps)
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or (
        "none begun"
    )


def describe_moves(folder: Path) -> list[str]:
    """Return what waits to be moved between machines that share no disk, as lines."""
    waiting = Transfers.read(folder).waiting
    return [f"  {what}: {size / 1e6:.1f} MB wait to be moved" for what, size in waiting.items()]


def describe_node(folder: str) -> str:
    """Return what of a node is in use, with the folder that steps work in, if they have begun to.

    Args:
        folder: the pipeline's, where nodes share a disk.
    """
    own = node_folder()
    if not own.is_dir():
        return describe_machine(folder)
    kept = Cache.of_node().size()
    return f"{describe_machine(str(own))}; {own} keeps {kept / _GB:.1f} GB of files"


def describe_machine(folder: str) -> str:
    """Return what of this machine is in use, as a line.

    Args:
        folder: on the disk that is asked for.
    """
    gpus = list_gpus()
    busy = read_utilisation([str(number) for number in range(len(gpus))])
    parts = []
    for number, gpu in enumerate(gpus):
        used = gpu.total - (gpu.free if gpu.free is not None else gpu.total)
        percent = f"{busy[str(number)]:.0f} %, " if str(number) in busy else ""
        parts.append(
            f"GPU {number} {gpu.name} {percent}{used / _GB:.1f} of {gpu.total / _GB:.0f} GB"
        )
    parts.append(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    free, total = read_free_ram(), read_ram()
    if free and total:
        parts.append(f"memory {free / _GB:.1f} of {total / _GB:.0f} GB free")
    there = next((p for p in (Path(folder), *Path(folder).parents) if p.exists()), Path("/"))
    disk = shutil.disk_usage(there)
    parts.append(f"disk {disk.free / _GB:.0f} of {disk.total / _GB:.0f} GB free")
    return "; ".join(parts)


def post(lines: Sequence[str], url: str) -> None:
    """Post lines to a chat, in the format of Slack's incoming webhooks.

    Args:
        lines: what is told.
        url: of the webhook, or env:NAME.

    Raises:
        ValueError: no address, or the chat does not take it.
    """
    if not url.startswith(("env:", "https://", "http://")):
        # What was given is not shown: it is a secret.
        raise ValueError("--post: expected env:NAME or an address that begins with https://")
    config = check_config(NoticeConfig, {"url": url}, "--post")
    if not Notifier(config).post("finished", "\n".join(lines)):
        raise ValueError("--post: expected a webhook that takes the message, found that it did not")
