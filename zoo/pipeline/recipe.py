"""Recipes: what a pipeline is to do, as a YAML file that people write."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, field_validator, model_validator

import configs
from converters.strict_yaml import read_mapping
from zoo.config import StrictModel, check_config
from zoo.contract import PredictOptions
from zoo.families import FAMILIES
from zoo.options import flatten

KIND, REFINER = "recipes", "refiner"
# Names of models become names of folders and of sources.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


class Phantom(StrictModel):
    """Synthetic hands instead of a data set; the keys of `zoo phantom`."""

    people: int = Field(default=8, ge=1)
    test_people: int = Field(default=4, ge=0)
    size: int = Field(default=512, ge=256, le=2048)
    annotators: Literal[1, 2] = 1


class SplitPlan(StrictModel):
    """Folds; the keys of `zoo split`.

    Attributes:
        strategy: `given` keeps the data set's own parts, as the one fold 0, or its own folds,
            however many are asked for.
        file: a split that is there already, instead of the other keys.
    """

    folds: int = Field(default=5, ge=2)
    strategy: Literal["group", "stratified", "given"] = "group"
    group_by: str = ""
    file: str | None = None


class ModelPlan(StrictModel):
    """A model, trained on each fold or on one.

    Attributes:
        family: see `zoo list families`.
        config: a shipped config or a YAML file, see `zoo list configs`.
        changes: keys of it that differ, such as `epochs: 10` or `optim: {lr: .001}`.
        folds: `all`, or the one fold to hold out.
        format: train on the data set as it is converted to this format; needs one fold.
        predict: how to predict, as the options of `zoo predict`: tta, window, ...
        hours: about what its training takes in all, as it was planned; is only shown.
        memory: bytes that its training needs, as it was planned; is only shown.
    """

    family: str
    config: str
    changes: dict[str, Any] = Field(default_factory=dict)
    folds: Literal["all"] | int = "all"
    format: str = ""
    predict: PredictOptions = PredictOptions()
    hours: float | None = Field(default=None, ge=0)
    memory: float | None = Field(default=None, ge=0)

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        if family not in FAMILIES:
            raise ValueError(f"expected one of {', '.join(FAMILIES)}, found '{family}'")
        return family

    @model_validator(mode="after")
    def _one_fold(self) -> Self:
        if self.format and self.folds == "all":
            raise ValueError(
                "format: expected one fold beside it, such as folds: 0, found folds: all: a data "
                "set is converted for one fold"
            )
        return self

    def words(self) -> list[str]:
        """Return the changes as a command line has them: `key.sub=value`."""
        return [f"{key}={text}" for key, text in flatten(self.changes).items()]


class StagePlan(ModelPlan):
    """A second stage: a model on crops around some classes, cut where a first one finds them.

    Attributes:
        of: the model, or the second stage, that says where to cut.
        crop: classes and groups that a crop holds.
        margin: pixels around them.
        scale: by which crops are enlarged.
        enlarger: a super-resolution model, as `zoo convert --enlarger` takes it.
    """

    of: str
    crop: tuple[str, ...] = Field(min_length=1)
    margin: int = Field(default=0, ge=0)
    scale: int = Field(default=1, ge=1)
    enlarger: str = ""


class RefinerPlan(ModelPlan):
    """A second look: a network that mends what is fused of all models, as one more source.

    It learns from the models' held-out predictions, in the same folds; `refiner: true` is the
    usual one.
    """

    family: str = "refiner"
    config: str = "laptop"

    @model_validator(mode="after")
    def _of_all_folds(self) -> Self:
        if self.family != "refiner":
            raise ValueError(f"family: expected refiner, found '{self.family}'")
        if self.folds != "all" or self.format:
            key = "folds" if self.folds != "all" else "format"
            raise ValueError(f"{key}: expected none: it learns in all folds, from predictions")
        if "sources" in self.changes:
            raise ValueError("changes.sources: expected none: its sources are the recipe's models")
        return self


AnyModel = TypeVar("AnyModel", bound=ModelPlan)


def is_yaml(text: str) -> bool:
    """Tell whether a text names a YAML file: what is shipped is named without a suffix."""
    return text.endswith((".yaml", ".yml"))


class PseudoPlan(StrictModel):
    """Pseudo labels: what is fused of test images is learned from beside the train images.

    Attributes:
        floor: objects whose mean probability is lower are left out.
        rounds: how often.
    """

    floor: float = Field(default=0.8, ge=0, le=1)
    rounds: int = Field(default=1, ge=1, le=5)


class FusionPlan(StrictModel):
    """How predictions become one answer; the options of `zoo fit`.

    Attributes:
        config: a fusion config that is there already: nothing is fitted.
    """

    method: str = "hybrid"
    refine: Literal["shape", "all", "none"] = "shape"
    objective: str = "dice"
    config: str | None = None

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: str) -> str:
        # Late: what is imported with it takes a while, and who looks at a folder needs it not.
        from fusion.fit.objective import Objective

        Objective.parse(objective)
        return objective


class Recipe(StrictModel):
    """What a pipeline is to do.

    Attributes:
        data: the data set's folder, from the recipe's own folder on; without it, `zoo run --data`.
        phantom: synthetic hands instead.
        format: of the data set, where it is not recognised.
        edits: corrections (YAML), from the recipe's own folder on.
        broken: as `--broken` takes it.
        labels: as `--labels` takes it; all classes of the data set without.
        test: a folder whose images are to be answered; those of the data set's test part without.
        seed: of folds and training.
        split: the folds.
        formats: further formats to write the data set in, for the split's fold 0.
        models: name -> model.
        second_stages: name -> second stage.
        refiner: a second look at what the models say, as one more source; `true` for the usual one.
        pseudo: pseudo labels; none without.
        fusion: how predictions become one answer.
        outputs: formats to write the answer in beside the submission: see `zoo list formats`.
        report: whether a page is written where the truth of what is answered is known.
        hours: that it was planned for; is only noted.
    """

    data: str | None = None
    phantom: Phantom | None = None
    format: str | None = None
    edits: str | None = None
    broken: Literal["refuse", "skip"] = "refuse"
    labels: str | None = None
    test: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    split: SplitPlan = SplitPlan()
    formats: tuple[str, ...] = ()
    models: dict[str, ModelPlan] = Field(min_length=1)
    second_stages: dict[str, StagePlan] = Field(default_factory=dict)
    refiner: RefinerPlan | None = None
    pseudo: PseudoPlan | None = None
    fusion: FusionPlan = FusionPlan()
    outputs: tuple[str, ...] = ()
    report: bool = True
    hours: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        for key in ("models", "second_stages"):
            for name in raw.get(key) or {} if isinstance(raw, dict) else ():
                if not isinstance(name, str) or not re.fullmatch(_NAME, name):
                    raise ValueError(
                        f"{key}: expected names of letters, digits, '-', '_' and '.', found "
                        f"'{name}': they become names of folders"
                    )
        return raw

    @field_validator("refiner", mode="before")
    @classmethod
    def _usual(cls, given: Any) -> Any:
        return {True: {}, False: None}[given] if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.data is not None and self.phantom is not None:
            raise ValueError("data: expected either 'data' or 'phantom', found both")
        if twice := sorted(self.models.keys() & self.second_stages.keys()):
            raise ValueError(f"second_stages.{twice[0]}: is the name of a model, too")
        before = set(self.models)
        for name, stage in self.second_stages.items():
            if stage.of not in before:
                known = ", ".join(sorted(before))
                raise ValueError(
                    f"second_stages.{name}.of: expected a model or an earlier second stage "
                    f"({known}), found '{stage.of}'"
                )
            if stage.folds != self.all_models[stage.of].folds:
                raise ValueError(
                    f"second_stages.{name}.folds: expected those of '{stage.of}', "
                    f"{self.all_models[stage.of].folds}, found {stage.folds}"
                )
            before.add(name)
        if self.refiner and REFINER in before:
            raise ValueError(f"models.{REFINER}: is the name of the recipe's refiner, too")
        if self.refiner and self.folds != "all":
            raise ValueError("refiner: expected models of all folds, which it learns from")
        kinds = {model.folds for model in self.all_models.values()}
        if len(kinds) > 1:
            listed = ", ".join(sorted(map(str, kinds)))
            raise ValueError(
                f"models: expected the same folds for all, for they are fused, found {listed}"
            )
        return self

    @property
    def all_models(self) -> dict[str, ModelPlan]:
        """Models, second stages and the refiner, by name, in the order of the recipe."""
        refiner = {REFINER: self.refiner} if self.refiner else {}
        return {**self.models, **self.second_stages, **refiner}

    @property
    def folds(self) -> Literal["all"] | int:
        """The folds that all models hold out."""
        return next(iter(self.models.values())).folds

    @classmethod
    def load(cls, name: str) -> Recipe:
        """Read a recipe; places in it become those that it means from its own folder.

        Args:
            name: a YAML file, or a shipped recipe's name.

        Raises:
            ValueError: a line for each bad key.
        """
        path = configs.find(KIND, name)
        found = check_config(cls, read_mapping(path, "a recipe"), str(path))
        return found.placed(path.parent)

    def placed(self, folder: Path) -> Recipe:
        """Return the same with places as they are from the current folder.

        Args:
            folder: where the recipe is.
        """
        real = Path(os.path.realpath(folder))
        # `..` leads out of what a link stands for, not out of where it lies.
        base = folder if real == Path(os.path.abspath(folder)) else real
        return self._moved(
            lambda text: os.path.normpath(base / text), lambda text: os.path.isfile(base / text)
        )

    def seen_from(self, folder: Path) -> Recipe:
        """Return the same with places as they are from another folder.

        Args:
            folder: where the recipe will be.
        """
        return self._moved(lambda text: os.path.relpath(text, folder), os.path.isfile)

    def _moved(self, move: Callable[[str], str], is_there: Callable[[str], bool]) -> Recipe:
        def place(text: str | None) -> str | None:
            return None if text is None else move(text)

        def named(text: str | None) -> str | None:
            """A name that is shipped, a column, or a file, also before `:COLUMN`."""
            file, mark, column = (text or "").partition(":")
            return move(file) + mark + column if is_yaml(file) or is_there(file) else text

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: changed(part) for key, part in value.items()}
            if isinstance(value, list):
                return [changed(part) for part in value]
            return move(value) if isinstance(value, str) and is_there(value) else value

        def moved(model: AnyModel) -> AnyModel:
            update = {"config": named(model.config), "changes": changed(model.changes)}
            if isinstance(model, StagePlan):
                update["enlarger"] = named(model.enlarger)
            return model.model_copy(update=update)

        found: dict[str, Any] = {
            key: place(getattr(self, key)) for key in ("data", "edits", "test")
        }
        split = {"file": place(self.split.file), "group_by": named(self.split.group_by)}
        found["labels"] = named(self.labels)
        found["split"] = self.split.model_copy(update=split)
        found["models"] = {name: moved(model) for name, model in self.models.items()}
        stages = self.second_stages.items()
        found["second_stages"] = {name: moved(stage) for name, stage in stages}
        found["refiner"] = self.refiner and moved(self.refiner)
        found["fusion"] = self.fusion.model_copy(update={"config": named(self.fusion.config)})
        return self.model_copy(update=found)

    def dumps(self) -> str:
        """Return the YAML text that `load` reads; what is usual is left out."""
        record = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
