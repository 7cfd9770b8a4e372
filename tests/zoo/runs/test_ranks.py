"""Processes that train one run together: what they make, and how they end."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import Forked

import zoo.runs.ranks as ranks
from converters.splits.split import make_split
from converters.types import LabelSpace
from zoo.config import Workload, check_config, dump_config
from zoo.families import load_family
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.run_files.checkpoints import BEST, LAST, read_weights
from zoo.runs.ranks import check_devices
from zoo.runs.train import _keep_steps
from zoo.source import DataSource

pytestmark = pytest.mark.slow

# `zoo` itself. What happens in which process, at which batch, is in FAULT. What the processes have
# seen of images, and the weights they end with, goes to files beside SEEN.
PROGRAM = """
import json, os, signal
from torch.nn.parallel import DistributedDataParallel

rank, at, what = os.environ.get("FAULT", "- 0 -").split()
forward, seen = DistributedDataParallel.forward, []

def faulty(network, *inputs, **named):
    own = os.environ.get("LOCAL_RANK")
    batch = inputs[0] if inputs and isinstance(inputs[0], dict) else {}
    seen.append([os.path.basename(file) for file in batch.get("im_file", ())])
    if "SEEN" in os.environ:
        with open(f"{os.environ['SEEN']}-{own}.json", "w") as file:
            json.dump(seen, file)
    if own == rank and len(seen) == int(at):
        if what == "fail":
            raise ValueError("photo.png: expected an image, found none")
        if what == "break":
            raise TypeError("an error of the program")
        os.kill(os.getpid(), int(what))
    return forward(network, *inputs, **named)

DistributedDataParallel.forward = faulty

if "SEEN" in os.environ:
    import torch
    from zoo.families.yolo.trainer import OfflineSegmentation

    def keep(trainer):
        held = {"model": trainer.model.module.state_dict(), "ema": trainer.ema.ema.state_dict()}
        torch.save(held, f"{os.environ['SEEN']}-{os.environ['LOCAL_RANK']}.pt")

    OfflineSegmentation.final_eval = keep

if __name__ == "__main__":
    # Who runs the tests may have ignored it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from zoo.__main__ import run
    run()
"""
CONFIGS: dict[str, dict[str, Any]] = {
    "smp": {
        "size": [64, 64],
        "encoder": "tu-lcnet_035",
        "options": {"decoder_channels": [16, 16, 16, 8, 8]},
    },
    "yolo": {
        **{"depth": 0.33, "width": 0.125, "max_channels": 128, "imgsz": 64, "warmup_epochs": 0},
        **{"workers": 0, "conf": 0.0, "lr0": 2e-3},
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight radiographs of four people, two folds, and the configs."""
    root = tmp_path_factory.mktemp("ranks")
    write_phantom(root / "data", PhantomConfig(people=4, test_people=0, size=256))
    samples = DataSource.open(root / "data").read(LabelSpace.load("hand_bones"))
    make_split(samples, 2, 0).save(root / "split.json")
    for family, keys in CONFIGS.items():
        raw = {"epochs": 3, "batch": 1, "device": "cpu", "devices": 2, **keys}
        (root / f"{family}.yaml").write_text(yaml.safe_dump(raw))
    (root / "command.py").write_text(PROGRAM)
    return root


@pytest.fixture(scope="module")
def started() -> Iterator[Mapping[str, Forked]]:
    """By family, a process that has imported what its commands import, and copies itself."""
    ours = ("zoo.cli", "zoo.runs.train", "lightning.pytorch", "zoo.training.loop")
    with (
        Forked(*ours, "zoo.families.smp.family") as smp,
        Forked(*ours, "zoo.families.yolo.family") as yolo,
    ):
        yield {"smp": smp, "yolo": yolo}


