"""SAM2-UNet: its size, what is frozen, its blocks, and its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from zoo.families.encoders import build_encoder
from zoo.families.nets.sam2_unet import Adapter, ReceptiveField
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

SMALL = {"embed_dim": 16, "stages": [1, 1, 2, 1], "global_att_blocks": [3]}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 1.0, 1.0)


def tiny(channels: int = 1) -> Any:
    torch.manual_seed(0)
    return build_encoder("tu-sam2_hiera_tiny", None, channels, SMALL)


def test_it_has_the_size_of_the_authors_code(build: Any, millions: Any) -> None:
    """Counted by hand of SAM2UNet.py; its fourth step, which it never calls, is left out here.

    Hiera-L has 48 blocks: 2 of 144 channels, 6 of 288, 36 of 576, 4 of 1152; the first of a stage
    reads those of the stage before.
    """
    with torch.device("meta"):
        encoder = build_encoder("tu-sam2_hiera_large", None, 3, {})
        own = millions(encoder)
        network = build("sam2_unet", encoder, channels=3, classes=1, outputs=3)
    reads = 3 * [144] + 6 * [288] + 36 * [576] + 3 * [1152]
    adapters = sum(2 * 32 * width + 32 + width for width in reads)
    branches = sum(2 * side + 9 for side in (3, 5, 7))
    fields = sum(5 * 64 * width for width in (144, 288, 576, 1152))
    fields += 4 * ((branches + 4 * 9) * 64 * 64 + 15 * 2 * 64)
    steps = 3 * (9 * (128 + 64) * 64 + 2 * 2 * 64)
    heads = 3 * (64 + 1)
    learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert learns == adapters + fields + steps + heads
    assert millions(network) == pytest.approx(own + learns / 1e6)


def test_the_encoder_is_frozen_and_its_adapters_learn(build: Any) -> None:
    network = build("sam2_unet", tiny(), outputs=3, width=8)
    sum(o.square().mean() for o in network.train()(torch.randn(2, 1, 64, 64))).backward()
    inside = dict(network.encoder.named_parameters())
    learns = {name for name, p in inside.items() if p.grad is not None}
    assert learns == {name for name in inside if ".prompt." in name}
    assert len(learns) == 4 * 5
    assert all(p.grad is not None for n, p in network.named_parameters() if "encoder" not in n)


def test_an_encoder_may_learn_as_well(build: Any) -> None:
    network = build("sam2_unet", tiny(), width=8, frozen=False)
    assert all(p.requires_grad for p in network.parameters())


def test_an_adapter_shifts_what_its_block_is_given(build: Any) -> None:
    block = tiny().model.model.blocks[0].eval()
    adapter = Adapter(block, 4)
    tokens = torch.randn(1, 8, 8, 16)
    first, _, second, _ = adapter.prompt
    prompt = nn.functional.gelu(second(nn.functional.gelu(first(tokens))))
    assert torch.equal(adapter(tokens), block(tokens + prompt))


def test_a_receptive_field_block_sees_as_far_as_its_dilations() -> None:
    """A convolution of 7, one of 3 with holes of 7, and the last of 3: 3 + 7 + 1 to each side."""
    block = ReceptiveField(2, 4).eval()
    image = torch.zeros(1, 2, 41, 41, requires_grad=True)
    block(image + 0.1)[0, :, 20, 20].sum().backward()
    assert image.grad is not None
    touched = image.grad.abs().sum((0, 1)).nonzero()
    assert touched.amin(0).tolist() == [9, 9]
    assert touched.amax(0).tolist() == [31, 31]


def test_outputs_are_at_a_quarter_an_eighth_and_a_sixteenth(build: Any) -> None:
    network = build("sam2_unet", tiny(), outputs=3, width=8)
    images = torch.randn(2, 1, 64, 96)
    sizes = [(2, 2, 64 // s, 96 // s) for s in (4, 8, 16)]
    assert [tuple(o.shape) for o in network.train()(images)] == sizes
    assert network.eval()(images).shape == sizes[0]


def test_another_encoder_is_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="expected an encoder of SAM 2, such as tu-sam2_hiera"):
        build("sam2_unet", build_encoder("resnet18", None, 1, {}))


@pytest.mark.learns
def test_sam2_unet_learns_discs_through_adapters(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("sam2_unet", tiny(), outputs=3, width=16)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=100), 0.7)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    objective = Objective(LOSS, scales=SCALES)
    same_with_checkpointing(lambda: build("sam2_unet", tiny(), outputs=3, width=8), objective)
