from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from converters.splits.split import VERSION, Split
from zoo.run_files.metrics import MetricsFile
from zoo.runs.table import (
    differing,
    find_runs,
    format_table,
    shown_columns,
    tabulate,
    write_table,
)

LABELS = ("a", "b", "c-1")


def _make(folder: Path, scores: list[float], split_seed: int = 0, **settings: Any) -> Path:
    """Write a run as `zoo train` leaves it; c-1 scores twice what a does."""
    folder.mkdir(parents=True)
    labels = folder.parent / "labels.yaml"
    labels.write_text(
        yaml.safe_dump({"name": "abc", "names": list(LABELS), "groups": {"first": ["a", "b"]}})
    )
    config = {"family": "smp", "labels": str(labels), "seed": 0, "optim": {"lr": 0.001}} | settings
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    keys = {"x": "p", "y": "q"}
    Split(VERSION, split_seed, "group", (("x",), ("y",)), keys).save(folder / "split.json")
    (folder / "provenance.json").write_text('{"kind": "run", "config": {"fold": 1}}')
    file = MetricsFile(folder / "metrics.csv", ("epoch", "seconds", "val_dice", *LABELS))
    for epoch, score in enumerate(scores, start=1):
        per_class = {"a": score / 2, "b": score / 4, "c-1": score}
        file.append({"epoch": epoch, "seconds": 60 * epoch, "val_dice": score, **per_class})
    return folder


def test_a_run_is_summed_up(tmp_path: Path) -> None:
    _make(tmp_path / "one", [0.5, 0.8, 0.6])
    (run,) = find_runs([tmp_path / "one"])
    assert (run.name, run.best, run.epoch, run.last, run.seconds) == ("one", 0.8, 2, 0.6, 180)
    assert run.groups == {"first": pytest.approx(0.3)}
    assert run.settings["fold"] == "1"
    assert run.settings["split.seed"] == "0"
    assert run.settings["optim.lr"] == "0.001"


def test_runs_below_folders_are_found_once(tmp_path: Path) -> None:
    _make(tmp_path / "a", [0.5])
    inner = _make(tmp_path / "sweep" / "trial-0000", [0.5])
    _make(inner / "ultralytics" / "train", [0.9])
    (tmp_path / "sweep" / "config.yaml").write_text("trials: 3\n")
    found = find_runs([tmp_path, tmp_path / "a", tmp_path / "sweep"])
    assert [run.name for run in found] == ["a", "sweep/trial-0000"]


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    _make(tmp_path / "a", [0.5], optim={"lr": 0.01, "name": "adam"})
    _make(tmp_path / "b", [0.6], optim={"lr": 0.001, "name": "adam"}, size=[64, 64], split_seed=3)
    assert differing(find_runs([tmp_path])) == ["split.seed", "split", "optim.lr", "size"]


def test_settings_that_a_family_lacks_are_not_shown(tmp_path: Path) -> None:
    _make(tmp_path / "a", [0.5], optim={"lr": 0.01, "name": "adam"})
    _make(tmp_path / "b", [0.6], optim={"lr": 0.001, "name": "adam"}, size=[64, 64])
    runs = find_runs([tmp_path])
    columns, _ = tabulate(runs)
    assert shown_columns(runs, columns, "best") == columns
    _make(tmp_path / "c", [0.6], family="yolo", optim={"lr": 0.1})
    runs = find_runs([tmp_path])
    columns, _ = tabulate(runs)
    assert {"optim.name", "size"} <= set(columns)
    shown = shown_columns(runs, columns, "best")
    assert shown == ["run", "family", "optim.lr", "best", "epoch", "last", "first"]
    assert "size" in shown_columns(runs, columns, "size")


def test_a_run_that_was_not_scored_is_listed(tmp_path: Path) -> None:
    _make(tmp_path / "a", [])
    _make(tmp_path / "b", [0.5])
    columns, rows = tabulate(find_runs([tmp_path]))
    assert columns == ["run", "best", "epoch", "last", "first"]
    assert rows == [["b", "0.5000", "1", "0.5000", "0.1875"], ["a", "", "", "", ""]]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("best", ["b", "c", "a"]),
        ("last", ["c", "a", "b"]),
        ("run", ["a", "b", "c"]),
        ("optim.lr", ["b", "a", "c"]),
        ("batch", ["a", "c", "b"]),
        ("public", ["a", "b", "c"]),
    ],
)
def test_order(tmp_path: Path, sort: str, order: list[str]) -> None:
    _make(tmp_path / "a", [0.5, 0.4], optim={"lr": 2e-5}, batch=4)
    _make(tmp_path / "b", [0.9, 0.3], optim={"lr": 1e-5})
    _make(tmp_path / "c", [0.6], optim={"lr": 0.1}, batch=16)
    _, rows = tabulate(find_runs([tmp_path]), sort, {"a": 0.7, "b": 0.6})
    assert [row[0] for row in rows] == order


def test_an_unknown_column(tmp_path: Path) -> None:
    _make(tmp_path / "a", [0.5])
    with pytest.raises(ValueError, match="--sort lr: expected one of run, best, epoch, last"):
        tabulate(find_runs([tmp_path]), "lr")


def test_the_table_is_written_and_shown(tmp_path: Path) -> None:
    columns, rows = ["run", "size"], [["a", "[64, 64]"], ["long name", ""]]
    write_table(tmp_path / "t.csv", columns, rows)
    with (tmp_path / "t.csv").open(newline="") as lines:
        assert list(csv.reader(lines)) == [columns, *rows]
    assert format_table(columns, rows).splitlines() == [
        "run        size",
        "a          [64, 64]",
        "long name",
    ]


def test_a_long_cell_is_cut_on_the_screen_alone(tmp_path: Path) -> None:
    name, steps = "r" * 40, "[" + "x" * 300 + "]"
    shown = format_table(["run", "augment"], [[name, steps]]).splitlines()[1]
    assert shown == f"{name}  [{'x' * 28}..."
    write_table(tmp_path / "table.csv", ["run", "augment"], [[name, steps]])
    assert steps in (tmp_path / "table.csv").read_text()


def test_labels_that_are_gone_leave_the_scores(tmp_path: Path) -> None:
    _make(tmp_path / "a", [0.5])
    (tmp_path / "labels.yaml").unlink()
    (run,) = find_runs([tmp_path])
    assert (run.best, run.groups) == (0.5, {})


@pytest.mark.parametrize(("name", "message"), [("none", "found none"), ("empty", "expected runs")])
def test_folders_without_runs(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find_runs([tmp_path / name])


def test_scores_that_cannot_be_read_are_named(tmp_path):
    from zoo.run_files.metrics import read_rows

    path = tmp_path / "metrics.csv"
    path.write_text("epoch,val_dice\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"metrics.csv: expected a CSV file in UTF-8"):
        read_rows(path)
