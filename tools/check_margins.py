"""How safely the tests pass in which a network has to learn something: other processors and seeds.

    python tools/check_margins.py                # about an hour on two cores
    python tools/check_margins.py --jobs 8 --seeds 0 1

Each setting is a run of `pytest -m learns`: the instructions that PyTorch may use
(`ATEN_CPU_CAPABILITY`), its threads, and a shift of all seeds. For each test the table has the
setting in which it came closest to its bound, and in how many it failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CAPABILITIES = ("default", "avx2", "avx512")
Setting = tuple[str, int, int]


def run(setting: Setting, report: Path, further: list[str]) -> None:
    """Run the tests in one setting, and leave a JUnit report."""
    capability, threads, seed = setting
    further_env = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "learns", "-p", "no:cacheprovider"]
    command += [f"--seed-shift={seed}", f"--junitxml={report}", *further]
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **further_env, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        check=False,
    )


def read(report: Path) -> dict[str, tuple[bool, float | None]]:
    """Return test -> whether it passed, and its least value over its bound, None without any."""
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        ratios = []
        for entry in case.iter("property"):
            if entry.get("name", "").startswith("margin: "):
                value, bound = map(float, entry.get("value", "").split(" > "))
                ratios.append(value / bound)
        passed = case.find("failure") is None and case.find("error") is None
        found[str(case.get("name"))] = passed, min(ratios, default=None)
    return found


def main() -> None:
    """Print a line a test: settings, failures, the least margin and where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("further", nargs="*", help="for pytest, such as paths")
    given = parser.parse_args()
    settings = list(itertools.product(CAPABILITIES, given.threads, given.seeds))
    results: dict[str, dict[Setting, tuple[bool, float | None]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.jobs) as pool:
        reports = [Path(scratch) / f"{n}.xml" for n in range(len(settings))]
        list(pool.map(run, settings, reports, [given.further] * len(settings)))
        for setting, report in zip(settings, reports, strict=True):
            for test, outcome in read(report).items():
                results[test][setting] = outcome
    for test, by_setting in sorted(results.items()):
        failed = [s for s, (passed, _) in by_setting.items() if not passed]
        known = {s: ratio for s, (_, ratio) in by_setting.items() if ratio is not None}
        least = min(known, key=known.__getitem__, default=None)
        margin = "" if least is None else f"least {known[least]:.2f} x bound {least}"
        print(f"{len(by_setting) - len(failed):3d} of {len(by_setting)}  {test}  {margin}")
        for setting in failed:
            print(f"      failed: {setting}")
    sys.exit(any(not passed for found in results.values() for passed, _ in found.values()))


if __name__ == "__main__":
    main()
