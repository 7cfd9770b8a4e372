from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from zoo.config import RunConfig, StrictModel, check_config, load_config
from zoo.options import as_text
from zoo.run_files.metrics import MetricsFile
from zoo.runs.sweeps import sweep as sweeping
from zoo.runs.sweeps.config import Parameter, SweepConfig, load_sweep, write_wandb_sweep
from zoo.runs.sweeps.sweep import check_space, describe, run_sweep
from zoo.source import DataSource

TINY = ("size=[32,32]", "batch=2", "epochs=2", "validate_every=1", "init=null", "augment=[]")


class Killed(BaseException):
    """Stands for a process that ends at once."""


class Rates(StrictModel):
    lr: float = 1.0
    name: str = "adamw"


class FakeConfig(RunConfig):
    optim: Rates = Rates()
    batch: int = 4
    size: tuple[int, int] = (64, 64)
    devices: int = 1
    device: str = "cpu"


class FakeFamily:
    """Scores of three epochs that a learning rate and a batch decide; lr above 0.5 diverges."""

    kind, Config = "semantic", FakeConfig

    def train(self, config: FakeConfig, job: Any) -> None:
        file = MetricsFile(job.out / "metrics.csv", ("epoch", "seconds", "val_dice", "Ulna"))
        for epoch in range(len(file.rows) + 1, 4):
            if config.optim.lr > 0.5:
                raise ValueError("the loss is nan")
            score = 1 - abs(config.optim.lr - 0.1) - (0.1 if config.batch == 8 else 0)
            score -= 0.01 * abs(epoch - 2)
            file.append({"epoch": epoch, "seconds": epoch, "val_dice": score, "Ulna": 1 - score})
            (job.out / "checkpoints").mkdir(exist_ok=True)
            (job.out / "checkpoints" / "last.ckpt").touch()
            job.progress(epoch, 3, "")


