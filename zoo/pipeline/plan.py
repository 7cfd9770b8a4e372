"""A recipe for a data set and a machine: nothing has to be chosen, all of it can be changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from converters.splits.grouping import group_by
from converters.splits.split import Split
from converters.tables.sample_tables import tables_beside
from zoo.config import load_config
from zoo.families import load_family, usual_config
from zoo.families.encoders import build_encoder
from zoo.pipeline.pipeline import look_at_test
from zoo.pipeline.rates import PREDICTION, START, Cost, Machine, cost_of
from zoo.pipeline.recipe import ModelPlan, Recipe, SplitPlan
from zoo.pipeline.steps import SPLIT, DataFacts
from zoo.progress import note
from zoo.run_files.checkpoints import is_weight_file
from zoo.runs.memory import USABLE
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
ANSWERING = 1.2
# Without a GPU there is time for few images in all: smaller batches make so many steps of them,
# which is worth more than the time that they cost (docs/results.md).
_FEW_STEPS = 400
_SMALLEST_BATCH, _LARGEST_BATCH = 3, 8
# YOLO finds next to nothing before so many steps from random weights (docs/results.md).
_YOLO_STEPS = 240
# Of images that are many an FPN whose encoder has learned already is seen so seldom that what it
# still learns is worth more than a second network of pixels (docs/results.md).
_FEW_EPOCHS, _TWICE = 20, 2.0
# Samples whose objects are measured.
_LOOKED_AT = 200


@dataclass(frozen=True)
class DataProfile:
    """What of a data set decides a plan.

    Attributes:
        images: to learn from.
        patients: they are of; an image of nobody known counts as its own.
        test_images: to be answered.
        side: longer side of an image in pixels, half of them are larger.
        least: side of objects, to the image's longer side, that nine of ten objects exceed.
        repeated: objects beyond the first of their class in an image, to all objects.
        objects: that can be learned from.
        classes: their number.
        exclusive: whether a pixel has one label.
        facts: which steps there are.
        unknown: images of nobody known.
        scale: how many times as many images are meant as there are.
    """

    images: int
    patients: int
    test_images: int
    side: int
    least: float
    repeated: float
    objects: int
    classes: int
    exclusive: bool
    facts: DataFacts
    unknown: int = 0
    scale: float = 1.0

    def scaled(self, images: int) -> DataProfile:
        """Return the same of a larger data set, for a plan on paper.

        Args:
            images: to learn from; 0 for those that there are.
        """
        if not images:
            return self
        scale = images / self.images
        counts = (round(scale * n) for n in (self.patients, self.test_images, self.objects))
        patients, tested, objects = counts
        return replace(
            self,
            images=images,
            patients=max(2, patients),
            test_images=tested,
            objects=objects,
            scale=scale,
        )

    def describe(self) -> str:
        """Return it as a line."""
        repeated = f", {self.repeated:.0%} further objects of a class" if self.repeated else ""
        return (
            f"{self.images} images of {self.patients} patients, {self.test_images} to answer, "
            f"{self.side} pixels, {self.objects} objects of {self.classes} classes, small objects "
            f"{self.least:.1%} of the image's side{repeated}"
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
    own = data.path / SPLIT
    # What the folds that it brings know of patients counts.
    known = data.of_split(own) if own.is_file() else data
    samples = [sample for sample in known.read(labels) if sample.instances]
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
        objects += len(sample.labels)
        further += len(sample.labels) - len(set(sample.labels))
    ordered = sorted(sides)
    return DataProfile(
        len(samples),
        len({sample.patient for sample in samples}),
        tested,
        int(median(max(sample.size_hw) for sample in samples)),
        ordered[int(_SMALLEST * len(ordered))],
        further / objects,
        round(objects * len(samples) / len(samples[::step])),
        len(labels),
        labels.exclusive is not None,
        facts,
        sum(not sample.group for sample in samples),
    )


def plan(
    data: DataSource,
    profile: DataProfile,
    machine: Machine,
    hours: float | None,
    by: str = "",
    encoder: Mapping[str, Any] | None = None,
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
        encoder: changes of the configs of smp networks: `encoder`, `encoder_weights`.
        given: further keys of the recipe, such as `labels`.

    Raises:
        ValueError: too few patients to hold some out.
    """
    if profile.patients < 2:
        raise ValueError(
            f"{data.path}: expected images of two patients at least, found {profile.patients}: "
            "some have to be held out"
        )
    if hours is not None and not math.isfinite(hours):
        raise ValueError(f"--hours: expected a number of hours, found {hours}")
    limit = hours if hours is not None or machine.gpus else HOURS
    own = data.path / SPLIT
    # The folds that a data set brings stay as many as they are.
    fixed = len(Split.load(own).folds) if own.is_file() else 0
    folds = fixed or min(5 if machine.gpus else 3, profile.patients)
    changes = dict(encoder or {})
    _check_weights(changes, machine)
    weigh = partial(_weigh, data=data, profile=profile, machine=machine)
    parts = [weigh(part) for part in _parts(profile, machine, changes)]
    while True:
        models = _models(profile, machine, parts, folds, limit)
        if not machine.gpus and "yolo" in models and _steps(models["yolo"], profile) < _YOLO_STEPS:
            note("plan: no time for yolo to learn: give more --hours")
            parts = [part for part in parts if part.name != "yolo"]
            continue
        slow = [model for model in models.values() if _epochs(model) < _FEWEST_EPOCHS]
        if not slow or ((fixed or folds == 2) and len(parts) == 1):
            break
        if folds > 2 and not fixed:
            folds -= 1
        else:
            dearest = max(parts, key=lambda part: part.cost.seconds)
            note(f"plan: no time for {dearest.name}: give more --hours")
            parts.remove(dearest)
    if not machine.gpus:
        if "encoder_weights" in changes and (rest := _without_upernet(parts, models)):
            note("plan: images are many for the time: fpn has upernet's part of it, too")
            parts = rest
            models = _models(profile, machine, parts, folds, limit)
        learnt = _learnt(profile, folds)
        parts = [weigh(part, batch=_batch(models[part.name], learnt)) for part in parts]
        models = _models(profile, machine, parts, folds, limit)
    split = SplitPlan(file=str(own)) if fixed else SplitPlan(folds=folds, group_by=by)
    return Recipe(data=str(data.path), split=split, models=models, hours=limit, **given)


