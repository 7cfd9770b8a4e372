"""Lawin: its attention against the authors', written out, its windows, and its output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.encoders import build_encoder
from zoo.families.nets.lawin import LargeWindowAttention, cut_windows, join_windows
from zoo.families.outlines import _on_meta
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY = {"width": 128, "embedding": 16}
LOSS = {"bce": 0.5, "dice": 0.5}


def theirs(mine: Any, features: torch.Tensor) -> torch.Tensor:
    """The authors' lawin_head.py with our weights: windows are cut out, then pooled, one by one."""
    n, c, h, w = features.shape
    ratio, heads, size = mine.ratio, mine.heads, 8
    padding = int((ratio - 1) / 2 * size)
    around = F.unfold(features, size * ratio, stride=size, padding=padding)
    windows = (h // size) * (w // size)
    around = around.reshape(n, c, size * ratio, size * ratio, windows)
    around = around.permute(0, 4, 1, 2, 3).flatten(0, 1)
    pooled = 0.5 * (F.max_pool2d(around, ratio, ratio) + F.avg_pool2d(around, ratio, ratio))
    context = mine.norm(pooled.flatten(2).transpose(1, 2)).transpose(1, 2)
    mixed = [
        F.linear(part, mine.mix_weight[head], mine.mix_bias[head, :, 0])
        for head, part in enumerate(context.chunk(heads, 1))
    ]
    context = context + torch.cat(mixed, 1)
    query = F.unfold(features, size, stride=size).reshape(n, c, size * size, windows)
    query = query.permute(0, 3, 1, 2).flatten(0, 1)
    found = []
    parts = (
        layer(given.transpose(1, 2)).chunk(heads, 2)
        for layer, given in ((mine.queries, query), (mine.keys, context), (mine.values, context))
    )
    for q, k, v in zip(*parts, strict=True):
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        found.append(weights @ v)
    plane = torch.cat(found, 2).transpose(1, 2).reshape(n, windows, -1, size * size)
    plane = F.fold(plane.flatten(2).permute(0, 2, 1), (h, w), size, stride=size)
    return features + mine.project_norm(mine.project(plane))


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_windows_look_as_in_the_authors_code(ratio: int) -> None:
    mine = LargeWindowAttention(128, ratio).eval()
    nn.init.normal_(mine.project_norm.weight)
    for layer in (mine.queries, mine.keys, mine.values):
        nn.init.normal_(layer.weight, std=0.3)
    features = torch.randn(2, 128, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(mine(features), theirs(mine, features), rtol=1e-4, atol=1e-4)


def test_its_head_has_the_weights_of_the_authors_code(build: Any) -> None:
    """LawinHead on MiT-B5, layer by layer: linear, fused, pooled, joined, refined, attended."""
    with _on_meta():
        encoder = build_encoder("mit_b5", None, 3, {})
        network = build("lawin", encoder, channels=3, classes=150)
    width, norm = 512, 2 * 512
    expected = (128 + 320 + 512) * 768 + 3 * 768 + 64 * 48 + 48
    expected += sum(c * width + norm for c in (3 * 768, width, width, 5 * width, width + 48))
    for heads in (64, 16, 4):
        half = width // 2
        expected += norm + heads * (64 * 64 + 64) + 3 * (width * half + half)
        expected += half * width + norm
    expected += 150 * width + 150
    found = sum(p.numel() for k, p in network.named_parameters() if not k.startswith("encoder."))
    assert found == expected


def test_windows_are_cut_and_joined() -> None:
    features = torch.randn(2, 3, 16, 24)
    windows = cut_windows(features, 8)
    assert windows.shape == (2 * 2 * 3, 64, 3)
    assert torch.equal(windows[3 + 1].T.reshape(3, 8, 8), features[0, :, 8:, 8:16])
    assert torch.equal(join_windows(windows, (16, 24)), features)


def test_sides_that_are_no_multiples_of_a_window() -> None:
    """What is padded has no part in what is kept but as the zeros around."""
    mine = LargeWindowAttention(128, 2).eval()
    nn.init.normal_(mine.project_norm.weight)
    features = torch.randn(1, 128, 12, 20)
    with torch.no_grad():
        whole = mine(F.pad(features, (0, 4, 0, 4)))
        torch.testing.assert_close(mine(features), whole[..., :12, :20])


def test_it_starts_as_nothing() -> None:
    features = torch.randn(1, 128, 16, 16)
    assert torch.equal(LargeWindowAttention(128, 4)(features), features)


@pytest.mark.parametrize("encoder", ["mit_b0", "resnet18"])
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (128, 128)])
def test_logits_have_a_quarter_of_the_size(encoder: str, size: tuple[int, int], build: Any) -> None:
    network = build("lawin", build_encoder(encoder, None, 1, {}), **TINY)
    assert network(torch.randn(2, 1, *size)).shape == (2, 2, size[0] // 4, size[1] // 4)


def test_every_weight_is_used(build: Any) -> None:
    network = build("lawin", build_encoder("mit_b0", None, 1, {}), **TINY)
    network(torch.randn(2, 1, 64, 64)).square().sum().backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None}
    assert unused == set()


def test_a_width_that_heads_cannot_share(build: Any) -> None:
    with pytest.raises(ValueError, match="width: expected a multiple of 128 for 64 heads, found 9"):
        build("lawin", build_encoder("mit_b0", None, 1, {}), width=96)


@pytest.mark.learns
def test_lawin_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    torch.manual_seed(0)
    network = build("lawin", build_encoder("mit_b0", None, 1, {}), **TINY)
    exceeds("Dice", learn(network, Objective(LOSS), steps=60, lr=1e-3), 0.7)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    def make() -> Any:
        torch.manual_seed(0)
        return build("lawin", build_encoder("mit_b0", None, 1, {}), **TINY)

    same_with_checkpointing(make, Objective(LOSS))
