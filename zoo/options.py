"""Options by name: a function's keyword-only parameters are the schema of its part of a config."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import (
    Field,
    ValidationError,
    create_model,
)

from zoo.config import StrictModel
from zoo.validation import Fault, find_faults

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# A part of a whole, that is not nothing.
Share = Annotated[float, Field(gt=0, le=1)]


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the options that a function takes, with what they are where none are given.

    >>> def shrink(values: list, *, factor: float = 0.5): ...
    >>> defaults(shrink)
    {'factor': 0.5}
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_options(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    where: str,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the options that are given, each as the type that the function says.

    Args:
        function: whose keyword-only parameters are the options.
        given: option -> value, as a config has it.
        where: its place in the config, for messages.
        further: required keys beside the options -> type.

    Raises:
        ValueError: an unknown option, a missing key, or a value of another type or range.
    """
    model = _model(function, tuple((further or {}).items()))
    try:
        checked = model.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError("; ".join(_explain(f, model, where) for f in find_faults(error))) from None
    return checked.model_dump(exclude_unset=True)


def describe(functions: Mapping[str, Callable[..., Any]]) -> list[tuple[str, str, str]]:
    """Return (name, options with their defaults, purpose) of each function, for a table."""
    rows = []
    for name, function in functions.items():
        options = ", ".join(f"{key}={value}" for key, value in defaults(function).items())
        purpose = inspect.getdoc(function) or ""
        rows.append((name, options, purpose.splitlines()[0] if purpose else ""))
    return rows


@cache
def _model(function: Callable[..., Any], further: tuple[tuple[str, Any], ...]) -> type[StrictModel]:
    types = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {key: (kind, ...) for key, kind in further}
    fields |= {key: (types[key], value) for key, value in defaults(function).items()}
    return create_model(function.__name__, __base__=StrictModel, **fields)


def _explain(fault: Fault, model: type[StrictModel], where: str) -> str:
    key = f"{where}.{fault.key}" if fault.place else where
    if fault.kind == "extra_forbidden":
        known = ", ".join(model.model_fields) or "no options"
        return f"{key}: unknown option; {where} takes {known}"
    return f"{key}: {fault.told}"


def flatten(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings as `key.sub` -> text, as a command line writes them.

    >>> flatten({"optim": {"lr": 0.1}, "size": [64, 64]})
    {'optim.lr': '0.1', 'size': '[64, 64]'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """Return a value as a command line writes it, so that YAML reads the same.

    >>> as_text([512, 512]), as_text("adamw"), as_text(None), as_text(1e-05)
    ('[512, 512]', 'adamw', 'null', '1.0e-05')
    """
    if isinstance(value, str) and value == yaml.safe_load(value) and not _is_number(value):
        return value
    text = json.dumps(value)
    # YAML 1.1 wants a point in a number with an exponent.
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text


def _is_number(text: str) -> bool:
    # To YAML 1.1, 1e-5 is a text; to a command line's reader it is not.
    try:
        float(text)
    except ValueError:
        return False
    return True
