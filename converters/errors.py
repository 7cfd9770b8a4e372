"""Errors that a user can cause and mend."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

SHOWN = 20


class DataError(ValueError):
    """Everything that is wrong with a data set, one line a problem.

    Attributes:
        problems: all of them; the message shows the first 20 and counts the rest.
    """

    def __init__(self, where: object, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = [f"{where}: found {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
        lines += [f"  {problem}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"  and {len(problems) - SHOWN} more")
        super().__init__("\n".join(lines))


class MissingDependency(ImportError):  # noqa: N818 (it reads as what is wrong)
    """A library that only some commands need is not installed; the message says how to get it."""


def import_optional(name: str, extra: str) -> ModuleType:
    """Import a library that not every installation has.

    Args:
        name: of the module.
        extra: our extra that installs it, such as `train`.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = f"pip install 'segzoo[{extra}]'"
        raise MissingDependency(f"this needs '{error.name}': install it by {hint}") from error
