"""Options of the tools that give commands again and again, and the place where they do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from harness.commands import Command, commands, make_inputs

Count = Annotated[int, typer.Option(help="Cases over all commands.")]
Seed = Annotated[int, typer.Option(help="The same seed, the same cases.")]
Only = Annotated[str, typer.Option(help="Only commands whose name is like this.")]
Trained = Annotated[bool, typer.Option(help="Also train and predict.")]
Keep = Annotated[Path | None, typer.Option(help="Where inputs stay for the next time.")]


@contextmanager
def workplace(keep: Path | None, trained: bool) -> Iterator[tuple[Path, Path]]:
    """Make sound inputs, and give their folder and a place for a folder to work in.

    Args:
        keep: where inputs stay; None throws them away.
        trained: whether commands on networks are among those that will be given.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = (keep or Path(scratch)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        yield make_inputs(root, trained), Path(scratch).resolve() / "work"


def chosen_commands(only: str, trained: bool) -> list[Command]:
    """Return the commands whose name is like a pattern, of networks only where asked for."""
    return [c for c in commands() if fnmatch(c.name, only) and (trained or not c.is_trained)]