@pytest.fixture(scope="session")
def data(zoo: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    zoo("phantom", root / "data", "--people", 2, "--test-people", 0, "--size", 256)
    zoo("split", root / "data", "--out", root / "split.json", "--folds", 2)
    return root


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A config file of a family that takes no time; Ulna is a column of its scores."""
    for module in ("zoo.runs.sweeps.sweep", "zoo.runs.train", "zoo.runs.run"):
        monkeypatch.setattr(f"{module}.load_family", lambda name: FakeFamily())
    monkeypatch.setattr("zoo.run_files.metrics.SECONDS_BETWEEN_LOOKS", 0.0)
    path = tmp_path / "fake.yaml"
    path.write_text("batch: 4\n")
    return path


def _sweep(config: Path, **changes: Any) -> SweepConfig:
    raw = {
        "family": "fake",
        "config": str(config),
        "space": {"optim.lr": {"log": [1e-4, 0.4]}, "batch": {"choice": [4, 8]}},
        "trials": 6,
        "pruner": {"name": "none"},
    }
    return check_config(SweepConfig, raw | changes, "test")


def _run(
    config: SweepConfig, data: Path, out: Path, kill_at: int | None = None, fold: int = 0
) -> Any:
    calls = 0

    def report(done: int, total: int, note: str) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed

    source = DataSource.open(data / "data")
    further = {"split_path": data / "split.json", "fold": fold, "command": ["zoo"]}
    return run_sweep(config, source, out, report=report, **further)


def _table(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def _params(out: Path) -> dict[str, Any]:
    return {row["trial"]: (row["optim.lr"], row["batch"]) for row in _table(out)}


# --- the config


@pytest.mark.parametrize("name", list(configs.names("sweep")))
def test_shipped_sweeps_fit_their_configs(name: str) -> None:
    check_space(load_sweep(name))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"log": [1e-5, 1e-2], "step": 1e-5}, "no step"),
        ({"log": [0, 1]}, "above 0"),
        ({"log": ["1e-5", 1]}, r"numbers such as 1\.0e-5"),
        ({"float": [1, 1]}, "lowest, highest"),
        ({"int": [1, 2.5]}, "whole numbers"),
        ({"int": [0, 9], "step": 1.5}, "whole step"),
        ({"choice": []}, "one or more"),
        ({"choice": [4, 4]}, "different"),
        ({"range": [1, 2]}, "expected one of log, float, int, choice"),
        ({"log": [1, 2], "choice": [1]}, "expected one of"),
        ({"int": [1, 2], "stop": 1}, "stop"),
    ],
)
def test_bad_parameters(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(Parameter, raw, "test")


def test_what_is_written_is_read_back() -> None:
    for raw in ({"int": [0, 9], "step": 3.0}, {"choice": [[1, 2], None, "x"]}, {"log": [0.1, 1]}):
        assert check_config(Parameter, raw, "test").model_dump(mode="json") == raw


@pytest.mark.parametrize(
    "value", [1e-5, 3e21, 0.1, 7, True, None, "adamw", "1e-5", "null", "", "a b: c", [512, 256]]
)
def test_values_survive_the_command_line(value: Any, tmp_path: Path) -> None:
    class Config(StrictModel):
        key: Any = 0

    path = tmp_path / "c.yaml"
    path.write_text("key: 0\n")
    found = load_config(Config, "none", str(path), [f"key={as_text(value)}"]).key
    assert (list(found) if isinstance(value, list) else found) == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim.rate": {"log": [1e-4, 1e-2]}}, r"unknown key 'optim\.rate'"),
        ({"size": {"choice": [[64, 64], [64]]}}, "'size"),
        ({"batch": {"float": [0.5, 1.5]}}, "'batch'"),
    ],
)
def test_a_space_of_another_config(fake: Path, space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_space(_sweep(fake, space=space))


def test_one_of_several_devices_cannot_end_a_run(fake: Path) -> None:
    several = {"changes": ["devices=2"], "pruner": {"name": "median"}}
    with pytest.raises(ValueError, match="several devices"):
        check_space(_sweep(fake, **several))


# --- the trials


@pytest.mark.slow
def test_the_best_is_found_and_written(fake: Path, data: Path, tmp_path: Path) -> None:
    trials = _run(_sweep(fake, trials=4), data, tmp_path / "s")
    rows = _table(tmp_path / "s")
    assert len(rows) == len({row["trial"] for row in rows}) == 4
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["epoch"] for row in rows} == {"2"}
    best = yaml.safe_load((tmp_path / "s" / "best.yaml").read_text())
    assert best["optim"]["lr"] == float(rows[0]["optim.lr"])
    assert best["batch"] == int(rows[0]["batch"])
    assert rows[0]["trial"] in describe(trials, tmp_path / "s")


@pytest.mark.slow
def test_all_kinds_of_values_reach_the_run(fake: Path, data: Path, tmp_path: Path) -> None:
    space = {
        "optim.lr": {"float": [0.1, 0.3], "step": 0.1},
        "optim.name": {"choice": ["sgd"]},
        "batch": {"int": [2, 6], "step": 2},
        "size": {"choice": [[64, 32], [96, 96]]},
    }
    _run(_sweep(fake, space=space, trials=4), data, tmp_path / "s")
    for row in _table(tmp_path / "s"):
        found = yaml.safe_load((tmp_path / "s" / row["trial"] / "config.yaml").read_text())
        assert found["size"] in ([64, 32], [96, 96])
        assert found["batch"] in (2, 4, 6)
        assert round(found["optim"]["lr"], 6) in (0.1, 0.2, 0.3)
        assert found["optim"]["name"] == "sgd"
        assert [str(found["batch"]), str(found["size"])] == [row["batch"], row["size"]]


@pytest.mark.slow
def test_a_killed_sweep_chooses_as_if_it_had_not_been(
    fake: Path, data: Path, tmp_path: Path
) -> None:
    # TPE draws at random until it has ten trials to learn from.
    config = _sweep(fake, trials=12)
    _run(config, data, tmp_path / "whole")
    # In the second epoch of the fifth trial, and again in the twelfth.
    for kill_at in (4 * 3 + 2, 2 + 6 * 3 + 2):
        with pytest.raises(Killed):
            _run(config, data, tmp_path / "killed", kill_at)
    _run(config, data, tmp_path / "killed")
    whole, killed = _params(tmp_path / "whole"), _params(tmp_path / "killed")
    assert sorted(whole.values()) == sorted(killed.values())
    assert len(set(whole.values())) == 12
    assert len(list((tmp_path / "killed").glob("trial-*"))) == 12


@pytest.mark.slow
def test_a_killed_trial_continues_in_its_folder(fake: Path, data: Path, tmp_path: Path) -> None:
    config = _sweep(fake, trials=2)
    with pytest.raises(Killed):
        _run(config, data, tmp_path / "s", kill_at=2)
    before = (tmp_path / "s" / "trial-0000" / "metrics.csv").read_text()
    assert len(before.splitlines()) == 1 + 2
    _run(config, data, tmp_path / "s")
    after = (tmp_path / "s" / "trial-0000" / "metrics.csv").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 1 + 3


@pytest.mark.slow
def test_optuna_is_quiet(tmp_path: Path) -> None:
    code = (
        "from zoo.runs.sweeps.study import open_study, quiet_optuna\n"
        "from zoo.runs.sweeps.config import load_sweep\n"
        "from pathlib import Path\n"
        f"with quiet_optuna(): open_study(load_sweep('demo'), Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.slow
def test_more_trials_later(fake: Path, data: Path, tmp_path: Path) -> None:
    _run(_sweep(fake, trials=2), data, tmp_path / "s")
    first = _params(tmp_path / "s")
    _run(_sweep(fake, trials=4), data, tmp_path / "s")
    found = _params(tmp_path / "s")
    assert len(found) == 4
    assert first.items() <= found.items()


@pytest.mark.slow
def test_hopeless_trials_end_early(fake: Path, data: Path, tmp_path: Path) -> None:
    prune = {"name": "median", "startup": 2, "warmup": 0}
    _run(_sweep(fake, trials=7, pruner=prune, sampler="random"), data, tmp_path / "s")
    rows = _table(tmp_path / "s")
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    assert all(int(row["epochs"]) < 3 for row in pruned)
    kept = [row for row in rows if row["state"] == "complete"]
    assert max(float(r["score"]) for r in kept) >= max(float(r["score"]) for r in pruned)


@pytest.mark.slow
def test_another_column_decides(fake: Path, data: Path, tmp_path: Path) -> None:
    _run(_sweep(fake, trials=3, score="Ulna"), data, tmp_path / "s")
    for row in _table(tmp_path / "s"):
        with (tmp_path / "s" / row["trial"] / "metrics.csv").open(newline="") as lines:
            assert float(row["score"]) == max(float(r["Ulna"]) for r in csv.DictReader(lines))


@pytest.mark.slow
def test_a_trial_may_fail(fake: Path, data: Path, tmp_path: Path) -> None:
    config = _sweep(fake, trials=6, space={"optim.lr": {"choice": [0.1, 0.2, 0.9]}})
    _run(config, data, tmp_path / "s")
    rows = _table(tmp_path / "s")
    failed = [row for row in rows if row["state"] == "failed"]
    assert failed
    assert {row["note"] for row in failed} == {"ValueError: the loss is nan"}
    assert rows[0]["state"] == "complete"
    assert rows[-1]["state"] == "failed"


@pytest.mark.slow
def test_nothing_but_failures_end_the_sweep(fake: Path, data: Path, tmp_path: Path) -> None:
    config = _sweep(fake, space={"optim.lr": {"float": [0.6, 0.9]}})
    with pytest.raises(ValueError, match="3 trials in a row failed, the last with: the loss is"):
        _run(config, data, tmp_path / "s")
    assert [row["state"] for row in _table(tmp_path / "s")] == ["failed"] * 3


@pytest.mark.slow
def test_other_sweeps_are_not_mixed(fake: Path, data: Path, tmp_path: Path) -> None:
    _run(_sweep(fake, trials=1), data, tmp_path / "s")
    with pytest.raises(ValueError, match="expected the same sweep"):
        _run(_sweep(fake, trials=1, seed=1), data, tmp_path / "s")
    with pytest.raises(ValueError, match="expected the same sweep"):
        _run(_sweep(fake, trials=1), data, tmp_path / "s", fold=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    with pytest.raises(ValueError, match="found other files"):
        _run(_sweep(fake), data, tmp_path / "full")


def test_one_process_at_a_time(fake: Path, data: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "s").mkdir()
    with FileLock(tmp_path / "s" / ".lock"), pytest.raises(ValueError, match="another process"):
        _run(_sweep(fake), data, tmp_path / "s")


@pytest.mark.slow
def test_a_real_sweep_that_is_killed(data: Path, tmp_path: Path) -> None:
    raw = {
        "family": "smp",
        "config": "demo",
        "changes": [*TINY, "encoder=tu-lcnet_035", "options.decoder_channels=[16,16,8,8,8]"],
        "space": {"optim.lr": {"log": [1e-4, 1e-2]}, "clip": {"choice": [0, 1]}},
        "trials": 3,
        "pruner": {"name": "none"},
    }
    config = check_config(SweepConfig, raw, "test")
    with pytest.raises(Killed):
        _run(config, data, tmp_path / "s", kill_at=5)
    done = len(list((tmp_path / "s").glob("trial-*/checkpoints/last.safetensors")))
    assert done < 3
    trials = _run(config, data, tmp_path / "s")
    assert [(t.state, t.note) for t in trials] == [("complete", "")] * 3
    assert all(t.epochs == 2 for t in trials)
    best = load_config(sweeping.load_family("smp").Config, "smp", str(tmp_path / "s" / "best.yaml"))
    assert best.optim.lr == trials[0].values["optim.lr"]  # type: ignore[attr-defined]


# --- Weights & Biases


@pytest.mark.slow
def test_the_agent_of_wandb_starts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    config = load_sweep("demo")
    out = tmp_path / "my sweep"
    found = write_wandb_sweep(config, Path("data"), Path("split.json"), 1, out, "bones")
    assert found["parameters"]["optim.lr"] == {
        "distribution": "log_uniform_values",
        "min": 1e-4,
        "max": 1e-2,
    }
    assert found["parameters"]["batch"] == {"values": [4, 8]}
    assert found["metric"] == {"name": "val/dice", "goal": "maximize"}
    drawn = {"optim.lr": {"value": 0.001}, "batch": {"value": 8}}
    arguments = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
    command = create_sweep_command(yaml.safe_load(yaml.safe_dump(found))["command"])
    at = command.index("${args_no_hyphens}")
    program = tmp_path / "bin" / "zoo"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    place = {**os.environ, "PATH": f"{program.parent}:/bin:/usr/bin", "WANDB_RUN_ID": "abc"}
    done = subprocess.run(
        [*command[:at], *arguments, *command[at + 1 :]],
        env=place,
        capture_output=True,
        text=True,
        check=True,
    )
    given = done.stdout.splitlines()
    assert given[:8] == [
        "train",
        "smp",
        "--config",
        "demo",
        "--data",
        "data",
        "--split",
        "split.json",
    ]
    assert given[8:12] == ["--fold", "1", "--out", f"{out}/abc"]
    assert given[-2:] == ["optim.lr=0.001", "batch=8"]
    changes = [text for text in given[12:] if "=" in text]
    model = sweeping.load_family("smp").Config
    made = load_config(model, "smp", "demo", changes)
    assert made.track.wandb is not None
    assert (made.track.wandb.project, made.track.wandb.mode) == ("bones", "online")


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ({"float": [0, 1]}, {"distribution": "uniform", "min": 0, "max": 1}),
        (
            {"float": [0, 1], "step": 0.1},
            {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1},
        ),
        ({"int": [1, 4]}, {"distribution": "int_uniform", "min": 1, "max": 4}),
        ({"int": [2, 6], "step": 2}, {"values": [2, 4, 6]}),
        ({"choice": [[64, 64], None, "x"]}, {"values": ["[64, 64]", "null", "x"]}),
    ],
)
def test_the_space_of_wandb(raw: Any, wanted: Any) -> None:
    config = _sweep(Path("c.yaml"), space={"key": raw})
    found = write_wandb_sweep(config, Path("d"), None, None, Path("o"), "p")
    assert found["parameters"] == {"key": wanted}


def test_broken_data_leave_no_folder(data: Path, fake: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "broken")
    next((tmp_path / "broken" / "data").rglob("*.png")).write_bytes(b"")
    with pytest.raises(ValueError, match="expected an image"):
        _run(_sweep(fake), tmp_path / "broken", tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
