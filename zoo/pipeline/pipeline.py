"""A recipe carried out in a folder, and what is known of it before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from converters.crops import chosen_classes
from converters.files.outputs import real_place
from converters.files.provenance import (
    PROVENANCE,
    atomic_write_text,
    read_provenance,
    write_provenance,
)
from converters.splits.split import GIVEN
from converters.types import LabelSpace
from zoo.config import load_config
from zoo.datasets.split import own_folds
from zoo.families import load_family
from zoo.phantom.config import LABELS as PHANTOM_LABELS
from zoo.pipeline.display import Lines, LiveTable, duration
from zoo.pipeline.execution import Outcome, Place, execute
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.record import Digests, History
from zoo.pipeline.steps import Builder, Step
from zoo.pipeline.survey.facts import DataFacts, look_at_test
from zoo.source import DataSource

RECIPE, KIND = "recipe.yaml", "pipeline"


@dataclass(frozen=True)
class Pipeline:
    """A recipe's steps, and the folder for all that they make.

    Attributes:
        recipe: what is done.
        out: the folder.
        steps: by name, each after those it waits for.
        history: what is done already.
    """

    recipe: Recipe
    out: Path
    steps: Mapping[str, Step]
    history: History

    @classmethod
    def open(cls, recipe: Recipe, out: Path, facts: DataFacts | None = None) -> Pipeline:
        """Lay out the steps; nothing is written.

        Args:
            recipe: what is to be done.
            out: the folder.
            facts: of the data set; it is looked at without.

        Raises:
            ValueError: a data set that cannot be read, a bad config, or another thing at `out`.
        """
        if out.is_symlink() and is_pipeline(out):
            out = Path(os.path.realpath(out))
        check_folder(out)
        devices = check_models(recipe)
        builder = Builder(recipe, out, facts or facts_of(recipe))
        steps = {
            name: replace(step, devices=devices[step.model])
            if step.words[:1] == ("train",)
            else step
            for name, step in builder.steps().items()
        }
        history = History(out, builder.data, Digests(out if out.is_dir() else None, out))
        return cls(recipe, out, steps, history)

    def state(self) -> dict[str, str]:
        """Return step -> `done`, `failed`, `begun`, `changed` or `new`, as far as can be told now.

        What waits for a step that is to be done is told by its record alone.
        """
        made: dict[str, str] = {}
        found = {}
        for name, step in self.steps.items():
            waits = [other for other in step.waits_for if other not in made]
            if not step.words:
                if not waits:
                    made[name] = self.history.key(step, made)
                continue
            record = self.history.read(name)
            if waits:
                found[name] = "new" if record is None else "waits"
                continue
            key = self.history.key(step, made)
            if done := self.history.is_done(step, key):
                made[name] = done.made
                found[name] = "done"
            elif record is None:
                found[name] = "new"
            else:
                is_same = record.key == key and record.state != "done"
                found[name] = record.state if is_same else "changed"
        return found

    def expected(self, step: Step) -> float | None:
        """Return how many seconds a step is expected to take; None where nothing is known."""
        known = self.history.seconds(step)
        if known is not None:
            return known
        model = self.recipe.all_models.get(step.model)
        if model is None or model.hours is None or step.words[:1] != ("train",):
            return None
        # Those of the first round, for which it was planned; each round trains as many.
        trainings = sum(
            one.model == step.model and one.name.startswith("train ") for one in self.steps.values()
        )
        return 3600 * model.hours / trainings

    def describe(self) -> list[str]:
        """Return the graph as lines: step, state, time and memory expected, what it waits for."""
        state = self.state()
        rows = []
        for name, step in self.steps.items():
            if not step.words:
                continue
            seconds = self.expected(step)
            model = self.recipe.all_models.get(step.model)
            memory = model.memory if model and step.words[0] == "train" else None
            rows.append(
                (
                    state[name],
                    name,
                    duration(seconds) if seconds is not None else "-",
                    f"{memory / 1e9:.1f} GB" if memory else "-",
                    ", ".join(step.waits_for) or "-",
                )
            )
        head = ("state", "step", "time", "GPU", "after")
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
        return [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]])
            for row in (head, *rows)
        ]

    def run(self, place: Place, command: list[str], say: Callable[[str], None]) -> Outcome:
        """Do what is not done.

        Args:
            place: where steps are started.
            command: what the user called, for the record.
            say: takes a line.
        """
        folder = real_place(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / PROVENANCE).is_file():
            write_provenance(folder, command, seed=self.recipe.seed, kind=KIND)
        atomic_write_text(folder / RECIPE, self.recipe.seen_from(folder).dumps())
        console = Console(stderr=True)
        if not console.is_terminal:
            return execute(self.steps, self.history, place, Lines(self.steps, say))
        with LiveTable(self.steps, console) as table:
            return execute(self.steps, self.history, place, table)


def check_folder(out: Path) -> None:
    """Make sure that a folder is free, or a pipeline's.

    Raises:
        ValueError: something else is there.
    """
    place = real_place(out)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not is_pipeline(place):
        raise ValueError(
            f"{out}: expected nothing there, or the folder of a pipeline to go on with; found "
            "other files: choose another --out"
        )


def is_pipeline(folder: Path) -> bool:
    """Tell whether a folder is one of `zoo run`."""
    return read_provenance(folder).get("kind") == KIND


def check_models(recipe: Recipe) -> dict[str, int]:
    """Make sure that every model's config is sound, and what is asked of its predictions.

    That is before the first one trains for hours.

    Returns:
        On how many devices each model trains.

    Raises:
        ValueError: what is wrong, with the model's name.
    """
    # Late: the families need torch, and who looks at a pipeline does not.
    from zoo.families.settings import plan_prediction
    from zoo.training.config import TrainerConfig

    problems, devices = [], {}
    for name, model in recipe.all_models.items():
        try:
            family = load_family(model.family)
            config = load_config(family.Config, model.family, model.config, model.words())
            devices[name] = config.workload.devices
            if isinstance(config, TrainerConfig):
                # Where it predicts does not matter here.
                options = model.predict.model_copy(update={"device": "cpu"})
                plan_prediction(config.model_copy(update={"device": "cpu"}), options)
        except ValueError as error:
            problems += [f"model '{name}': {line}" for line in str(error).splitlines()]
    if problems:
        raise ValueError("\n".join(problems))
    return devices


def facts_of(recipe: Recipe) -> DataFacts:
    """Return which images a recipe's data set has to be answered.

    Raises:
        ValueError: a data set that cannot be read, or a crop around classes that it has not.
    """
    if recipe.phantom:
        _check_crops(recipe, LabelSpace.load(PHANTOM_LABELS))
        return DataFacts(recipe.phantom.test_people > 0, recipe.phantom.test_people > 0)
    data = open_data(recipe)
    _check_crops(recipe, data.classes)
    facts = look_at_test(data, Path(recipe.test) if recipe.test else None)[0]
    if recipe.split.strategy == GIVEN and not recipe.split.file:
        facts = replace(facts, own_folds=max(1, len(own_folds(data.list_images()))))
    return facts


def _check_crops(recipe: Recipe, labels: LabelSpace) -> None:
    """Make sure that second stages crop around classes that there are, before a first one trains.

    Raises:
        ValueError: one does not, with its name.
    """
    for name, stage in recipe.second_stages.items():
        try:
            chosen_classes(stage.crop, labels)
        except ValueError as error:
            raise ValueError(f"second stage '{name}': {error}") from None


def open_data(recipe: Recipe) -> DataSource:
    """Open a recipe's data set, with the classes that it asks for."""
    edits = Path(recipe.edits) if recipe.edits else None
    source = DataSource.open(Path(recipe.data or ""), recipe.format, edits, recipe.broken)
    return source.choosing(recipe.labels)
