"""Swin-Unet: its size, patch expanding, and the weights of a Swin Transformer with more blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from zoo.config import check_config
from zoo.families.encoders import build_encoder
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.family import FAMILY
from zoo.families.nets.swin_unet import PatchExpand
from zoo.run_files.checkpoints import save_weights
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

NAME = "swin_unet"
LOSS = Objective({"bce": 0.5, "dice": 0.5})
SWIN = "tu-swin_tiny_patch4_window7_224"
SMALL = {"embed_dim": 12, "num_heads": [1, 1, 2, 2], "window_size": 4, "strict_img_size": False}
TINY = {"head_width": 8, "window": 4, "drop_path": 0.0}


def tiny(depth: int = 1, **further: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(SWIN, None, 1, {**SMALL, "depths": [depth] * 4, **further})


def test_it_has_the_size_that_others_count(build: Any, millions: Any) -> None:
    """27.17 M, as later papers state for its authors' network; colours and nine classes."""
    encoder = build_encoder(SWIN, None, 3, {})
    network = build(NAME, encoder, channels=3, classes=9, encoder_blocks=2)
    assert millions(network) == pytest.approx(27.17, abs=0.005)


def test_patch_expanding_places_what_each_token_becomes() -> None:
    torch.manual_seed(0)
    layer, tokens = PatchExpand(6, 3, 2), torch.randn(2, 4, 5, 6)
    found = layer(tokens)
    assert found.shape == (2, 8, 10, 3)
    weights = layer.expand.weight.view(2, 2, 3, 6)
    for y, x in ((0, 0), (3, 7), (7, 9)):
        plain = weights[y % 2, x % 2] @ tokens[1, y // 2, x // 2]
        torch.testing.assert_close(found[1, y, x], layer.norm(plain))


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_inputs_of_any_size_give_logits_of_theirs(size: tuple[int, int], build: Any) -> None:
    network = build(NAME, tiny(), depths=[1, 1, 2], **TINY).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, *size)).shape == (2, 2, *size)


def test_deeper_blocks_are_skipped_more_often(build: Any) -> None:
    """As in the encoder, from 0 to the bottleneck's last block, which is not in the decoder."""
    network = build(NAME, tiny(), **TINY | {"drop_path": 0.14})
    chances = [
        [getattr(block.drop_path1, "drop_prob", 0.0) for block in stage.blocks]
        for stage in reversed(network.decoder)
    ]
    assert np.ravel(chances) == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])


def test_blocks_are_kept_with_weights_from_a_file(tmp_path: Path) -> None:
    options = {k: v for k, v in SMALL.items() if k != "strict_img_size"}
    theirs = timm.create_model(SWIN[3:], depths=[2, 2, 6, 2], num_classes=7, **options)
    save_weights(theirs, tmp_path / "model.safetensors")
    raw = {
        "size": [64, 64],
        "epochs": 1,
        "batch": 1,
        "architecture": NAME,
        "encoder": SWIN,
        "encoder_weights": str(tmp_path / "model.safetensors"),
        "encoder_options": {**SMALL, "depths": [2, 2, 6, 2]},
        "options": {**TINY, "encoder_blocks": 2},
    }
    config = check_config(NetsConfig, raw, "test")
    network = FAMILY.build(config, 3)
    mine, given = network.encoder.model.state_dict(), theirs.state_dict()
    kept = {key for key in given if ".blocks." in key and int(key.split(".")[3]) < 2}
    assert {k.replace("layers_", "layers.") for k in mine if ".blocks." in k} == kept
    assert all(torch.equal(mine[k.replace("layers.", "layers_")], given[k]) for k in kept)
    rebuilt = FAMILY.rebuild(tmp_path, config, 3)
    assert rebuilt.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(("encoder", "count"), [("resnet18", 2), (SWIN, 0)])
def test_blocks_that_cannot_be_kept(encoder: str, count: int, build: Any) -> None:
    made = build_encoder(encoder, None, 1, {})
    with pytest.raises(ValueError, match=f"options.encoder_blocks: .* found {count} of"):
        build(NAME, made, encoder_blocks=count)


def test_an_encoder_of_convolutions(build: Any) -> None:
    network = build(NAME, build_encoder("resnet18", None, 1, {}), **TINY).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2, 2]}, r"options.depths: expected three numbers from 1 on, found \[2, 2\]"),
        ({"depths": [2, 0, 2]}, r"options.depths: expected three numbers from 1 on"),
        ({"drop_path": 1.5}, "options.drop_path: expected a chance below 1, found 1.5"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 1, "architecture": NAME, "encoder": "resnet18"}
    with pytest.raises(ValueError, match=message):
        check_config(NetsConfig, raw | {"options": options}, "test")


def test_it_needs_an_encoder() -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 1, "architecture": NAME}
    with pytest.raises(ValueError, match="encoder: swin_unet needs one, such as resnet34"):
        check_config(NetsConfig, raw, "test")


@pytest.mark.learns
def test_it_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    exceeds("Dice", learn(build(NAME, tiny(), **TINY), LOSS, steps=100, lr=1e-2), 0.75)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    same_with_checkpointing(lambda: build(NAME, tiny(), **TINY | {"drop_path": 0.2}), LOSS)
