"""The `zoo` command: one subcommand an arrow from polygons to submission. Imports late."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from copy import copy
from functools import cache
from pathlib import Path

import typer
from typer._click.exceptions import NoArgsIsHelpError, NoSuchOption, UsageError
from typer.core import TyperGroup
from typer.main import get_command

from zoo.cli import data, exports, models, pipeline, reports, results, runs
from zoo.cli.options import COMMANDS, app
from zoo.machine.faults import HUNG_UP, INTERRUPTED, TERMINATED, describe_fault, how_stopped

# What a user can mend; of another error the traceback is shown.
_MENDED = (ValueError, OSError, ImportError)
# What a plain installation lacks, by its first import.
_OF_TRAINING = ("torch", "lightning", "pydantic", "timm", "albumentations")
# Exit code -> how a command was stopped from outside. Typer makes the first of Ctrl-C.
_STOPPED = {INTERRUPTED: "interrupted", TERMINATED: "told to end", HUNG_UP: "hung up"}
# They run until they are ended: nothing is left to go on with.
_UNTIL_ENDED = ("serve", "view")

__all__ = ["app", "data", "exports", "main", "models", "pipeline", "reports", "results", "runs"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command; what a user can mend ends in one line a problem and exit code 2.

    Args:
        arguments: what follows `zoo` on the command line; by default what this process was given.
            `--debug` anywhere among them shows the traceback instead.
    """
    given = sys.argv[1:] if arguments is None else arguments
    rest = [argument for argument in given if argument != "--debug"]
    try:
        # Typer returns the code of what ended early, and raises what is wrong with the words.
        code = _command(*rest[:1])(rest, prog_name="zoo", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            _tell_stopped(ended.code, rest)
        raise
    except UsageError as error:
        _tell_usage(error, rest)
        sys.exit(error.exit_code)
    except Exception as error:
        if code := how_stopped(error):
            _tell_stopped(code, rest)
            sys.exit(code)
        fault = describe_fault(error)
        if type(error) is ModuleNotFoundError and error.name in _OF_TRAINING:
            fault = f"this needs the package '{error.name}': pip install 'maskzoo[train]'"
        is_mended = fault or isinstance(error, _MENDED)
        if "--debug" in given and is_mended:
            traceback.print_exc()
            sys.exit(2)
        if not is_mended:
            raise
        for line in (fault or str(error) or type(error).__name__).splitlines():
            typer.echo(f"zoo: {line}", err=True)
        sys.exit(2)


def _tell_stopped(code: int, given: Sequence[str]) -> None:
    if how := _STOPPED.get(code):
        ends = given[:1] and given[0] in _UNTIL_ENDED
        what_next = "" if ends else ": the same command goes on, or starts again"
        typer.echo(f"zoo: {how}{what_next}", err=True)


@cache
def _command(name: str = "") -> TyperGroup:
    """The command of this name alone, where there is one: each takes time to build. Else all."""
    built = copy(app)
    built.registered_commands = [own for own in app.registered_commands if own.name == name] or (
        # As `zoo --help` lists them, whatever module comes first.
        sorted(app.registered_commands, key=lambda own: COMMANDS.index(own.name or ""))
    )
    command = get_command(built)
    assert isinstance(command, TyperGroup)
    return command


def _tell_usage(error: UsageError, given: Sequence[str]) -> None:
    """Say in one line what is wrong with the words of the command; without any, show its help."""
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return
    from pydantic import ValidationError

    command = error.ctx.command_path if error.ctx else "zoo"
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if isinstance(error.__cause__, ValidationError) and "found" not in message:
        message += f", found {error.__cause__.errors()[0]['input']!r:.40}"
    message += _meant_data(error) + _meant_key(error, given)
    typer.echo(f"zoo: {message[:1].lower()}{message[1:]} (see {command} --help)", err=True)


def _meant_data(error: UsageError) -> str:
    """Say that `--data` names the data set, where a folder is one argument too many; else ""."""
    extra = re.search(r"extra arguments? *(?:\(s\) *)?\((.+?)\)", error.format_message())
    options = {name for own in error.ctx.command.params for name in own.opts} if error.ctx else ()
    if extra and "--data" in options and Path(extra[1].split()[0]).is_dir():
        return f"; --data {extra[1].split()[0]} names a data set"
    return ""


def _meant_key(error: UsageError, given: Sequence[str]) -> str:
    """Say how a config's key is written, where an option is unknown that may be one; else ""."""
    if not isinstance(error, NoSuchOption) or error.possibilities or error.ctx is None:
        return ""
    option, own = error.option_name, error.ctx.command.params
    takes_keys = any(one.name == "changes" and one.param_type_name == "argument" for one in own)
    if not takes_keys or not option.startswith("--"):
        return ""
    place = next((n for n, word in enumerate(given) if word.partition("=")[0] == option), 0)
    value = given[place].partition("=")[2] or next(
        (word for word in given[place + 1 : place + 2] if not word.startswith("--")), "VALUE"
    )
    key = option.removeprefix("--").replace("-", "_")
    return f"; keys of the config are written {key}={value}"
