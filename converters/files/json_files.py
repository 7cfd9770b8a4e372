"""JSON files: one reader, strict, with one line for what is wrong, and one way of writing."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from converters.errors import one_line
from converters.files import git_lfs

# JSON may hold characters by halves, and then one without the other, which no file can hold.
_NEAR = 1 << 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def dump_json(record: Any) -> str:
    """Return a record as JSON for people; what JSON does not know becomes text."""
    return json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"


def are_numbers(values: Iterable[object]) -> bool:
    """Tell whether values of JSON are numbers, and neither texts nor true and false.

    >>> are_numbers([1, 2.5]), are_numbers([1, True]), are_numbers(["1"])
    (True, False, False)
    """
    return {*map(type, values)} <= {int, float}


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file, whoever wrote it.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ValueError: no such file, or none that holds JSON; the message names the file.
    """
    try:
        return load_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected {what}: {error}") from None


def load_json(path: Path) -> Any:
    """Read a JSON file for whoever names it in the error.

    Raises:
        ValueError: as `read_json`; the message does not name the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a JSON file, found: {error.strerror}") from None
    return parse_json(content)


def read_member(path: Path, name: str) -> Any:
    """Return one member of the object in a JSON file, if it can be without reading the rest.

    Args:
        path: the file, which may be large.
        name: of the member; where several objects have one, the outermost counts.

    Raises:
        ValueError: as `load_json`, or the file holds no object.
        KeyError: it has no such member.
    """
    quoted = json.dumps(name).encode()
    try:
        with path.open("rb") as file:
            places = list(islice(_find(file, quoted), 2))
            file.seek(places[0] + len(quoted) if places else 0)
            near = file.read(_NEAR)
    except OSError as error:
        raise ValueError(f"expected a JSON file, found: {error.strerror}") from None
    if len(places) == 1:
        # A file of annotations has few classes and many objects.
        text = near.decode("utf-8", errors="ignore").lstrip()
        if text.startswith(":"):
            with suppress(ValueError, RecursionError):
                return json.JSONDecoder().raw_decode(text[1:].lstrip())[0]
    record = load_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, found {type(record).__name__}")
    return record[name]


def _find(file: IO[bytes], word: bytes) -> Iterator[int]:
    """Yield where a word is in a file, without holding more than a block of it."""
    before, held = 0, b""
    while block := file.read(_NEAR):
        held += block
        at = held.find(word)
        while at >= 0:
            yield before + at
            at = held.find(word, at + len(word))
        kept = held[-(len(word) - 1) :]
        before += len(held) - len(kept)
        held = kept


def parse_value(text: str, start: int) -> tuple[Any, int] | None:
    """Return the value that begins at a place of a JSON text, and where it ends; else None.

    As `parse_json`, without a word on what is wrong: it may be that the text ends too early.

    >>> parse_value('{"a": [1, 2]}', 6), parse_value('{"a": [1, ', 6)
    (([1, 2], 12), None)
    """
    try:
        found, end = _DECODER.raw_decode(text, start)
        if _SURROGATE.search(text, start, end):
            json.dumps(found, ensure_ascii=False, default=str).encode()
    except (ValueError, RecursionError):
        return None
    return found, end


def parse_json(content: bytes) -> Any:
    """Return what a JSON text in UTF-8 holds.

    Raises:
        ValueError: not JSON in UTF-8, a name that comes twice in an object, half a character
            (a lone surrogate), numbers of thousands of digits, or brackets nested too deeply.
    """
    if not content or content.isspace():
        raise ValueError("expected JSON, found an empty file")
    if git_lfs.is_pointer(content):
        raise ValueError(f"expected JSON, found {git_lfs.WHAT}")
    try:
        text = content.decode("utf-8-sig")
        with without_collection():
            found = json.loads(text, object_pairs_hook=_object)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False, default=str).encode()
        return found
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise ValueError(f"expected text, found half a character: {half}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, found {one_line(error)}") from None
    except RecursionError:
        raise ValueError("expected JSON, found brackets nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON, found a broken file ({error})") from None
    except ValueError as error:
        # Python refuses numbers of thousands of digits, and says how to change that.
        raise ValueError(f"expected JSON, found: {str(error).split(';')[0]}") from None


@contextmanager
def without_collection() -> Iterator[None]:
    """Look for no garbage meanwhile: of a million new lists none is, and each would be visited."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name '{twice:.40}' twice in one object")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
