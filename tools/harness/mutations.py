"""Ways in which a file of a user may be broken, drawn from a seed."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

# What stands where something else was expected.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 0.5, -0.5, 1e-9, 1e308, float("nan"), float("inf"), 2**31,
    2**63, 2**70, "", " ", "a", "0", "1.5", "nan", "null", "yes", "2026-11-27", "../../x", "/",
    "a/b", "C:\\x", "x" * 5000, "ä", "\u200b", "\ud800", "a\nb", "a,b", "'", [], [[]], [0], [None],
    ["a"], {}, {"a": 1}, {"": {}}, [[0, 0], [1, 1], [2, 2]], [1, 2, 3, 4],
)  # fmt: skip
YAML_TEXTS = (
    "a: &a [x]\nb: *a\n",
    "!!python/object/apply:os.getcwd []\n",
    "a: 2026-11-27\n",
    "\tx: 1\n",
    "? [1, 2]\n: 3\n",
    "a: 1\na: 2\n",
    "- 1\n- 2\n",
    "x\n",
    "--- 1\n--- 2\n",
    "a: !!set {b}\n",
    "a: " + "[" * 3000 + "\n",
    "base: &b [1]\nl1: &c [*b, *b]\nl2: &d [*c, *c]\n",
)
Mutation = Callable[[Path, random.Random], str]


def mutate(path: Path, rng: random.Random) -> str:
    """Break one file; return in words what was done."""
    ways: list[Mutation] = [_bytes, _bytes, _place]
    ways += {
        ".json": [_json] * 5,
        ".yaml": [_yaml] * 4,
        ".csv": [_table] * 3,
        ".txt": [_words] * 3,
    }.get(path.suffix, [])
    return rng.choice(ways)(path, rng)


def _bytes(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = rng.choice(list(BYTES))
    path.unlink()  # never through a link
    path.write_bytes(BYTES[kind](content, rng))
    return kind


def _flip(content: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 3, 30))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut_out(content: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice((1, 4, 64, 4096))]
    return bytes(content)


def _zeros(content: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    return bytes(content)


def _recoded(content: bytearray, encoding: str) -> bytes:
    return bytes(content).decode("latin-1").encode(encoding)


BYTES: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "empty": lambda content, rng: b"",
    "bits flipped": _flip,
    "truncated": lambda content, rng: bytes(content[: rng.randrange(len(content) + 1)]),
    "bytes cut out": _cut_out,
    "zeros within": _zeros,
    "noise": lambda content, rng: rng.randbytes(rng.choice((1, 16, 5000))),
    "noise behind": lambda content, rng: bytes(content) + rng.randbytes(9),
    "twice": lambda content, rng: bytes(content) * 2,
    "UTF-16": lambda content, rng: _recoded(content, "utf-16"),
    "byte-order mark": lambda content, rng: b"\xef\xbb\xbf" + bytes(content),
    "CRLF": lambda content, rng: bytes(content).replace(b"\n", b"\r\n"),
    "white": lambda content, rng: b" \n\n",
    "a JSON null": lambda content, rng: b"null",
    "a JSON list": lambda content, rng: b"[]",
    "a JSON object": lambda content, rng: b"{}",
    "deep": lambda content, rng: b"[" * 100_000,
}


def _place(path: Path, rng: random.Random) -> str:
    kind = rng.choice(("gone", "a folder", "dangling", "circle", "renamed", "suffix", "copied"))
    if kind == "copied":
        shutil.copy(path, path.with_name(f"{path.stem} copy{path.suffix}"))
        return kind
    if kind == "renamed":
        path.rename(path.with_name(f"{path.stem}_{path.suffix}"))
        return kind
    if kind == "suffix":
        path.rename(path.with_suffix(rng.choice((".TXT", ".bak", ".JPG", ".tif", ""))))
        return kind
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "gone":
        os.symlink("nowhere" if kind == "dangling" else path.name, path)
    return kind


# --- what has a structure


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a tree: what holds it, and its key or index there."""
    held: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(held):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _nodes(value)


def _tree(tree: Any, rng: random.Random) -> tuple[Any, str]:
    """Return a tree with one or two places changed."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        nodes = list(_nodes(tree)) if isinstance(tree, dict | list) else []
        if not nodes:
            return rng.choice(ODD), "another value"
        # Few places near the root, many below: each depth counts alike.
        holder, key = rng.choice(nodes if rng.random() < 0.5 else nodes[: len(nodes) // 9 + 1])
        kind = rng.choice(("odd", "odd", "odd", "lost", "twice", "text", "renamed"))
        if kind == "odd":
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == "lost":
            del holder[key]
        elif kind == "text":
            holder[key] = str(holder[key])
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        else:
            holder[f"{key}_" if kind == "renamed" else f"{key}2"] = holder[key]
            if kind == "renamed":
                del holder[key]
        done.append(f"{kind} at {str(key)[:40]!r}")
    return tree, ", ".join(done)


def _json(path: Path, rng: random.Random) -> str:
    tree, what = _tree(json.loads(path.read_text()), rng)
    path.unlink()
    path.write_text(json.dumps(tree))
    return what


def _yaml(path: Path, rng: random.Random) -> str:
    text = path.read_text()
    path.unlink()
    if rng.random() < 0.2:
        odd = rng.choice(YAML_TEXTS)
        path.write_text(rng.choice((odd, text + odd)))
        return f"YAML {odd[:20]!r}"
    tree, what = _tree(yaml.safe_load(text), rng)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8", errors="replace")
    return what


def _table(path: Path, rng: random.Random) -> str:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = rows[rng.randrange(len(rows))]
    column = rng.randrange(len(row))
    kind = rng.choice(("odd", "odd", "column lost", "columns swapped", "row twice", "row lost",
                       "semicolons", "quote", "short row", "long row"))  # fmt: skip
    if kind == "odd":
        row[column] = str(rng.choice(ODD)).replace("\n", " ").replace("\ud800", "?")
    elif kind == "column lost":
        for each in rows:
            del each[column : column + 1]
    elif kind == "columns swapped":
        for each in rows:
            each.insert(0, each.pop())
    elif kind == "row twice":
        rows.append(list(row))
    elif kind == "row lost":
        rows.remove(row)
    elif kind == "quote":
        row[column] = '"' + row[column]
    elif kind in ("short row", "long row"):
        row[len(row) - 1 :] = [] if kind == "short row" else ["", "9"]
    path.unlink()
    mark = ";" if kind == "semicolons" else ","
    path.write_text("".join(mark.join(each) + "\n" for each in rows))
    return kind


def _words(path: Path, rng: random.Random) -> str:
    rows = [line.split() for line in path.read_text().splitlines()] or [["0"]]
    row = rows[rng.randrange(len(rows))] or ["0"]
    kind = rng.choice(("odd", "odd", "lost", "row twice", "row lost", "commas", "pixels", "short"))
    if kind == "odd":
        odd = str(rng.choice(ODD)).replace("\ud800", "?")
        row[rng.randrange(len(row))] = odd
    elif kind == "lost":
        del row[rng.randrange(len(row))]
    elif kind == "row twice":
        rows.append(list(row))
    elif kind == "row lost":
        rows.remove(row)
    elif kind == "pixels":
        row[1:] = [value + "00" for value in row[1:]]
    elif kind == "short":
        del row[4:]
    path.unlink()
    path.write_text("".join(("," if kind == "commas" else " ").join(r) + "\n" for r in rows))
    return kind
