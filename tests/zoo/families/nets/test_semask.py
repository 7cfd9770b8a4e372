"""SeMask-FPN: its sizes, its semantic layers, and its two decoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.encoders import build_encoder
from zoo.families.nets.semask import SemanticAttention, SemanticLayer, cut_windows, join_windows
from zoo.families.outlines import _on_meta
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

SWIN = {
    "strict_img_size": False,
    "embed_dim": 24,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 2],
    "drop_path_rate": 0.0,
}
TINY = {"width": 32}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 0.4)


def swin() -> Any:
    torch.manual_seed(0)
    return build_encoder("tu-swin_tiny_patch4_window7_224", None, 1, SWIN)


@pytest.mark.parametrize(
    ("encoder", "published"),
    [
        ("tu-swin_tiny_patch4_window7_224", 35),
        ("tu-swin_small_patch4_window7_224", 56),
        ("tu-swin_base_patch4_window12_384", 96),
        ("tu-swin_large_patch4_window12_384", 211),
    ],
)
def test_it_has_the_published_size(encoder: str, published: int, build: Any, millions: Any) -> None:
    """The authors' table of ADE20K, 150 classes, in the README of SeMask-FPN."""
    with _on_meta():
        network = build("semask", build_encoder(encoder, None, 3, {}), channels=3, classes=150)
    assert millions(network) == pytest.approx(published, abs=0.5)


def test_pixels_look_at_those_of_like_classes() -> None:
    attention = SemanticAttention(8, 3).eval()
    nn.init.constant_(attention.weight, 0.5)
    for layer in (attention.queries, attention.keys, attention.values, attention.project):
        nn.init.normal_(layer.weight)
    tokens = torch.randn(2, 5, 8)
    semantic, found = attention(tokens)
    for n in range(2):
        scores = semantic[n] @ attention.keys(tokens[n]).T
        seen = attention.project(scores.softmax(1) @ attention.values(tokens[n]))
        torch.testing.assert_close(found[n], tokens[n] + 0.5 * seen)
    assert torch.equal(semantic, attention.queries(tokens))


def test_windows_are_cut_and_joined() -> None:
    tokens = torch.randn(2, 6, 12, 3)
    windows = cut_windows(tokens, (3, 4))
    assert windows.shape == (2 * 2 * 3, 12, 3)
    assert torch.equal(windows[3 + 1].reshape(3, 4, 3), tokens[0, 3:, 4:8])
    assert torch.equal(join_windows(windows, (3, 4), (6, 12)), tokens)


@pytest.mark.parametrize(("window", "reach"), [(4, (4, 4)), (None, (10, 9))])
def test_a_layer_looks_in_windows_or_everywhere(window: int | None, reach: tuple[int, int]) -> None:
    layer = SemanticLayer(8, 3, window, 1).eval()
    nn.init.constant_(layer.blocks[0].weight, 1.0)
    tokens = torch.randn(1, 10, 9, 8, requires_grad=True)
    semantic, found = layer(tokens)
    assert semantic.shape == (1, 10, 9, 3)
    assert found.shape == tokens.shape
    found[0, 1, 2].sum().backward()
    assert tokens.grad is not None
    touched = (tokens.grad[0].abs().sum(-1) > 0).nonzero()
    assert tuple((touched.amax(0) + 1).tolist()) == reach


def test_semantic_layers_stand_between_swins_stages(build: Any) -> None:
    """With attention that starts as nothing, a stage reads the norm of the one before."""
    network = build("semask", swin(), outputs=2, **TINY).eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        features, maps = network.encode(images)
        model = network.encoder.model
        tokens = model["patch_embed"](images)
        for i in range(4):
            normed = network.semantic[f"layers_{i}"].norm(model[f"layers_{i}"](tokens))
            torch.testing.assert_close(features[i], network.norms[i](normed).permute(0, 3, 1, 2))
            tokens = normed
    assert [tuple(m.shape) for m in maps] == [(2, 2, 64 // s, 96 // s) for s in (4, 8, 16, 32)]


def test_semantic_maps_are_enlarged_and_added(build: Any) -> None:
    network = build("semask", swin(), outputs=2, dropout=0.0, **TINY).train()
    for layer in network.semantic.values():
        layer.blocks[0].dropout.p = 0.0
    images = torch.randn(2, 1, 64, 96)
    logits, semantic = network(images)
    assert logits.shape == semantic.shape == (2, 2, 16, 24)
    _, maps = network.encode(images)
    expected = maps[0]
    for doublings, found in enumerate(maps[1:], 1):
        for _ in range(doublings):
            found = F.interpolate(found, scale_factor=2, mode="bilinear")
        expected = expected + found
    torch.testing.assert_close(semantic, expected)
    semantic.square().sum().backward()
    assert all(p.grad is None for p in network.scales.parameters())


def test_coarse_stages_may_look_at_the_whole_image(build: Any) -> None:
    network = build("semask", swin(), window=5, whole_from=2, **TINY)
    assert [layer.window for layer in network.semantic.values()] == [5, 5, None, None]


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("resnet18", {}, "expected a Swin of timm's as encoder, such as tu-swin_tiny"),
        ("tu-lcnet_035", {}, "expected a Swin of timm's as encoder, .* found lcnet_035"),
        ("resnet18", {"window": 0}, "expected a window and blocks of at least 1, found 0 and 1"),
    ],
)
def test_what_does_not_fit(encoder: str, options: Any, message: str, build: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build("semask", build_encoder(encoder, None, 1, {}), **options)


@pytest.mark.learns
def test_semask_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("semask", swin(), outputs=2, **TINY)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=100), 0.85)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    objective = Objective(LOSS, scales=SCALES)
    same_with_checkpointing(lambda: build("semask", swin(), outputs=2, **TINY), objective)
