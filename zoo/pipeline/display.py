"""What a pipeline says of its steps: before, while it works, and at its end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zoo.pipeline.execution import Outcome, Work
from zoo.pipeline.record import Record
from zoo.pipeline.steps import Step

SECONDS_BETWEEN_LINES = 30.0
_PROGRESS = re.compile(r"^[\w ./-]+: (\d+)/(\d+)")
_MARKS = {"done": "green", "kept": "green", "failed": "red", "left out": "yellow", "works": "cyan"}


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Lines:
    """Says a line for each step that begins or ends; without a terminal.

    Args:
        steps: all of them.
        say: takes a line.
    """

    def __init__(self, steps: Mapping[str, Step], say: Callable[[str], None]) -> None:
        self._say, self._total = say, sum(bool(step.words) for step in steps.values())
        self._ended = 0
        self._working: dict[str, Work] = {}
        self._last = time.monotonic()

    def began(self, step: Step, work: Work) -> None:
        """Say that a step was started."""
        self._working[step.name] = work
        self._say(f"{step.name}: started")

    def ended(self, step: Step, record: Record) -> None:
        """Say how a step ended."""
        self._working.pop(step.name, None)
        self._count(step, f"{record.state}, {duration(record.seconds)}", record.message)

    def kept(self, step: Step, record: Record) -> None:
        """Say that a step was done before."""
        self._count(step, "was done", "")

    def brought(self, step: Step, told: str) -> None:
        """Say what became of what a step has made elsewhere."""
        self._say(f"{step.name}: {told}")

    def left_out(self, step: Step, lacking: Sequence[str]) -> None:
        """Say that a step cannot begin."""
        if step.words:
            self._count(step, "left out", f"lacks {', '.join(lacking)}")

    def tick(self) -> None:
        """Say, now and then, how far the steps at work are."""
        if time.monotonic() - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = time.monotonic()
        for work in self._working.values():
            if told := progress_of(work):
                self._say(f"  {told}")

    def _count(self, step: Step, how: str, why: str) -> None:
        self._ended += 1
        told = f"[{self._ended}/{self._total}] {step.name}: {how}"
        self._say(f"{told}: {why}" if why else told)


class LiveTable:
    """Shows the steps at work and the last that ended, on a terminal; a context.

    Args:
        steps: all of them.
        console: the terminal.
    """

    _ROWS = 12

    def __init__(self, steps: Mapping[str, Step], console: Console) -> None:
        self._steps, self._console = steps, console
        self._total = sum(bool(step.words) for step in steps.values())
        self._working: dict[str, tuple[Work, float]] = {}
        self._ended = self._failed = self._kept = 0
        self._live = Live(console=console, refresh_per_second=4)
        self._since = time.monotonic()

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.update(self._view())
        self._live.__exit__(None, None, None)

    def began(self, step: Step, work: Work) -> None:
        """Show that a step was started."""
        self._working[step.name] = work, time.monotonic()

    def ended(self, step: Step, record: Record) -> None:
        """Show how a step ended."""
        self._working.pop(step.name, None)
        self._ended += 1
        self._failed += record.state == "failed"
        self._line(step.name, record.state, record.message or duration(record.seconds))

    def kept(self, step: Step, record: Record) -> None:
        """Count a step that was done before."""
        self._ended += 1
        self._kept += 1

    def brought(self, step: Step, told: str) -> None:
        """Show what became of what a step has made elsewhere."""
        self._line(step.name, "begun", told)

    def left_out(self, step: Step, lacking: Sequence[str]) -> None:
        """Show that a step cannot begin."""
        if step.words:
            self._ended += 1
            self._line(step.name, "left out", f"lacks {', '.join(lacking)}")

    def tick(self) -> None:
        """Draw what is at work."""
        self._live.update(self._view())

    def _line(self, name: str, state: str, told: str) -> None:
        line = Text.assemble((f"{state:9s}", _MARKS.get(state, "")), f"{name}  ", (told, "dim"))
        self._live.console.print(line)

    def _view(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, (work, since) in list(self._working.items())[: self._ROWS]:
            spent = duration(time.monotonic() - since)
            told = progress_of(work)
            table.add_row(Text("works", style=_MARKS["works"]), name, spent, Text(told, "dim"))
        spent = duration(time.monotonic() - self._since)
        before = f", {self._kept} of them before" if self._kept else ""
        failed = f", {self._failed} failed" if self._failed else ""
        return Group(table, Text(f"{self._ended} of {self._total} steps{before}{failed}, {spent}"))


def progress_of(work: Work) -> str:
    """Return the last line in which a step's command says how far it is; "" for none."""
    return last_progress(work.last_words())


def last_progress(said: str) -> str:
    """Return the last line of a log in which a command says how far it is; "" for none."""
    lines = (line.strip() for line in reversed(said.splitlines()))
    return next((line for line in lines if _PROGRESS.match(line)), "")


def describe_end(outcome: Outcome, steps: Mapping[str, Step]) -> list[str]:
    """Return what failed, what is missing for that reason, and in what, as lines."""
    lines = [f"{name} failed: {message}" for name, message in outcome.failed.items()]
    fused = next((step for step in steps.values() if step.name == "fuse"), None)
    if fused and fused.name in outcome.done:
        absent = [name.removeprefix("model ") for name in fused.sources if name not in outcome.done]
        if absent:
            left = len(fused.sources) - len(absent)
            lines.append(
                f"the answer is of {left} of {len(fused.sources)} models: without "
                f"{', '.join(absent)}"
            )
    stopped = [name for name in outcome.left_out if steps[name].words]
    if stopped:
        lines.append(f"left out for what they lack: {', '.join(stopped)}")
    return lines
