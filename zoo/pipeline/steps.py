"""A recipe as a graph of steps, each of them one `zoo` command."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import configs
from zoo.pipeline.recipe import ModelPlan, Recipe, StagePlan

Kind = Literal["light", "cpu", "device"]
"""What a step asks of a machine: a core, all cores, or a GPU (all cores where there is none)."""

SPLIT, FUSION, SUBMISSION = "split.json", "fusion.yaml", "submission.csv"
# Where a crop is written in the data set's own format, if that is not one of these.
_CROPS = "coco"


@dataclass(frozen=True)
class Step:
    """A command, what has to be there before it, and what it makes.

    Attributes:
        name: such as `train unet 0`; unique in a graph.
        words: the command after `zoo`; none for a step that only stands for those it needs.
        makes: files and folders.
        needs: steps without which it cannot begin.
        sources: step -> path that the command takes first, where that step has ended well. It waits
            for all of them, and needs one.
        reads: files and folders that no step makes.
        kind: what it asks of a machine.
        model: whose it is; "" for a step of all.
    """

    name: str
    words: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    sources: Mapping[str, Path] = field(default_factory=dict)
    reads: tuple[Path, ...] = ()
    kind: Kind = "light"
    model: str = ""

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Steps that have to have ended, well or not."""
        return (*self.needs, *self.sources)

    def command(self, done: Collection[str]) -> list[str]:
        """Return the command, with those sources that are there.

        Args:
            done: steps that have ended well.
        """
        given = [str(path) for step, path in self.sources.items() if step in done]
        return [*self.words[:1], *given, *self.words[1:]]


@dataclass(frozen=True)
class DataFacts:
    """What of a data set decides which steps there are.

    Attributes:
        has_test: whether it has images to be answered.
        is_annotated: whether the truth of those is known.
        format: its format.
        test_subset: which part of a test folder of its own is meant.
    """

    has_test: bool
    is_annotated: bool
    format: str = "handbone"
    test_subset: str = "test"


