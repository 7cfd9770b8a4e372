"""A recipe for a data set and a machine: nothing has to be chosen, all of it can be changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from converters.splits.split import Split
from zoo.config import load_config
from zoo.families import load_family, usual_config
from zoo.families.encoders import build_encoder
from zoo.pipeline.recipe import ModelPlan, Recipe, SplitPlan, StagePlan
from zoo.pipeline.survey.closeup import Closeup
from zoo.pipeline.survey.facts import SPLIT
from zoo.pipeline.survey.profile import LEAST, DataProfile
from zoo.pipeline.survey.rates import PREDICTION, START, Cost, Machine, cost_of
from zoo.progress import note
from zoo.run_files.checkpoints import is_weight_file
from zoo.runs.memory import USABLE
from zoo.source import DataSource

# Hours where none are given and there is no GPU: a coffee.
HOURS = 0.5
# Part of the time that trainings are planned for: estimates are what they are.
_PLANNED = 0.75
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
# What sees some classes larger is worth so much of a network's time (docs/results.md); its crops'
# sides are multiples.
_OF_CLOSEUP, _OF_CROPS = 1.0, 32


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
    stages: dict[str, StagePlan] = {}
    if not machine.gpus:
        if "encoder_weights" in changes and (rest := _without_upernet(parts, models)):
            note("plan: images are many for the time: fpn has upernet's part of it, too")
            parts = rest
            models = _models(profile, machine, parts, folds, limit)
        learnt = _learnt(profile, folds)
        parts = [weigh(part, batch=_batch(models[part.name], learnt)) for part in parts]
        models = _models(profile, machine, parts, folds, limit)
        if profile.closeup is not None and _FIRST in models:
            closer = weigh(_closer(profile.closeup, changes))
            together = _models(profile, machine, [*parts, closer], folds, limit)
            closer = weigh(closer, batch=_batch(together[closer.name], learnt))
            together = _models(profile, machine, [*parts, closer], folds, limit)
            if _has_time(together, profile):
                models, stages = _stages(together, profile.closeup)
                note(f"plan: a second stage: {profile.closeup.describe()}")
    split = SplitPlan(file=str(own)) if fixed else SplitPlan(folds=folds, group_by=by)
    return Recipe(
        data=str(data.path),
        split=split,
        models=models,
        second_stages=stages,
        hours=limit,
        **given,
    )


def _closer(closeup: Closeup, encoder: Mapping[str, Any]) -> Part:
    """Return the network that sees some classes larger, on crops."""
    _, family, changes = _FPN
    config = usual_config(family, has_gpu=False)
    return Part(
        _CLOSEUP, family, config, {**changes, **encoder}, share=_OF_CLOSEUP, closeup=closeup
    )


def _has_time(models: Mapping[str, ModelPlan], profile: DataProfile) -> bool:
    """Tell whether all have the time to learn; the first says where the second is to look."""
    are_enough = all(_epochs(model) >= _FEWEST_EPOCHS for model in models.values())
    shown = [models[name] for name in (_FIRST, "yolo") if name in models]
    return are_enough and all(_steps(model, profile) >= _YOLO_STEPS for model in shown)


def _stages(
    models: Mapping[str, ModelPlan], closeup: Closeup
) -> tuple[dict[str, ModelPlan], dict[str, StagePlan]]:
    """Take the second stage out of all models."""
    first = {name: model for name, model in models.items() if name != _CLOSEUP}
    stage = StagePlan(
        **models[_CLOSEUP].model_dump(),
        of=_FIRST,
        crop=closeup.classes,
        margin=closeup.margin,
    )
    return first, {_CLOSEUP: stage}


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
# Where the second stage looks is what this one says.
_FIRST, _CLOSEUP = _FPN[0], "closeup"
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
        closeup: what it sees instead of whole images: a second stage.
    """

    name: str
    family: str
    config: str
    changes: dict[str, Any]
    cost: Cost = _UNKNOWN
    share: float = 1.0
    closeup: Closeup | None = None


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
    size = profile.side_seen(bool(machine.gpus))
    while True:
        placed: dict[str, Any] = {"size": [size, size]}
        if part.closeup is not None:
            placed = {"size": part.closeup.size_hw(size, _OF_CROPS)}
        elif part.family == "yolo":
            placed = {"imgsz": size}
        changes = {**part.changes, **placed}
        if not machine.gpus:
            # Few images make few steps: small batches make more of them.
            changes["batch"] = batch or max(2, min(_LARGEST_BATCH, profile.images // 8))
        words = ModelPlan(family=part.family, config=part.config, changes=changes).words()
        cost = cost_of(part.family, part.config, words, data, machine)
        if not cost.memory or cost.memory <= USABLE * machine.memory or size <= LEAST:
            return replace(part, changes=changes, cost=cost)
        size = max(LEAST, size // 2)


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
