"""ResUNet++: its size, and that each part has its say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.families.nets.layers import SqueezeExcitation
from zoo.families.nets.resunet_plus_plus import Attention, PyramidPooling
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

NAME = "resunet_plus_plus"
LOSS = Objective({"bce": 0.5, "dice": 0.5})


def test_it_has_as_many_weights_as_its_authors_network(build: Any) -> None:
    """4,070,385, which counts what batch norms remember; colours and one class."""
    network = build(NAME, channels=3, classes=1)
    counted = [v for k, v in network.state_dict().items() if "num_batches" not in k]
    assert sum(v.numel() for v in counted) == 4_070_385


def test_logits_have_the_images_size(build: Any) -> None:
    network = build(NAME, width=4)
    assert network(torch.zeros(2, 1, 64, 96)).shape == (2, 2, 64, 96)
    assert [f.shape[1] for f in network.encoder(torch.zeros(2, 1, 64, 96))] == [4, 8, 16, 32]


def test_pooling_looks_as_far_as_its_dilations() -> None:
    pool = PyramidPooling(1, 1).eval()
    images = torch.zeros(1, 1, 41, 41, requires_grad=True)
    pool(images)[0, 0, 20, 20].backward()
    seen = sorted({abs(int(y) - 20) for y, _ in images.grad[0, 0].nonzero()})
    assert seen == [0, 1, 6, 12, 18]


def test_channels_are_weighed_by_their_means() -> None:
    torch.manual_seed(0)
    layer, features = SqueezeExcitation(8, 4), torch.rand(2, 8, 5, 6)
    squeeze, _, excite, _ = layer.weigh
    inside = (features.mean((2, 3)) @ squeeze.weight.flatten(1).T).relu()
    expected = (inside @ excite.weight.flatten(1).T).sigmoid()
    torch.testing.assert_close(layer(features), features * expected[..., None, None])


def test_attention_weighs_the_coarser_features_by_both() -> None:
    torch.manual_seed(0)
    attend = Attention(3, 5)
    finer = torch.randn(2, 3, 16, 16, requires_grad=True)
    coarser = torch.randn(2, 5, 8, 8, requires_grad=True)
    found = attend(finer, coarser)
    found.square().sum().backward()
    assert found.shape == coarser.shape
    assert finer.grad.abs().sum() > 0
    assert (attend(finer, coarser * 0) == 0).all()


@pytest.mark.learns
def test_it_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    exceeds("Dice", learn(build(NAME, width=4), LOSS, steps=60, lr=2e-2), 0.85)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    same_with_checkpointing(lambda: build(NAME, width=4), LOSS)