class Builder:
    """Lays out the steps of a recipe.

    Args:
        recipe: what is to be done.
        out: where all results go.
        facts: of its data set.
    """

    def __init__(self, recipe: Recipe, out: Path, facts: DataFacts) -> None:
        self.recipe, self.out, self.facts = recipe, out, facts
        self.data = out / "data" if recipe.phantom else Path(recipe.data or "")
        own = recipe.split.file
        self.split = Path(own) if own else out / SPLIT
        self.reading = self._reading()

    def steps(self) -> dict[str, Step]:
        """Return the steps by name; what a step waits for comes before it."""
        found: dict[str, Step] = {}
        for step in (*self._of_data(), *self._of_models(), *self._of_answer()):
            if step.name in found:
                raise ValueError(f"a recipe's steps: '{step.name}' is there twice")
            found[step.name] = step
        return found

    def _reading(self) -> tuple[str, ...]:
        recipe = self.recipe
        pairs = (("--from", recipe.format), ("--edits", recipe.edits))
        words = [word for name, value in pairs if value for word in (name, value)]
        return (*words, *(("--broken", recipe.broken) if recipe.broken != "refuse" else ()))

    # --- data

    def _of_data(self) -> Iterator[Step]:
        recipe, plan = self.recipe, self.recipe.split
        if recipe.phantom:
            sizes = recipe.phantom.model_dump()
            asked = [word for key, n in sizes.items() for word in (_option(key), str(n))]
            words = ("phantom", str(self.data), *asked, "--seed", str(recipe.seed))
            yield Step("phantom", words, (self.data,), kind="cpu")
        if not plan.file:
            chosen = (*_given("--group-by", plan.group_by), *_given("--labels", recipe.labels))
            numbers = ("--folds", str(plan.folds), "--seed", str(recipe.seed))
            words = ("split", str(self.data), "--out", str(self.split), *numbers)
            if plan.strategy != "group":
                words += ("--strategy", plan.strategy)
            yield self._step("split", (*words, *chosen, *self.reading), (self.split,))
        formats = dict.fromkeys((*recipe.formats, *self._model_formats()))
        for name in formats:
            place = self._converted(name)
            words = ("convert", str(self.data), "--to", name, "--out", str(place))
            fold = recipe.folds if recipe.folds != "all" else 0
            of_split = ("--split", str(self.split), "--fold", str(fold))
            words = (*words, *of_split, *_given("--labels", recipe.labels), *self.reading)
            yield self._step(f"convert {name}", words, (place,), self._folds())

    def _model_formats(self) -> list[str]:
        return [model.format for model in self.recipe.all_models.values() if model.format]

    def _converted(self, name: str) -> Path:
        return self.out / "converted" / name

    def _folds(self) -> tuple[str, ...]:
        return () if self.recipe.split.file else ("split",)

    def _step(
        self,
        name: str,
        words: Sequence[str],
        makes: Sequence[Path],
        needs: Sequence[str] = (),
        **more: object,
    ) -> Step:
        """Return a step that reads the data set."""
        recipe = self.recipe
        reads = [] if recipe.phantom else [self.data]
        reads += [Path(text) for text in (recipe.edits, recipe.split.file) if text]
        before = ("phantom",) if recipe.phantom else ()
        further = more.pop("reads", ())
        return Step(
            name,
            tuple(words),
            tuple(makes),
            (*before, *needs),
            reads=(*reads, *further),  # type: ignore[misc]
            **more,  # type: ignore[arg-type]
        )

    # --- models

    def _of_models(self) -> Iterator[Step]:
        for name, model in self.recipe.models.items():
            data = self._converted(model.format) if model.format else self.data
            needs = (f"convert {model.format}",) if model.format else ()
            yield from self._train(name, model, data, needs)
            yield from self._predict(name, model, self.data, self._test_data())
        for name, stage in self.recipe.second_stages.items():
            crops = self.out / "crops" / name
            yield from self._crop(name, stage, crops)
            yield from self._train(name, stage, crops / "train", (f"crop {name}",))
            yield from self._predict(name, stage, crops / "train", crops / "test")

    def _test_data(self) -> Path:
        return Path(self.recipe.test) if self.recipe.test else self.data

    def _folds_of(self, model: ModelPlan) -> list[int]:
        if model.folds != "all":
            return [model.folds]
        return list(range(self._count_folds()))

    def _count_folds(self) -> int:
        from converters.splits.split import Split

        plan = self.recipe.split
        return len(Split.load(Path(plan.file)).folds) if plan.file else plan.folds

    def _train(
        self, name: str, model: ModelPlan, data: Path, needs: Sequence[str]
    ) -> Iterator[Step]:
        folder = self.out / "runs" / name
        reads = list(_files_of(model))
        for fold in self._folds_of(model):
            place = folder / f"fold-{fold}" if model.folds == "all" else folder
            words = ["train", model.family, "--config", model.config, "--data", str(data)]
            if not model.format:
                words += ["--split", str(self.split), "--fold", str(fold)]
            words += ["--out", str(place), f"seed={self.recipe.seed}", *model.words()]
            if data == self.data:
                words += [*_given("--labels", self.recipe.labels), *self.reading]
            yield self._step(
                f"train {name} {fold}",
                words,
                (place,),
                (*self._folds(), *needs),
                reads=reads,
                kind="device",
                model=name,
            )

    def _predict(self, name: str, model: ModelPlan, val: Path, test: Path) -> Iterator[Step]:
        trained = tuple(f"train {name} {fold}" for fold in self._folds_of(model))
        options = [
            word
            for key, value in model.predict.model_dump(mode="json", exclude_defaults=True).items()
            for word in (_option(key), _option_value(value))
        ]
        parts = {"val": ("val", val)}
        if self.facts.has_test:
            parts["test"] = (self.facts.test_subset if test == self._test_data() else "test", test)
        for part, (subset, data) in parts.items():
            place = self.store(name, part)
            words = ["predict", str(self.out / "runs" / name), "--data", str(data)]
            words += ["--subset", subset, "--out", str(place), *options]
            reading = self.reading if data == self.data else ()
            further = [Path(self.recipe.test)] if part == "test" and self.recipe.test else []
            yield self._step(
                f"predict {name} {part}",
                (*words, *reading),
                (place,),
                trained,
                reads=further,
                kind="device",
                model=name,
            )
        predicted = tuple(f"predict {name} {part}" for part in parts)
        yield Step(f"model {name}", needs=predicted, model=name)

    def _crop(self, name: str, stage: StagePlan, crops: Path) -> Iterator[Step]:
        import converters

        writes = hasattr(converters.load_format(self.facts.format), "write")
        form = self.facts.format if writes else _CROPS
        made, needs = [], [f"predict {stage.of} val"]
        cut = ["--crop", ",".join(stage.crop), "--margin", str(stage.margin)]
        cut += ["--scale", str(stage.scale), *_given("--enlarger", stage.enlarger), "--to", form]
        parts = {"train": self.data}
        if self.facts.has_test:
            parts["test"] = self._test_data()
            needs.append(f"predict {stage.of} test")
        for part, data in parts.items():
            place = crops / part
            made.append(f"crop {name}" if part == "train" else f"crop {name} {part}")
            boxes = self.store(stage.of, "val" if part == "train" else "test")
            words = ["convert", str(data), "--subset", part, "--boxes", str(boxes), *cut]
            words += ["--out", str(place), *_given("--labels", self.recipe.labels)]
            if stage.folds != "all" and part == "train":
                words += ["--split", str(self.split), "--fold", str(stage.folds)]
            reading = self.reading if data == self.data else ()
            yield self._step(
                made[-1], (*words, *reading), (place,), (*self._folds(), needs[-1]), model=name
            )

    # --- the answer

    def store(self, name: str, part: str) -> Path:
        """Return where a model's predictions are.

        Args:
            name: of the model.
            part: `val` or `test`.
        """
        return self.out / part / name

    def _of_answer(self) -> Iterator[Step]:
        recipe, facts = self.recipe, self.facts
        names = list(recipe.all_models)
        val = {f"model {name}": self.store(name, "val") for name in names}
        part = "test" if facts.has_test else "val"
        answered = {f"model {name}": self.store(name, part) for name in names}
        rule, submission = self.out / FUSION, self.out / SUBMISSION
        of_data = ("--data", str(self.data), *self.reading)
        fitted: tuple[str, ...] = ()
        if recipe.fusion.config is None:
            plan = recipe.fusion
            words = ("fit", *of_data, "--method", plan.method, "--refine", plan.refine)
            words += ("--objective", plan.objective) if plan.objective != "dice" else ()
            fitted = ("fit",)
            yield self._step("fit", (*words, "--out", str(rule)), (rule,), sources=val, kind="cpu")
        config = ("--config", recipe.fusion.config or str(rule))
        asked = ("--data", str(self._test_data())) if facts.has_test else ("--data", str(self.data))
        reading = self.reading if not recipe.test or not facts.has_test else ()
        if facts.has_test:
            images: tuple[str, ...] = ("--subset", facts.test_subset)
        else:
            images = ("--subset", "val", "--split", str(self.split))
            images += ("--fold", str(recipe.folds)) if recipe.folds != "all" else ()
        words = ("fuse", *config, "--out", str(submission))
        yield Step("fuse", words, (submission,), fitted, answered, kind="cpu")
        words = ("check", str(submission), *asked, *images, *reading)
        yield self._step("check", words, (), ("fuse",))
        for form in recipe.outputs:
            place = self.out / "answer" / form
            words = ("fuse", *config, *asked, *images, *reading)
            words += ("--format", form, "--out", str(place))
            yield self._step(f"fuse to {form}", words, (place,), fitted, sources=answered)
        if facts.is_annotated:
            scores, page = self.out / "scores.json", self.out / "report"
            words = ("evaluate", str(submission), *asked, *images, *reading)
            words = (*words, "--json", str(scores))
            yield self._step("evaluate", words, (scores,), ("fuse",), kind="cpu")
            words = ("report", *asked, *reading, *config, "--out", str(page))
            yield self._step("report", words, (page,), fitted, sources=answered, kind="cpu")


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _option_value(value: object) -> str:
    if isinstance(value, list | tuple):
        numbers = all(isinstance(part, int) for part in value)
        return ("x" if numbers else ",").join(map(str, value))
    return str(value)


def _given(name: str, value: str | None) -> tuple[str, ...]:
    return (name, value) if value else ()


def _files_of(model: ModelPlan) -> Iterator[Path]:
    """Yield the files that a model's settings name: its config, weights."""
    yield configs.find(model.family, model.config)
    yield from _existing(model.changes)


def _existing(value: object) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _existing(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _existing(part)
    elif isinstance(value, str) and Path(value).is_file():
        yield Path(value)
