"""EffiSegNet: what it reads of an EfficientNet, its size, and its sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import EfficientNetBNFeatures
from torch import nn

from zoo.families.encoders import build_encoder
from zoo.families.nets.effisegnet import GhostModule
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

NAME = "effisegnet"
LOSS = {"bce": 0.5, "dice": 0.5}


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return build_encoder("tu-test_efficientnet", None, 1, {})


@pytest.mark.parametrize("kind", ["b0", "b2"])
def test_it_reads_what_the_authors_read(kind: str, build: Any) -> None:
    """Their encoder is MONAI's, without the layers behind the features."""
    theirs = EfficientNetBNFeatures(f"efficientnet-{kind}", pretrained=False).eval()
    encoder = build_encoder(f"tu-tf_efficientnet_{kind}", None, 3, {})
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        features = theirs(images)
        mine = encoder.eval()(images)[1:]
    assert [f.shape for f in mine] == [f.shape for f in features]
    behind = ("_fc", "_conv_head", "_bn1")
    expected = sum(p.numel() for k, p in theirs.named_parameters() if not k.startswith(behind))
    assert sum(p.numel() for p in encoder.parameters()) == expected


def test_its_decoder_has_as_many_weights_as_the_paper_describes(build: Any) -> None:
    """Section II: 3x3 convolutions to 64 channels, norms, two ghost modules, a 1x1 convolution."""
    encoder = build_encoder("tu-tf_efficientnet_b0", None, 3, {})
    network = build(NAME, encoder, channels=3, classes=1)
    parts = 9 * (16 + 24 + 40 + 112 + 320) * 64 + 5 * 2 * 64
    ghosts = 2 * (64 * 32 + 2 * 32 + 9 * 32 + 2 * 32)
    expected = parts + 2 * 64 + ghosts + 64 + 1
    found = sum(p.numel() for k, p in network.named_parameters() if not k.startswith("encoder"))
    assert found == expected


@pytest.mark.parametrize("made", [8, 7])
def test_a_ghost_module_is_half_cheap(made: int) -> None:
    torch.manual_seed(0)
    ghost, features = GhostModule(6, made).eval(), torch.randn(2, 6, 5, 7)
    (first, _, norm), (cheap, _, last) = ghost.primary, ghost.cheap
    primary = norm(F.conv2d(features, first.weight).relu())
    each = [F.conv2d(primary[:, [n]], cheap.weight[[n]], padding=1) for n in range(4)]
    expected = torch.cat((primary, last(torch.cat(each, 1).relu())), 1)[:, :made]
    torch.testing.assert_close(ghost(features), expected)


def test_features_are_enlarged_and_added(build: Any) -> None:
    network = build(NAME, tiny(), width=8).eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        features = network.encoder(images)[1:]
        parts = [layer(f) for layer, f in zip(network.project, features, strict=True)]
        whole = sum(F.interpolate(p, size=(64, 96), mode="nearest") for p in parts)
        expected = network.head(network.ghosts(network.norm(whole)))
        torch.testing.assert_close(network(images), expected)


def test_outputs_have_the_sizes_of_the_features(build: Any) -> None:
    network = build(NAME, tiny(), outputs=6, width=8).train()
    sizes = [tuple(o.shape[-2:]) for o in network(torch.randn(2, 1, 64, 96))]
    assert sizes == [(64, 96)] + [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]


def test_an_encoder_that_begins_at_a_quarter(build: Any) -> None:
    options = {"strict_img_size": False, "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
    swin = build_encoder("tu-swin_tiny_patch4_window7_224", None, 1, options)
    assert build(NAME, swin, width=8)(torch.zeros(2, 1, 64, 96)).shape == (2, 2, 64, 96)
    with pytest.raises(ValueError, match="expected none with an encoder of 4 features"):
        build(NAME, swin, outputs=6)


@pytest.mark.learns
def test_it_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    network = build(NAME, tiny(), width=16)
    exceeds("Dice", learn(network, Objective(LOSS), steps=80, lr=1e-2), 0.85)


@pytest.mark.parametrize("outputs", [1, 6])
def test_checkpointing_changes_nothing(
    outputs: int, build: Any, same_with_checkpointing: Any
) -> None:
    objective = Objective(LOSS, scales=(1.0,) * outputs)
    same_with_checkpointing(lambda: build(NAME, tiny(), width=8, outputs=outputs), objective)
