from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from zoo.runs.correlation import correlate, correlations, describe_correlations, read_public
from zoo.runs.table import RunSummary


def _run(name: str, best: float | None, **settings: str) -> RunSummary:
    return RunSummary(name, Path(name), settings, best, 1, best, {}, 0.0)


def _pairs(seed: int, count: int, noise: float) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(seed)
    x = generator.normal(0.96, 0.01, count)
    return x.tolist(), (x - 0.01 + generator.normal(0, noise, count)).tolist()


@pytest.mark.parametrize(("count", "noise"), [(3, 0.01), (8, 0.02), (30, 0.005)])
def test_as_scipy_says(count: int, noise: float) -> None:
    x, y = _pairs(count, count, noise)
    found = correlate(x, y)
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.gap == pytest.approx(np.mean(x) - np.mean(y))


@pytest.mark.slow
def test_intervals_are_those_of_scipys_bootstrap() -> None:
    x, y = _pairs(1, 25, 0.01)
    found = correlate(x, y)
    for name, interval in (
        ("pearsonr", found.pearson_interval),
        ("spearmanr", found.spearman_interval),
    ):

        def statistic(a: object, b: object, name: str = name) -> float:
            return float(getattr(stats, name)(a, b).statistic)

        wanted = stats.bootstrap(
            (x, y),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        assert interval == pytest.approx((wanted.low, wanted.high), abs=0.06)


def test_ties_share_their_rank() -> None:
    x, y = [0.9, 0.9, 0.95, 0.8], [0.7, 0.8, 0.8, 0.6]
    assert correlate(x, y).spearman == pytest.approx(stats.spearmanr(x, y).statistic)


def test_the_same_runs_give_the_same_interval() -> None:
    x, y = _pairs(2, 6, 0.01)
    assert correlate(x, y) == correlate(x, y)


def test_equal_scores_have_no_correlation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correlate([0.9, 0.9, 0.9], [0.1, 0.2, 0.3])
    assert math.isnan(found.pearson)
    assert "all are equal" in describe_correlations([found])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_runs(count: int) -> None:
    with pytest.raises(ValueError, match=f"3 or more runs with both, found {count}"):
        correlate([0.5] * count, [0.5] * count)


def test_the_seed_whose_validation_follows_comes_first() -> None:
    runs, public = [], {}
    for i in range(6):
        for seed, value in (("1", 0.9 - i / 100), ("2", 0.9 + i / 100)):
            runs.append(_run(f"{seed}-{i}", value, seed=seed))
            public[f"{seed}-{i}"] = 0.8 + i / 100
    runs += [_run("3-0", 0.9, seed="3"), _run("4", None, seed="4"), _run("5", 0.9, seed="5")]
    public["3-0"] = 0.9
    found = correlations(runs, public)
    assert [(c.name, c.runs) for c in found] == [("all", 13), ("seed=2", 6), ("seed=1", 6)]
    assert found[1].spearman == pytest.approx(1)
    assert found[2].spearman == pytest.approx(-1)
    text = describe_correlations(found)
    assert "+1.00 [+1.00, +1.00]" in text
    assert "luckiest" in text


@pytest.mark.parametrize(("count", "warned"), [(9, True), (10, False)])
def test_few_runs_are_not_trusted(count: int, warned: bool) -> None:
    text = describe_correlations([correlate(*_pairs(0, count, 0.001))])
    assert ("say little" in text) == warned


def test_by_another_setting() -> None:
    runs = [_run(f"{i}", 0.9 + i / 100, seed="0", fold=str(i % 2)) for i in range(8)]
    found = correlations(runs, {f"{i}": 0.5 + i / 100 for i in range(8)}, by="fold")
    assert {c.name for c in found} == {"all", "fold=0", "fold=1"}
    with pytest.raises(ValueError, match="--by sed: expected a setting of the runs: seed, fold"):
        correlations(runs, {"0": 0.5, "1": 0.6, "2": 0.7}, by="sed")


RUNS = [_run("a", 0.9), _run("sweep/trial-0", 0.8), _run("x/b", 0.7), _run("y/b", 0.6)]


def test_runs_are_named_as_listed_or_by_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "public.csv"
    path.write_text("﻿score,run,note\n0.7,a,\n.5,trial-0,best\n0.25,y/b,\n", encoding="utf-8")
    assert read_public(path, RUNS) == {"a": 0.7, "sweep/trial-0": 0.5, "y/b": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,score\na,1\n", "expected the columns run, score; found name, score"),
        ("", "found none"),
        ("run,score\na,0.5\nc,0.5\n", "line 3: 'c' names no run"),
        ("run,score\nb,0.5\n", "line 2: 'b' names several runs"),
        ("run,score\na,0.5\na,0.6\n", "line 3: 'a' is there twice"),
        ("run,score\na,high\n", "line 2: expected a score, found 'high'"),
        ("run,score\na,nan\n", "line 2: expected a score, found 'nan'"),
        ("run,score\na\n", "line 2: expected a score, found 'None'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "public.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_public(path, RUNS)
