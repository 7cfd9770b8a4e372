"""What a sweep tries: a family's config, and the keys that vary."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_serializer, model_validator

import configs
from converters.strict_yaml import read_yaml
from zoo.config import StrictModel, check_config
from zoo.options import as_text

Kind = Literal["log", "float", "int", "choice"]
KINDS: tuple[Kind, ...] = ("log", "float", "int", "choice")


class Parameter(StrictModel):
    """Values of one key.

    Written `{log: [1.0e-5, 1.0e-2]}`, `{float: [0, 1]}`, `{int: [1, 8], step: 2}`, or
    `{choice: [4, 8]}`.

    Attributes:
        kind: `log` is even in the exponent, `float` and `int` are even in the value.
        values: lowest and highest, both included; or all choices, of any type.
        step: between values of `float` and `int`.
    """

    kind: Kind
    values: tuple[Any, ...]
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "kind" in raw:
            return raw
        kinds = [kind for kind in KINDS if kind in raw]
        if len(kinds) != 1 or not isinstance(raw[kinds[0]], list):
            raise ValueError(f"expected one of {', '.join(KINDS)} with a list of values")
        rest = {key: value for key, value in raw.items() if key != kinds[0]}
        return {"kind": kinds[0], "values": raw[kinds[0]], **rest}

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if self.kind == "choice":
            texts = {as_text(value) for value in self.values}
            if not texts or len(texts) < len(self.values) or self.step is not None:
                raise ValueError("expected one or more different choices, and no step")
            return self
        wanted = int if self.kind == "int" else (int, float)
        numbers = all(isinstance(v, wanted) and not isinstance(v, bool) for v in self.values)
        # YAML reads 1e-5 as text; with a point it is a number.
        if len(self.values) != 2 or not numbers or not self.values[0] < self.values[1]:
            what = "whole numbers" if self.kind == "int" else "numbers such as 1.0e-5"
            raise ValueError(f"expected [lowest, highest], {what}")
        if self.kind == "log" and (self.values[0] <= 0 or self.step is not None):
            raise ValueError("expected a lowest value above 0, and no step")
        if self.kind == "int" and self.step is not None and self.step != int(self.step):
            raise ValueError("expected a whole step")
        return self

    @model_serializer
    def _write(self) -> dict[str, Any]:
        return {self.kind: list(self.values)} | ({"step": self.step} if self.step else {})


class Pruner(StrictModel):
    """Which trials end early, by their scores so far.

    Attributes:
        name: `median` ends a trial that is below the median of earlier ones at the same epoch;
            `halving` keeps a third at each rung (Li et al., "A System for Massively Parallel
            Hyperparameter Tuning", 2020); `none` ends none.
        startup: trials that `median` waits for.
        warmup: epochs that no trial is ended before.
    """

    name: Literal["none", "median", "halving"] = "median"
    startup: int = Field(default=5, ge=0)
    warmup: int = Field(default=0, ge=0)


def _not_empty(space: dict[str, Parameter]) -> dict[str, Parameter]:
    if not space:
        raise ValueError("expected one or more keys to vary")
    return space


class SweepConfig(StrictModel):
    """What a sweep tries.

    Attributes:
        family: whose config varies.
        config: its shipped name or file.
        changes: `key.sub=value` of all trials.
        space: key of the config, such as `optim.lr` -> its values.
        trials: how many; a finished sweep goes on when it is raised.
        seed: of the choices; what a run is seeded by is a key of its config.
        sampler: `tpe` learns from the trials before; `random` does not.
        pruner: which trials end early.
        score: the column of `metrics.csv` that shall be high; a class's name is one, too. A
            trial's score is that of its best epoch, whose weights it keeps.
    """

    family: str
    config: str
    changes: tuple[str, ...] = ()
    space: Annotated[dict[str, Parameter], AfterValidator(_not_empty)]
    trials: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Pruner = Pruner()
    score: str = "val_dice"


def load_sweep(name: str, trials: int | None = None) -> SweepConfig:
    """Read a sweep by shipped name or file.

    Args:
        name: shipped name or path of a YAML file.
        trials: in place of the file's.

    Raises:
        ValueError: no such file, not YAML, or for each bad key one line with its path.
    """
    path = configs.find("sweep", name)
    raw = read_yaml(path, "a sweep") or {}
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(raw).__name__}")
    return check_config(SweepConfig, raw | ({"trials": trials} if trials else {}), str(path))


def write_wandb_sweep(
    config: SweepConfig, data: Path, split: Path | None, fold: int | None, out: Path, project: str
) -> dict[str, Any]:
    """Return the same sweep as Weights & Biases wants it, for `wandb sweep FILE`.

    Its agents start `zoo train` with a run folder named by the run's id.

    Args:
        config: the sweep.
        data: the data set, as the agents find it.
        split: the folds; None where the data set carries them.
        fold: the one to hold out, or None.
        out: folder for the run folders.
        project: where the sweep is listed.
    """
    chosen = ["--data", str(data)]
    chosen += ["--split", str(split)] if split else []
    chosen += ["--fold", str(fold)] if fold is not None else []
    fixed = ["zoo", "train", config.family, "--config", config.config, *chosen]
    # The agent tells a run its id by this variable, which nothing but a shell can put in place.
    script = f'exec {shlex.join(fixed)} --out {shlex.quote(str(out))}/"$WANDB_RUN_ID" "$@"'
    tracked = [f"track.wandb.project={project}", "track.wandb.mode=online"]
    shell = ["/bin/sh", "-c", script, "zoo"]
    metric = "val/dice" if config.score == "val_dice" else f"dice/{config.score}"
    result: dict[str, Any] = {
        "project": project,
        "program": "zoo",
        "command": [*shell, *config.changes, *tracked, "${args_no_hyphens}"],
        "method": "bayes" if config.sampler == "tpe" else "random",
        "metric": {"name": metric, "goal": "maximize"},
        "run_cap": config.trials,
        "parameters": {key: _as_wandb(p) for key, p in config.space.items()},
    }
    if config.pruner.name != "none":
        first = max(1, config.pruner.warmup)
        result["early_terminate"] = {"type": "hyperband", "min_iter": first, "eta": 3}
    return result


def _as_wandb(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind == "choice":
        simple = (int, float, str)
        kept = [
            v if isinstance(v, simple) and not isinstance(v, bool) else as_text(v)
            for v in parameter.values
        ]
        return {"values": kept}
    low, high = parameter.values
    if parameter.kind == "int" and parameter.step:
        return {"values": list(range(low, high + 1, int(parameter.step)))}
    name = {"log": "log_uniform_values", "float": "uniform", "int": "int_uniform"}[parameter.kind]
    stepped = {"q": parameter.step} if parameter.step else {}
    return {"distribution": f"q_{name}" if stepped else name, "min": low, "max": high} | stepped
