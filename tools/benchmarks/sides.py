"""The sides of a comparison: each in a process of its own, in turns, on one thread.

A script that compares defines what a side does to one image, and calls `serve` when it is started
as such a process. What else a machine does meets all sides, for they take turns; ratios are those
of runs that followed each other. Medians are reported, with the smallest and the largest beside
them.

    python tools/benchmarks/sides.py COMMAND ...     time and peak memory of a command, as JSON
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

AT_LEAST_S = 0.4
AT_MOST_TIMES = 20
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Job = Mapping[str, Any]


@dataclass(frozen=True)
class Timing:
    """One side's run.

    Attributes:
        wall_ms: time an image, milliseconds.
        cpu_ms: time that the process computed, an image, milliseconds.
        peak_mb: highest memory above what the imports took.
        result: how far the sides agree, or what they found; the lowest of all images.
    """

    wall_ms: float
    cpu_ms: float
    peak_mb: float
    result: str = ""


@dataclass(frozen=True)
class Work:
    """What a side does.

    Attributes:
        prepare: one image -> what the side starts from; not timed.
        do: what is timed.
        judge: (image, what `do` returned) -> result to be compared; not timed.
    """

    prepare: Callable[[Any], Any]
    do: Callable[[Any], Any]
    judge: Callable[[Any, Any], str]


def serve(work: Work, images: Iterable[Any]) -> None:
    """Run a side over all images and print its row."""
    import cv2

    cv2.setNumThreads(0)
    idle_mb = _memory_mb("VmRSS")
    wall, cpu, results = 0.0, 0.0, []
    for number, image in enumerate(images):
        material = work.prepare(image)
        if not number:
            work.do(material)
        seconds, computed, found = _time(work.do, material)
        wall, cpu = wall + seconds, cpu + computed
        results.append(work.judge(image, found))
    count = len(results)
    row = Timing(wall / count, cpu / count, _memory_mb("VmHWM") - idle_mb, min(results))
    print(json.dumps(asdict(row)), flush=True)


def _time(do: Callable[[Any], Any], material: Any) -> tuple[float, float, Any]:
    """Milliseconds of wall and CPU time of one call, by repeating short ones."""
    start, spent, times = time.perf_counter(), time.process_time(), 0
    found = None
    while not times or (time.perf_counter() - start < AT_LEAST_S and times < AT_MOST_TIMES):
        # The last result goes before the next one comes: two would not count as memory of one.
        del found
        found = do(material)
        times += 1
    wall, cpu = time.perf_counter() - start, time.process_time() - spent
    return 1000 * wall / times, 1000 * cpu / times, found


def _memory_mb(field: str) -> float:
    # Not `ru_maxrss`, which starts from the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return next(int(s.split()[1]) / 1024 for s in status.splitlines() if s.startswith(field))


def watch(command: Sequence[str], env: Mapping[str, str] = ONE_THREAD) -> dict[str, float]:
    """Run a command; return its seconds, those of a core, and its peak memory in MB.

    Raises:
        SystemExit: the command failed.
    """
    # By a small process in between, for a child's `ru_maxrss` is at least its parent's memory.
    done = subprocess.run(
        [sys.executable, "-S", __file__, *command],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict(env),
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _watch(command: Sequence[str]) -> None:
    start = time.perf_counter()
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_seconds, peak_mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "core_seconds": core_seconds, "peak_mb": peak_mb}))
    sys.exit(code)


# Where a script finds this folder, and what it was given besides.
_PATHS = (str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")]))


def take_turns(script: str, jobs: Mapping[str, Job], repetitions: int) -> dict[str, list[Timing]]:
    """Run every side once, then all of them again; return each side's rows."""
    rows: dict[str, list[Timing]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, job in jobs.items():
            command = [sys.executable, script, json.dumps(job)]
            environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(_PATHS)}
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=environment
            )
            rows[name].append(Timing(**json.loads(done.stdout.splitlines()[-1])))
            line = {"side": name, **asdict(rows[name][-1])}
            print(json.dumps(line), file=sys.stderr, flush=True)
    return rows


def table(rows: Mapping[str, Sequence[Timing]], ours: Sequence[str]) -> str:
    """Return a table of all sides; a column a side of ours says how many times faster it is."""
    lines = [
        "| side | ms an image | CPU ms | peak, MB |" + "".join(f" {n} is faster |" for n in ours),
        "|---|---|---|---|" + "---|" * len(ours),
    ]
    for name, found in rows.items():
        wall = _spread([row.wall_ms for row in found])
        cpu = _spread([row.cpu_ms for row in found])
        peak = statistics.median(row.peak_mb for row in found)
        faster = "".join(f" {_ratios(found, rows[n])} |" for n in ours)
        lines.append(f"| {name} | {wall} | {cpu} | {peak:.0f} |{faster}")
    return "\n".join(lines)


def _ratios(slow: Sequence[Timing], fast: Sequence[Timing]) -> str:
    """How many times faster, by CPU time, which other programs disturb least."""
    if slow is fast:
        return "1"
    pairs = zip(slow, fast, strict=True)
    return _spread([a.cpu_ms / b.cpu_ms for a, b in pairs]) + " x"


def _spread(values: Sequence[float]) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if middle >= 100 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    _watch(sys.argv[1:])
