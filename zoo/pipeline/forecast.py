"""What a pipeline will take, on paper: hours of its steps, and the bytes that move for them."""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.config import load_config
from zoo.families import load_family
from zoo.families.outlines import build_outline, load_outline
from zoo.pipeline.display import duration
from zoo.pipeline.head import needed_results
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.plan import ANSWERING
from zoo.pipeline.recipe import ModelPlan
from zoo.pipeline.record import files_of
from zoo.pipeline.steps import Step
from zoo.pipeline.survey.profile import DataProfile
from zoo.pipeline.survey.rates import PREDICTION, START, Machine, cost_of
from zoo.source import DataSource

# A run's files in weights of four bytes: the last, the best, and what training goes on from, with
# the optimizer's state (AdamW has two for each weight); of 256-pixel runs 5.0, 5.0 and 15.1 MB.
_WEIGHTS, _CHECKPOINT = 2 * 4, 3 * 4
# Of a store: bytes for an object, to the image's side (3.4 kB at 256, some 34 kB at 2048 pixels).
_OBJECT = 16
# Seconds to read an image's annotation, which each command does first.
_READING = 0.004
_TABLES = 1 << 20


@dataclass(frozen=True)
class Moves:
    """Bytes that move for a step.

    Attributes:
        needs: from the common place to the node: results of other steps.
        makes: from the node to the common place, and on to the head.
        reads_data: whether the data set is needed too, which each node is brought once.
    """

    needs: float
    makes: float
    reads_data: bool


