"""Frozen dataclasses as plain values, such as a YAML file's, and back: a field is a key.

The fields' types are the schema. A key that no field has, one that is missing and a value of
another type are errors that name the place.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Parse = Callable[[Any, str], Any]
# YAML 1.1 takes 1e-3 for a text: it wants a point.
_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")
_WHAT = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "nothing",
}


@dataclass(frozen=True)
class DataclassReader:
    """Builds values of given types from plain ones.

    Attributes:
        own: type -> how to read it: `parse(raw, where)`. A dataclass's field may bring its own as
            `metadata={"read": parse}`.
    """

    own: Mapping[Any, Parse] = field(default_factory=dict)

    def read(self, kind: Any, raw: Any, where: str) -> Any:
        """Return the value of type `kind` that `raw` means.

        Args:
            kind: a dataclass, str, bool, int, float, Literal, `tuple[T, ...]` or of fixed length,
                Mapping, a union of these, or one of `own`.
            raw: of dicts, lists, texts, numbers, booleans and None.
            where: the place in the file, for messages: keys, with a colon between them.

        Raises:
            ValueError: `raw` is something else; names the place, what was expected and found.
        """
        origin, args = get_origin(kind), get_args(kind)
        if kind in self.own:
            return self.own[kind](raw, where)
        if origin in (Union, UnionType):
            return self._read_union(args, raw, where)
        if origin is Literal:
            return _checked(raw in args, raw, where, f"one of {', '.join(map(str, args))}")
        if origin is tuple:
            return self._read_tuple(args, raw, where)
        if dataclasses.is_dataclass(kind):
            return self._read_fields(kind, raw, where)
        if origin is not None:
            return self._read_mapping(args, raw, where)
        return _read_scalar(kind, raw, where)

    def _read_union(self, kinds: tuple[Any, ...], raw: Any, where: str) -> Any:
        fitting = [kind for kind in kinds if self._fits(kind, raw)]
        if not fitting:
            _checked(False, raw, where, " or ".join(dict.fromkeys(map(_what, kinds))))
        return None if raw is None else self.read(fitting[0], raw, where)

    def _fits(self, kind: Any, raw: Any) -> bool:
        if NoneType in (kind, type(raw)):
            return kind is type(raw)
        if get_origin(kind) is tuple:
            return isinstance(raw, list)
        if kind is str:
            return isinstance(raw, str | int) and not isinstance(raw, bool)
        if kind in _WHAT:
            return isinstance(raw, (int, float) if kind is float else kind)
        return isinstance(raw, dict)

    def _read_tuple(self, kinds: tuple[Any, ...], raw: Any, where: str) -> tuple[Any, ...]:
        _checked(isinstance(raw, list), raw, where, "a list")
        if kinds[-1] is ...:
            kinds = (kinds[0],) * len(raw)
        _checked(len(kinds) == len(raw), raw, where, f"a list of {len(kinds)}")
        pairs = enumerate(zip(kinds, raw, strict=True), start=1)
        return tuple(self.read(kind, value, f"{where}: entry {n}") for n, (kind, value) in pairs)

    def _read_mapping(self, kinds: tuple[Any, ...], raw: Any, where: str) -> dict[Any, Any]:
        _checked(isinstance(raw, dict), raw, where, "a mapping")
        key_kind, kind = kinds
        keys = [self.read(key_kind, key, f"{where}: a key") for key in raw]
        return {
            key: self.read(kind, value, f"{where}: {key}")
            for key, value in zip(keys, raw.values(), strict=True)
        }

    def _read_fields(self, kind: Any, raw: Any, where: str) -> Any:
        _checked(isinstance(raw, dict), raw, where, "a mapping")
        fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
        at = f"{where}: " if where else ""
        if unknown := [str(key) for key in raw if key not in fields]:
            expected = f"expected keys of {', '.join(fields)}"
            raise ValueError(f"{at}{expected}; found '{unknown[0]}'")
        if missing := [f.name for f in fields.values() if _is_needed(f) and f.name not in raw]:
            raise ValueError(
                f"{at}expected the key '{missing[0]}', found {', '.join(raw) or 'none'}"
            )
        hints = get_type_hints(kind)
        values = {}
        for key, value in raw.items():
            parse: Parse | None = fields[key].metadata.get("read")
            inner = f"{at}{key}"
            values[key] = parse(value, inner) if parse else self.read(hints[key], value, inner)
        try:
            return kind(**values)
        except ValueError as error:
            raise ValueError(f"{at}{error}") from None


def plain(value: Any, own: Callable[[Any], Any] = lambda value: None) -> Any:
    """Return a dataclass, or what one may hold, as plain values that `DataclassReader` reads.

    A field that is empty, as it is by default, is left out.

    Args:
        value: a dataclass, mapping, tuple, text, number, boolean or None.
        own: returns the plain value of what has its own, and None for everything else.
    """
    if (found := own(value)) is not None:
        return found
    if dataclasses.is_dataclass(value):
        return plain_fields(value, own)
    if isinstance(value, Mapping):
        return {key: plain(entry, own) for key, entry in value.items()}
    return [plain(entry, own) for entry in value] if isinstance(value, tuple | list) else value


def plain_fields(value: Any, own: Callable[[Any], Any] = lambda value: None) -> dict[str, Any]:
    """Return a dataclass's fields as plain values; see `plain`."""
    pairs = [(f, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    return {f.name: plain(v, own) for f, v in pairs if not _is_left_out(f, v)}


def describe(kind: type) -> dict[str, str]:
    """Return what a dataclass's docstring, or one that it extends, says of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def purpose(kind: type) -> str:
    """Return the first line of a dataclass's docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def _what(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list"
    return _WHAT.get(kind, "a mapping")


def _is_needed(entry: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return entry.default is missing and entry.default_factory is missing


def _is_left_out(entry: dataclasses.Field[Any], value: Any) -> bool:
    if entry.default_factory is not dataclasses.MISSING:
        return not value and value == entry.default_factory()
    return entry.default in (None, "", ()) and value == entry.default


def _read_scalar(kind: Any, raw: Any, where: str) -> Any:
    if kind is float and isinstance(raw, str) and _EXPONENT.fullmatch(raw):
        return float(raw)
    if kind is str and isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    is_right = isinstance(raw, (int, float) if kind is float else kind)
    is_right = is_right and (kind is bool or not isinstance(raw, bool))
    return kind(_checked(is_right, raw, where, _WHAT[kind]))


def _checked(is_right: bool, raw: Any, where: str, expected: str) -> Any:
    if not is_right:
        hint = "; put it in quotes" if expected == _WHAT[str] and raw is not None else ""
        at = f"{where}: " if where else ""
        raise ValueError(f"{at}expected {expected}, found {raw!r:.80}{hint}")
    return raw
