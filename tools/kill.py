"""Kill commands at random moments, give them again, and hold the results to undisturbed ones.

python tools/kill.py [--count 100] [--seed 0] [--only "fuse*"] [--no-trained] [--keep FOLDER]

A kill is SIGKILL, SIGTERM or SIGINT to a command and all its processes, at a moment drawn from the
seed between its start and its usual end. Each case is killed one to three times and then given
once more, which must succeed. The rule: inputs stay as they were; after SIGTERM and SIGINT the exit
code is 143 and 130, with one line, and nothing stays in the folder for temporary files; in the end
there is what two undisturbed commands leave, to the byte wherever these two agree.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer
from harness.commands import Command, copy_inputs
from harness.files import digests
from harness.options import Count, Keep, Only, Seed, Trained, chosen_commands, workplace

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
SECONDS = 600


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves when nothing happens to it.

    Attributes:
        seconds: how long it takes.
        files: path below the results -> digest, "" where two commands differ.
    """

    seconds: float
    files: dict[str, str]


@dataclass
class Killer:
    """Runs commands in a folder of its own.

    Attributes:
        inputs: see `make_inputs`.
        work: the folder.
        counts: of signals, and of the kills that came too late.
    """

    inputs: Path
    work: Path
    counts: Counter[str] = field(default_factory=Counter)

    def start(self, command: Command) -> subprocess.Popen[str]:
        """Start a command."""
        environment = {
            **os.environ,
            "TMPDIR": str(self.work / "tmp"),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "zoo", *command.words],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Shells start what is in the background deaf to it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def finish(self, command: Command) -> tuple[float, str]:
        """Let a command come to its end; return its seconds, and what is wrong."""
        begin, process = time.monotonic(), self.start(command)
        _, error = process.communicate(timeout=SECONDS)
        wrong = f"the last time: code {process.returncode}: {error}" if process.returncode else ""
        return time.monotonic() - begin, wrong

    def undisturbed(self, command: Command) -> Undisturbed:
        """Run a command twice."""
        found = []
        for _ in range(2):
            copy_inputs(command, self.inputs, self.work)
            seconds, wrong = self.finish(command)
            if wrong:
                raise RuntimeError(f"{command.name}: {wrong}")
            found.append(digests(self.work / "out"))
        first, second = found
        if first.keys() != second.keys():
            raise RuntimeError(f"{command.name}: two runs leave {set(first) ^ set(second)}")
        return Undisturbed(
            seconds, {name: d if second[name] == d else "" for name, d in first.items()}
        )

    def case(self, command: Command, usual: Undisturbed, rng: random.Random) -> Iterator[str]:
        """Kill a command, give it again; yield what is against the rule."""
        copy_inputs(command, self.inputs, self.work)
        before = digests(self.work / "inputs")
        for _ in range(rng.choice((1, 1, 2, 3))):
            number, moment = rng.choice(SIGNALS), rng.uniform(0, usual.seconds)
            for wrong in self._kill(command, number, moment):
                yield f"{number.name} after {moment:.2f} s of {usual.seconds:.2f}: {wrong}"
        _, wrong = self.finish(command)
        if wrong:
            yield wrong
        if digests(self.work / "inputs") != before:
            yield "inputs changed"
        yield from _differences(digests(self.work / "out"), usual.files)

    def _kill(self, command: Command, number: signal.Signals, moment: float) -> Iterator[str]:
        for path in (self.work / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        process = self.start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            _, error = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            yield "goes on for a minute"
            return
        if process.returncode == 0:
            self.counts["too late"] += 1
            return
        self.counts[number.name] += 1
        # Before Python has come to our first line, the signal ends it as it ends any program.
        if process.returncode not in (CODES[number], -number):
            yield f"code {process.returncode}: {error}"
        lines = [line for line in error.splitlines() if "\r" not in line]
        if number != signal.SIGKILL:
            if len(lines) > 1 and process.returncode > 0:
                yield f"{len(lines)} lines: {error}"
            for path in (self.work / "tmp").iterdir():
                yield f"left: tmp/{path.name}"


def _differences(found: dict[str, str], usual: dict[str, str]) -> Iterator[str]:
    for name in sorted({*found, *usual}):
        if name not in found:
            yield f"lacks {name}"
        elif name not in usual:
            yield f"left: out/{name}"
        # How often it was begun stands in a checkpoint; what was learned is in the weights.
        elif usual[name] and found[name] != usual[name] and not name.endswith(".ckpt"):
            yield f"{name} differs"


def run(
    count: Count = 100,
    seed: Seed = 0,
    only: Only = "*",
    trained: Trained = True,
    keep: Keep = None,
) -> None:
    """Kill commands at random moments; exit code 1 if one breaks the rule."""
    with workplace(keep, trained) as (inputs, work):
        failed = _run_all(Killer(inputs, work), chosen_commands(only, trained), count, seed)
    sys.exit(1 if failed else 0)


def _run_all(killer: Killer, chosen: list[Command], count: int, seed: int) -> int:
    failed = 0
    for place, command in enumerate(chosen):
        share = range(place, count, len(chosen))
        if not share:
            continue
        usual = killer.undisturbed(command)
        for number in share:
            rng = random.Random(f"{seed} {command.name} {number}")
            wrong = list(killer.case(command, usual, rng))
            failed += bool(wrong)
            for line in wrong:
                print(f"--- {command.name} #{number}: {line}", flush=True)
        changing = [name for name, digest in usual.files.items() if not digest]
        print(
            f"{command.name}: {len(share)} cases of {usual.seconds:.1f} s, {len(usual.files)} "
            f"files; differ between two undisturbed: {', '.join(changing) or 'none'}",
            flush=True,
        )
    print(f"{count} cases, {failed} against the rule; {dict(killer.counts)}")
    return failed


if __name__ == "__main__":
    typer.run(run)
