from __future__ import annotations

import math
import os

import pytest

from converters.parallel import map_ordered

# Functions of the standard library: other processes can import them.


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_order(jobs):
    assert list(map_ordered(math.factorial, range(40), jobs)) == list(
        map(math.factorial, range(40))
    )


@pytest.mark.parametrize("jobs", [1, 2])
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
def test_an_error_comes_through(jobs):
    with pytest.raises(ValueError, match="'three'"):
        list(map_ordered(int, ["1", "2", "three", "4"], jobs))


def test_a_killed_process_is_said():
    with pytest.raises(ChildProcessError, match="2 processes was killed"):
        list(map_ordered(os._exit, [1, 1, 1], 2))


def test_no_jobs_are_refused():
    with pytest.raises(ValueError, match="expected 1 or more, found 0"):
        list(map_ordered(int, ["1"], 0))
