from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from run_weights import differing_weights

import configs
from converters.masks import rasterize_labels
from fusion.metrics.scores import Scores, score_image
from zoo.config import dump_config
from zoo.contract import DivergedError, PredictOptions
from zoo.families.smp.family import FAMILY
from zoo.inference.setting import Setting
from zoo.run_files.checkpoints import BEST, LAST, RESUME, read_about, read_weights, save_weights
from zoo.run_files.metrics import MetricsFile
from zoo.training.module import SemanticModule
from zoo.training.recorder import Recorder


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _kill_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done == step and total > 1:
            raise Killed

    return progress


@pytest.fixture
def finished(make_job: Any, tiny_smp: Any) -> Path:
    """A run of three epochs, two steps each."""
    job = make_job("finished")
    FAMILY.train(tiny_smp(), job)
    return Path(job.out)


@pytest.mark.slow
def test_a_run_leaves_scores_weights_and_nothing_else(
    finished: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(finished)
    columns = ["epoch", "step", "seconds", "train_loss", "lr", "val_dice", *toys.labels.names]
    assert list(rows[0]) == columns
    assert [(r["epoch"], r["step"]) for r in rows] == [("1", "2"), ("2", "4"), ("3", "6")]
    for row in rows:
        scores = [float(row[name]) for name in toys.labels.names]
        assert float(row["val_dice"]) == pytest.approx(sum(scores) / 9, abs=2e-6)
    found = sorted(str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file())
    assert found == sorted([BEST, LAST, RESUME, "licences.json", "metrics.csv"])


@pytest.mark.slow
def test_best_weights_are_those_of_the_best_row(finished: Path) -> None:
    best = max(_rows(finished), key=lambda row: float(row["val_dice"]))
    about = read_about(finished / BEST)
    assert about["epochs"] == best["epoch"]
    assert float(about["val_dice"]) == pytest.approx(float(best["val_dice"]))


def _dice_of_predictions(run: Path, config: Any, toys: Any) -> float:
    samples = toys.samples[4:]
    found = FAMILY.predict(run, config, samples, PredictOptions())
    images = []
    for prediction, sample in zip(found, samples, strict=True):
        assert (prediction.key, prediction.size_hw) == (sample.key, sample.size_hw)
        masks = {name: prediction.binary(name) for name in toys.labels.names}
        truth = rasterize_labels(sample.instances, sample.size_hw)
        images.append(score_image(sample.key, masks, truth, toys.labels))
    return Scores(toys.labels, images).mean()


@pytest.mark.slow
def test_scores_are_those_of_predictions(finished: Path, tiny_smp: Any, toys: Any) -> None:
    best = max(float(row["val_dice"]) for row in _rows(finished))
    assert _dice_of_predictions(finished, tiny_smp(), toys) == pytest.approx(best, abs=2e-6)


@pytest.mark.slow
def test_scores_are_those_of_predictions_where_it_learns_in_bfloat16(
    finished: Path, make_job: Any, tiny_smp: Any, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.machine.devices.multiplies_bfloat16", lambda: True)
    job = make_job()
    FAMILY.train(tiny_smp(), job)
    in_full = read_weights(finished / LAST)
    assert any(not torch.equal(in_full[k], w) for k, w in read_weights(job.out / LAST).items())
    best = max(float(row["val_dice"]) for row in _rows(job.out))
    assert _dice_of_predictions(job.out, tiny_smp(), toys) == pytest.approx(best, abs=2e-6)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(finished: Path, make_job: Any, tiny_smp: Any) -> None:
    again, other = make_job("again"), make_job("other")
    torch.rand(5)
    FAMILY.train(tiny_smp(), again)
    FAMILY.train(tiny_smp(seed=1), other)
    assert not differing_weights(finished, again.out)
    drop = {"seconds"}
    rows = [
        [{k: v for k, v in r.items() if k not in drop} for r in _rows(o)]
        for o in (finished, again.out)
    ]
    assert rows[0] == rows[1]
    weights = [read_weights(o / LAST) for o in (finished, other.out)]
    assert not all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (2, 0), (3, 0), (5, 0), (6, 0), (5, 1)])
