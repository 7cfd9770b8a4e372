"""What Pydantic finds wrong with values, in the words of this program's messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import ValidationError

# Kind of error -> what was expected; of others, what Pydantic says.
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "a list in brackets, [a, b]"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "dataclass_type", "mapping_type"),
        "keys with values, {key: value}",
    ),
    "missing": "a value",
    "extra_forbidden": "no such key",
}
_SAYS = re.compile(r"Input should be (?:a valid )?(.*)", re.DOTALL)
_SIZES = {"too_short": "at least {min_length}", "too_long": "at most {max_length}"}
# What Pydantic adds to the place of a value that may be of several types.
_BRANCH = re.compile(
    r"(int|float|bool|str|datetime|timedelta)|(literal|tuple|list|dict|set|constrained-\w+|"
    r"function-[\w-]+|lax-or-strict|nullable)(\[.*\])?",
    re.DOTALL,
)
_SHOWN = 80


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a value.

    Attributes:
        place: the keys that lead to it.
        kind: Pydantic's name of the error; that of the first, of a value of several types.
        told: what is wrong, `expected ..., found ...` where no check of our own says it.
        value: what was found; for a missing key what it is missing in.
    """

    place: tuple[str | int, ...]
    kind: str
    told: str
    value: Any

    @property
    def key(self) -> str:
        """The keys with dots between them."""
        return ".".join(map(str, self.place))


def find_faults(error: ValidationError) -> list[Fault]:
    """Return what is wrong, one entry for each value."""
    errors = error.errors(include_url=False)
    several = Counter(each["loc"][:-1] for each in errors if _is_branch(each))

    def place(each: Any) -> tuple[str | int, ...]:
        above: tuple[str | int, ...] = each["loc"][:-1]
        return above if _is_branch(each) and several[above] > 1 else each["loc"]

    return [_fault(where, list(own)) for where, own in groupby(errors, place)]


def _is_branch(error: Any) -> bool:
    """Tell whether Pydantic has added to a place for which of several types this is wrong."""
    place, kind = error["loc"], error["type"]
    is_word = len(place) > 1 and isinstance(place[-1], str) and kind != "extra_forbidden"
    return bool(is_word and _BRANCH.fullmatch(place[-1]))


def _fault(place: tuple[str | int, ...], errors: list[Any]) -> Fault:
    first = errors[0]
    if first["type"] == "value_error":
        # Pydantic puts "Value error, " before what our own checks say.
        told = str(first["ctx"]["error"])
        if "found" not in told and "expected" in told and place:
            told += _found(first["input"])
    elif (size := _SIZES.get(first["type"])) is not None:
        number = first["ctx"]["actual_length"]
        told = f"expected {size.format(**first['ctx'])} values, found {number}"
    elif first["type"] not in _EXPECTED and not _SAYS.fullmatch(str(first["msg"])):
        told = f"{first['msg']}{_found(first['input'])}"
    else:
        found = ", found none" if first["type"] == "missing" else _found(first["input"])
        told = f"expected {' or '.join(dict.fromkeys(_expected(errors)))}{found}"
    return Fault(place, first["type"], told, first["input"])


def _expected(errors: list[Any]) -> Iterator[str]:
    for error in errors:
        said = _SAYS.fullmatch(str(error["msg"]))
        what = _EXPECTED.get(error["type"]) or (said[1] if said else str(error["msg"]))
        yield f"a value {what}" if what.startswith(("greater", "less")) else what


def _found(value: object) -> str:
    return f", found {value!r:.{_SHOWN}}"