def zoo(
    root: Path, *words: object, by: Forked | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, in a process from its beginning or by one that has imported already."""
    command = [root / "command.py", *words]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    if by is not None:
        group, done = by.run(command, own)
        _assert_all_ended(group)
        return done
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=own,
        check=False,
        timeout=280,
        capture_output=True,
        text=True,
    )


def _assert_all_ended(group: int) -> None:
    """The others find out within a second that the first one is no more."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pgid=", "-o", "stat="], check=True, capture_output=True, text=True
        )
        lines = [line.split() for line in listed.stdout.splitlines()]
        if not any(int(own) == group and not state.startswith("Z") for own, state in lines):
            return
        time.sleep(0.2)
    pytest.fail("processes are left")


def train(
    root: Path,
    family: str,
    out: Path,
    *changes: str,
    by: Forked | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    files = ("--config", root / f"{family}.yaml", "--data", root / "data")
    split = ("--split", root / "split.json", "--out", out)
    return zoo(root, "train", family, *files, *split, *changes, by=by, **variables)


def read_rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that are no progress."""
    return [x for x in done.stderr.splitlines() if x and not x.startswith("train ")]


def files_of(out: Path) -> set[str]:
    inside = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {name for name in inside if not name.startswith("data/")}


@pytest.mark.long
def test_two_processes_leave_what_one_leaves(
    root: Path, tmp_path: Path, started: Mapping[str, Forked]
) -> None:
    pytest.importorskip("ultralytics")
    one, two = tmp_path / "one", tmp_path / "two"
    home = tmp_path / "home"
    home.mkdir()
    by = started["yolo"]
    assert train(root, "yolo", one, "devices=1", "batch=2", by=by).returncode == 0
    # From its beginning: what is imported must leave the home alone too.
    done = train(root, "yolo", two, SEEN=str(tmp_path / "seen"), HOME=str(home))
    assert (done.returncode, said(done)) == (0, [])
    assert len(done.stdout.splitlines()) == len(set(done.stdout.splitlines()))
    assert files_of(one) == files_of(two)
    assert not list(home.rglob("*Ultralytics*"))
    # Steps of two images, on whatever devices.
    for rows in (read_rows(one), read_rows(two)):
        assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4"), ("3", "6")]
    losses = [float(row["train_loss"]) for row in read_rows(two)]
    assert losses[-1] < losses[0]
    _check_what_they_saw(tmp_path)
    predicted = zoo(
        *(root, "predict", two, "--data", root / "data", "--out", tmp_path / "val"), by=by
    )
    assert predicted.returncode == 0, predicted.stderr
    scored = zoo(root, "evaluate", tmp_path / "val", "--data", root / "data", by=by)
    assert scored.returncode == 0, scored.stderr


def _check_what_they_saw(folder: Path) -> None:
    """Each image by one process in each epoch; and both have the same network in the end."""
    first, second = (yaml.safe_load((folder / f"seen-{r}.json").read_text()) for r in (0, 1))
    epochs = [first[i : i + 2] + second[i : i + 2] for i in (0, 2, 4)]
    assert [len({name for batch in epoch for name in batch}) for epoch in epochs] == [4, 4, 4]
    assert first[:2] != first[2:4] or first[:2] != first[4:]
    states = [torch.load(folder / f"seen-{r}.pt", weights_only=True) for r in (0, 1)]
    for part in ("model", "ema"):
        a, b = (state[part] for state in states)
        # Statistics of batch norms are each process's own until the next step.
        names = [k for k in a if part == "ema" or not k.endswith(("running_mean", "running_var"))]
        assert [k for k in names if not torch.equal(a[k], b[k])] == []
    written = read_weights(folder / "two" / LAST)
    assert [k for k in written if not torch.equal(written[k], states[0]["ema"][k])] == []


FAULTS = [
    (0, signal.SIGKILL, -signal.SIGKILL, ""),
    (0, signal.SIGTERM, 143, "zoo: told to end: the same command goes on, or starts again"),
    (0, signal.SIGINT, 130, "zoo: interrupted: the same command goes on, or starts again"),
    (
        *(1, signal.SIGKILL, 2),
        "zoo: process 2 of the 2 that train was killed (SIGKILL, perhaps for lack of memory); the "
        "same command goes on from the last checkpoint",
    ),
    (1, "fail", 2, "zoo: photo.png: expected an image, found none"),
    (0, "fail", 2, "zoo: photo.png: expected an image, found none"),
]


@pytest.mark.long
@pytest.mark.parametrize("family", ["smp", "yolo"])
@pytest.mark.parametrize(("rank", "what", "code", "line"), FAULTS)
def test_all_end_with_one_line_and_go_on(
    root: Path,
    tmp_path: Path,
    started: Mapping[str, Forked],
    family: str,
    rank: int,
    what: str,
    code: int,
    line: str,
) -> None:
    if family == "yolo":
        pytest.importorskip("ultralytics")
    out = tmp_path / "run"
    word = what if isinstance(what, str) else int(what)
    # Two steps an epoch: in the second one.
    done = train(root, family, out, by=started[family], FAULT=f"{rank} 3 {word}")
    assert done.returncode == code, done.stderr
    assert said(done) == ([line] if line else [])
    assert len(read_rows(out)) == 1
    assert not list(out.rglob("*.partial"))
    # Alone, the other processes' share is its own.
    go_on = train(root, family, out, "devices=1", by=started[family])
    assert go_on.returncode == 0, go_on.stderr
    assert "goes on on 1 instead of 2 devices, with 1 images at a time on each, and 2" in (
        go_on.stdout + go_on.stderr
    )
    # The weights move as often as they would have.
    steps = [("1", "2"), ("2", "4"), ("3", "6")]
    assert [(row["epoch"], row["step"]) for row in read_rows(out)] == steps


@pytest.mark.long
def test_an_error_of_the_program_is_shown_with_its_place(
    root: Path, tmp_path: Path, started: Mapping[str, Forked]
) -> None:
    done = train(root, "smp", tmp_path / "run", by=started["smp"], FAULT="1 1 break")
    assert done.returncode == 1
    assert "TypeError: an error of the program" in done.stderr
    assert "gloo" not in done.stderr
    # It had no epoch: there is nothing to go on with.
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize("family", ["smp", "yolo"])
def test_folds_follow_each_other_on_all_devices(
    root: Path, tmp_path: Path, started: Mapping[str, Forked], family: str
) -> None:
    out = tmp_path / "cv"
    files = ("--config", root / f"{family}.yaml", "--data", root / "data")
    words = ("train", family, *files, "--split", root / "split.json", "--folds", "all")
    # Of the first one's steps the third is the next fold's.
    words = (*words, "--out", out, "epochs=1")
    stopped = zoo(root, *words, by=started[family], FAULT=f"0 3 {int(signal.SIGKILL)}")
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert len(read_rows(out / "fold-0")) == 1
    assert not (out / "fold-1" / "metrics.csv").exists()
    done = zoo(root, *words, by=started[family])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("oof: held-out predictions of 8 images")
    assert done.stdout.count("held-out predictions") == 1
    assert [len(read_rows(path)) for path in sorted(out.glob("fold-*/"))] == [1, 1]


@pytest.mark.long
@pytest.mark.parametrize("family", ["smp", "yolo"])
def test_a_run_that_has_moved_goes_on_there(
    root: Path, tmp_path: Path, started: Mapping[str, Forked], family: str
) -> None:
    """With its data, to another computer with another number of devices."""
    here, there = tmp_path / "here", tmp_path / "there" / "deeper"
    here.mkdir()
    for name in ("data", "split.json", f"{family}.yaml", "command.py"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, here / name)
    killed, by = {"FAULT": f"0 3 {int(signal.SIGKILL)}"}, started[family]
    done = train(here, family, here / "runs" / "b", "devices=2", "batch=1", by=by, **killed)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there.parent.mkdir()
    shutil.move(here, there)
    done = train(there, family, there / "runs" / "b", "devices=1", "batch=1", by=by)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in read_rows(there / "runs" / "b")] == ["1", "2", "3"]
    assert (there / "runs" / "b" / BEST).is_file()


@pytest.mark.parametrize("family", ["smp", "yolo"])
@pytest.mark.parametrize(
    ("before", "now", "batch", "images"),
    [((2, 4, 4), 1, 4, 8), ((1, 4, 8), 2, 4, 4), ((1, 4, 4), 2, 2, 2), ((2, 6, 6), 3, 2, 4)],
)
def test_the_weights_move_for_as_many_images_on_other_devices(
    tmp_path: Path, family: str, before: tuple[int, int, int], now: int, batch: int, images: int
) -> None:
    devices, at_a_time, a_step = before
    many = {"nbs": a_step} if family == "yolo" else {"accumulate": a_step // at_a_time}
    raw = {"epochs": 3, "device": "cpu", **CONFIGS[family], "batch": at_a_time, **many}
    model = load_family(family).Config
    old = check_config(model, {**raw, "devices": devices}, "old")
    (tmp_path / "config.yaml").write_text(f"family: {family}\n{dump_config(old)}")
    new = check_config(model, {**raw, "devices": now}, "new")
    chosen, line = _keep_steps(new, tmp_path)
    assert (chosen.batch, chosen.images_a_step, chosen.devices) == (batch, images, now)
    assert f"goes on on {now} instead of {devices} devices" in line
    assert _keep_steps(old, tmp_path) == (old, "")


def test_devices_that_cannot_share_a_step_are_refused(tmp_path: Path) -> None:
    raw = {"epochs": 3, "device": "cpu", **CONFIGS["smp"], "batch": 4}
    model = load_family("smp").Config
    old = check_config(model, {**raw, "devices": 2}, "old")
    (tmp_path / "config.yaml").write_text(f"family: smp\n{dump_config(old)}")
    with pytest.raises(ValueError, match=r"devices: .*share 8 images .* found 3"):
        _keep_steps(check_config(model, {**raw, "devices": 3}, "new"), tmp_path)


@pytest.mark.parametrize(
    ("device", "count", "gpus", "message"),
    [
        ("cuda:1", 2, 4, "set device=cuda"),
        ("cuda", 3, 2, "at most 2, the GPUs here, found 3"),
        ("auto", 3, 2, "at most 2"),
        ("auto", 2, 2, ""),
        ("auto", 2, 0, ""),
        ("cpu", 8, 2, ""),
    ],
)
def test_as_many_devices_as_there_are(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, gpus: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    load = Workload(device, count)
    if not message:
        check_devices(load)
        return
    with pytest.raises(ValueError, match=message):
        check_devices(load)


# Where it is read again, it does not come so far as to wait for anybody.
AT_ONCE = """
import sys
from zoo.cli import main
from zoo.runs import ranks

ranks.SECONDS_TO_END = 1.0
main(sys.argv[1:])
"""


def test_a_script_that_trains_while_it_is_read_is_told_so(
    root: Path, tmp_path: Path, started: Mapping[str, Forked]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(AT_ONCE)
    files = ("--config", root / "smp.yaml", "--data", root / "data")
    words = ("train", "smp", *files, "--split", root / "split.json", "--out", tmp_path / "run")
    group, done = started["smp"].run([script, *words], os.environ)
    _assert_all_ended(group)
    assert done.returncode
    assert "devices: expected a script whose call of train stands below" in done.stderr


def test_the_port_is_none_that_the_system_hands_out(monkeypatch):
    taken = ranks._free_port()
    assert taken in ranks._PORTS
    with socket.socket() as handed_out, socket.socket() as listening:
        handed_out.bind(("127.0.0.1", 0))
        assert handed_out.getsockname()[1] not in ranks._PORTS
        listening.bind(("", taken))
        listening.listen()
        monkeypatch.setattr(ranks, "_PORTS", range(taken, taken + 1))
        with pytest.raises(ValueError, match="expected a free port"):
            ranks._free_port()
