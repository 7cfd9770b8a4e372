"""How commands end that are stopped from outside: one line, one exit code, nothing left."""

import os
import signal
import subprocess
import sys
import time

import pytest

STARTED = "import sys; sys.argv[0] = 'zoo'; from zoo.__main__ import run; run()"
# As slow as an import of PyTorch.
IMPORTING = """
import sys, types, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from zoo.__main__ import run
run()
"""


def start(code, *arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        # What a shell starts in the background does not hear Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process, number):
    """Stop a process and all that it has started, as a terminal does; return its last words."""
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=20)
    return error.splitlines()


def wait_for(folder, name):
    end = time.monotonic() + 60
    while not any(folder.glob(name)):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "told to end")],
)
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_a_command_at_work(number, code, word, jobs, tmp_path):
    people = ("--people", 500, "--test-people", 1, "--size", 512)
    process = start(STARTED, "phantom", tmp_path / "out", *people, "--jobs", jobs, cwd=tmp_path)
    wait_for(tmp_path, ".out.*.partial/*/*/DCM/*")
    assert stop(process, number) == [f"zoo: {word}: the same command goes on, or starts again"]
    assert process.returncode == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_command_that_is_loading(number, code, tmp_path):
    process = start(IMPORTING, "list", "configs", cwd=tmp_path)
    assert process.stdout.readline() == "importing\n"
    assert len(stop(process, number)) <= 1
    assert process.returncode == code


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(tmp_path):
    process = start(STARTED, "list", "configs", cwd=tmp_path)
    with process:
        process.stdout.close()
        assert process.stderr.read() == ""
