from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.config import check_config
from zoo.optim import OPTIMIZERS, OptimConfig, build_optimizer, build_schedule, rate


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_a_loss(name: str) -> None:
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
    assert losses[-1] < 0.5 * losses[0]


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


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "adam"}, "'name': Value error, expected one of adamw, sgd"),
        ({"schedule": "step"}, "'schedule': Value error, expected one of cosine, constant"),
        ({"lr": 0}, "'lr': Input should be greater than 0"),
        ({"momentun": 0.9}, "unknown key 'momentun'"),
    ],
)
def test_bad_config(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(OptimConfig, raw, "test")
