"""The list `augment` of a config: names of transforms and their parameters."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from converters.errors import did_you_mean, one_line
from converters.types import LabelSpace
from zoo.augmentation.mixing import CopyPaste, CutMix, Mixing
from zoo.augmentation.probe import check_transform
from zoo.augmentation.smoothing import BilateralFilter
from zoo.augmentation.vendor import A
from zoo.augmentation.wrist_bend import WristBend
from zoo.validation import find_faults

# What albumentations does not have.
OWN: dict[str, Any] = {
    "WristBend": WristBend,
    "CopyPaste": CopyPaste,
    "CutMix": CutMix,
    "BilateralFilter": BilateralFilter,
}


def list_transforms() -> list[tuple[str, str, str]]:
    """Return (name, parameters with their defaults, purpose) of those that are our own."""
    rows = []
    for name, kind in OWN.items():
        given = inspect.signature(kind).parameters.values()
        options = ", ".join(str(one.replace(annotation=one.empty)) for one in given)
        rows.append((name, options, (inspect.getdoc(kind) or "").partition("\n")[0]))
    return rows


def build_steps(
    steps: Sequence[Mapping[str, Any]], labels: LabelSpace | None, where: str = "augment"
) -> list[Any]:
    """Return the transforms of a list of steps.

    Args:
        steps: `{name: a transform of albumentations or of `OWN`, **its parameters}`; in `OneOf`
            and other compositions `transforms` is again such a list.
        labels: the classes, for transforms that name some.
        where: the list's place in the config, for messages.

    Raises:
        ValueError: an unknown transform, parameter or class, or a transform that spoils images or
            masks, naming its place in the list.
    """
    return [_build(step, labels, f"{where}.{i}") for i, step in enumerate(steps)]


def has_mixing(transforms: Sequence[Any]) -> bool:
    """Tell whether any of the transforms takes from another sample."""
    return any(isinstance(transform, Mixing) for transform in _leaves(transforms))


def _leaves(transforms: Sequence[Any]) -> Iterator[Any]:
    for transform in transforms:
        if isinstance(transform, A.BaseCompose):
            yield from _leaves(transform.transforms)
        else:
            yield transform


def _build(step: Mapping[str, Any], labels: LabelSpace | None, where: str) -> Any:
    if not isinstance(step, Mapping) or "name" not in step:
        raise ValueError(f"{where}: expected 'name' and parameters, found {step!r:.80}")
    name = str(step["name"])
    kind = OWN.get(name) or getattr(A, name, None)
    if not isinstance(kind, type) or not issubclass(kind, A.BasicTransform | A.BaseCompose):
        known = f"names are those of albumentations, and {', '.join(OWN)}"
        near = did_you_mean(name, [*OWN, *(other for other in dir(A) if other[:1].isupper())])
        raise ValueError(f"{where}: unknown transform '{name}'{near}; {known}")
    parameters = {key: value for key, value in step.items() if key != "name"}
    _check_keys(parameters, name, kind, where)
    inner = parameters.get("transforms")
    if issubclass(kind, A.BaseCompose) and isinstance(inner, Sequence):
        parameters["transforms"] = build_steps(inner, labels, f"{where}.transforms")
    with warnings.catch_warnings():
        # A bad parameter is, for some, only warned about.
        warnings.simplefilter("error")
        try:
            transform = kind(**parameters)
            if name in OWN and hasattr(transform, "bind"):
                _bind(transform, labels)
        except (TypeError, ValueError, UserWarning) as error:
            raise ValueError(f"{where}: {name}: {_reason(error)}") from None
    if name not in OWN and not issubclass(kind, A.BaseCompose):
        check_transform(kind, parameters, f"{where}: {name}")
    return transform


def _reason(error: Exception) -> str:
    # albumentations raises another error about what pydantic found.
    cause = error.__cause__ or error.__context__ or error
    if not isinstance(cause, ValidationError):
        return one_line(error)
    first = find_faults(cause)[0]
    return f"'{first.place[0] if first.place else 'parameters'}': {first.told}"


def _check_keys(parameters: Mapping[str, Any], name: str, kind: type, where: str) -> None:
    known = list(inspect.signature(kind).parameters)
    for key in parameters:
        if key not in known:
            meant = did_you_mean(str(key), known)
            told = f"unknown parameter '{key}'{meant}; known are {', '.join(known)}"
            raise ValueError(f"{where}: {name}: {told}")


def _bind(transform: Any, labels: LabelSpace | None) -> None:
    if labels is None:
        raise ValueError("expected a label space, whose classes it names, found none")
    transform.bind(labels)
