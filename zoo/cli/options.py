"""What all commands share: the application, options of the same meaning, and how they speak."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer._click.core import Context
from typer._click.exceptions import UsageError
from typer.core import TyperCommand

app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Command -> the heading under which `zoo --help` lists it.
_PANELS = {
    **dict.fromkeys(("phantom", "split", "convert", "audit", "augment"), "Data"),
    **dict.fromkeys(("train", "predict", "sweep", "ablate", "soup", "export", "serve"), "Models"),
    **dict.fromkeys(("fit", "fuse", "review", "check", "evaluate"), "Results"),
    **dict.fromkeys(("run", "status", "clear"), "The whole way"),
    **dict.fromkeys(("view", "report", "compare", "runs", "list", "doctor", "demo"), "Looking"),
}
COMMANDS = tuple(_PANELS)
# Parameters of commands that name what is written.
_OUTPUTS = ("out", "json_out", "csv_out", "preview", "oof", "wandb_file")

# Arguments that are data sets.
_DATA_SETS = ("data", "paths")

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Data set: a folder in any readable format, or its annotation file; the nearest "
        "without.",
    ),
]
From = Annotated[
    str | None, typer.Option("--from", help="The data set's format, where it is not recognised.")
]
EditsFile = Annotated[
    Path | None,
    typer.Option(
        "--edits",
        help="Corrections to apply while reading: a YAML file, or a data set of corrected images "
        "(see `zoo review`).",
    ),
]
Broken = Annotated[
    Literal["refuse", "skip"],
    typer.Option(
        "--broken",
        help="Images of which a file or an annotation is broken: refuse the data set, or skip and "
        "list them.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Folder with the images of COCO files, where they do not lie with them."
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        "--split",
        help="For --subset val: the split file; by default the one found beside the data.",
    ),
]
HeldOutFold = Annotated[
    int | None,
    typer.Option("--fold", help="For --subset val: the fold that holds them out; all without."),
]
Jobs = Annotated[
    int,
    typer.Option(
        help="Processes that share the work. Each takes a second or more to start: for fewer than "
        "some hundred small images one is faster."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Classes: a shipped label space, a YAML file, or some of the data set's own, with "
        "commas; all of its own without."
    ),
]
SubmissionLabels = Annotated[
    str | None,
    typer.Option(
        help="Classes of submissions: a shipped label space or a YAML file; the data set's own "
        "without. A store names its own."
    ),
]


class _Command(TyperCommand):
    """A command; where its first argument is the data set, `--data` may name it, too."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the words that follow the command; those of `--data` become the argument."""
        arguments = {own.name for own in self.params if own.param_type_name == "argument"}
        if not arguments.isdisjoint(_DATA_SETS) and not any(
            "--data" in p.opts for p in self.params
        ):
            if args[-1:] == ["--data"] or "--data=" in args:
                raise UsageError("Option '--data' requires an argument.", ctx)
            args = [word.removeprefix("--data=") for word in args if word != "--data"]
        if args:
            self._check_once(ctx, args)
        return super().parse_args(ctx, args)

    def _check_once(self, ctx: Context, args: list[str]) -> None:
        """Refuse an option that is given again: all but its last value would be lost."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for own, times in Counter(order).items():
            is_switch = getattr(own, "is_flag", False) or getattr(own, "count", False)
            if times > 1 and own.param_type_name == "option" and not (own.multiple or is_switch):
                raise UsageError(
                    f"Option '{max(own.opts, key=len)}' expected once, found {times} times; where "
                    "it takes several, commas stand between them.",
                    ctx,
                )


def command(
    name: str | None = None, *, fill: Callable[[dict[str, Any]], None] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command, which alone writes the places that its options name.

    Args:
        name: of the command; None takes the function's.
        fill: fills in parameters that the user has not given, see `zoo.cli.defaults`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def alone(**given: Any) -> None:
            from converters.files.outputs import only_writer
            from zoo.machine.processes import is_first_process

            if fill:
                fill(given)
            with ExitStack() as stack:
                # Processes that a launcher has begun write together, the first for all.
                for option in _OUTPUTS if is_first_process() else ():
                    if place := given.get(option):
                        stack.enter_context(only_writer(place))
                function(**given)

        called = name or function.__name__.rstrip("_")
        app.command(called, cls=_Command, rich_help_panel=_PANELS[called])(alone)
        return function

    return register


class Subset(StrEnum):
    """Which images of a data set."""

    val = "val"
    train = "train"
    test = "test"
    all = "all"


class Part(StrEnum):
    """Which images of a data set, where no folds divide it."""

    train = "train"
    test = "test"
    all = "all"


class Topic(StrEnum):
    """What `zoo list` can list."""

    configs = "configs"
    models = "models"
    families = "families"
    losses = "losses"
    optimizers = "optimizers"
    schedules = "schedules"
    transforms = "transforms"
    formats = "formats"
    fusions = "fusions"
    labels = "labels"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"maskzoo {version('maskzoo')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Segmentation of overlapping structures: convert, train, predict, fuse, evaluate."""


def say(text: str) -> None:
    """Print a text, if there is one."""
    if text:
        typer.echo(text)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def command_line() -> list[str]:
    """Return what the user called, for the record; without secrets."""
    return ["zoo", *hide_address(sys.argv[1:])]


def hide_address(command: Sequence[str]) -> list[str]:
    """Return a command as it may be written down: without the address of a webhook.

    >>> hide_address(["zoo", "train", "notice.url=https://chat/T0/x", "notice.url=env:HOOK"])
    ['zoo', 'train', 'notice.url=...', 'notice.url=env:HOOK']
    """
    return [
        re.sub(r"https?://[^\s'\",}]+", "...", text) if text.startswith("notice") else text
        for text in command
    ]


def seed_option(help: str) -> Any:
    """Return an option for a seed, which NumPy and PyTorch take alike."""
    return typer.Option(min=0, max=2**32 - 1, help=help)


def check_json(path: Path | None, *keys: str) -> None:
    """Say before the work whether a JSON file may be written.

    Args:
        path: the file; None for none.
        keys: by which a file that the command wrote earlier is recognised.

    Raises:
        ValueError: another file is there.
    """
    from converters.files.outputs import check_file, json_with

    if path is not None:
        check_file(path, "what this command wrote before", json_with(*keys))


def write_json(path: Path, record: Any, *keys: str) -> None:
    """Write a record as a JSON file; see `check_json`."""
    from converters.files.json_files import dump_json
    from converters.files.provenance import atomic_write_text

    check_json(path, *keys)
    atomic_write_text(path, dump_json(record))
