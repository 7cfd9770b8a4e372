"""`batch: auto`: which batch is taken, that the optimizer's steps stay, and that a run keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from zoo.config import check_config, load_config
from zoo.families import load_family
from zoo.families.outlines import load_outline
from zoo.families.smp.config import SmpConfig
from zoo.families.yolo.config import YoloConfig
from zoo.run_files.metrics import read_rows
from zoo.runs import batch_size
from zoo.runs.batch_size import (
    by_estimate,
    describe_memory,
    fitting,
    largest_batch,
    measured_bytes,
    run_step,
    settle_batch,
)
from zoo.runs.memory import GB, OVERHEAD, USABLE, Device

pytestmark = pytest.mark.slow

TINY = {"size": [96, 64], "epochs": 1, "encoder": "tu-lcnet_035"}


def _auto(toys: Any, wanted: int = 8, **changes: Any) -> Any:
    given = {"labels": str(toys.labels_file), "batch": "auto", "effective_batch": wanted}
    return check_config(SmpConfig, TINY | given | changes, "test")


# --- the config


def test_a_change_to_auto_keeps_the_steps(tmp_path: Path) -> None:
    found = load_config(SmpConfig, "smp", "unetplusplus_efficientnet_b7", ["batch=auto"])
    assert found.effective_batch == 8
    chosen = found.with_steps_of(4)
    assert (chosen.batch, chosen.accumulate, chosen.effective_batch) == (4, 2, None)
    assert found.with_steps_of(1).images_a_step == 8
    yolo = load_config(YoloConfig, "yolo", "yolo11x_1024", ["batch=auto", "nbs=12"])
    assert yolo.effective_batch == 12
    assert (yolo.with_steps_of(3).batch, yolo.with_steps_of(3).nbs) == (3, 12)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"batch": "auto"}, "expected beside batch: auto how many images"),
        ({"batch": "auto", "effective_batch": 0}, "expected beside batch: auto how many"),
        ({"batch": 2, "effective_batch": 8}, "expected batch: auto beside it"),
        ({"batch": "auto", "effective_batch": 8, "accumulate": 2}, "no accumulate"),
        ({"batch": "most"}, "'batch'"),
    ],
)
def test_what_does_not_go_together(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(SmpConfig, TINY | raw, "test")


def test_what_is_written_before_the_choice_is_read_back(toys: Any) -> None:
    config = _auto(toys)
    assert check_config(SmpConfig, config.model_dump(mode="json"), "again") == config


# --- the choice


@pytest.mark.parametrize(
    ("room", "least", "expected"), [(1, 1, 1), (3.9, 1, 3), (5, 1, 4), (5, 2, 4), (99, 1, 12)]
)
def test_the_largest_part_that_fits(toys: Any, room: float, least: int, expected: int) -> None:
    class Config(SmpConfig):
        @property
        def least_batch(self) -> int:
            return least

    given = {"labels": str(toys.labels_file), "batch": "auto", "effective_batch": 12}
    config = check_config(Config, TINY | given, "test")
    asked = []

    def need(batch: int) -> float:
        asked.append(batch)
        return batch * GB if batch <= 7 else math.inf

    device = Device(room * GB / USABLE + 1, "16-mixed")
    expected = min(expected, 6)
    assert largest_batch(config, device, need) == expected
    assert min(asked) >= least
    # What is larger than the first that does not fit is not tried: it may hang a device.
    assert len([batch for batch in asked if batch > expected]) <= 1


def test_not_even_the_smallest(toys: Any) -> None:
    device = Device(GB, "16-mixed")
    with pytest.raises(ValueError, match="try a smaller size, or gradient_checkpointing=true"):
        largest_batch(_auto(toys), device, lambda batch: math.inf)
    with pytest.raises(ValueError, match=r"try a smaller size$"):
        largest_batch(_auto(toys, gradient_checkpointing=True), device, lambda batch: math.inf)
    with pytest.raises(ValueError, match="expected at least 2, found 1"):
        fitting(1, 2)


def test_by_the_estimate_more_memory_is_a_larger_batch(toys: Any) -> None:
    config, outline = _auto(toys, size=[256, 256]), load_outline("smp")
    assert outline is not None
    need = by_estimate(config, outline, "16-mixed")
    needs = {batch: need(batch) for batch in fitting(8)}
    assert sorted(needs.values()) == list(needs.values())
    for batch, bytes_ in needs.items():
        device = Device(bytes_ / USABLE + 1, "16-mixed")
        assert largest_batch(config, device, need) == batch


@pytest.mark.parametrize("saves", [False, True])
def test_the_measured_step_is_a_real_one(
    toys: Any, saves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, with its memory told by hand: the step runs, and what is added to it."""
    config = _auto(toys, gradient_checkpointing=saves).with_steps_of(2)
    outline = load_outline("smp")
    assert outline is not None
    seen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: seen.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * GB)

    def watch(step: Any, *given: Any) -> None:
        run_step(step, *given)
        assert step.images_shape == (2, 1, 96, 64)
        seen.append([p.grad is not None for p in step.parameters() if p.requires_grad])
        seen.append(sum(p.numel() for p in step.network.parameters()))

    monkeypatch.setattr(batch_size, "run_step", watch)
    found = measured_bytes(config, outline, torch.device("cpu"), Device(32 * GB, "32-true"))
    assert all(seen[1])
    # AdamW keeps two numbers of four bytes a weight.
    assert found == pytest.approx(5 * GB + 2 * 4 * seen[2] + OVERHEAD)


