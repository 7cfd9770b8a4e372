"""What the configs of all families have in common."""

from __future__ import annotations

import inspect
import sys
from itertools import permutations
from typing import Any

import pytest
import yaml

import configs
from zoo.config import RunConfig, StrictModel, Workload, check_config
from zoo.families import FAMILIES, load_family
from zoo.training.config import TrainerConfig, WindowConfig
from zoo.training.instance_config import InstanceConfig
from zoo.training.semantic_config import SemanticConfig

pytestmark = pytest.mark.slow


def _depth(kind: type) -> int:
    """How many classes lie between a config and `StrictModel`, on the longest way, and itself."""
    if kind is StrictModel:
        return 0
    return 1 + max(_depth(base) for base in kind.__bases__ if issubclass(base, StrictModel))


@pytest.mark.parametrize("name", FAMILIES)
def test_no_config_is_more_than_three_classes_deep(name: str) -> None:
    config = load_family(name).Config
    assert issubclass(config, RunConfig)
    assert _depth(config) <= 3


def test_groups_of_keys_stand_by_themselves() -> None:
    assert {_depth(group) for group in (RunConfig, TrainerConfig, WindowConfig)} == {1}


def _with_bases(kind: type[StrictModel], bases: tuple[type, ...]) -> type[StrictModel]:
    """Make a config's class anew, with its groups of keys in another order."""
    head, _, body = inspect.getsource(kind).partition("\n")
    assert head == f"class {kind.__name__}({', '.join(base.__name__ for base in kind.__bases__)}):"
    named = ", ".join(base.__name__ for base in bases)
    space = dict(vars(sys.modules[kind.__module__]))
    exec(f"class {kind.__name__}({named}):\n{body}", space)
    made: type[StrictModel] = space[kind.__name__]
    return made


ORDERS = [
    (kind, bases)
    for kind in (SemanticConfig, InstanceConfig)
    for bases in permutations(kind.__bases__)
]
PLAIN = {"size": [96, 64], "epochs": 2, "batch": 2}
GIVEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "others": {"labels": "ram_w600", "seed": 3, "device": "cuda:1", "devices": 2, "conf": 0.5},
    "augmented": {"augment": [{"name": "CopyPaste", "classes": ["Ulna"]}]},
    "windows": {"window": [64, 64], "work_size": [100, 90], "size": [64, 64]},
    "windows of a size that is none": {"window": [64, 64], "size": [100, 90]},
    "window too large": {"window": [128, 64]},
    "window that is none": {"window": [40, 40], "size": [100, 90]},
    "size that is none": {"size": [100, 90]},
    "size without a window": {"size": [100, 90], "window": None},
    "no such class": {"augment": [{"name": "CopyPaste", "classes": ["zz"]}]},
    "class of others": {"labels": "waste", "augment": [{"name": "CopyPaste", "classes": ["Ulna"]}]},
    "no such labels": {"labels": "nobody", "augment": [{"name": "CopyPaste"}]},
    "two averages": {"ema": 0.9, "swa": {}},
    "focus": {"window": [64, 64], "focus": {"Ulna": 1.5}},
    "a schedule that follows scores": {"swa": {"lr": 0.1}, "optim": {"schedule": "plateau"}},
    "unknown keys": {"windw": 3, "epoch": 2},
}


def _outcome(kind: type[StrictModel], raw: dict[str, Any]) -> Any:
    """Return a config's values and answers, or what is wrong with it, in any order of keys."""
    try:
        config: Any = check_config(kind, PLAIN | raw, "test")
    except ValueError as error:
        return [sorted(line.replace(",", "").split()) for line in str(error).splitlines()]
    answers = ("workload", "image_size", "input_size", "input_key", "last_average", "least_batch")
    return config.model_dump(), config.parts.window, *(getattr(config, name) for name in answers)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(
    ("kind", "bases"),
    ORDERS,
    ids=lambda v: "-".join(b.__name__ for b in v) if type(v) is tuple else "",
)
@pytest.mark.slow
def test_groups_of_keys_may_come_in_any_order(
    kind: type[StrictModel], bases: tuple[type, ...], given: str
) -> None:
    raw = GIVEN[given]
    assert _outcome(_with_bases(kind, bases), raw) == _outcome(kind, raw)


@pytest.mark.parametrize(("name", "first"), [("smp", "window"), ("maskrcnn", "size")])
def test_the_order_in_which_keys_are_written(name: str, first: str) -> None:
    keys = list(load_family(name).Config.model_fields)
    assert keys[:6] == ["labels", "seed", "track", "notice", "note", first]
    assert keys.index("size") + 1 == keys.index("epochs")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_config_says_where_it_runs(name: str) -> None:
    raw = yaml.safe_load(
        configs.find(name, next(iter(configs.names(name)))).read_text(encoding="utf-8")
    )
    kind = load_family(name).Config
    there = {"device": "cuda:1"} if "device" in kind.model_fields else {}
    config: Any = check_config(kind, raw | there, name)
    epochs = getattr(config, "epochs", 0)
    assert config.workload == Workload(there.get("device", "auto"), 1, 1, epochs)


def test_a_config_without_such_keys_has_defaults() -> None:
    assert RunConfig().workload == Workload("auto", 1, 1, 0)
    assert RunConfig.own_format == ""
    assert load_family("segformer").Config.own_format == "segformer"
