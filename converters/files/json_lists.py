"""A long list in a JSON file, such as COCO's annotations: read once, and an entry when asked for.

The numbers of a large file would be lists of Python's numbers, five times as large as the file.
What stays in memory is where each entry lies in the file.

Entries are objects without objects in them, as a rule; those are taken apart by msgspec, which
leaves values that nobody asks for as they are written. All others are read by `json`. Either way a
name that comes twice in an object is an error.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from converters.errors import one_line
from converters.files.json_files import load_json, parse_value, without_collection

_BLOCK = 1 << 22
_OPEN = re.compile(r"[-+.0-9eE]*")
_SPACE = re.compile(r"[ \t\n\r]*")


_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


class JsonList:
    """The entries of a list that stays in its file.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, stamp: tuple[int, int] = (0, 0)) -> None:
        self.path = path
        self._stamp = stamp
        self._starts, self._ends = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._starts)

    def read(
        self, places: Sequence[int], parse: Callable[[bytes], list[Any]] | None = None
    ) -> list[Any]:
        """Return entries.

        Args:
            places: of the entries, from 0 on; those that follow each other are read together.
            parse: takes JSON of a list of entries; None makes Python's objects of them.

        Raises:
            ValueError: the file was changed since, or what `parse` raises.
        """
        if not places:
            return []
        found: list[Any] = []
        parse = parse or _decode
        try:
            with self.path.open("rb", buffering=0) as file:
                if _stamp(file) != self._stamp:
                    raise ValueError("expected the file as it was, found it changed meanwhile")
                for first, last in _spans(places):
                    start, end = self._starts[first], self._ends[last]
                    found += parse(b"[%b]" % os.pread(file.fileno(), end - start, start))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"expected the file as it was, found: {one_line(error)}") from None
        except RecursionError:
            raise ValueError("expected JSON, found brackets nested too deeply") from None
        except ValueError as error:
            # Python refuses numbers of thousands of digits, and says how to change that.
            raise ValueError(str(error).split(";")[0]) from None
        return found

    def _add(self, start: int, end: int) -> None:
        self._starts.append(start)
        self._ends.append(end)


def scan_list(path: Path, name: str | None, look: Callable[[Any], None]) -> tuple[Any, JsonList]:
    """Read a JSON file, whoever wrote it, and leave one of its lists there.

    Args:
        path: the file.
        name: of the member of the outermost object that is the list; None where the file is one.
        look: is given each of its entries, in their order, an object as a mapping; it may raise a
            ValueError.

    Returns:
        What the file holds, with an empty list in place of that one, and the list. A file that
        holds something else, or an object without such a list, is returned as it is.

    Raises:
        ValueError: as `load_json`; the message does not name the file.
    """
    try:
        with path.open("rb") as file, without_collection():
            return _Scan(file, JsonList(path, _stamp(file)), name, look).record()
    except OSError as error:
        raise ValueError(f"expected a JSON file, found: {error.strerror}") from None
    except _NotScannedError:
        # No object, or broken: what is wrong is said by who reads all of it.
        found = load_json(path)
    except ValueError:
        # What is wrong with an entry matters less than what is wrong with the file.
        load_json(path)
        raise
    if isinstance(found, list if name is None else dict):
        raise ValueError("expected JSON, found a file that is being written")
    return found, JsonList(path)


class _Entry(Mapping[str, Any]):
    """An object without objects in it, whose values are read when they are asked for."""

    def __init__(self, written: dict[str, msgspec.Raw]) -> None:
        self._written = written

    def __getitem__(self, name: str) -> Any:
        return _decode(self._written[name])

    def get(self, name: str, default: Any = None) -> Any:
        return _decode(self._written[name]) if name in self._written else default

    def __contains__(self, name: object) -> bool:
        return name in self._written

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)


def _decode(text: bytes | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):  # NaN, too large numbers, deep brackets
        return json.loads(bytes(text))