def test_a_gpu_is_measured(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "of", lambda config: Device(10 * GB, "16-mixed"))

    def measured(config: Any, *_: Any) -> float:
        if config.batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return config.batch * 2 * GB

    monkeypatch.setattr(batch_size, "measured_bytes", measured)
    config: Any
    config, said = settle_batch(_auto(toys, 16), "smp", tmp_path / "run")
    assert (config.batch, config.accumulate) == (4, 4)
    assert (
        said == "batch: auto is 4 of 16 images for the optimizer, measured on this GPU of 10.0 GB"
    )


# --- the run and the command


def test_a_run_keeps_what_was_chosen_for_it(
    zoo: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, split, out = tmp_path / "data", tmp_path / "split.json", tmp_path / "run"
    zoo("phantom", data, "--people", 2, "--test-people", 0, "--size", 256)
    zoo("split", data, "--out", split, "--folds", 2)
    tiny: tuple[str, ...] = (
        "size=[32,32]",
        "epochs=1",
        "init=null",
        "augment=[]",
        "encoder=tu-lcnet_035",
    )
    tiny += ("options.decoder_channels=[16,16,8,8,8]", "batch=auto", "device=cpu", "workers=0")
    where = ("--config", "demo", "--data", data, "--split", split, "--out", out)
    monkeypatch.setattr(
        batch_size, "by_estimate", lambda *_: lambda batch: 0 if batch <= 4 else math.inf
    )
    zoo("train", "smp", *where, *tiny)
    assert "batch: auto is 4 of 8 images" in capsys.readouterr().out
    kept = yaml.safe_load((out / "config.yaml").read_text())
    assert (kept["batch"], kept["accumulate"], kept["effective_batch"]) == (4, 2, None)
    assert "batch: auto is 4 of 8" in (out / "provenance.json").read_text()
    before = read_rows(out / "metrics.csv")
    # Less memory now: the run is the one that it was.
    monkeypatch.setattr(batch_size, "by_estimate", lambda *_: lambda batch: math.inf)
    zoo("train", "smp", *where, *tiny)
    assert read_rows(out / "metrics.csv") == before
    assert yaml.safe_load((out / "config.yaml").read_text()) == kept


def test_an_estimate_needs_no_data(
    zoo: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo("train", "smp", "--config", "unet_resnet34", "--estimate", 32, "batch=2")
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("batch 2, 16-mixed: about ")
    assert first.endswith("estimated, fits")
    assert second == "batch: auto would be 2 of 2 images for the optimizer on a GPU of 32 GB"
    assert not list(tmp_path.iterdir())
    config = load_config(load_family("smp").Config, "smp", "unet_resnet34", ["size=[2048,2048]"])
    assert "does not fit" in describe_memory(config, "smp", 8 * GB)
    zoo("list", "losses", "--memory", code=2)
