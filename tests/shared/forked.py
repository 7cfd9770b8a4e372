"""Programs whose processes need not import again what takes seconds to import.

A process imports modules once and, for each program, makes a copy of itself (`fork`), which then
does what `python program.py ...` does in a process and a session of its own: its arguments, its
variables, its output, its signals, its exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = """
import importlib, json, os, runpy, sys
from converters.parallel import end_with_parent

for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), child, flush=True)
        continue
    os.setsid()
    end_with_parent()
    os.environ.clear()
    os.environ.update(asked["variables"])
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (asked["out"], os.O_WRONLY), (asked["err"], os.O_WRONLY)]
    ):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, closefd=False)
    sys.argv = asked["words"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
    break
"""


class Forked:
    """A process that imports modules when it is first wanted, and ends with the block.

    Args:
        modules: which.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def run(
        self, words: Sequence[object], variables: Mapping[str, str]
    ) -> tuple[int, subprocess.CompletedProcess[str]]:
        """Run a program to its end; return its process's number, which its session has too.

        Args:
            words: the program's file and its arguments.
            variables: all of its environment.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            for file in (out, err):
                file.touch()
            asked = {"words": [*map(str, words)], "variables": dict(variables)}
            asked |= {"out": str(out), "err": str(err)}
            print(json.dumps(asked), file=process.stdin, flush=True)
            code, number = map(int, process.stdout.readline().split())
            said = (file.read_text(encoding="utf-8") for file in (out, err))
            return number, subprocess.CompletedProcess(asked["words"], code, *said)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            # What `zoo` sets before it imports.
            own = {"OPENCV_LOG_LEVEL": "OFF", "TORCH_CPP_LOG_LEVEL": "ERROR"}
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, *self._modules],
                env={**os.environ, **own, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._process
