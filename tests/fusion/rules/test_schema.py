"""Dataclasses from plain values and back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from fusion.rules.schema import DataclassReader, describe, plain, purpose

Action = Callable[[int], int]


@dataclass(frozen=True)
class Inner:
    """One part.

    Attributes:
        size: how large
            it is.
        tags: words.
    """

    size: float
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"expected a size >= 0, found {self.size}")


@dataclass(frozen=True)
class Outer(Inner):
    """All of it.

    Attributes:
        kind: which one.
    """

    size: float = 1.0
    kind: Literal["a", "b"] = "a"
    count: int = 0
    flag: bool = True
    pair: tuple[int, float] = (1, 2.0)
    parts: Mapping[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None
    who: str | Action | None = None
    doubled: int = field(default=0, metadata={"read": lambda raw, where: 2 * raw})


def read_action(raw, where):
    if raw != {"do": "it"}:
        raise ValueError(f"{where}: expected an action")
    return abs


READER = DataclassReader({Action: read_action})
GOOD = {
    "empty": ({}, Outer()),
    "scalars": ({"size": 2, "count": 3, "flag": False}, Outer(2.0, count=3, flag=False)),
    "exponent": ({"size": "1e-3"}, Outer(0.001)),
    "literal": ({"kind": "b"}, Outer(kind="b")),
    "numbers as texts": ({"tags": [1, "x"]}, Outer(tags=("1", "x"))),
    "pair": ({"pair": [3, 4]}, Outer(pair=(3, 4.0))),
    "nested": ({"parts": {7: {"size": 1}}}, Outer(parts={"7": Inner(1.0)})),
    "optional": ({"maybe": {"size": 1}}, Outer(maybe=Inner(1.0))),
    "none": ({"maybe": None, "who": None}, Outer()),
    "text of a union": ({"who": "me"}, Outer(who="me")),
    "own of a union": ({"who": {"do": "it"}}, Outer(who=abs)),
    "own of a field": ({"doubled": 4}, Outer(doubled=8)),
}
BAD = {
    "no mapping": ([], r"^expected a mapping, found \[\]"),
    "unknown": ({"sizes": 1}, "expected keys of size, tags, kind.* found 'sizes'"),
    "missing": ({"parts": {"x": {"tags": []}}}, "parts: x: expected the key 'size', found tags"),
    "text": ({"size": "large"}, "size: expected a number, found 'large'"),
    "bool as number": ({"size": True}, "size: expected a number, found True"),
    "bool as whole": ({"count": True}, "count: expected a whole number, found True"),
    "fraction": ({"count": 1.5}, "count: expected a whole number, found 1.5"),
    "number as bool": ({"flag": 1}, "flag: expected true or false, found 1"),
    "literal": ({"kind": "c"}, "kind: expected one of a, b, found 'c'"),
    "no list": ({"tags": "x"}, "tags: expected a list, found 'x'"),
    "bool as text": ({"tags": ["x", True]}, "tags: entry 2: expected a text.* put it in quotes"),
    "bool as key": ({"parts": {True: {"size": 1}}}, "parts: a key: expected a text, found True"),
    "length": ({"pair": [1]}, r"pair: expected a list of 2, found \[1\]"),
    "value": ({"parts": {"x": {"size": -1}}}, "parts: x: expected a size >= 0, found -1.0"),
    "own": ({"who": {"do": "not"}}, "who: expected an action"),
    "union": ({"who": 1.5}, "who: expected a text or a mapping or nothing, found 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_plain_values_become_a_dataclass(name):
    raw, expected = GOOD[name]
    assert READER.read(Outer, raw, "") == expected


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name):
    raw, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        READER.read(Outer, raw, "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n for n in GOOD if n not in {"own of a union", "own of a field"}])
def test_there_and_back(name):
    _, value = GOOD[name]
    assert READER.read(Outer, plain(value), "") == value


def test_what_is_empty_by_default_is_left_out():
    assert set(plain(Outer())) == {"size", "kind", "count", "flag", "pair", "doubled"}
    assert plain(Inner(1.0, ("x",))) == {"size": 1.0, "tags": ["x"]}


def test_attributes_are_described_by_the_docstrings():
    assert describe(Outer) == {"size": "how large it is.", "tags": "words.", "kind": "which one."}
    assert purpose(Outer) == "All of it."
