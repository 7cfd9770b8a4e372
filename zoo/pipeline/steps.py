"""A recipe as a graph of steps, each of them one `zoo` command."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import configs
import converters
from converters.splits.split import GIVEN, Split
from converters.strict_yaml import read_mapping
from converters.tables.sample_tables import find_table, tables_beside
from zoo.pipeline.recipe import REFINER, ModelPlan, Recipe, RefinerPlan, StagePlan, is_yaml
from zoo.pipeline.survey.facts import SPLIT, DataFacts

Word: TypeAlias = "str | Path | tuple[Word, ...]"
"""A word of a command: a path is known as such; words together are one, such as `init=PATH`."""
Kind = Literal["light", "cpu", "device"]
"""What a step asks of a machine: a core, all cores, or a GPU (all cores where there is none)."""

FUSION, SUBMISSION = "fusion.yaml", "submission.csv"
FIRST, CHOICE, DATA = "round-0", "choice.json", "data"
# Where a crop is written in the data set's own format, if that is not one of these.
_CROPS = "coco"
_CROPPED = {"val": "train", "test": "test"}
_PSEUDO = "coco"


@dataclass(frozen=True)
class Step:
    """A command, what has to be there before it, and what it makes.

    Attributes:
        name: such as `train unet 0`; unique in a graph.
        words: the command after `zoo`; none for a step that only stands for those it needs.
        makes: files and folders.
        needs: steps without which it cannot begin.
        joined: how the command takes its sources, `{}`, if not first and one by one.
        needs_source: whether it cannot begin without any of its sources.
        sources: step -> path that the command takes first, where that step has ended well. It waits
            for all of them.
        reads: files and folders that no step makes.
        takes: files and folders that others make and the command does not name.
        kind: what it asks of a machine.
        devices: GPUs that it has for itself, of a machine that has GPUs; for `device` alone.
        model: whose it is; "" for a step of all.
    """

    name: str
    words: tuple[Word, ...] = ()
    makes: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    sources: Mapping[str, Path] = field(default_factory=dict)
    joined: str = ""
    needs_source: bool = True
    reads: tuple[Path, ...] = ()
    takes: tuple[Path, ...] = ()
    kind: Kind = "light"
    devices: int = 1
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
        return [render(word) for word in self.parts(done)]

    def parts(self, done: Collection[str]) -> list[Word]:
        """Return the command with its paths apart; see `command`."""
        given = [path for step, path in self.sources.items() if step in done]
        if not self.joined:
            return [*self.words[:1], *given, *self.words[1:]]
        before, _, after = self.joined.partition("{}")
        listed = [part for path in given for part in (",", path)][1:]
        return [*self.words, *([(before, *listed, after)] if given else [])]


def render(word: Word) -> str:
    """Return a word as a command line has it.

    >>> render(("init=", Path("runs/a"))), render("train")
    ('init=runs/a', 'train')
    """
    return "".join(map(render, word)) if isinstance(word, tuple) else str(word)


class Builder:
    """Lays out the steps of a recipe.

    Args:
        recipe: what is to be done.
        out: where all results go.
        facts: of its data set.
    """

    def __init__(self, recipe: Recipe, out: Path, facts: DataFacts) -> None:
        self.recipe, self.out, self.facts = recipe, out, facts
        self.data = out / DATA if recipe.phantom else Path(recipe.data or "")
        own = recipe.split.file
        self.split = Path(own) if own else out / SPLIT
        self.reading = self._reading()

    def steps(self) -> dict[str, Step]:
        """Return the steps by name; what a step waits for comes before it."""
        found: dict[str, Step] = {}
        for step in (*self._of_data(), *self._of_rounds()):
            if step.name in found:
                raise ValueError(f"a recipe's steps: '{step.name}' is there twice")
            found[step.name] = step
        return found

    def _of_rounds(self) -> Iterator[Step]:
        """Yield the steps of the first answer, and of those that learn from the one before."""
        pseudo = self.recipe.pseudo
        if pseudo is None:
            yield from Round(self, self.out).steps()
            return
        if not self.facts.has_test:
            raise ValueError("pseudo: expected images to be answered, found none to learn from")
        rounds = [Round(self, self.out, submission=self.out / FIRST / SUBMISSION, keeps_val=True)]
        for number in range(1, pseudo.rounds + 1):
            name = f"round {number}"
            rounds.append(Round(self, self.out / f"round-{number}", name, rounds[-1], True))
        for number, one in enumerate(rounds):
            yield from one.steps()
            if number:
                yield from one.judge(rounds[0])
        yield from self._choose(rounds)

    def _choose(self, rounds: Sequence[Round]) -> Iterator[Step]:
        """Yield the step that takes a later round's answer where it is surely better."""
        submission = self.out / SUBMISSION
        words = ("@choose", rounds[0].submission, submission, self.out / CHOICE)
        yield Step(
            "choose",
            words,
            (submission, self.out / CHOICE),
            (rounds[0].step("fuse"),),
            {one.step("compare"): one.against for one in rounds[1:]},
            needs_source=False,
            takes=tuple(one.submission for one in rounds[1:]),
        )
        yield from rounds[0].check("choose", submission)

    def _reading(self) -> tuple[Word, ...]:
        recipe = self.recipe
        edits = Path(recipe.edits) if recipe.edits else None
        words = (*_given("--from", recipe.format), *_given("--edits", edits))
        return (*words, *(("--broken", recipe.broken) if recipe.broken != "refuse" else ()))

    def labels(self) -> tuple[Word, ...]:
        """Return the words that name the classes that are asked for."""
        return _given("--labels", as_word(self.recipe.labels or ""))

    # --- data

    def _of_data(self) -> Iterator[Step]:
        recipe, plan = self.recipe, self.recipe.split
        words: tuple[Word, ...]
        if recipe.phantom:
            sizes = recipe.phantom.model_dump()
            asked = [word for key, n in sizes.items() for word in (_option(key), str(n))]
            words = ("phantom", self.data, *asked, "--seed", str(recipe.seed))
            yield Step("phantom", words, (self.data,), kind="cpu")
        if not plan.file:
            chosen = (*_given("--group-by", as_word(plan.group_by)), *self.labels())
            numbers = ("--folds", str(plan.folds), "--seed", str(recipe.seed))
            words = ("split", self.data, "--out", self.split, *numbers)
            if plan.strategy != "group":
                words += ("--strategy", plan.strategy)
            table = find_table(plan.group_by.partition(":")[0], tables_beside(self.data))
            further = [table] if plan.group_by and table.is_file() else []
            words = (*words, *chosen, *self.reading)
            yield self.step("split", words, (self.split,), reads=further)
        formats = dict.fromkeys((*recipe.formats, *self._model_formats()))
        for name in formats:
            place = self.converted(name)
            words = ("convert", self.data, "--to", name, "--out", place)
            fold = recipe.folds if recipe.folds != "all" else 0
            of_split = ("--split", self.split, "--fold", str(fold))
            words = (*words, *of_split, *self.labels(), *self.reading)
            yield self.step(f"convert {name}", words, (place,), self.folds())

    def _model_formats(self) -> list[str]:
        return [model.format for model in self.recipe.all_models.values() if model.format]

    def converted(self, name: str) -> Path:
        """Return where the data set is written in another format."""
        return self.out / "converted" / name

    def folds(self) -> tuple[str, ...]:
        """Return the step that makes the folds, where one does."""
        return () if self.recipe.split.file else ("split",)

    def step(
        self,
        name: str,
        words: Sequence[Word],
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
            reads=_once((*reads, *self.read_by(words), *further)),  # type: ignore[misc]
            **more,  # type: ignore[arg-type]
        )

    def read_by(self, words: Sequence[Word]) -> Iterator[Path]:
        """Yield the files and folders that a command names and no step makes."""
        for word in words:
            if isinstance(word, tuple):
                yield from self.read_by(word)
            elif isinstance(word, Path) and below(word, self.out) is None:
                yield word

    def test_data(self) -> Path:
        """Return where the images to be answered are."""
        return Path(self.recipe.test) if self.recipe.test else self.data

    def folds_of(self, model: ModelPlan) -> list[int]:
        """Return the folds that a model is trained for."""
        if model.folds != "all":
            return [model.folds]
        plan = self.recipe.split
        if plan.file:
            return list(range(len(Split.load(Path(plan.file)).folds)))
        return list(range(self.facts.own_folds if plan.strategy == GIVEN else plan.folds))


