"""Progress bars with a rate and an estimate; lines where there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Report = Callable[[int, int, str], None]
ItemType = TypeVar("ItemType")
SECONDS_BETWEEN_LINES = 15.0
# By these Rich is told that a terminal is there, or none, whatever the stream says.
_TOLD = ("FORCE_COLOR", "TTY_COMPATIBLE", "JUPYTER_COLUMNS")

_said: set[str] = set()


def note(text: str) -> None:
    """Say once, on standard error, what is no error but has to be known."""
    if text not in _said:
        _said.add(text)
        _print(f"zoo: note: {text}")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str) -> Iterator[Report]:
    """Show a bar on standard error and give the function that moves it.

    The function takes what is done, the total, and a short note. Without a terminal a line is
    written every fifteen seconds instead.
    """
    # Rich takes a twentieth of a second to load.
    if not sys.stderr.isatty() and not any(name in os.environ for name in _TOLD):
        yield _lines(title)
        return
    from zoo.progress_bar import rich_bar

    with rich_bar(title) as report:
        yield report or _lines(title)


def _lines(title: str) -> Report:
    last = time.monotonic()
    # Where the rate is counted from: what comes before the first step (libraries, caches) takes
    # its time once, and work in parts (folds) counts anew with each.
    first, before = (last, 0), (0, -1)

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last, first, before
        now = time.monotonic()
        if done < before[0] or total != before[1]:
            first = now, done
        before = done, total
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (done - first[1]) / (now - first[0]) if now > first[0] else 0.0
        told = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate else ""
        suffix = f" ({note})" if note else ""
        line = f"{title}: {done}/{total}{told}{suffix}"
        _print(line)

    return report


def track(items: Iterable[ItemType], total: int, report: Report) -> Iterator[ItemType]:
    """Yield the items and report after each."""
    for done, item in enumerate(items, start=1):
        yield item
        report(done, total, "")
