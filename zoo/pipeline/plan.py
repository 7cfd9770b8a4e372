"""A recipe for a data set and a machine: nothing has to be chosen, all of it can be changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from converters.splits.grouping import group_by
from converters.splits.sample_tables import tables_beside
from zoo.config import load_config
from zoo.families import load_family, usual_config
from zoo.pipeline.rates import PREDICTION, START, Cost, Machine, cost_of
from zoo.pipeline.recipe import ModelPlan, Recipe, SplitPlan
from zoo.pipeline.steps import SPLIT, DataFacts
from zoo.progress import note
from zoo.source import DataSource

# Hours where none are given and there is no GPU: a coffee.
HOURS = 0.5
# Part of the time that trainings are planned for: estimates are what they are.
_PLANNED = 0.75
# Of objects whose size decides an image's: all but the smallest tenth; and their least side as a
# network sees it.
_SMALLEST, _LEAST_SIDE = 0.1, 10
_MULTIPLE = 64
# Largest sides that a network sees, without a GPU and with one.
_LARGEST_CPU, _LARGEST_GPU = 384, 1024
_LEAST = 256
_FEWEST_EPOCHS, _MOST_EPOCHS = 8, 200
# Seconds for each image in fitting, fusing, checking, and reports.
_ANSWERING = 1.2
# Samples whose objects are measured.
_LOOKED_AT = 200


@dataclass(frozen=True)
class DataProfile:
    """What of a data set decides a plan.

    Attributes:
        images: to learn from.
        patients: they are of.
        test_images: to be answered.
        side: longer side of an image in pixels, half of them are larger.
        least: side of objects, to the image's longer side, that nine of ten objects exceed.
        repeated: objects beyond the first of their class in an image, to all objects.
        classes: their number.
        exclusive: whether a pixel has one label.
        facts: which steps there are.
    """

    images: int
    patients: int
    test_images: int
    side: int
    least: float
    repeated: float
    classes: int
    exclusive: bool
    facts: DataFacts

    def describe(self) -> str:
        """Return it as a line."""
        repeated = f", {self.repeated:.0%} further objects of a class" if self.repeated else ""
        return (
            f"{self.images} images of {self.patients} patients, {self.test_images} to answer, "
            f"{self.side} pixels, {self.classes} classes, small objects {self.least:.1%} of the "
            f"image's side{repeated}"
        )


def look(data: DataSource, test: Path | None = None, by: str = "") -> DataProfile:
    """Return what of a data set decides a plan.

    Args:
        data: the data set, with the classes that are asked for.
        by: whose an image is, as `zoo split --group-by` takes it.
        test: a folder whose images are to be answered instead of its own test part.

    Raises:
        ValueError: nothing to learn from.
    """
    labels = data.classes
    samples = [sample for sample in data.read(labels) if sample.instances]
    if not samples:
        raise ValueError(f"{data.path}: expected annotated images, found none")
    if by:
        samples = group_by(samples, by, tables_beside(data.path))
    facts, tested = look_at_test(data, test)
    step = max(1, len(samples) // _LOOKED_AT)
    sides: list[float] = []
    objects = further = 0
    for sample in samples[::step]:
        longest = max(sample.size_hw)
        for instance in sample.instances:
            left, top, right, bottom = instance.geometry.bounds
            sides.append(max(right - left, bottom - top, 1) / longest)
        names = [instance.label for instance in sample.instances]
        objects += len(names)
        further += len(names) - len(set(names))
    ordered = sorted(sides)
    return DataProfile(
        len(samples),
        len({sample.patient for sample in samples}),
        tested,
        int(median(max(sample.size_hw) for sample in samples)),
        ordered[int(_SMALLEST * len(ordered))],
        further / objects,
        len(labels),
        labels.exclusive is not None,
        facts,
    )


def look_at_test(data: DataSource, test: Path | None) -> tuple[DataFacts, int]:
    """Return which images are to be answered, and how many.

    Args:
        data: the data set.
        test: a folder of its own; None takes the data set's test part.
    """
    source = data if test is None else DataSource.open(test)
    part = "test" if test is None or source.format == "images" else "all"
    try:
        samples, _ = source.scan(data.classes, part)
    except ValueError:
        if test is not None:
            raise
        samples = []
    is_annotated = any(sample.instances for sample in samples)
    return DataFacts(bool(samples), is_annotated, data.format, part), len(samples)


def plan(
    data: DataSource,
    profile: DataProfile,
    machine: Machine,
    hours: float | None,
    by: str = "",
    **given: Any,
) -> Recipe:
    """Return a recipe: families, sizes, epochs and folds by the data, the machine and the time.

    Args:
        data: the data set.
        profile: what was seen of it.
        machine: what trains.
        hours: in which an answer is wanted; None takes half an hour without a GPU, and as long as
            the usual configs ask for with one.
        by: whose an image is, as `zoo split --group-by` takes it.
        given: further keys of the recipe, such as `labels`.

    Raises:
        ValueError: too few patients to hold some out.
    """
    if profile.patients < 2:
        raise ValueError(
            f"{data.path}: expected images of two patients at least, found {profile.patients}: "
            "some have to be held out"
        )
    limit = hours if hours is not None or machine.gpus else HOURS
    own = data.path / SPLIT
    folds = min(5 if machine.gpus else 3, profile.patients)
    costs = _costs(data, profile, machine)
    while True:
        models = _models(profile, machine, costs, folds, limit)
        slow = [name for name, model in models.items() if _epochs(model) < _FEWEST_EPOCHS]
        if not slow or (folds == 2 and len(costs) == 1):
            break
        if folds > 2:
            folds -= 1
        else:
            dearest = max(costs, key=lambda name: costs[name][1].seconds)
            note(f"plan: no time for {dearest}: give more --hours")
            del costs[dearest]
    split = SplitPlan(file=str(own)) if own.is_file() else SplitPlan(folds=folds, group_by=by)
    return Recipe(data=str(data.path), split=split, models=models, hours=limit, **given)


def _epochs(model: ModelPlan) -> int:
    return int(model.changes.get("epochs", _FEWEST_EPOCHS))


def _costs(
    data: DataSource, profile: DataProfile, machine: Machine
) -> dict[str, tuple[dict[str, Any], Cost]]:
    """Return family -> changes of its config, and what a network of it costs here."""
    found: dict[str, tuple[dict[str, Any], Cost]] = {}
    for family in _families(profile):
        config = _config(family, machine)
        changes = _changes(family, profile, machine)
        words = ModelPlan(family=family, config=config, changes=changes).words()
        found[family] = changes, cost_of(family, config, words, data, machine)
    return found


def _families(profile: DataProfile) -> list[str]:
    """Return families that fail differently: two of pixels, one of objects where it can be had."""
    has_yolo = find_spec("ultralytics") is not None and not profile.exclusive
    return ["smp", "segformer", *(("yolo",) if has_yolo else ())]


def _config(family: str, machine: Machine) -> str:
    return usual_config(family, bool(machine.gpus))


def _changes(family: str, profile: DataProfile, machine: Machine) -> dict[str, Any]:
    """Return the size that small objects ask for, and the batch that few images allow."""
    largest = _LARGEST_GPU if machine.gpus else _LARGEST_CPU
    # A GPU has the time for all that the images hold.
    needed = profile.side if machine.gpus else _LEAST_SIDE / profile.least
    wanted = max(_LEAST, min(needed, profile.side, largest))
    size = min(largest, _MULTIPLE * math.ceil(wanted / _MULTIPLE))
    batch = max(2, min(8, profile.images // 8))
    if family == "yolo":
        return {"imgsz": size, "batch": batch}
    return {"size": [size, size], "batch": batch}


def _models(
    profile: DataProfile,
    machine: Machine,
    costs: dict[str, tuple[dict[str, Any], Cost]],
    folds: int,
    hours: float | None,
) -> dict[str, ModelPlan]:
    learnt = profile.images * (folds - 1) / folds
    trainings = folds * len(costs)
    turns = math.ceil(trainings / machine.trainings)
    predicted = profile.images + folds * profile.test_images
    found = {}
    for family, (changes, cost) in costs.items():
        fixed = START + PREDICTION * cost.seconds * predicted / folds
        if hours is None:
            epochs = _usual_epochs(family, _config(family, machine))
        else:
            answering = _ANSWERING * (profile.images + profile.test_images) / machine.cores * 2
            left = _PLANNED * 3600 * hours - answering - START * len(costs) * 3
            each = left / turns - fixed
            epochs = int(max(1.0, min(_MOST_EPOCHS, each / (cost.seconds * learnt))))
        spent = folds * (fixed + epochs * cost.seconds * learnt) / machine.trainings
        found[family] = ModelPlan(
            family=family,
            config=_config(family, machine),
            changes={**changes, "epochs": epochs},
            hours=round(spent / 3600, 4),
            memory=cost.memory and round(cost.memory),
        )
    return found


def _usual_epochs(family: str, config: str) -> int:
    chosen = load_config(load_family(family).Config, family, config, [], None)
    return max(1, chosen.workload.epochs)
