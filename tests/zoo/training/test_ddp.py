"""Two processes on the CPU train one run, as several GPUs or nodes would."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import Forked
from lightning.fabric.plugins.environments import SLURMEnvironment

from converters.splits.split import make_split
from converters.types import LabelSpace
from zoo.config import check_config
from zoo.families.smp.config import SmpConfig
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.run_files.checkpoints import BEST, LAST, RESUME, read_weights
from zoo.runs.run import Run
from zoo.runs.train import wait_for_run
from zoo.source import DataSource
from zoo.training.loop import _environment

pytestmark = pytest.mark.slow

# What `zoo train` does; the first process may be killed after some steps.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from zoo.runs.train import train
from zoo.source import DataSource

def report(done, total, note):
    if total > 1 and done == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    config, data, split, out = (Path(argument) for argument in sys.argv[1:5])
    train("smp", str(config), DataSource.open(data), out, split_path=split, fold=0, changes=[],
          command=["zoo", "train"], report=report)
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("ddp")
    write_phantom(root / "data", PhantomConfig(people=4, test_people=0, size=256))
    samples = DataSource.open(root / "data").read(LabelSpace.load("hand_bones"))
    make_split(samples, 2, 0).save(root / "split.json")
    raw = {
        "size": [64, 64],
        "epochs": 3,
        "batch": 1,
        "ema": 0.9,
        "encoder": "tu-lcnet_035",
        "options": {"decoder_channels": [16, 16, 16, 8, 8]},
        "device": "cpu",
        "devices": 2,
        "strategy": "ddp",
        "optim": {"lr": 1e-3},
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(raw))
    (root / "train.py").write_text(PROGRAM)
    return [str(root / name) for name in ("train.py", "tiny.yaml", "data", "split.json", "run")]


@pytest.fixture(scope="module")
def started() -> Iterator[Forked]:
    with Forked("zoo.cli", "zoo.training.loop", "zoo.families.smp.family") as process:
        yield process


# Sockets of this computer alone.
VARIABLES = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def _launch(started: Forked, arguments: list[str], kill_at: int) -> int:
    _, done = started.run([*arguments, kill_at], {**os.environ, **VARIABLES})
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode


@pytest.mark.long
def test_two_processes_leave_one_run_that_continues(arguments: list[str], started: Forked) -> None:
    out = Path(arguments[-1])
    # Four samples, two processes: two steps an epoch.
    assert _launch(started, arguments, kill_at=4) == -signal.SIGKILL
    first = torch.load(out / RESUME, weights_only=True)
    assert first["global_step"] == 2
    assert not (out / LAST).exists()
    assert _launch(started, arguments, kill_at=-1) == 0
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4"), ("3", "6")]
    assert read_weights(out / BEST).keys() == read_weights(out / LAST).keys()
    run = Run.load(out)
    assert run.fold == 0
    assert not list(out.rglob("*.partial"))


# What `zoo train` does, where the second process's first loss is no number.
DIVERGING = """
import os, sys
from zoo.cli import main
from zoo.training import recorder
from zoo.training.module import SemanticModule

recorder.STEPS_BETWEEN_NOTES = 1
step = SemanticModule.training_step

def spoil(module, batch, number):
    with open(f"{sys.argv[4]}.steps", "a") as file:
        file.write(f"{module.trainer.current_epoch} {number}\\n")
    loss = step(module, batch, number)
    return loss * float("nan") if os.environ.get("LOCAL_RANK") == "1" else loss

SemanticModule.training_step = spoil
config, data, split, out = sys.argv[1:5]
if __name__ == "__main__":
    main(["train", "smp", "--config", config, "--data", data, "--split", split, "--out", out])
"""


@pytest.mark.long
def test_a_loss_that_diverges_in_one_process_ends_all_at_once_and_in_one_line(
    arguments: list[str], tmp_path: Path, started: Forked
) -> None:
    program = tmp_path / "diverging.py"
    program.write_text(DIVERGING)
    out = tmp_path / "run"
    _, done = started.run([program, *arguments[1:4], out], {**os.environ, **VARIABLES})
    assert done.returncode == 2, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("zoo: ")]
    assert lines == [
        "zoo: epoch 1: the loss is nan; lower optim.lr, or set clip, or precision=32-true"
    ]
    assert "Traceback" not in done.stderr
    # Two processes of two steps an epoch: each has made one.
    assert (tmp_path / "run.steps").read_text() == "0 0\n0 0\n"
    assert not out.exists()


def test_later_processes_wait_for_the_first_to_make_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[float] = []

    def sleep(seconds: float) -> None:
        made.append(seconds)
        if len(made) == 3:
            (tmp_path / "config.yaml").write_text("family: smp\n")

    monkeypatch.setattr("zoo.runs.train.time.sleep", sleep)
    wait_for_run(tmp_path)
    assert len(made) == 3


@pytest.mark.parametrize("requeue", [False, True])
def test_slurm_jobs_are_requeued_only_where_wanted(
    monkeypatch: pytest.MonkeyPatch, requeue: bool
) -> None:
    raw: dict[str, Any] = {"size": [64, 64], "epochs": 1, "batch": 1, "requeue": requeue}
    config = check_config(SmpConfig, raw, "test")
    assert _environment(config) is None
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    environment = _environment(config)
    assert isinstance(environment, SLURMEnvironment)
    assert environment.auto_requeue is requeue
