"""Break inputs at random and see what commands make of them.

python tools/fuzz.py [--count 2000] [--seed 0] [--only "fuse*"] [--trained] [--keep FOLDER]

One file a case is broken, drawn from the seed. The rule: the command succeeds, or ends with code 2
and lines that begin with `zoo:`, one of which names the file (or what lies in it); inputs stay as
they were, nothing half-made stays, nothing is left in the folder for temporary files. What succeeds
although a file is gone or empty must say something that it does not say of sound inputs.

With --trained, `zoo serve` is asked as many things as a command is given broken inputs: each has an
answer that is right, or an error of the client's (4xx) in one line; the server lives on, and does
not grow.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import cv2
import typer
from harness.commands import Command, copy_inputs
from harness.files import digests
from harness.mutations import mutate
from harness.options import Count, Keep, Only, Seed, Trained, chosen_commands, workplace
from harness.serving import NAME, ServeFuzzer, serving

from zoo.cli import main
from zoo.machine.faults import TERMINATED

SECONDS = 60
# A line a problem; of more than 20 problems the first are told.
MOST_LINES = 22
# After these there is less, and a command that says what it always says has not looked.
LOSSES = ("gone", "empty", "white", "a folder", "dangling")
# What data sets need not have, and images without annotations, which few commands read.
OPTIONAL = (
    "provenance.json",
    "images.json",
    "meta_data.xlsx",
    "dataset_dict.json",
    "dataset_info.json",
    "state.json",
    "README.md",
    "labels.txt",
    "labelmap.txt",
    "rle_table.yaml",
    "test",
    "truth",
)


class TooLongError(BaseException):
    """A command does not end."""


@dataclass(frozen=True)
class Result:
    """How a command ended: its code (None: an error of ours), what it said, and what was left."""

    code: int | None
    out: str
    error: str


def run_here(words: tuple[str, ...]) -> Result:
    """Run a command in this process."""
    out, error = io.StringIO(), io.StringIO()
    code: int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        signal.alarm(SECONDS)
        try:
            main(list(words))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        except TooLongError:
            code = None
            error.write(f"no end after {SECONDS} s")
        except Exception:
            code = None
            error.write(traceback.format_exc())
        finally:
            signal.alarm(0)
    return Result(code, out.getvalue(), error.getvalue())


def _stop(number: int, frame: object) -> None:
    raise TooLongError


@dataclass
class Fuzzer:
    """Breaks the inputs of commands in a folder of its own.

    Attributes:
        inputs: sound ones, see `make_inputs`.
        work: the folder.
        seed: of everything.
        counts: how the cases ended.
    """

    inputs: Path
    work: Path
    seed: int
    counts: Counter[str]

    def sound(self, command: Command) -> Result:
        """Run a command on sound inputs."""
        copy_inputs(command, self.inputs, self.work)
        result = run_here(command.words)
        if result.code:
            raise RuntimeError(f"{command.name}: {result}")
        return result

    def case(self, command: Command, sound: Result, number: int) -> tuple[str, str]:
        """Run a command on broken inputs; return what was done, and what is wrong."""
        copy_inputs(command, self.inputs, self.work)
        rng = random.Random(f"{self.seed} {command.name} {number}")
        files = [p for p in sorted((self.work / "inputs").rglob("*")) if p.is_file()]
        # A folder of fifty images counts as much as a file.
        folders = sorted({p.parent for p in files})
        path = rng.choice([p for p in files if p.parent == rng.choice(folders)] or files)
        how = mutate(path, rng)
        done = f"{path.relative_to(self.work)}: {how}"
        before = digests(self.work / "inputs")
        result = run_here(command.words)
        self.counts["succeeded" if result.code == 0 else f"code {result.code}"] += 1
        wrong = [
            *_about(result, path, how, sound),
            *(["inputs changed"] if digests(self.work / "inputs") != before else []),
            *(f"left: {name}" for name in self._left(result)),
        ]
        return done, "; ".join(wrong)

    def _left(self, result: Result) -> Iterator[str]:
        yield from (f"tmp/{p.name}" for p in (self.work / "tmp").iterdir())
        for path in (self.work / "out").iterdir():
            if result.code or path.name.startswith("."):
                yield f"out/{path.name}"


def _about(result: Result, path: Path, how: str, sound: Result) -> Iterator[str]:
    if result.code is None:
        yield result.error
    elif result.code == 0:
        said = result.out + result.error
        if _is_loss(path, how) and said == sound.out + sound.error:
            yield "silent"
    else:
        lines = result.error.splitlines()
        if result.code != 2 and not result.out:
            yield f"exit code {result.code}"
        if any(not line.startswith("zoo: ") for line in lines):
            yield f"lines that do not begin with 'zoo: ': {result.error}"
        elif not any(_names(line, path) for line in lines):
            yield f"does not name the file: {result.error}"
        if len(lines) > MOST_LINES:
            yield f"{len(lines)} lines"


def _is_loss(path: Path, how: str) -> bool:
    # An empty text is YOLO's way to say that an image has no objects.
    is_needed = not {*OPTIONAL} & {*path.parts}
    return how in LOSSES and is_needed and (path.suffix != ".txt" or how not in ("empty", "white"))


def _names(line: str, path: Path) -> bool:
    """Tell whether a line leads to a file: by its name, its stem or the folder that it lies in."""
    names = (path.name, path.stem, path.parent.name, path.parent.parent.name)
    return any(name in line for name in names)


def run(
    count: Count = 2000,
    seed: Seed = 0,
    only: Only = "*",
    trained: Trained = False,
    keep: Keep = None,
) -> None:
    """Break inputs and run commands on them; exit code 1 if one breaks the rule."""
    signal.signal(signal.SIGALRM, _stop)
    warnings.simplefilter("ignore")
    with workplace(keep, trained) as (inputs, work):
        work.mkdir()
        os.chdir(work)
        tempfile.tempdir = str(work / "tmp")
        chosen = [c for c in chosen_commands(only, trained) if c.inputs]
        is_served = trained and fnmatch(NAME, only)
        requests = count // (len(chosen) + 1) if is_served else 0
        failed = _ask_all(inputs, seed, requests) if requests else 0
        if chosen:
            failed += _run_all(Fuzzer(inputs, work, seed, Counter()), chosen, count - requests)
        os.chdir(inputs)
    sys.exit(1 if failed else 0)


def _ask_all(inputs: Path, seed: int, count: int) -> int:
    failed, start = 0, time.monotonic()
    statuses: Counter[str] = Counter()
    image = cv2.imread(str(next((inputs / "hands").rglob("*.png"))), cv2.IMREAD_GRAYSCALE)
    with serving(inputs / "exported") as server:
        fuzzer = ServeFuzzer(server, image, seed)
        for number in range(count):
            done, wrong = fuzzer.case(number)
            statuses[done.rpartition(" ")[2]] += 1
            if wrong:
                failed += 1
                print(f"--- {NAME} #{number}: {done}\n{wrong}", flush=True)
        if (code := server.end()) != TERMINATED:
            failed += 1
            print(f"--- {NAME}: told to end, it ended with {code}")
    print(f"{NAME}: {count} cases, {time.monotonic() - start:.0f} s; {dict(statuses)}", flush=True)
    print(f"{count} cases, {failed} against the rule")
    return failed


def _run_all(fuzzer: Fuzzer, chosen: list[Command], count: int) -> int:
    failed, start = 0, time.monotonic()
    for place, command in enumerate(chosen):
        sound = fuzzer.sound(command)
        share = range(place, count, len(chosen))
        for number in share:
            done, wrong = fuzzer.case(command, sound, number)
            if wrong:
                failed += 1
                print(f"--- {command.name} #{number}: {done}\n{wrong}", flush=True)
        print(f"{command.name}: {len(share)} cases, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{count} cases, {failed} against the rule; {dict(fuzzer.counts)}")
    return failed


if __name__ == "__main__":
    typer.run(run)
