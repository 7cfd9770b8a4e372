"""Progress bars with a rate and an estimate; lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[int, int, str], None]
ItemType = TypeVar("ItemType")
SECONDS_BETWEEN_LINES = 15.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "-/s", style="dim")


_said: set[str] = set()


def note(text: str) -> None:
    """Say once, on standard error, what is no error but has to be known."""
    if text not in _said:
        _said.add(text)
        line = f"zoo: note: {text}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def bar(title: str) -> Iterator[Report]:
    """Show a bar on standard error and give the function that moves it.

    The function takes what is done, the total, and a short note. Without a terminal a line is
    written every fifteen seconds instead.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield report


def _lines(console: Console, title: str) -> Report:
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
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    return report


def track(items: Iterable[ItemType], total: int, report: Report) -> Iterator[ItemType]:
    """Yield the items and report after each."""
    for done, item in enumerate(items, start=1):
        yield item
        report(done, total, "")