def _without_upernet(parts: Sequence[Part], models: Mapping[str, ModelPlan]) -> list[Part]:
    """Return an FPN that has the UPerNet's time, too, beside what finds objects; or nothing.

    It is for an FPN that sees the images seldom.
    """
    if not {"upernet", "fpn", "yolo"} <= models.keys() or _epochs(models["fpn"]) >= _FEW_EPOCHS:
        return []
    rest = [part for part in parts if part.name != "upernet"]
    return [replace(part, share=_TWICE) if part.name == "fpn" else part for part in rest]


def _check_weights(changes: Mapping[str, Any], machine: Machine) -> None:
    """Make sure that an encoder takes the weights of a file before hours are planned with it.

    Raises:
        ValueError: it does not, or there is no such file.
    """
    # Weights that are named are not fetched for a plan; on paper the file may be elsewhere.
    weights = str(changes.get("encoder_weights", ""))
    if machine.model or not (is_weight_file(weights) or (weights and Path(weights).exists())):
        return
    if Path(weights).is_dir():
        raise ValueError(f"encoder_weights '{weights}': expected a file, found a folder")
    config = usual_config("smp", bool(machine.gpus))
    words = [f"{key}={value}" for key, value in changes.items()]
    smp: Any = load_config(load_family("smp").Config, "smp", config, words, None)
    build_encoder(smp.encoder, smp.encoder_weights, 1, smp.encoder_options)


def _steps(model: ModelPlan, profile: DataProfile) -> float:
    return _epochs(model) * profile.images / int(model.changes.get("batch", 8))


def _learnt(profile: DataProfile, folds: int) -> float:
    """Return the images that a fold's network learns from."""
    return profile.images * (folds - 1) / folds


def _batch(model: ModelPlan, learnt: float) -> int:
    """Return a batch that makes steps enough of the images that are seen in all."""
    own = int(model.changes["batch"])
    return min(own, max(_SMALLEST_BATCH, int(_epochs(model) * learnt / _FEW_STEPS)))


def _epochs(model: ModelPlan) -> int:
    return int(model.changes.get("epochs", _FEWEST_EPOCHS))


_UNKNOWN = Cost(0.0)
# Name in the recipe, family, and what of its config is changed.
_Kind = tuple[str, str, dict[str, Any]]
_UNET: _Kind = ("unet", "smp", {})
_SEGFORMER: _Kind = ("segformer", "segformer", {})
_YOLO: _Kind = ("yolo", "yolo", {})
# A decoder of another kind. From random weights SegFormer learns far slower (docs/results.md).
# In few steps it learns more at twice the config's rate, thin structures above all.
_FPN: _Kind = (
    "fpn",
    "smp",
    {"architecture": "fpn", "options": None, "optim": {"lr": 4e-3}},
)
# Small and from random weights it learns most in a few minutes, and beside an FPN whose encoder has
# learned already it is worth more than another decoder on that (docs/results.md).
_UPERNET: _Kind = ("upernet", "huggingface", {})


