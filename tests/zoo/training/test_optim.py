from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from timm.optim import AdamP, param_groups_weight_decay
from torch import nn
from torch.optim import lr_scheduler

from zoo.config import check_config
from zoo.families.smp.family import FAMILY
from zoo.run_files.checkpoints import LAST, read_weights
from zoo.training.optim import (
    OPTIMIZERS,
    OptimConfig,
    ScoreLR,
    build_optimizer,
    build_schedule,
    list_optimizers,
    rate,
)
from zoo.training.schedules import SCHEDULES, bind_schedule, list_schedules, plateau


@pytest.mark.learns
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_a_loss(name: str, exceeds: Any) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = build_optimizer(network, OptimConfig(name=name, lr=0.05))
    values = torch.randn(16, 3)
    losses = []
    for _ in range(20):
        loss = ((network(values) - values.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    exceeds("the loss is this many times smaller", losses[0] / losses[-1], 2)


def test_biases_and_norms_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    groups = build_optimizer(network, OptimConfig(weight_decay=0.1)).param_groups
    decay = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {4: 0.1, 1: 0.0}


def test_frozen_weights_are_left_alone() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    groups = build_optimizer(network, OptimConfig()).param_groups
    assert [len(g["params"]) for g in groups] == [1]


def test_rate_rises_then_falls_to_zero() -> None:
    config = OptimConfig(warmup_steps=5)
    rates = [rate(step, 25, config) for step in range(26)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[15] == pytest.approx(0.5)
    assert rates[25] == pytest.approx(0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_constant_schedule_stays() -> None:
    config = OptimConfig(schedule="constant", warmup_steps=1)
    assert {rate(step, 9, config) for step in range(10)} == {1.0}


def test_warmup_longer_than_the_training_still_works() -> None:
    assert rate(9, 10, OptimConfig(warmup_steps=100)) == 1.0


def test_schedule_sets_the_rate_before_each_step() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=2)
    optimizer = build_optimizer(nn.Linear(1, 1), config)
    schedule = build_schedule(optimizer, config, 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5])


REFERENCES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda groups: torch.optim.Adam(groups, 0.01, (0.8, 0.99), 1e-6),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.01, (0.8, 0.99), 1e-6),
    "adamp": lambda groups: AdamP(groups, 0.01, (0.8, 0.99), 1e-6),
    "sgd": lambda groups: torch.optim.SGD(groups, 0.01, 0.7, nesterov=True),
}


def _train(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    values = torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        optimizer.zero_grad()
        network(values).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_options_reach_the_optimizer_and_decay_is_timms(name: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))

    ours, theirs = build(), build()
    config = OptimConfig(
        name=name, lr=0.01, betas=(0.8, 0.99), eps=1e-6, momentum=0.7, weight_decay=0.3
    )
    reference = REFERENCES[name](param_groups_weight_decay(theirs, 0.3))
    found, expected = (
        _train(ours, build_optimizer(ours, config)),
        _train(theirs, reference),
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.learns
def test_adamp_keeps_the_norm_of_kernels_before_a_norm(exceeds: Any) -> None:
    """Batch norm undoes a kernel's scale, so that steps shall not make it longer."""
    growth = {}
    for name in ("adam", "adamp"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4))
        optimizer = build_optimizer(network, OptimConfig(name=name, lr=0.05, weight_decay=0))
        weight: Any = network[0].weight
        before = weight.detach().norm()
        target = torch.randn(8, 4, 3, 3)
        values = torch.randn(8, 2, 5, 5)
        for _ in range(30):
            optimizer.zero_grad()
            (network(values) - target).square().mean().backward()
            optimizer.step()
        growth[name] = float(weight.detach().norm() / before)
    exceeds("Adam's kernels grow this many times more", growth["adam"] / growth["adamp"], 1.25)


def _unet() -> nn.Module:
    return smp.Unet("tu-lcnet_035", encoder_weights=None, decoder_channels=(32, 24, 16, 16, 8))