class Round:
    """The steps from training to an answer.

    Args:
        builder: of the whole graph.
        root: folder for what is made.
        name: "" for the first round.
        before: the round whose answer is learned from, too.
        keeps_val: also fuse held-out images, to be compared with another round's.
        submission: where the answer goes.
    """

    def __init__(
        self,
        builder: Builder,
        root: Path,
        name: str = "",
        before: Round | None = None,
        keeps_val: bool = False,
        submission: Path | None = None,
    ) -> None:
        self.builder, self.recipe, self.facts = builder, builder.recipe, builder.facts
        self.root, self.name, self.before, self.keeps_val = root, name, before, keeps_val
        self.rule, self.submission = root / FUSION, submission or root / SUBMISSION
        self.held_out, self.against = root / "held_out.csv", root / "against.json"
        self.pseudo = root / "pseudo"

    def step(self, name: str) -> str:
        """Return a step's name in this round."""
        return f"{self.name} {name}".lstrip()

    def steps(self) -> Iterator[Step]:
        """Yield the steps of this round."""
        yield from self._label()
        yield from self._of_models()
        yield from self._of_answer()

    def judge(self, first: Round) -> Iterator[Step]:
        """Yield the step that compares what this round and the first say of held-out images."""
        both = ("evaluate", self.held_out, "--against", first.held_out)
        words = (*both, *self._images("val"), "--json", self.against)
        needs = (self.step("fuse held out"), first.step("fuse held out"))
        yield self.builder.step(self.step("compare"), words, (self.against,), needs, kind="cpu")

    def _label(self) -> Iterator[Step]:
        """Yield the step that makes a data set of the answer of the round before."""
        before, plan = self.before, self.recipe.pseudo
        if before is None or plan is None:
            return
        words = ("fuse", *before.config(), *self._images("test"), "--format", _PSEUDO)
        words = (*words, "--floor", str(plan.floor), "--out", self.pseudo)
        yield self.builder.step(
            self.step("label"),
            words,
            (self.pseudo,),
            before.fitted(),
            sources=before.stores("test"),
            kind="cpu",
        )

    # --- models

    def _of_models(self) -> Iterator[Step]:
        for name, model in self.recipe.models.items():
            data = self.builder.converted(model.format) if model.format else self.builder.data
            needs = (f"convert {model.format}",) if model.format else ()
            yield from self._train(name, model, data, needs)
            yield from self._predict(name, model, self.builder.data, self.builder.test_data())
        for name, stage in self.recipe.second_stages.items():
            crops = self.root / "crops" / name
            yield from self._crop(name, stage, crops)
            cut = (self.step(f"crop {name} val"),)
            yield from self._train(name, stage, crops / "train", cut)
            yield from self._predict(name, stage, crops / "train", crops / "test")
        if refiner := self.recipe.refiner:
            data, test = self.builder.data, self.builder.test_data()
            yield from self._train(REFINER, refiner, data, (), self.looked_at("val"))
            yield from self._predict(REFINER, refiner, data, test, self.looked_at("test"))

    def _train(
        self,
        name: str,
        model: ModelPlan,
        data: Path,
        needs: Sequence[str],
        sources: Mapping[str, Path] = MappingProxyType({}),
    ) -> Iterator[Step]:
        folder = self.root / "runs" / name
        reads = list(_files_of(model))
        # What is cut out has other pixels than the pseudo labels' images; of these the refiner's
        # sources have no held-out predictions.
        is_first = not isinstance(model, StagePlan | RefinerPlan)
        learns_pseudo = self.before is not None and is_first
        labelled = (self.step("label"),) if learns_pseudo else ()
        for fold in self.builder.folds_of(model):
            place = folder / f"fold-{fold}" if model.folds == "all" else folder
            words: list[Word] = [
                "train",
                model.family,
                "--config",
                as_word(model.config),
                "--data",
                data,
            ]
            if not model.format:
                words += ["--split", self.builder.split, "--fold", str(fold)]
            words += ["--out", place, f"seed={self.recipe.seed}", *_changes(model)]
            words += ["--also", self.pseudo] if learns_pseudo else []
            if data == self.builder.data:
                words += [*self.builder.labels(), *self.builder.reading]
            yield self.builder.step(
                self.step(f"train {name} {fold}"),
                words,
                (place,),
                (*self.builder.folds(), *needs, *labelled),
                sources=sources,
                joined="sources=[{}]",
                reads=reads,
                kind="device",
                model=name,
            )

    def _predict(
        self,
        name: str,
        model: ModelPlan,
        val: Path,
        test: Path,
        sources: Mapping[str, Path] = MappingProxyType({}),
    ) -> Iterator[Step]:
        trained = tuple(self.step(f"train {name} {fold}") for fold in self.builder.folds_of(model))
        options = [
            word
            for key, value in model.predict.model_dump(mode="json", exclude_defaults=True).items()
            for word in (_option(key), _option_value(value))
        ]
        is_stage = isinstance(model, StagePlan)
        parts = {"val": ("val", val)}
        if self.facts.has_test:
            parts["test"] = ("test" if is_stage else self.facts.test_subset, test)
        for part, (subset, data) in parts.items():
            place = self.store(name, part)
            words: list[Word] = ["predict", self.root / "runs" / name, "--data", data]
            words += ["--subset", subset, "--out", place, *options]
            reading = self.builder.reading if data == self.builder.data else ()
            cut = (self.step(f"crop {name} test"),) if part == "test" and is_stage else ()
            yield self.builder.step(
                self.step(f"predict {name} {part}"),
                (*words, *reading),
                (place,),
                (*trained, *cut),
                # Held-out images are looked at with what was learned from.
                sources=sources if part == "test" else {},
                joined="--sources={}",
                takes=tuple(self.looked_at("val").values()) if sources else (),
                kind="device",
                model=name,
            )
        predicted = tuple(self.step(f"predict {name} {part}") for part in parts)
        yield Step(self.step(f"model {name}"), needs=predicted, model=name)

    def _crop(self, name: str, stage: StagePlan, crops: Path) -> Iterator[Step]:
        builder = self.builder
        writes = hasattr(converters.load_format(self.facts.format), "write")
        form = self.facts.format if writes else _CROPS
        cut: list[Word] = ["--crop", ",".join(stage.crop), "--margin", str(stage.margin)]
        cut += [
            "--scale",
            str(stage.scale),
            *_given("--enlarger", as_word(stage.enlarger)),
            "--to",
            form,
        ]
        # Part -> the data set, its subset, and the predictions that say where to cut.
        parts = {"val": (builder.data, "train")}
        if self.facts.has_test:
            parts["test"] = (builder.test_data(), self.facts.test_subset)
        for part, (data, subset) in parts.items():
            place = crops / _CROPPED[part]
            boxes = self.store(stage.of, part)
            words: list[Word] = ["convert", data, "--subset", subset, "--boxes", boxes, *cut]
            words += ["--out", place, *self.builder.labels()]
            if stage.folds != "all" and part == "val":
                words += ["--split", builder.split, "--fold", str(stage.folds)]
            reading = builder.reading if data == builder.data else ()
            yield builder.step(
                self.step(f"crop {name} {part}"),
                (*words, *reading),
                (place,),
                (*builder.folds(), self.step(f"predict {stage.of} {part}")),
                model=name,
            )

    # --- the answer

    def store(self, name: str, part: str) -> Path:
        """Return where a model's predictions are.

        Args:
            name: of the model.
            part: `val` or `test`.
        """
        return self.root / part / name

    def stores(self, part: str) -> dict[str, Path]:
        """Return the stores of all models, each with the step that has made it."""
        names = self.recipe.all_models
        return {self.step(f"model {name}"): self.store(name, part) for name in names}

    def looked_at(self, part: str) -> dict[str, Path]:
        """Return the stores that the refiner looks at."""
        own = self.step(f"model {REFINER}")
        return {step: path for step, path in self.stores(part).items() if step != own}

    def config(self) -> tuple[Word, ...]:
        """Return the words that name the fusion config."""
        own = self.recipe.fusion.config
        return "--config", as_word(own) if own else self.rule

    def fitted(self) -> tuple[str, ...]:
        """Return the step that fits, where one does."""
        return () if self.recipe.fusion.config else (self.step("fit"),)

    def _images(self, part: str) -> tuple[Word, ...]:
        """Return the words that name images of a data set."""
        builder = self.builder
        if part == "test":
            reading = () if self.recipe.test else builder.reading
            subset = ("--subset", self.facts.test_subset)
            return ("--data", builder.test_data(), *subset, *reading)
        words: tuple[Word, ...] = ("--data", builder.data, "--subset", "val")
        words = (*words, "--split", builder.split)
        if self.recipe.folds != "all":
            words = (*words, "--fold", str(self.recipe.folds))
        return (*words, *builder.reading)

    def _of_answer(self) -> Iterator[Step]:
        recipe, builder = self.recipe, self.builder
        part = "test" if self.facts.has_test else "val"
        words: tuple[Word, ...]
        if recipe.fusion.config is None:
            plan = recipe.fusion
            words = ("fit", "--data", builder.data, *builder.reading)
            words = (*words, "--method", plan.method, "--refine", plan.refine)
            if plan.objective != "dice":
                words = (*words, "--objective", plan.objective)
            words = (*words, "--out", self.rule)
            val = self.stores("val")
            yield builder.step(self.step("fit"), words, (self.rule,), sources=val, kind="cpu")
        places = {"fuse": (part, self.submission)}
        if self.keeps_val:
            places["fuse held out"] = ("val", self.held_out)
        for name, (subset, place) in places.items():
            words = ("fuse", *self.config(), "--out", place)
            made = (self.step(name), words, (place,), self.fitted(), self.stores(subset))
            yield Step(*made, reads=tuple(builder.read_by(words)), kind="cpu")
        for form in recipe.outputs:
            place = self.root / "answer" / form
            words = ("fuse", *self.config(), *self._images(part))
            words = (*words, "--format", form, "--out", place)
            stores = self.stores(part)
            yield builder.step(
                self.step(f"fuse to {form}"), words, (place,), self.fitted(), sources=stores
            )
        if not self.keeps_val:
            yield from self.check(self.step("fuse"), self.submission)
        if self.facts.is_annotated and recipe.report:
            page = self.root / "report"
            data = self._images(part)
            asked = ("report", *_without_subset(data), *self.config())
            words = (*asked, "--out", page)
            stores = self.stores(part)
            name = self.step("report")
            yield builder.step(name, words, (page,), self.fitted(), sources=stores, kind="cpu")

    def check(self, after: str, submission: Path) -> Iterator[Step]:
        """Yield the steps that look at the answer.

        Args:
            after: the step that has made it.
            submission: where it is.
        """
        images = self._images("test" if self.facts.has_test else "val")
        words = ("check", submission, *images)
        yield self.builder.step("check", words, (), (after,))
        if self.facts.is_annotated:
            scores = self.builder.out / "scores.json"
            words = ("evaluate", submission, *images, "--json", scores)
            yield self.builder.step("evaluate", words, (scores,), (after,), kind="cpu")


