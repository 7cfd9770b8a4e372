"""What `zoo run` does: find or plan a recipe, show it or carry it out, and say how it ended."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import configs
from converters.files.outputs import only_writer
from converters.files.provenance import read_provenance
from converters.splits.grouping import group_by
from converters.splits.split import Split
from converters.tables.sample_tables import tables_beside
from zoo.datasets.split import how_to_group
from zoo.machine.facts import count_cores, list_gpus
from zoo.pipeline.display import describe_end, duration
from zoo.pipeline.execution import Capacity, Outcome, Place, ThisMachine, read_end
from zoo.pipeline.pipeline import KIND as PIPELINE
from zoo.pipeline.pipeline import RECIPE, Pipeline, check_folder, is_pipeline, open_data
from zoo.pipeline.recipe import KIND, Recipe
from zoo.pipeline.record import ASIDE, LOGS, Digests, History
from zoo.pipeline.storage.holdings import (
    Held,
    clear_pipelines,
    clear_unheld,
    describe_place,
)
from zoo.pipeline.storage.transfer import Place as CommonPlace
from zoo.pipeline.survey.facts import SPLIT
from zoo.pipeline.transfers import clear_places
from zoo.source import DataSource
from zoo.tracking.alerts import gpus_of

if TYPE_CHECKING:
    from zoo.pipeline.survey.profile import DataProfile

# Step -> those of its lines that are told at the end; the others are in its log.
_TELLING = {
    "fit": re.compile(r"held-out mean Dice"),
    "check": re.compile(r".*: valid"),
    "evaluate": re.compile(r"\d+ images|mIoU|\s+Dice|all |shared pixels\s+[\d.]"),
}
_SUFFIXES = {".yaml", ".yml"}
_DAY = 86400.0
_SHOWN = 3


@dataclass(frozen=True)
class PlanOptions:
    """What a user asks of a plan; the options of `zoo run`."""

    data: Path | None = None
    hours: float | None = None
    group_by: str = ""
    test: Path | None = None
    encoder: str = ""
    encoder_weights: str = ""
    machine: str = ""
    images: int = 0
    seed: int = 0
    format: str | None = None
    edits: Path | None = None
    broken: str = "refuse"
    labels: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> PlanOptions:
        """Return what a recipe was planned for."""
        encoder = _encoder_of(recipe)
        return cls(
            hours=recipe.hours,
            group_by=recipe.split.group_by,
            test=_path(recipe.test),
            encoder=encoder.get("encoder", ""),
            encoder_weights=encoder.get("encoder_weights", ""),
            seed=recipe.seed,
            format=recipe.format,
            edits=_path(recipe.edits),
            broken=recipe.broken,
            labels=recipe.labels,
        )

    def filled(self, planned: PlanOptions) -> PlanOptions:
        """Return the same, with what was planned before where nothing is asked now."""
        before = {
            key: value
            for key, value in vars(planned).items()
            if getattr(self, key) == getattr(PlanOptions, key)
            or _is_same(getattr(self, key), value)
        }
        return replace(self, **before)

    def changed(self, planned: PlanOptions) -> list[str]:
        """Return the options that ask for something else than was planned."""
        keys = [key for key in vars(self) if key not in _NOT_PLANNED]
        return [_option(key) for key in keys if getattr(self, key) != getattr(planned, key)]

    def refuse(self, name: str) -> None:
        """Make sure that nothing is asked of a plan where there is none.

        Raises:
            ValueError: something is.
        """
        for key, value in vars(self).items():
            if key not in _NOT_PLANNED and value != getattr(PlanOptions, key):
                raise ValueError(
                    f"{_option(key)}: expected with a data set to plan for, found it with the "
                    f"recipe {name}: write it into the recipe"
                )


# They say where data are, and are for the paper alone.
_NOT_PLANNED = ("data", "machine", "images")


def _option(key: str) -> str:
    return "--from" if key == "format" else f"--{key.replace('_', '-')}"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _is_same(one: object, two: object) -> bool:
    """Tell whether two options are the same, or name the same file, also before `:COLUMN`."""
    if one == two:
        return True
    (file, _, column), (other, _, column_of_other) = (str(own).partition(":") for own in (one, two))
    if column != column_of_other:
        return False
    try:
        return os.path.samefile(file, other)
    except (OSError, ValueError):
        return False


def run_command(
    what: str,
    out: Path | None,
    given: PlanOptions,
    *,
    dry_run: bool,
    on: str,
    through: str = "",
    keep: bool = False,
    command: list[str],
    say: Callable[[str], None],
) -> None:
    """Find or plan a recipe; show its steps, or do them.

    Args:
        what: a recipe's file or shipped name, a pipeline's folder, or a data set.
        out: the folder for all results.
        given: what is asked of a plan.
        dry_run: only show.
        on: where steps run: "" is here.
        through: URL of a place that all machines reach, where they share no disk.
        keep: leave what was put there, also when all has ended well.
        command: what the user called, for the record.
        say: takes a line.

    Raises:
        ValueError: a bad recipe or data set, or a step failed.
    """
    if given.machine and not dry_run:
        raise ValueError("--machine: expected with --dry-run: the plan is for another machine")
    if given.images and not (dry_run and given.machine):
        raise ValueError("--images: expected with --dry-run --machine: it is planned on paper")
    if through and not on:
        raise ValueError("--through: expected with --on, which names the machines")
    if urlsplit(through).password:
        # The command is kept beside the results.
        raise ValueError("--through: expected no password in it: put the URL into env:NAME")
    recipe, place, profile = _find(what, out, given, say)
    pipeline = Pipeline.open(recipe, place, profile.facts if profile else None)
    if dry_run:
        is_planned = bool(given.machine or through)
        lines = [] if given.machine else [*pipeline.describe(), *_totals(pipeline)]
        for line in [*lines, *(_forecast(pipeline, given, profile) if is_planned else ())]:
            say(line)
        if not (place / RECIPE).is_file():
            say(f"\n# the recipe\n{recipe.dumps()}".rstrip())
        return
    carry_out(pipeline, command, say, on, through, keep)


def carry_out(
    pipeline: Pipeline,
    command: list[str],
    say: Callable[[str], None],
    on: str = "",
    through: str = "",
    keep: bool = False,
) -> None:
    """Do the steps that are not done, and say what came of it.

    Args:
        pipeline: whose steps.
        command: what the user called, for the record.
        say: takes a line.
        on: where they run: "" is here.
        through: URL of a place that all machines reach, where they share no disk.
        keep: leave what was put there, also when all has ended well.

    Raises:
        ValueError: a step failed.
    """
    with only_writer(pipeline.out):
        if changes := pipeline.history.digests.changes(pipeline.history.data):
            listed = ", ".join(changes[:_SHOWN]) + (", ..." if changes[_SHOWN:] else "")
            say(
                f"note: {pipeline.history.data}: {len(changes)} files are new, other or gone since "
                f"the last start ({listed}): what was made of them is made anew"
            )
        outcome = pipeline.run(_place(on, through, pipeline), command, say)
        problems = describe_end(outcome, pipeline.steps)
        cleared = clear_places(pipeline.out) if not (problems or keep) else []
    for line in (*_answer(pipeline, outcome), *_kept_aside(pipeline), *cleared):
        say(line)
    if problems:
        logs = f"what the steps said is in {pipeline.out / LOGS}; the same command goes on"
        raise ValueError("\n".join([*problems, logs]))


def _place(on: str, through: str, pipeline: Pipeline) -> Place:
    if through:
        from zoo.pipeline.head import ApartCluster

        return ApartCluster(on, through, pipeline.steps, pipeline.history)
    if on:
        from zoo.pipeline.cluster import RayCluster

        reads = {path for step in pipeline.steps.values() for path in step.reads}
        return RayCluster(on, sorted(path.absolute() for path in reads))
    gpus = gpus_of("auto", len(list_gpus()), os.environ.get("CUDA_VISIBLE_DEVICES"))
    # CUDA's word for none.
    return ThisMachine(Capacity(count_cores(), tuple(gpu for gpu in gpus if gpu != "-1")))


def _find(
    what: str, out: Path | None, given: PlanOptions, say: Callable[[str], None]
) -> tuple[Recipe, Path, DataProfile | None]:
    """Return the recipe that is meant, the folder for its results, and what was seen of data."""
    path = Path(what)
    is_shipped = what in set(configs.names(KIND))
    if is_shipped or path.suffix in _SUFFIXES:
        given.refuse(what)
        is_inside = path.name == RECIPE and is_pipeline(path.parent)
        found = _with_data(Recipe.load(what), given.data, what)
        return found, out or (path.parent if is_inside else Path(f"{path.stem}-run")), None
    if is_pipeline(path):
        given.refuse(str(path / RECIPE))
        return _with_data(Recipe.load(str(path / RECIPE)), None, what), out or path, None
    if given.data is not None:
        raise ValueError(f"--data: expected with a recipe, found it with the data set {what}")
    data = _data(what, given)
    given = _of_split(data, given)
    place = out or Path(f"{data.path.resolve().name or 'data'}-run")
    kept = place / RECIPE
    if kept.is_file() and is_pipeline(place):
        found = Recipe.load(str(kept))
        if Path(found.data or "").resolve() == data.path.resolve():
            planned = PlanOptions.of(found)
            if given.machine:
                # Another machine has another time.
                planned = replace(planned, hours=None)
            given = given.filled(planned)
            changed = given.changed(planned)
            if not changed and not given.machine:
                say(f"taken: recipe {kept}, planned before")
                return found, place, None
            if changed:
                say(f"planned anew, for {', '.join(changed)} differs from {kept}")
            data = _data(what, given)
    check_folder(place)
    recipe, profile = _plan(data, given, say)
    return recipe, place, profile


def _with_data(recipe: Recipe, data: Path | None, name: str) -> Recipe:
    """Return a recipe with the data set that it leaves open.

    Raises:
        ValueError: it names one, and another one is given, or none is found.
    """
    if recipe.data is not None or recipe.phantom is not None:
        if data is not None:
            raise ValueError(f"--data: expected none, for the recipe {name} names its data")
        return recipe
    if data is None:
        raise ValueError(
            f"{name}: expected a data set, found none in the recipe and none here: give --data "
            "FOLDER"
        )
    return recipe.model_copy(update={"data": str(data)})


def _data(what: str, given: PlanOptions) -> DataSource:
    path = Path(what)
    if not path.is_dir():
        shipped = ", ".join(configs.names(KIND))
        raise ValueError(
            f"{what}: expected a recipe (YAML), the folder of a data set, or a shipped recipe "
            f"({shipped}), found none"
        )
    return DataSource.open(path, given.format, given.edits, given.broken).choosing(given.labels)


def _of_split(data: DataSource, given: PlanOptions) -> PlanOptions:
    """Return the same without groups, where a split beside the data has them already.

    Raises:
        ValueError: it has other groups than those that are asked for.
    """
    own = data.path / SPLIT
    if not given.group_by or not own.is_file():
        return given
    groups = Split.load(own).groups
    samples = data.list_images()
    for sample in group_by(samples, given.group_by, tables_beside(data.path)):
        if (known := groups.get(sample.key, sample.group)) != sample.group:
            raise ValueError(
                f"--group-by {given.group_by}: expected the groups of {own}, which is taken, found "
                f"'{sample.group:.60}' for '{sample.key:.60}' instead of '{known:.60}': remove "
                "that file, or make it anew by zoo split --replace"
            )
    return replace(given, group_by="")


def _encoder(given: PlanOptions) -> dict[str, Any]:
    """What the options say of the encoder, as keys of a config."""
    found = {"encoder": given.encoder, "encoder_weights": given.encoder_weights}
    if (file := Path(given.encoder_weights)).is_file():
        found["encoder_weights"] = str(file.absolute())
    return {key: value for key, value in found.items() if value}


def _encoder_of(recipe: Recipe) -> dict[str, Any]:
    models = [model.changes for model in recipe.models.values() if model.family == "smp"]
    return models[0] if models else {}


def _plan(
    data: DataSource, given: PlanOptions, say: Callable[[str], None]
) -> tuple[Recipe, DataProfile]:
    # Late: PyTorch takes its time, and a recipe that is there needs none.
    from zoo.pipeline.plan import plan
    from zoo.pipeline.survey.profile import look
    from zoo.pipeline.survey.rates import Machine

    machine = Machine.parse(given.machine) if given.machine else Machine.here()
    profile = look(data, given.test, given.group_by).scaled(given.images)
    say(f"{data.path}: {profile.describe()}")
    if profile.unknown and not (data.path / SPLIT).is_file():
        whose = f"no patient is known of {profile.unknown} images: each counts as its own"
        say(f"note: {whose}; {how_to_group(tables_beside(data.path))}")
    keys = {
        "format": given.format,
        "edits": given.edits and str(given.edits),
        "broken": given.broken,
        "labels": given.labels,
        "test": given.test and str(given.test),
        "seed": given.seed,
    }
    by, encoder = given.group_by, _encoder(given)
    recipe = plan(data, profile, machine, given.hours, by, encoder, **keys)
    for name, model in recipe.all_models.items():
        told = f", {duration(3600 * model.hours)} in all" if model.hours is not None else ""
        say(f"planned: {name} {model.config} {' '.join(model.words())}{told}")
    return recipe, profile


def _forecast(pipeline: Pipeline, given: PlanOptions, profile: DataProfile | None) -> list[str]:
    """Return what a recipe takes on a machine, and what moves for it where no disk is shared."""
    from zoo.pipeline.forecast import forecast
    from zoo.pipeline.survey.profile import look
    from zoo.pipeline.survey.rates import Machine

    recipe = pipeline.recipe
    if recipe.data is None:
        if given.machine:
            raise ValueError("--machine: expected a recipe with a data set, found a phantom")
        return ["what moves for a phantom is not known before it is made"]
    machine = Machine.parse(given.machine) if given.machine else Machine.here()
    data = open_data(recipe)
    test = Path(recipe.test) if recipe.test else None
    if profile is None:
        profile = look(data, test, recipe.split.group_by).scaled(given.images)
    return forecast(pipeline, profile, data, machine).describe()


def _totals(pipeline: Pipeline) -> list[str]:
    """Return what all steps take together, as far as it is known."""
    known = [
        seconds
        for step in pipeline.steps.values()
        if step.words and (seconds := pipeline.expected(step)) is not None
    ]
    count = sum(bool(step.words) for step in pipeline.steps.values())
    if not known:
        return [f"{count} steps"]
    total = duration(sum(known))
    return [f"{count} steps; about {total} one after the other for {len(known)} of them"]


def _kept_aside(pipeline: Pipeline) -> list[str]:
    """Return what earlier recipes have left, and how it is removed: it may have taken hours."""
    count, size = pipeline.history.earlier()
    if not count:
        return []
    place = pipeline.out / ASIDE
    return [
        f"{place}: {count} results of recipes before, {size / 1e9:.2f} GB, are taken back when "
        f"those come again; zoo run {pipeline.out} --forget removes them"
    ]


def forget(what: Path, out: Path | None, say: Callable[[str], None]) -> None:
    """Remove what a pipeline keeps of recipes as they were before.

    Args:
        what: the pipeline's folder.
        out: the same, where it is given apart.
        say: takes a line.

    Raises:
        ValueError: not the folder of a pipeline, or one that is at work.
    """
    folder = out or what
    if read_provenance(folder).get("kind") != PIPELINE:
        raise ValueError(f"{folder}: expected the folder of `zoo run`, found another or none")
    history = History(folder, folder, Digests(None))
    with only_writer(folder):
        count, size = history.earlier()
        history.forget()
    say(f"{folder / ASIDE}: {count} results removed, {size / 1e9:.2f} GB")


def clear_place(
    url: str, names: Sequence[str], days: float | None, say: Callable[[str], None]
) -> None:
    """Show what pipelines have at a common place, or remove what some of them have.

    Args:
        url: of the place.
        names: of pipelines there.
        days: removes also what those have that gave no sign of life for so long.
        say: takes a line.

    Raises:
        ValueError: no such place or pipeline, or one that is at work.
        OSError: the place does not answer.
    """
    place = CommonPlace(url)
    found = describe_place(place)
    if not names and days is None:
        for held in found:
            say(f"{held.name}: {_sign_of(held)}; its steps were brought {held.size / 1e9:.2f} GB")
        say(f"{len(found)} pipelines; --pipeline NAME or --days N removes what they have here")
        return
    old = [] if days is None else [held.name for held in found if held.seconds > days * _DAY]
    for name, (count, size) in clear_pipelines(place, [*dict.fromkeys((*names, *old))]).items():
        say(f"{name}: {count} files removed, {size / 1e9:.2f} GB")
    say(f"{clear_unheld(place)} files of no pipeline removed")


def _sign_of(held: Held) -> str:
    if held.seconds == float("inf"):
        return "no sign of life"
    return f"last sign of life {duration(held.seconds)} ago, of {held.where}"


def _answer(pipeline: Pipeline, outcome: Outcome) -> list[str]:
    """Return what the steps that judge the answer said, in short, and where the results are."""
    lines = []
    for name, telling in _TELLING.items():
        if name in outcome.done:
            said = read_end(pipeline.history.log(name)).rpartition("\n$ zoo ")[2].splitlines()[1:]
            lines += [f"{name}: {line}" for line in said if telling.match(line)]
    for name in ("fuse", "report"):
        if name in outcome.done:
            lines += [f"{name}: {path}" for path in pipeline.steps[name].makes]
    return lines
