"""MaxViT-UNet: its encoder's size, its decoder's blocks, and its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.families.encoders import build_encoder
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {"depths": (1, 1, 1)}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 0.4)


def tiny() -> Any:
    torch.manual_seed(0)
    return build_encoder("tu-test_maxvit", None, 1, {"img_size": 64})


def partitions(module: Any) -> set[tuple[str, tuple[int, int], int]]:
    """How a network's blocks attend: in windows or grids, of so many tokens, heads so wide."""
    return {
        ("window" if m.partition_block else "grid", tuple(m.partition_size), m.attn.dim_head)
        for m in module.modules()
        if hasattr(m, "partition_size")
    }


def test_the_decoder_attends_as_the_encoder_does(build: Any, millions: Any) -> None:
    with torch.device("meta"):
        encoder = build_encoder("tu-maxvit_tiny_tf_512", None, 3, {})
        # timm's table of results: 31.05 M, with the classifier's 512 x 512 and 512 x 1000.
        assert millions(encoder) == pytest.approx(31.05 - 0.78, abs=0.01)
        network = build("maxvit_unet", encoder, channels=3)
    expected = {("window", (16, 16), 32), ("grid", (16, 16), 32)}
    assert partitions(network.encoder) == partitions(network.stages) == expected
    assert [len(stage.blocks) for stage in network.stages] == [2, 2, 2]
    assert [stage.blocks[0].conv.conv3_1x1.out_channels for stage in network.stages] == [
        *(256, 128, 64)
    ]


@pytest.mark.parametrize("outputs", [1, 2])
def test_outputs_have_a_quarter_of_the_size(outputs: int, build: Any) -> None:
    network = build("maxvit_unet", tiny(), outputs=outputs, **TINY)
    images = torch.randn(2, 1, 64, 128)
    found = network.train()(images)
    found = found if outputs > 1 else [found]
    assert [tuple(o.shape) for o in found] == outputs * [(2, 2, 16, 32)]
    assert network.eval()(images).shape == (2, 2, 16, 32)


def test_logits_read_every_skip_and_the_auxiliary_head_only_the_finest(build: Any) -> None:
    network = build("maxvit_unet", tiny(), outputs=2, **TINY)
    logits, auxiliary = network.train()(torch.randn(2, 1, 64, 64))
    inside = dict(network.encoder.named_parameters())

    def touched(output: torch.Tensor) -> set[str]:
        network.zero_grad()
        output.square().sum().backward(retain_graph=True)
        return {name.split(".")[1] for name, p in inside.items() if p.grad is not None}

    assert touched(auxiliary) == {"stem", "stages_0"}
    assert touched(logits) == {"stem", *(f"stages_{i}" for i in range(4))}
    assert all(p.grad is not None for p in network.stages.parameters())


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("resnet18", {}, "expected a MaxViT of timm's as encoder, such as tu-maxvit_tiny_tf_512"),
        ("tu-test_maxvit", {"depths": [1, 1]}, "depths: expected three numbers of at least 1"),
        ("tu-test_maxvit", {"depths": [1, 0, 1]}, "depths: expected three numbers of at least 1"),
    ],
)
def test_what_does_not_fit(encoder: str, options: Any, message: str, build: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build("maxvit_unet", build_encoder(encoder, None, 1, {}), **options)


@pytest.mark.learns
def test_maxvit_unet_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("maxvit_unet", tiny(), outputs=2, drop_path_rate=0.0, **TINY)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=40), 0.85)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    objective = Objective(LOSS, scales=SCALES)
    same_with_checkpointing(lambda: build("maxvit_unet", tiny(), outputs=2, **TINY), objective)