def _without_subset(words: Sequence[Word]) -> tuple[Word, ...]:
    """Return words without `--subset`, which a command that reads stores does not take."""
    place = words.index("--subset")
    return (*words[:place], *words[place + 2 :])


def below(path: Path, place: Path) -> str | None:
    """Return what of a path follows a place, such as `/a`; None where it lies elsewhere."""
    whole, root = os.path.abspath(path), os.path.abspath(place)
    is_below = whole == root or whole.startswith(root.rstrip(os.sep) + os.sep)
    return whole[len(root) :] if is_below else None


def _once(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple({os.path.abspath(path): path for path in reversed(paths)}.values())[::-1]


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _option_value(value: object) -> str:
    if isinstance(value, list | tuple):
        numbers = all(isinstance(part, int) for part in value)
        return ("x" if numbers else ",").join(map(str, value))
    return str(value)


def _given(name: str, value: Word | None) -> tuple[Word, ...]:
    return (name, value) if value else ()


def as_word(text: str) -> Word:
    """Return what is given by a name or a file; a file is known as such, also before `:COLUMN`."""
    file, mark, column = text.partition(":")
    if is_yaml(file) or os.path.isfile(file):
        return (Path(file), mark + column) if mark else Path(file)
    return text


def _changes(model: ModelPlan) -> Iterator[Word]:
    """Yield a model's changes as words: `key.sub=value`."""
    for word in model.words():
        key, _, value = word.partition("=")
        yield (f"{key}=", Path(value)) if os.path.isfile(value) else word


def _files_of(model: ModelPlan) -> Iterator[Path]:
    """Yield the files that a model's settings name: its config, weights."""
    config = configs.find(model.family, model.config)
    yield config
    # A command finds them from the folder in which it is given; done is done from elsewhere, too.
    yield from _existing(read_mapping(config, "a config"), (Path(), config.parent))
    yield from _existing(model.changes)


def _existing(value: object, folders: Sequence[Path] = (Path(),)) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _existing(part, folders)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _existing(part, folders)
    elif isinstance(value, str):
        yield from [folder / value for folder in folders if os.path.isfile(folder / value)][:1]