def _take_apart(text: str) -> list[dict[str, msgspec.Raw]] | None:
    """Return objects with commas between them.

    None unless each is one without objects in it and without a name that comes twice, and there
    are no other braces.
    """
    if not text.isascii() or "\\" in text:
        return None
    try:
        entries = _OBJECTS.decode(f"[{text}]")
    except (msgspec.MsgspecError, RecursionError):
        return None
    # A name has a colon. There are more of them where an object lies in another, where a name comes
    # twice, or in texts.
    if text.count(":") != sum(map(len, entries)):
        return None
    if not text.count("{") == text.count("}") == len(entries):
        return None
    return entries


class _NotScannedError(Exception):
    """The file is no object of JSON."""


class _Scan:
    """Reads an object's members from a file, block by block."""

    def __init__(
        self, file: IO[bytes], entries: JsonList, name: str | None, look: Callable[[Any], None]
    ) -> None:
        self._file, self._entries, self._name, self._look = file, entries, name, look
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._is_done = "", 0, False
        self._is_new = False
        # Of the file's bytes, those before the place in the text.
        self._before = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(0)

    def record(self) -> tuple[Any, JsonList]:
        """Read the whole file."""
        found: Any = []
        if self._name is None:
            self._list()
        else:
            found = self._members()
        if self._next():
            raise _NotScannedError
        return found, self._entries

    def _members(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in self._items("{", "}"):
            name = self._value()
            if not isinstance(name, str) or name in found or self._next() != ":":
                raise _NotScannedError
            self._go(self._at + 1)
            if name == self._name and self._next() == "[":
                found[name] = []
                self._list()
            else:
                found[name] = self._value()
        return found

    def _list(self) -> None:
        for _ in self._items("[", "]"):
            self._next()
            self._block()
            start = self._before
            entry = self._value()
            self._entries._add(start, self._before)
            self._look(entry)

    def _block(self) -> None:
        """Read entries at once that are whole in the block, but for the last one."""
        if not self._is_new:
            return
        self._is_new = False
        last = self._text.rfind("},", self._at)
        if last < 0:
            return
        text = self._text[self._at : last + 1]
        found = _take_apart(text)
        if found is None:
            return
        end = 0
        for entry in found:
            start = text.index("{", end)
            end = text.index("}", start) + 1
            self._entries._add(self._before + start, self._before + end)
            self._look(_Entry(entry))
        self._go(last + 2)

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each item of an object or a list."""
        if self._next() != opening:
            raise _NotScannedError
        self._go(self._at + 1)
        if self._next() == closing:
            self._go(self._at + 1)
            return
        while True:
            yield
            sign = self._next()
            self._go(self._at + 1)
            if sign == closing:
                return
            if sign != ",":
                raise _NotScannedError

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            if space and space.end() > self._at:
                self._go(space.end())
            if self._at < len(self._text) or self._is_done:
                return self._text[self._at : self._at + 1]
            self._more()

    def _value(self) -> Any:
        self._next()
        while True:
            found = parse_value(self._text, self._at)
            # A number at the end of a block may go on in the next: 1 is also the start of 1.5e3.
            if found and (self._is_done or not _OPEN.fullmatch(self._text, found[1])):
                value, end = found
                self._go(end)
                return value
            if self._is_done:
                raise _NotScannedError
            self._more()

    def _go(self, end: int) -> None:
        if self._text.isascii():
            self._before += end - self._at
        else:
            self._before += len(self._text[self._at : end].encode())
        self._at = end

    def _more(self) -> None:
        rest = self._text[self._at :]
        block = self._file.read(max(_BLOCK, len(rest)))
        self._is_done = not block
        try:
            self._text, self._at = rest + self._decode(block, self._is_done), 0
            self._is_new = True
        except UnicodeDecodeError:
            raise _NotScannedError from None


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _spans(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of the places that follow each other."""
    first = last = places[0]
    for place in places[1:]:
        if place != last + 1:
            yield first, last
            first = place
        last = place
    yield first, last
