"""Attention blocks: against timm's, against what the equations say, and before a decoder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from timm.layers.cbam import ChannelAttn, SpatialAttn
from timm.layers.non_local_attn import NonLocalAttn
from timm.layers.squeeze_excite import SEModule
from torch import nn

from zoo.config import check_config
from zoo.families.attention import (
    ATTENTION,
    Cbam,
    FeatureAttention,
    NonLocal,
    SelfAttention,
    SqueezeExcitation,
)
from zoo.families.nets import family as nets
from zoo.families.smp.config import ARCHITECTURES, SmpConfig
from zoo.families.smp.family import FAMILY

pytestmark = pytest.mark.slow

FEATURES = torch.randn(2, 32, 6, 5, generator=torch.Generator().manual_seed(0))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    pairs = zip(source.parameters(), target.parameters(), strict=True)
    with torch.no_grad():
        for own, theirs in pairs:
            theirs.copy_(own)


def test_squeeze_excitation_is_timms() -> None:
    mine = SqueezeExcitation(32)
    theirs = SEModule(32, rd_channels=2)
    copy_weights(mine, theirs)
    torch.testing.assert_close(mine(FEATURES), theirs(FEATURES))
    # 2 C^2 / r weights (the paper's equation 5 for one block), and biases.
    assert sum(p.numel() for p in mine.parameters()) == 2 * 32 * 32 // 16 + 2 + 32


def test_cbam_is_timms_but_for_its_norm() -> None:
    mine = Cbam(32)
    channels = ChannelAttn(32, rd_channels=2, mlp_bias=True)
    places = SpatialAttn()
    places.conv.bn = nn.Identity()
    copy_weights(mine, nn.ModuleList([channels, places]))
    torch.testing.assert_close(mine(FEATURES), places(channels(FEATURES)))


def test_non_local_blocks_are_timms() -> None:
    mine = NonLocal(32)
    nn.init.normal_(mine.norm.weight)
    theirs = NonLocalAttn(32, use_scale=False, rd_channels=16)
    copy_weights(mine, theirs)
    torch.testing.assert_close(mine(FEATURES), theirs(FEATURES))


def test_self_attention_is_the_papers_equations() -> None:
    mine = SelfAttention(32)
    nn.init.constant_(mine.weight, 0.7)
    f, g, h, v = (
        layer.weight[:, :, 0, 0] for layer in (mine.keys, mine.queries, mine.values, mine.project)
    )
    for image, found in zip(FEATURES, mine(FEATURES), strict=True):
        x = image.flatten(1)  # (C, N), as in the paper
        beta = torch.softmax((f @ x).T @ (g @ x), dim=0)  # [i, j]: how much j looks at i
        expected = 0.7 * v @ ((h @ x) @ beta) + x
        torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize("kind", ["self", "nonlocal"])
def test_blocks_that_are_added_start_as_nothing_and_learn(kind: str) -> None:
    block = ATTENTION[kind](32)
    found = block(FEATURES)
    assert torch.equal(found, FEATURES)
    found.square().sum().backward()
    first = block.weight if isinstance(block, SelfAttention) else block.norm.weight
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_pixels_are_compared_at_coarse_strides_alone() -> None:
    def places(kind: str, *channels: int) -> list[int]:
        return [int(place) for place in FeatureAttention(kind, channels).blocks]

    for kind in ("cbam", "se"):
        assert places(kind, 1, 0, 16, 24, 32, 48) == [2, 3, 4, 5]
    for kind in ("self", "nonlocal"):
        assert places(kind, 1, 0, 16, 24, 32, 48) == [4, 5]
        assert places(kind, 1, 0, 16, 0, 0, 48) == [5]
        assert places(kind, 1, 8, 16, 24) == [3]


def make(**changes: Any) -> SmpConfig:
    raw = {"size": [64, 96], "epochs": 1, "batch": 2, "encoder": "resnet18"}
    return check_config(SmpConfig, raw | changes, "test")


MORE: dict[str, dict[str, Any]] = {
    "unetplusplus": {"deep_supervision": [1, 1, 1, 1]},
    "upernet": {"encoder": "mit_b0"},
    "segformer": {"encoder": "mit_b0"},
}


def make_net(**changes: Any) -> Any:
    raw = {"size": [64, 64], "epochs": 1, "batch": 2}
    return check_config(nets.NetsConfig, raw | changes, "test")


@pytest.mark.long
@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"dpt"}))
def test_any_decoder_learns_with_attention(kind: str, architecture: str) -> None:
    """What decoders do not read has no block: each weight of those that there are gets a gradient.

    The decoder's own weights keep their names, so that runs without attention can be continued.
    """
    changes = {"architecture": architecture, **MORE.get(architecture, {})}
    network = FAMILY.build(make(attention=kind, **changes), 3).train()
    plain = FAMILY.build(make(**changes), 3).state_dict()
    own = network.state_dict()
    added = {key for key in own if key.startswith("attention.")}
    assert added
    assert own.keys() - added == plain.keys()
    # Away from where blocks that are added start, so that all of their weights matter.
    for module in network.modules():
        if isinstance(module, SelfAttention):
            nn.init.ones_(module.weight)
        if isinstance(module, NonLocal):
            nn.init.ones_(module.norm.weight)
    outputs = network(torch.randn(2, 1, 128, 128))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(o.square().mean() for o in outputs).backward()
    gradients = {k: p.grad for k, p in network.named_parameters() if k in added}
    assert all(gradient is not None for gradient in gradients.values())


NETS: dict[str, dict[str, Any]] = {
    "unet3plus": {"options": {"width": 4}},
    "ocr": {"options": {"width": 8, "key_width": 8}},
    "lawin": {"options": {"width": 128, "embedding": 8}},
    "knet": {"options": {"width": 8, "feedforward": 8}},
    "upernet": {"options": {"width": 8}},
    "swin_unet": {"options": {"depths": [1, 1, 1], "head_width": 8, "window": 4}},
}


@pytest.mark.parametrize("kind", ["cbam", "self"])
@pytest.mark.parametrize("name", NETS)
def test_networks_of_papers_learn_with_attention(name: str, kind: str) -> None:
    changes = {"architecture": name, "encoder": "tu-lcnet_035", **NETS[name]}
    network = nets.FAMILY.build(make_net(attention=kind, **changes), 3).train()
    plain = nets.FAMILY.build(make_net(**changes), 3).state_dict()
    own = network.state_dict()
    added = {key for key in own if key.startswith("attention.")}
    assert added
    assert own.keys() - added == plain.keys()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            nn.init.ones_(module.weight)
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None for k, p in network.named_parameters() if k in added)


def test_a_copy_attends_with_its_own_weights() -> None:
    network = FAMILY.build(make(attention="cbam"), 2).eval()
    copy = deepcopy(network)
    images = torch.randn(2, 1, 64, 64)
    before = copy(images)
    with torch.no_grad():
        for weight in network.attention.parameters():
            weight.fill_(3.0)
    assert torch.equal(copy(images), before)
    assert not torch.allclose(network(images), before)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"attention": "cbma"}, "'attention': expected 'cbam', 'se', 'self' or 'nonlocal'"),
        (
            {"architecture": "dpt", "encoder": "tu-vit_tiny_patch16_224", "size": [224, 224]},
            "attention: expected null for dpt",
        ),
    ],
)
def test_bad_configs(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{"attention": "se"} | raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"architecture": "semask", "encoder": "tu-swin_tiny_patch4_window7_224"},
            "attention: semask calls its encoder's stages one by one: expected null",
        ),
        ({"architecture": "unet3plus"}, "attention: expected together with 'encoder'"),
    ],
)
def test_networks_that_take_none(raw: dict[str, Any], message: str) -> None:
    swin = {"encoder_options": {"strict_img_size": False}} if "encoder" in raw else {}
    with pytest.raises(ValueError, match=message):
        make_net(attention="se", **raw, **swin)


def test_a_checkpointed_run_learns_attention(
    tiny_smp: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    from zoo.run_files.checkpoints import LAST, read_weights

    found = []
    for name, saves in (("plain", False), ("saving", True)):
        job = make_job(name)
        changes = {"epochs": 1, "attention": "cbam", "gradient_checkpointing": saves}
        FAMILY.train(tiny_smp(**changes), job)
        found.append(read_weights(job.out / LAST))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