@pytest.mark.slow
def test_an_interrupted_run_continues_as_if_it_had_not_been(
    finished: Path, make_job: Any, tiny_smp: Any, step: int, workers: int
) -> None:
    config = tiny_smp(workers=workers)
    with pytest.raises(Killed):
        FAMILY.train(config, make_job("cut", progress=_kill_at(step)))
    seen: list[int] = []
    job = make_job("cut", progress=lambda done, total, note: seen.append(done))
    FAMILY.train(config, job)
    assert not differing_weights(finished, job.out)
    assert [r["epoch"] for r in _rows(job.out)] == ["1", "2", "3"]
    assert [r["val_dice"] for r in _rows(job.out)] == [r["val_dice"] for r in _rows(finished)]
    assert seen[1:] == list(range((step - 1) // 2 * 2 + 1, 7))


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_written_once(
    make_job: Any, tiny_smp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning as L

    def fail(self: Any, path: Any, *_: Any) -> None:
        raise Killed

    job = make_job()
    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "save_checkpoint", fail)
        with pytest.raises(Killed):
            FAMILY.train(tiny_smp(), job)
    assert [r["epoch"] for r in _rows(job.out)] == ["1"]
    FAMILY.train(tiny_smp(), job)
    assert [r["epoch"] for r in _rows(job.out)] == ["1", "2", "3"]


KILLED = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
from shapely import from_wkt
from converters.types import Instance, Sample
from zoo.config import load_config
from zoo.contract import TrainJob
from zoo.families.smp.config import SmpConfig
from zoo.families.smp.family import FAMILY

def progress(done, total, note):
    if done == 4 and total > 1:
        os.kill(os.getpid(), signal.SIGKILL)

def sample(raw):
    outlines = [Instance(n, from_wkt(o)) for n, o in raw["instances"]]
    return Sample(raw["key"], Path(raw["image"]), tuple(raw["size_hw"]), tuple(outlines))

config = load_config(SmpConfig, "smp", sys.argv[1])
samples = [sample(raw) for raw in json.loads(Path(sys.argv[2]).read_text())]
out, labels = Path(sys.argv[3]), config.labels
job = TrainJob(out, labels, samples[:4], samples[4:], out, "handbone", progress=progress)
FAMILY.train(config, job)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_continues(
    finished: Path, make_job: Any, tiny_smp: Any, toys: Any, tmp_path: Path
) -> None:
    job = make_job("killed")
    # As here: another process asks the processor.
    killed = dump_config(tiny_smp(precision="32-true"))
    (tmp_path / "config.yaml").write_text(killed, encoding="utf-8")
    samples = [
        {
            "key": s.key,
            "image": str(s.image),
            "size_hw": s.size_hw,
            "instances": [(i.label, i.geometry.wkt) for i in s.instances],
        }
        for s in toys.samples
    ]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    arguments = [str(tmp_path / "config.yaml"), str(tmp_path / "samples.json"), str(job.out)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert [r["epoch"] for r in _rows(job.out)] == ["1"]
    FAMILY.train(tiny_smp(), job)
    assert not differing_weights(finished, job.out)


@pytest.mark.slow
def test_a_run_that_is_told_to_end_does_not_look_finished(
    finished: Path, make_job: Any, tiny_smp: Any
) -> None:
    def progress(done: int, total: int, note: str) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        FAMILY.train(tiny_smp(), make_job("ended", progress=progress))
    assert caught.value.code == 143
    job = make_job("ended")
    assert not (job.out / LAST).exists()
    FAMILY.train(tiny_smp(), job)
    assert not differing_weights(finished, job.out)


@pytest.mark.slow
def test_a_finished_run_is_left_alone(finished: Path, make_job: Any, tiny_smp: Any) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    notes: list[str] = []
    job = make_job("finished", progress=lambda done, total, note: notes.append(note))
    FAMILY.train(tiny_smp(), job)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
    assert len(notes) == 1
    assert "is trained already, 3 epochs" in notes[0]


@pytest.mark.slow
def test_without_resume_it_starts_anew(finished: Path, make_job: Any, tiny_smp: Any) -> None:
    FAMILY.train(tiny_smp(seed=1, epochs=1), make_job("finished", resume=False))
    assert [r["epoch"] for r in _rows(finished)] == ["1"]
    assert read_about(finished / LAST)["epochs"] == "1"


@pytest.mark.slow
def test_scores_where_they_are_due(make_job: Any, tiny_smp: Any) -> None:
    job = make_job()
    FAMILY.train(tiny_smp(validate_every=2, checkpoint_every=2, accumulate=2), job)
    assert [(r["epoch"], r["step"]) for r in _rows(job.out)] == [("2", "2"), ("3", "3")]


@pytest.mark.slow
def test_without_images_to_score_on(make_job: Any, tiny_smp: Any, toys: Any) -> None:
    job = make_job(val=())
    FAMILY.train(tiny_smp(epochs=1), job)
    assert not (job.out / BEST).exists()
    (found,) = FAMILY.predict(job.out, tiny_smp(), toys.samples[:1], PredictOptions())
    assert found.size_hw == (96, 64)


def test_without_images_to_learn_from(make_job: Any, tiny_smp: Any) -> None:
    with pytest.raises(ValueError, match="expected images to learn from, found none"):
        FAMILY.train(tiny_smp(), make_job(train=()))


@pytest.mark.slow
def test_training_starts_from_given_weights(
    finished: Path, make_job: Any, tiny_smp: Any, tmp_path: Path
) -> None:
    job = make_job("tuned")
    still = {"lr": 1e-12, "weight_decay": 0.0}
    FAMILY.train(tiny_smp(init=str(finished / LAST), epochs=1, optim=still), job)
    old, new = read_weights(finished / LAST), read_weights(job.out / LAST)
    for key in old:
        if "running" not in key and "num_batches" not in key:
            assert torch.allclose(old[key], new[key], atol=1e-6), key


def test_shipped_weights_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.ROOT", tmp_path)
    save_weights(torch.nn.Linear(1, 1), tmp_path / "smp" / "demo.safetensors")
    found = configs.find_weights("smp", "demo.safetensors")
    assert found == tmp_path / "smp" / "demo.safetensors"
    with pytest.raises(ValueError, match=r"init 'demmo': .* Shipped are: demo"):
        configs.find_weights("smp", "demmo")


def test_weights_of_another_network_are_refused(
    make_job: Any, tiny_smp: Any, tmp_path: Path
) -> None:
    save_weights(torch.nn.Linear(1, 1), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors: weights of another network: '.*missing"):
        FAMILY.train(tiny_smp(init=str(tmp_path / "a.safetensors")), make_job())


@pytest.mark.parametrize("damage", ["cut off", "another network", "code inside"])
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_continued(make_job: Any, tiny_smp: Any, damage: str) -> None:
    with pytest.raises(Killed):
        FAMILY.train(tiny_smp(), make_job(progress=_kill_at(3)))
    job = make_job()
    path = job.out / RESUME
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "another network":
        state = torch.load(path, weights_only=True)
        torch.save({**state, "state_dict": {}}, path)
    else:
        torch.save({"state_dict": Path("/")}, path)
    with pytest.raises(ValueError, match=r"last\.ckpt: expected a checkpoint of this network") as e:
        FAMILY.train(tiny_smp(), job)
    assert "\n" not in str(e.value)


DIVERGING = {
    "loss": ({"name": "sgd", "lr": 1e30, "weight_decay": 1.0}, r"the loss is (nan|inf)"),
    "scores": ({"name": "adamw", "lr": 1e3}, "the network gives NaN for held-out images"),
}


@pytest.mark.parametrize("what", DIVERGING)
@pytest.mark.slow
def test_a_training_that_diverges_says_so(make_job: Any, tiny_smp: Any, what: str) -> None:
    optim, said = DIVERGING[what]
    job = make_job()
    with pytest.raises(DivergedError, match=rf"epoch \d: {said}; lower optim\.lr"):
        FAMILY.train(tiny_smp(optim=optim), job)
    assert not any((job.out / "checkpoints").iterdir())


def _after_each_step(
    patch: pytest.MonkeyPatch, spoil: Callable[[Any, torch.Tensor], torch.Tensor]
) -> None:
    """Let a function of the module and its loss decide what the loss of each step is."""
    step = SemanticModule.training_step
    patch.setattr(
        *(SemanticModule, "training_step"),
        lambda module, batch, number: spoil(module, step(module, batch, number)),
    )


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_named(
    make_job: Any, tiny_smp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()

    def spoil(module: Any, loss: torch.Tensor) -> torch.Tensor:
        norms = [m for m in module.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        norms[-1].running_var = torch.full_like(norms[-1].running_var, float("inf"))
        return loss

    _after_each_step(monkeypatch, spoil)
    said = r"epoch 1: '.*running_var' holds NaN or infinite numbers; lower optim\.lr"
    with pytest.raises(DivergedError, match=said):
        FAMILY.train(tiny_smp(), job)
    assert not any((job.out / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_training_that_diverges_keeps_what_was_good(
    make_job: Any, tiny_smp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()

    def spoil(module: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss * float("nan") if module.trainer.current_epoch == 1 else loss

    _after_each_step(monkeypatch, spoil)
    with pytest.raises(DivergedError, match="epoch 2: the loss is nan"):
        FAMILY.train(tiny_smp(), job)
    assert [row["epoch"] for row in _rows(job.out)] == ["1"]
    assert read_weights(job.out / BEST)
    # Without the disturbance it continues as if it had not been.
    monkeypatch.undo()
    FAMILY.train(tiny_smp(), job)
    whole = make_job("whole")
    FAMILY.train(tiny_smp(), whole)
    assert not differing_weights(job.out, whole.out)


class Losses:
    """Stands for a trainer, and for what the other process has found: a sum, and how many."""

    current_epoch = 0

    def __init__(self, others: tuple[float, int] | None, precision: str) -> None:
        self.precision = precision
        self.world_size, self.strategy, self._others = 1 + (others is not None), self, others

    def reduce(self, told: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        return told if self._others is None else told + torch.tensor(self._others)


@pytest.mark.parametrize(
    ("losses", "others", "precision", "is_refused"),
    [
        ("..x..", None, "16-mixed", False),
        ("..x..", None, "32-true", True),
        ("xxxxx", None, "16-mixed", True),
        (".....", None, "32-true", False),
        (".....", (0.0, 0), "32-true", False),
        (".....", (math.inf, 1), "32-true", True),
        ("..x..", (0.0, 0), "32-true", True),
        ("xxxxx", (math.nan, 4), "16-mixed", False),
        ("xxxxx", (math.nan, 5), "16-mixed", True),
    ],
)
def test_steps_that_float16_skips_are_no_divergence(
    make_job: Any,
    losses: str,
    others: tuple[float, int] | None,
    precision: str,
    is_refused: bool,
) -> None:
    recorder = Recorder(make_job(), [], Setting(torch.device("cpu")))
    recorder._losses = [torch.tensor(float("nan") if x == "x" else 1.0) for x in losses]
    with pytest.raises(DivergedError) if is_refused else nullcontext():
        recorder._check_losses(Losses(others, precision))


@pytest.mark.learns
@pytest.mark.slow
def test_a_small_network_learns_two_images(
    make_job: Any, tiny_smp: Any, toys: Any, exceeds: Any
) -> None:
    pair = toys.samples[:2]
    job = make_job(train=pair, val=pair)
    FAMILY.train(tiny_smp(augment=[], epochs=160, validate_every=160, optim={"lr": 5e-3}), job)
    exceeds("Dice", float(_rows(job.out)[-1]["val_dice"]), 0.8)


def test_metrics_of_other_columns_are_forgotten(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path / "m.csv", ("epoch", "a,b"))
    first.append({"epoch": 1, "a,b": 0.5})
    assert MetricsFile(tmp_path / "m.csv", ("epoch", "a,b")).best("a,b") == 0.5
    other = MetricsFile(tmp_path / "m.csv", ("epoch", "c"))
    assert (other.rows, other.best("c"), other.last("c")) == ([], -1.0, 0.0)
