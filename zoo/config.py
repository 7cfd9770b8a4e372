"""Typed configs: YAML files checked key by key; `key.sub=value` changes from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

import configs


class StrictModel(BaseModel):
    """A part of a config: unknown keys and wrong types are errors; it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RunConfig(StrictModel):
    """What every family's config has.

    Attributes:
        labels: label space, by name or file.
        seed: of weights, order, and augmentation.
    """

    labels: str = "hand_bones"
    seed: int = 0


Model = TypeVar("Model", bound=StrictModel)


def load_config(model: type[Model], kind: str, name: str, changes: Sequence[str] = ()) -> Model:
    """Read a config by shipped name or file, apply changes, and check it.

    Args:
        model: the config's type.
        kind: folder below `configs`, such as `smp`.
        name: shipped name or path of a YAML file.
        changes: `key.sub=value` texts, later ones win.

    Raises:
        ValueError: no such config, not YAML, or for each bad key one line with its path.
    """
    path = configs.find(kind, name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML, found: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(raw).__name__}")
    return check_config(model, apply_changes(raw, changes), str(path))


def apply_changes(raw: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return `raw` with `key.sub=value` changes; values are read as YAML."""
    if not changes:
        return raw
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for change in changes:
        if "=" not in change or change.startswith("="):
            raise ValueError(f"'{change}': expected key.sub=value, found no key or no '='")
    try:
        merged = OmegaConf.merge(OmegaConf.create(raw), OmegaConf.from_dotlist(list(changes)))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{' '.join(changes)}: {' '.join(str(error).split())}") from None
    result = OmegaConf.to_container(merged, resolve=False)
    if not isinstance(result, dict):
        raise ValueError(f"expected keys and values, found {type(result).__name__}")
    return {str(key): value for key, value in result.items()}


def check_config(model: type[Model], raw: dict[str, Any], where: str) -> Model:
    """Build a config from plain values.

    Raises:
        ValueError: one line for each bad key.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(e, model, where) for e in error.errors())) from None


def _explain(error: Any, model: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) if len(error["loc"]) == 1 else "those of its section"
        return f"{where}: unknown key '{key}'; known are {known}"
    return f"{where}: '{key}': {error['msg']}, found {error['input']!r:.80}"


def dump_config(config: BaseModel) -> str:
    """Return a config as the YAML text that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
