"""Torchvision's networks: what is ours of them."""

from __future__ import annotations

import pytest
import torch

from zoo.config import load_config
from zoo.families import load_family

pytestmark = pytest.mark.slow


def test_statistics_from_random_weights_follow_a_short_training():
    family = load_family("torchvision")
    config = load_config(family.Config, "torchvision", "laptop", [], None)
    torch.manual_seed(0)
    network = family.build(config, 3).train()
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    images = torch.randn(2, config.in_channels or 1, 64, 64) + 5
    for _ in range(40):
        network(images)
    first = norms[0]
    before = network.encoder["0"][0](images)
    torch.testing.assert_close(first.running_mean, before.mean((0, 2, 3)), rtol=0.05, atol=1e-3)
