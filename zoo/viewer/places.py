"""What the paths that a viewer is given are: a data set, sources, runs, audits, pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import converters
from converters.errors import Problem
from converters.types import LabelSpace, Sample
from fusion.sources.store import PredictionStore
from zoo.pipeline.pipeline import is_pipeline
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.status import data_of, recipe_of, rule_of
from zoo.report.audit.command import FINDINGS
from zoo.runs.table import find_runs
from zoo.source import DataSource
from zoo.viewer.sources import PARTS, is_store

_KINDS = ("data", "source", "run", "audit", "pipeline", "stores")


@dataclass(frozen=True)
class Places:
    """What is to be shown, sorted by what it is.

    Attributes:
        data: the data set's folder, or its annotation file, if there is one.
        sources: prediction stores and submissions; a run's own stores are among them.
        runs: folders with runs, pipelines among them.
        pipelines: folders of `zoo run`.
        audits: folders that `zoo audit` has written.
        recipe: of the pipeline whose data set is shown; None where the data set was given.
        rule: the fusion config of the first pipeline that has one.
    """

    data: Path | None = None
    sources: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()
    audits: tuple[Path, ...] = ()
    pipelines: tuple[Path, ...] = ()
    recipe: Recipe | None = None
    rule: Path | None = None

    @classmethod
    def sort(cls, paths: Sequence[Path], data_format: str | None = None) -> Places:
        """Find out what each path is.

        Args:
            paths: in any order.
            data_format: the data set's, where it is not recognised.

        Raises:
            ValueError: nothing is there, it is none of these, or there are two data sets.
        """
        kinds: dict[str, list[Path]] = {name: [] for name in _KINDS}
        for path in paths:
            kinds[_kind_of(path, data_format)].append(path)
        pipelines = kinds["pipeline"]
        kinds["run"] += [path for path in pipelines if holds_runs(path)]
        recipe = None
        if not kinds["data"]:
            # What it is about, where no other data set is given.
            kinds["data"] += [data for path in pipelines[:1] if (data := data_of(path))]
            recipe = recipe_of(pipelines[0]) if kinds["data"] else None
        if len(kinds["data"]) > 1:
            listed = ", ".join(map(str, kinds["data"]))
            raise ValueError(f"expected one data set, found {len(kinds['data'])}: {listed}")
        stores = [
            store
            for folder in kinds["run"]
            for home in (folder, *(run.path for run in find_runs([folder])))
            for store in (home / name for name in PARTS)
            if is_store(store)
        ]
        stores += [store for path in pipelines for store in _pipeline_stores(path)]
        stores += [
            own for path in kinds["stores"] for own in sorted(path.iterdir()) if is_store(own)
        ]
        sources = list(dict.fromkeys([*kinds["source"], *stores]))
        data = next(iter(kinds["data"]), None)
        runs, audits = tuple(kinds["run"]), tuple(kinds["audit"])
        rule = next((rule for path in pipelines if (rule := rule_of(path))), None)
        return cls(data, tuple(sources), runs, audits, tuple(pipelines), recipe, rule)

    def source(self, data_format: str | None) -> DataSource | None:
        """Open the data set; None without one.

        Args:
            data_format: the one that was asked for; that of the recipe without.

        Raises:
            ValueError: it cannot be recognised.
        """
        named = data_format or (self.recipe.format if self.recipe else None)
        return DataSource.open(self.data, named) if self.data else None

    def usual_labels(self, source: DataSource | None, name: str | None) -> LabelSpace | None:
        """Return the classes that were asked for, those of the recipe, or the data set's own.

        Raises:
            ValueError: no such classes.
        """
        if source is None:
            return LabelSpace.load(name) if name else None
        return source.labels(name or (self.recipe.labels if self.recipe else None))

    def scan(
        self, source: DataSource, labels: LabelSpace
    ) -> tuple[dict[str, Sample], list[Problem]]:
        """Read what is annotated, and a recipe's further images that are to be answered.

        Returns:
            Key -> sample, and what cannot be read.
        """
        read, problems = source.scan(labels, "all")
        samples = {sample.key: sample for sample in read}
        test = Path(self.recipe.test) if self.recipe and self.recipe.test else None
        if test is not None and test.is_dir():
            further = DataSource.open(test)
            part = "test" if further.format == "images" else "all"
            found, more = further.scan(labels, part)
            samples = {sample.key: sample for sample in found} | samples
            problems = [*problems, *more]
        return samples, problems


def _annotates(file: Path) -> bool:
    # A table is a submission here.
    try:
        return file.suffix.lower() != ".csv" and bool(converters.locate(file))
    except ValueError:
        return False


def _kind_of(path: Path, data_format: str | None) -> str:
    if path.is_file():
        return "source" if not _annotates(path) else "data"
    if not path.is_dir():
        raise ValueError(
            f"{path}: expected a data set, store, submission, run or pipeline, found nothing"
        )
    if is_store(path):
        return "source"
    if (path / FINDINGS).is_file():
        return "audit"
    if is_pipeline(path):
        return "pipeline"
    if (path / "config.yaml").is_file():
        return "run"
    if data_format:
        return "data"
    try:
        found, problem = converters.recognise(path), None
    except ValueError as error:
        found, problem = "", error
    # Runs hold drawings: a folder of mere images may be one of runs.
    if found in ("", "images") and holds_runs(path):
        return "run"
    if found == "" and _holds_stores_alone(path):
        return "stores"
    if problem is not None:
        raise problem
    return "data"


def _holds_stores_alone(path: Path) -> bool:
    folders = [own for own in path.iterdir() if own.is_dir() and not own.name.startswith(".")]
    return bool(folders) and all(map(is_store, folders))


def _pipeline_stores(folder: Path) -> list[Path]:
    """A pipeline's stores of whole images, those of other classes than the first left out."""
    found = [path for part in PARTS for path in sorted(folder.glob(f"{part}/*")) if is_store(path)]
    names = [PredictionStore(path).manifest.names for path in found]
    return [path for path, own in zip(found, names, strict=True) if own == names[0]]


def holds_runs(path: Path) -> bool:
    """Tell whether runs lie in a folder."""
    try:
        return bool(find_runs([path]))
    except ValueError:
        return False
