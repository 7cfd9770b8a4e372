from __future__ import annotations

import math
import os
import subprocess
import sys
from operator import methodcaller

import pytest

from converters.parallel import Workers, map_ordered

# Functions of the standard library: other processes can import them.


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_results_come_in_order(jobs):
    assert list(map_ordered(math.factorial, range(40), jobs)) == list(
        map(math.factorial, range(40))
    )


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_tasks_are_taken_a_few_at_a_time(jobs):
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ordered(math.factorial, tasks(), jobs)
    assert next(results) == 1
    assert len(taken) <= 10
    results.close()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_an_error_comes_through(jobs):
    with pytest.raises(ValueError, match="'three'"):
        list(map_ordered(int, ["1", "2", "three", "4"], jobs))


@pytest.mark.slow
def test_a_killed_process_is_said():
    with pytest.raises(ChildProcessError, match="2 processes was killed"):
        list(map_ordered(os._exit, [1, 1, 1], 2))


def test_no_jobs_are_refused():
    with pytest.raises(ValueError, match="expected 1 or more, found 0"):
        list(map_ordered(int, ["1"], 0))


# --- several passes


@pytest.mark.slow
def test_passes_share_their_processes():
    with Workers(2) as workers:
        found = {p for _ in range(4) for p in workers.map(CALL, [os.getpid] * 8)}
    assert os.getpid() not in found
    assert len(found) <= 2


def test_one_job_is_this_process():
    assert set(Workers().map(CALL, [os.getpid] * 3)) == {os.getpid()}


class Sent:
    """Becomes a function of the standard library on its way, and counts how often it goes it."""

    def __init__(self):
        self.times = 0

    def __reduce__(self):
        self.times += 1
        return methodcaller, ("__call__",)


CALL = methodcaller("__call__")


@pytest.mark.slow
def test_a_function_is_sent_once():
    function = Sent()
    with Workers(2) as workers:
        assert len(list(workers.map(function, [os.getpid] * 20))) == 20
    assert function.times == 1


@pytest.mark.slow
def test_passes_may_take_turns():
    """Each process works with the function of the task's pass."""
    with Workers(2) as workers:
        up = workers.map(math.factorial, range(30))
        down = workers.map(math.sqrt, range(30))
        found = list(zip(up, down, strict=True))
    assert found == [(math.factorial(n), math.sqrt(n)) for n in range(30)]


@pytest.mark.slow
def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Workers(2) as workers:
        results = workers.map(math.factorial, range(100))
        assert next(results) == 1
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_processes_do_not_outlive_one_that_is_killed(tmp_path):
    """They would keep its memory, and whoever reads its output would wait for ever."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from converters.parallel import map_ordered\n"
        "def work(seconds):\n"
        # At once: two processes write here.
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    list(map_ordered(work, [600] * 4, jobs=2))\n"
    )
    command = [sys.executable, str(program)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert all(int(process.stdout.readline()) for _ in range(2))
        process.kill()
        # Ends when nobody is left who could write to it.
        assert process.stdout.read() == ""