def test_encoder_learns_at_its_own_rate() -> None:
    network = _unet()
    optimizer = build_optimizer(network, OptimConfig(lr=1e-3, encoder_lr=0.1, weight_decay=0.2))
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    encoder = {id(p) for p in network.encoder.parameters()}
    assert len(rates) == len(list(network.parameters()))
    for p in network.parameters():
        assert rates[id(p)] == pytest.approx(1e-4 if id(p) in encoder else 1e-3)
        assert decay[id(p)] == (0.2 if p.ndim > 1 else 0)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    schedule = build_schedule(optimizer, OptimConfig(warmup_steps=2), 10)
    assert schedule.get_last_lr() == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5])


def test_a_network_without_an_encoder_says_so() -> None:
    with pytest.raises(ValueError, match=r"optim\.encoder_lr: .* 'encoder', found Linear without"):
        build_optimizer(nn.Linear(1, 1), OptimConfig(encoder_lr=0.1))


def _rates(schedule: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


SAME = {
    "cosine": (
        {"name": "cosine", "floor": 0.01},
        lambda o: lr_scheduler.CosineAnnealingLR(o, 24, eta_min=0.01),
    ),
    "restarts": (
        {"name": "cosine_restarts", "cycles": 3, "decay": 1, "floor": 0.1},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 8, eta_min=0.1),
    ),
    "stretched": (
        {"name": "cosine_restarts", "cycles": 2, "stretch": 3, "decay": 1},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 6, T_mult=3),
    ),
    "poly": (
        {"name": "poly", "power": 2.0},
        lambda o: lr_scheduler.PolynomialLR(o, 24, power=2.0),
    ),
    "step": (
        {"name": "step", "milestones": [0.25, 0.5], "gamma": 0.3},
        lambda o: lr_scheduler.MultiStepLR(o, [6, 12], gamma=0.3),
    ),
    "constant": ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("warmup", [0, 5])
def test_schedules_are_torchs_after_a_warmup(name: str, warmup: int) -> None:
    schedule, make = SAME[name]
    config = OptimConfig(name="sgd", lr=1.0, schedule=schedule, warmup_steps=warmup)
    ours, theirs = (torch.optim.SGD(nn.Linear(1, 1).parameters(), 1.0) for _ in range(2))
    found = _rates(build_schedule(ours, config, warmup + 24), ours, warmup + 24)
    expected = _rates(make(theirs), theirs, 24)
    assert found[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert found[warmup:] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("steps", [7, 30, 999])
def test_restarts_decay(steps: int) -> None:
    cycles = 3
    config = OptimConfig(schedule={"name": "cosine_restarts", "cycles": cycles, "decay": 0.6})
    rates = [rate(i, cycles * steps, config) for i in range(cycles * steps + 1)]
    assert [rates[i * steps] for i in range(cycles)] == pytest.approx([1, 0.6, 0.36])
    assert rates[-1] == pytest.approx(0)
    falls = [a > b for a, b in pairwise(rates)]
    assert falls.count(False) == cycles - 1


SCORES = [0.5, 0.6, 0.6, 0.59, 0.6, 0.65, 0.65, 0.6501, 0.64, 0.3, 0.2, 0.7, 0.1, 0.2, 0.3, 0.3]


@pytest.mark.parametrize("patience", [0, 1, 2])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_plateau_is_torchs(patience: int, floor: float) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=0.5,
        patience=patience,
        threshold=1e-3,
        threshold_mode="abs",
        min_lr=floor,
        eps=0,
    )
    for count in range(1, len(SCORES) + 1):
        theirs.step(SCORES[count - 1])
        found = plateau(SCORES[:count], factor=0.5, patience=patience, threshold=1e-3, floor=floor)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"])