@dataclass(frozen=True)
class Part:
    """A model that may be planned.

    Attributes:
        name: in the recipe.
        family: of networks.
        config: of the family.
        changes: of the config.
        cost: of training it.
        share: of the time, beside the other models' shares.
    """

    name: str
    family: str
    config: str
    changes: dict[str, Any]
    cost: Cost = _UNKNOWN
    share: float = 1.0


def _parts(profile: DataProfile, machine: Machine, encoder: Mapping[str, Any]) -> list[Part]:
    """Return models that fail differently: two of pixels, one of objects where it can be had."""
    has_gpu = bool(machine.gpus)
    has_yolo = find_spec("ultralytics") is not None and not profile.exclusive
    kinds = [_UNET, _SEGFORMER] if has_gpu else [_UPERNET, _FPN]
    kinds += [_YOLO] if has_yolo else []
    return [_part(kind, has_gpu, encoder) for kind in kinds]


def _part(kind: _Kind, has_gpu: bool, encoder: Mapping[str, Any]) -> Part:
    name, family, changes = kind
    given = encoder if family == "smp" else {}
    return Part(name, family, usual_config(family, has_gpu), {**changes, **given})


def _weigh(
    part: Part, data: DataSource, profile: DataProfile, machine: Machine, batch: int = 0
) -> Part:
    """Return a model at the size that small objects ask for, with what its training costs.

    Args:
        part: the model.
        data: the data set.
        profile: what was seen of it.
        machine: what trains.
        batch: images of a step without a GPU; 0 chooses by how many there are. As it was weighed
            with already it is not weighed again.
    """
    if batch and batch == part.changes.get("batch"):
        return part
    largest = _LARGEST_GPU if machine.gpus else _LARGEST_CPU
    # A GPU has the time for all that the images hold.
    needed = profile.side if machine.gpus else _LEAST_SIDE / profile.least
    wanted = max(_LEAST, min(needed, profile.side, largest))
    size = min(largest, _MULTIPLE * math.ceil(wanted / _MULTIPLE))
    while True:
        placed = {"imgsz": size} if part.family == "yolo" else {"size": [size, size]}
        changes = {**part.changes, **placed}
        if not machine.gpus:
            # Few images make few steps: small batches make more of them.
            changes["batch"] = batch or max(2, min(_LARGEST_BATCH, profile.images // 8))
        words = ModelPlan(family=part.family, config=part.config, changes=changes).words()
        cost = cost_of(part.family, part.config, words, data, machine)
        if not cost.memory or cost.memory <= USABLE * machine.memory or size <= _LEAST:
            return replace(part, changes=changes, cost=cost)
        size = max(_LEAST, size // 2)


def _models(
    profile: DataProfile,
    machine: Machine,
    parts: Sequence[Part],
    folds: int,
    hours: float | None,
) -> dict[str, ModelPlan]:
    learnt = _learnt(profile, folds)
    turns = math.ceil(folds * len(parts) / machine.trainings)
    predicted = profile.images + folds * profile.test_images
    shares = sum(part.share for part in parts) / len(parts)
    found = {}
    for part in parts:
        fixed = START + PREDICTION * part.cost.seconds * predicted / folds
        if hours is None:
            epochs = _usual_epochs(part.family, part.config)
        else:
            answering = ANSWERING * (profile.images + profile.test_images) / machine.cores * 2
            left = _PLANNED * 3600 * hours - answering - START * len(parts) * 3
            each = left / turns * part.share / shares - fixed
            epochs = int(max(1.0, min(_MOST_EPOCHS, each / (part.cost.seconds * learnt))))
        spent = folds * (fixed + epochs * part.cost.seconds * learnt) / machine.trainings
        found[part.name] = ModelPlan(
            family=part.family,
            config=part.config,
            changes={**part.changes, "epochs": epochs},
            hours=round(spent / 3600, 4),
            memory=part.cost.memory and round(part.cost.memory),
        )
    return found


def _usual_epochs(family: str, config: str) -> int:
    chosen = load_config(load_family(family).Config, family, config, [], None)
    return max(1, chosen.workload.epochs)