@dataclass(frozen=True)
class Forecast:
    """What a pipeline will take.

    Attributes:
        steps: of the pipeline, those with a command.
        seconds: by step.
        moves: by step.
        data: bytes of the data set.
        machines: between which steps are dealt out, each with one GPU.
        hours: from the first step to the last.
        checkpoint: bytes of the largest from which a training goes on.
    """

    steps: Mapping[str, Step]
    seconds: Mapping[str, float]
    moves: Mapping[str, Moves]
    data: float
    machines: int
    hours: float
    checkpoint: float

    @property
    def moved(self) -> float:
        """Bytes that move in all, where no node has anything yet."""
        made = sum(move.makes for move in self.moves.values())
        needed = sum(move.needs for move in self.moves.values())
        # To the place and from there to every machine; what is made goes to the head as well.
        return self.data * (1 + self.machines) + needed + 2 * made

    def describe(self) -> list[str]:
        """Return a line for each step, and the sum."""
        rows = [("step", "time", "brought to it", "put back")]
        for name in self.steps:
            move = self.moves[name]
            needs = _bytes(move.needs) + (" + data" if move.reads_data else "")
            rows.append((name, duration(self.seconds[name]), needs, _bytes(move.makes)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        many = f"{self.machines} machine{'s' * (self.machines > 1)}"
        total = duration(sum(self.seconds.values()))
        return [
            *lines,
            f"{len(rows) - 1} steps, {total} of work: {duration(3600 * self.hours)} on {many}; "
            f"{_bytes(self.moved)} moved at most",
            f"of these {_bytes(self.data)} of data to the place once, and to each machine once; "
            f"and beside them checkpoints of up to {_bytes(self.checkpoint)} while networks train, "
            "for a tenth of the time at most",
        ]


def forecast(
    pipeline: Pipeline, profile: DataProfile, data: DataSource, machine: Machine
) -> Forecast:
    """Return what a pipeline will take.

    Args:
        pipeline: its steps.
        profile: of the data set, with as many images as are asked for.
        data: the data set as it is.
        machine: here, where steps are computed to see how long one takes, or on paper.
    """
    steps = {name: step for name, step in pipeline.steps.items() if step.words}
    costs = {
        name: _cost(model, data, machine) for name, model in pipeline.recipe.all_models.items()
    }
    sizes = {name: _run_size(model, data) for name, model in pipeline.recipe.all_models.items()}
    seconds, makes = {}, {}
    for name, step in steps.items():
        model = pipeline.recipe.all_models.get(step.model)
        cost = costs.get(step.model, 0.0)
        seconds[name] = _seconds(step, model, cost, profile, machine, _folds(steps, step))
        makes[name] = _made(step, sizes.get(step.model, 0.0), profile, data)
    by_path = {
        os.path.abspath(path): _share(step) * makes[name] / len(step.makes)
        for name, step in steps.items()
        for path in step.makes
    }
    moves = {}
    for name, step in steps.items():
        paths = needed_results(step, step.command(pipeline.steps), pipeline.steps, pipeline.out)
        needs = sum(by_path[str(path)] for path in paths)
        moves[name] = Moves(needs, makes[name], pipeline.history.data in step.reads)
    machines = machine.trainings
    hours = schedule(pipeline.steps, seconds, machines) / 3600
    checkpoint = max(sizes.values()) * _CHECKPOINT / (_WEIGHTS + _CHECKPOINT)
    size = profile.scale * _size(data.path)
    return Forecast(steps, seconds, moves, size, machines, hours, checkpoint)


def schedule(steps: Mapping[str, Step], seconds: Mapping[str, float], machines: int) -> float:
    """Return how long steps take together, each machine doing one at a time.

    Args:
        steps: the whole graph.
        seconds: that each step takes; nothing for others.
        machines: how many.
    """
    ended: dict[str, float] = {}
    free = [0.0] * machines  # when each of them, or of their GPUs, has ended what it does
    waiting = dict(steps)
    while waiting:
        ready = {
            name: max((ended[other] for other in step.waits_for), default=0.0)
            for name, step in waiting.items()
            if all(other in ended for other in step.waits_for)
        }
        # Whichever can begin first; of several, the first of the recipe.
        name = min(ready, key=lambda one: max(ready[one], free[0]))
        step = waiting.pop(name)
        if name not in seconds:
            ended[name] = ready[name]
            continue
        taken = [heapq.heappop(free) for _ in range(min(step.devices, machines))]
        ended[name] = max(ready[name], *taken) + seconds[name]
        for _ in taken:
            heapq.heappush(free, ended[name])
    return max(ended.values(), default=0.0)


def _seconds(
    step: Step,
    model: ModelPlan | None,
    cost: float,
    profile: DataProfile,
    machine: Machine,
    folds: int,
) -> float:
    """Return about how long a step takes."""
    images, tested = profile.images, profile.test_images
    begin = START + _READING * (images + tested)
    if step.words[0] == "train" and model is not None:
        learnt = images * (folds - 1) / folds if folds > 1 else images
        return begin + cost * learnt * _epochs(model) / min(step.devices, machine.trainings)
    if step.words[0] == "predict":
        predicted = images if step.name.endswith(" val") else folds * tested
        return begin + PREDICTION * cost * predicted
    answered = {"fit": images, "fuse": tested, "report": tested, "evaluate": tested}
    cores = max(1.0, machine.cores / machine.trainings / 2)
    return begin + ANSWERING / 2 * answered.get(str(step.words[0]), 0) / cores


def _made(step: Step, run: float, profile: DataProfile, data: DataSource) -> float:
    """Return about how many bytes a step makes; of one that is done, how many it made."""
    if profile.scale == 1 and step.makes and all(path.exists() for path in step.makes):
        return float(sum(_size(path) for path in step.makes))
    if step.words[0] == "train":
        return run
    if step.words[0] == "predict":
        images = profile.images if step.name.endswith(" val") else profile.test_images
        return images * profile.objects / profile.images * _OBJECT * profile.side
    if step.words[0] == "convert":
        return profile.scale * _size(data.path)
    return float(_TABLES * len(step.makes))


def _share(step: Step) -> float:
    """Return the part of what a step makes that later ones need: not what training goes on from."""
    return _WEIGHTS / (_WEIGHTS + _CHECKPOINT) if step.words[0] == "train" else 1.0


def _folds(steps: Mapping[str, Step], step: Step) -> int:
    kin = [one for one in steps.values() if one.model == step.model and one.words[0] == "train"]
    return max(1, sum(one.name.startswith("train ") for one in kin))


def _cost(model: ModelPlan, data: DataSource, machine: Machine) -> float:
    """Return the seconds of training for each image of an epoch."""
    words = model.words()
    chosen = load_config(load_family(model.family).Config, model.family, model.config, words, data)
    # A refiner takes some patches of each image.
    patches = getattr(chosen, "patches_per_image", 1)
    return patches * cost_of(model.family, model.config, words, data, machine).seconds


def _run_size(model: ModelPlan, data: DataSource) -> float:
    """Return about how many bytes a run has."""
    config: Any = load_config(
        load_family(model.family).Config, model.family, model.config, model.words(), data
    )
    outline = load_outline(model.family)
    if outline is None:
        return 0.0
    network = build_outline(outline, config, len(config.labels))
    weights = sum(one.numel() for one in network.parameters())
    return float((_WEIGHTS + _CHECKPOINT) * weights)


def _epochs(model: ModelPlan) -> int:
    chosen = load_config(
        load_family(model.family).Config, model.family, model.config, model.words(), None
    )
    return max(1, chosen.workload.epochs)


def _size(path: Path) -> int:
    files: Sequence[Path] = [path] if path.is_file() else list(files_of(path))
    return sum(file.stat().st_size for file in files)


def _bytes(count: float) -> str:
    """Return a number of bytes as people say it.

    >>> _bytes(0), _bytes(1.5e6), _bytes(2e12)
    ('-', '1.5 MB', '2.0 TB')
    """
    if not count:
        return "-"
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
