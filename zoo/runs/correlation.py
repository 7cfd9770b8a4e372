"""Whether validation scores say what public scores will be, over many runs (row T14)."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from zoo.runs.table import RunSummary, format_table

Numbers = npt.NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST, FEW = 3, 10


@dataclass(frozen=True)
class Correlation:
    """How the validation scores of runs go with their public ones.

    Attributes:
        name: `all`, or the setting that the runs share.
        runs: how many.
        pearson: of a line; NaN where one side does not vary.
        pearson_interval: the middle 95 % of resampled runs.
        spearman: of the ranks.
        spearman_interval: likewise.
        gap: mean of validation minus public score.
    """

    name: str
    runs: int
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]
    gap: float


def read_public(path: Path, runs: Sequence[RunSummary]) -> dict[str, float]:
    """Read public scores, a CSV with the columns `run` and `score`.

    A run is named as the table does, or by its folder's own name where only one run has it.

    Raises:
        ValueError: other columns, no number, a run that is not there, or one that is there twice.
    """
    names: dict[str, list[str]] = {}
    for run in runs:
        for name in {run.name, run.path.name}:
            names.setdefault(name, []).append(run.name)
    found: dict[str, float] = {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        if not {"run", "score"} <= set(reader.fieldnames or ()):
            heads = ", ".join(reader.fieldnames or ()) or "none"
            raise ValueError(f"{path}: expected the columns run, score; found {heads}")
        for number, row in enumerate(reader, start=2):
            matches = names.get((row["run"] or "").strip(), [])
            if len(matches) != 1:
                which = "several runs" if matches else "no run"
                raise ValueError(f"{path}: line {number}: '{row['run']}' names {which}")
            if matches[0] in found:
                raise ValueError(f"{path}: line {number}: '{row['run']}' is there twice")
            found[matches[0]] = _score(row["score"], f"{path}: line {number}")
    return found


def _score(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a score, found '{text}'")
    return value


def correlate(
    validation: Sequence[float], public: Sequence[float], name: str = "all", seed: int = 0
) -> Correlation:
    """Return how two scores of the same runs go together.

    Intervals are percentiles of the statistic over runs drawn with replacement (Efron,
    "Bootstrap methods: another look at the jackknife", 1979); draws in which one side does not
    vary say nothing and are left out.

    Raises:
        ValueError: fewer than three runs.
    """
    x, y = np.asarray(validation, np.float64), np.asarray(public, np.float64)
    if len(x) < FEWEST or len(x) != len(y):
        raise ValueError(f"correlation: expected {FEWEST} or more runs with both, found {len(x)}")
    draws = np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))
    ranks = stats.rankdata(x[draws], axis=1), stats.rankdata(y[draws], axis=1)
    line = _pearson(x[None], y[None])[0]
    order = _pearson(stats.rankdata(x)[None], stats.rankdata(y)[None])[0]
    return Correlation(
        name=name,
        runs=len(x),
        pearson=float(line),
        pearson_interval=_interval(_pearson(x[draws], y[draws])),
        spearman=float(order),
        spearman_interval=_interval(_pearson(*ranks)),
        gap=float((x - y).mean()),
    )


def _pearson(x: Numbers, y: Numbers) -> Numbers:
    """Return the correlation of each row, float64 (n,); NaN where one does not vary."""
    # SciPy's own takes what rounding leaves of equal numbers for variation, and its bootstrap gives
    # NaN as soon as one draw has none, as every ninth of three runs.
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    product, size = (x * y).sum(1), np.sqrt((x * x).sum(1) * (y * y).sum(1))
    found = np.full(len(x), np.nan)
    np.divide(product, size, out=found, where=size > 1e-15)
    return np.clip(found, -1, 1)


def _interval(values: Numbers) -> tuple[float, float]:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return math.nan, math.nan
    low, high = np.quantile(kept, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def correlations(
    runs: Sequence[RunSummary], public: Mapping[str, float], by: str = "seed"
) -> list[Correlation]:
    """Return the correlation over all runs, then over those that share a setting, best first.

    Args:
        runs: those without a validation or a public score are left out.
        public: run -> score.
        by: a setting, such as `seed`, `split.seed` or `fold`; groups of fewer than three runs are
            left out.

    Raises:
        ValueError: fewer than three runs with both, or a setting that no run has.
    """
    both = [run for run in runs if run.best is not None and run.name in public]
    whole = _correlate_runs(both, public, "all")
    if not any(by in run.settings for run in both):
        known = ", ".join(dict.fromkeys(key for run in both for key in run.settings))
        raise ValueError(f"--by {by}: expected a setting of the runs: {known}")
    groups: dict[str, list[RunSummary]] = {}
    for run in both:
        groups.setdefault(run.settings.get(by, ""), []).append(run)
    parts = {f"{by}={value}": part for value, part in groups.items() if len(part) >= FEWEST}
    found = [_correlate_runs(part, public, name) for name, part in parts.items()]
    found.sort(key=lambda c: -c.spearman if math.isfinite(c.spearman) else math.inf)
    return [whole, *found]


def _correlate_runs(
    runs: Sequence[RunSummary], public: Mapping[str, float], name: str
) -> Correlation:
    return correlate([run.best or 0.0 for run in runs], [public[run.name] for run in runs], name)


def describe_correlations(found: Sequence[Correlation]) -> str:
    """Say how validation goes with public scores, a line a group, and how far to trust it."""
    columns = ["runs that share", "n", "pearson", "spearman", "validation - public"]
    rows = [
        [
            c.name,
            str(c.runs),
            _with_interval(c.pearson, c.pearson_interval),
            _with_interval(c.spearman, c.spearman_interval),
            f"{c.gap:+.4f}",
        ]
        for c in found
    ]
    lines = [format_table(columns, rows)]
    if min(c.runs for c in found) < FEW:
        lines.append(f"Fewer than {FEW} runs say little, whatever stands in brackets.")
    if len(found) > 2:
        lines.append(
            "In brackets: the middle 95 % of resampled runs. The first of several groups is the "
            "luckiest, too: trust one whose interval lies apart from the others'."
        )
    return "\n".join(lines)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    if not math.isfinite(value):
        return "all are equal"
    return f"{value:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"
