"""What is wrong with a value is said once, in plain words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from zoo.config import NoticeConfig, StrictModel, check_config
from zoo.validation import find_faults


class Part(StrictModel):
    """A part of the one below."""

    much: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1


class Config(StrictModel):
    """One of every kind."""

    count: int = 1
    name: str = ""
    on: bool = False
    pair: tuple[int, int] = (1, 2)
    some: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)
    kind: Literal["a", "b"] | Literal["auto"] = "auto"
    batch: int | Literal["auto"] = 1
    shares: dict[str, float] = Field(default_factory=dict)
    part: Part = Part()
    even: int = 2
    word: Annotated[str, Field(pattern="a+")] = "a"

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("expected an even number")
        return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": "ten"}, "count: expected a whole number, found 'ten'"),
        ({"count": 2.5}, "count: expected a whole number, found 2.5"),
        ({"name": 3}, "name: expected text, found 3"),
        ({"on": "maybe"}, "on: expected true or false, found 'maybe'"),
        ({"pair": 3}, "pair: expected a list in brackets, [a, b], found 3"),
        ({"pair": [1, 2, 3]}, "pair: expected at most 2 values, found 3"),
        ({"pair": [1]}, "pair.1: expected a value, found none"),
        ({"some": []}, "some: expected at least 1 values, found 0"),
        ({"kind": "c"}, "kind: expected 'a' or 'b' or 'auto', found 'c'"),
        ({"batch": "many"}, "batch: expected a whole number or 'auto', found 'many'"),
        ({"shares": 1}, "shares: expected keys with values, {key: value}, found 1"),
        ({"shares": {"int": "x"}}, "shares.int: expected a number, found 'x'"),
        ({"part": "x"}, "part: expected keys with values, {key: value}, found 'x'"),
        ({"part": {"much": 0}}, "part.much: expected a value greater than 0, found 0"),
        ({"part": {"much": float("nan")}}, "part.much: expected a finite number, found nan"),
        ({"even": 3}, "even: expected an even number, found 3"),
        ({"odd": 3}, "odd: expected no such key, found 3"),
        ({"word": "b"}, "word: String should match pattern 'a+', found 'b'"),
    ],
)
def test_what_is_wrong(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        Config(**given)
    assert [f"{fault.key}: {fault.told}" for fault in find_faults(error.value)] == [told]


def test_each_value_has_a_line() -> None:
    with pytest.raises(ValueError, match="'batch'") as error:
        check_config(Config, {"batch": "many", "kind": 1, "count": None}, "file")
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == [
        " 'count'",
        " 'kind'",
        " 'batch'",
    ]


@pytest.mark.parametrize("given", [{"notice": "https://secret"}, {"notice": {"url": ["secret"]}}])
def test_secrets_are_not_shown(given: dict[str, Any]) -> None:
    class Told(StrictModel):
        notice: NoticeConfig

    with pytest.raises(ValueError, match="not shown: it is a secret") as error:
        check_config(Told, given, "file")
    assert "secret'" not in str(error.value)
    assert "https" not in str(error.value)