def test_plateau_moves_every_group_from_the_next_step_on() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, 1.0)
    spec = {"name": "plateau", "patience": 0, "factor": 0.5}
    schedule = build_schedule(optimizer, OptimConfig(schedule=spec, warmup_steps=2), 10)
    assert isinstance(schedule, ScoreLR)

    def rates() -> list[float]:
        return [float(group["lr"]) for group in optimizer.param_groups]

    assert rates() == pytest.approx([0.5, 0.05])
    _rates(schedule, optimizer, 3)
    for score, expected in ((0.5, 1.0), (0.4, 0.5), (0.3, 0.25), (0.6, 0.25)):
        schedule.observe(score)
        assert rates() == schedule.get_last_lr() == pytest.approx([expected, 0.1 * expected])
        _rates(schedule, optimizer, 2)
        assert rates() == pytest.approx([expected, 0.1 * expected])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_state_is_of_plain_values(name: str, tmp_path: Path) -> None:
    config = OptimConfig(schedule=name, warmup_steps=1)
    optimizer = build_optimizer(nn.Linear(1, 1), config)
    schedule = build_schedule(optimizer, config, 8)
    _rates(schedule, optimizer, 3)
    if isinstance(schedule, ScoreLR):
        schedule.observe(0.5)
    torch.save((schedule.state_dict(), optimizer.state_dict()), tmp_path / "state")
    state, of_optimizer = torch.load(tmp_path / "state", weights_only=True)
    with warnings.catch_warnings():
        # A new schedule steps once before it takes up the old state.
        warnings.simplefilter("ignore")
        again = build_optimizer(nn.Linear(1, 1), config)
        continued = build_schedule(again, config, 8)
        continued.load_state_dict(state)
        again.load_state_dict(of_optimizer)
        assert _rates(continued, again, 4) == _rates(schedule, optimizer, 4)


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _kill(done: int, total: int, note: str) -> None:
    if done == 5 and total > 1:
        raise Killed


def _column(out: Path, name: str) -> list[str]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return [row[name] for row in csv.DictReader(lines)]


# A patience of 0 and a threshold that no score exceeds: the rate falls after every epoch but one.
FALLING = {"name": "plateau", "patience": 0, "threshold": 2, "factor": 0.3}


@pytest.mark.parametrize(
    "optim",
    [
        {"name": "adam", "schedule": FALLING, "warmup_steps": 1},
        {"name": "adamp", "schedule": {"name": "cosine_restarts", "cycles": 2}},
        {"name": "sgd", "schedule": "poly", "encoder_lr": 0.1},
    ],
    ids=lambda optim: optim["name"],
)
@pytest.mark.slow
def test_an_interrupted_run_continues_bit_for_bit(make_job: Any, tiny_smp: Any, optim: Any) -> None:
    config = tiny_smp(optim={"lr": 3e-3, **optim})
    whole = make_job("whole")
    FAMILY.train(config, whole)
    with pytest.raises(Killed):
        FAMILY.train(config, make_job("cut", progress=_kill))
    cut = make_job("cut")
    FAMILY.train(config, cut)
    first, second = read_weights(whole.out / LAST), read_weights(cut.out / LAST)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert _column(whole.out, "lr") == _column(cut.out, "lr")
    if optim["schedule"] is FALLING:
        assert _column(cut.out, "lr") == ["0.003", "0.003", "0.0009"]


def test_plateau_needs_images_to_score_on(make_job: Any, tiny_smp: Any) -> None:
    with pytest.raises(ValueError, match="schedule plateau: expected images to score on"):
        FAMILY.train(tiny_smp(optim={"schedule": "plateau"}), make_job(val=()))


def test_lists_tell_names_options_and_purposes() -> None:
    assert [name for name, _ in list_optimizers()] == list(OPTIMIZERS)
    rows = {name: options for name, options, purpose in list_schedules() if purpose}
    assert list(rows) == list(SCHEDULES)
    assert rows["step"] == "milestones=(0.6, 0.85), gamma=0.1"


def test_options_of_a_schedule_are_kept_as_they_are_given() -> None:
    given = {"name": "poly", "power": 2.0}
    config = check_config(OptimConfig, {"schedule": given}, "test")
    assert config.schedule == given
    assert bind_schedule(config.schedule)(0.5) == 0.25


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "adan"}, "'name': expected one of adam, adamw, adamp, sgd"),
        ({"schedule": "steps"}, "'schedule': expected one of cosine, cosine_restarts"),
        ({"schedule": {"power": 1}}, "'schedule': expected one of .* and options"),
        ({"schedule": {"name": "poly", "pover": 1}}, r"poly\.pover: unknown option; poly takes po"),
        ({"schedule": {"name": "step", "milestones": [2]}}, r"step\.milestones\.0: .* equal to 1"),
        ({"betas": [0.9, 1]}, r"'betas\.1': expected a value less than 1"),
        ({"encoder_lr": 0}, "'encoder_lr': expected a value greater than 0"),
        ({"lr": 0}, "'lr': expected a value greater than 0"),
        ({"momentun": 0.9}, "unknown key 'momentun'"),
    ],
)
def test_bad_config(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(OptimConfig, raw, "test")
