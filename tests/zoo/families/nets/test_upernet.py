"""UPerNet: its sizes with plain Vision Transformers, smp's decoder, and its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.families.encoders import build_encoder
from zoo.families.outlines import _on_meta
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY = {"width": 32, "auxiliary_width": 8}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 0.4)


def vit() -> Any:
    torch.manual_seed(0)
    small = {"dynamic_img_size": True, "embed_dim": 32, "depth": 6, "num_heads": 2}
    return build_encoder("tu-vit_tiny_patch16_224", None, 1, small)


@pytest.mark.parametrize(
    ("encoder", "options", "width", "published"),
    [
        ("tu-beit_base_patch16_224", {"img_size": 640}, 768, 163),
        ("tu-beit_large_patch16_224", {"img_size": 640}, 1024, 441),
        ("tu-swin_large_patch4_window7_224", {}, 512, 234),
    ],
)
def test_it_has_the_published_size(
    encoder: str, options: dict[str, int], width: int, published: int, build: Any, millions: Any
) -> None:
    """Of ADE20K's 150 classes: BEiT's authors' page, github.com/microsoft/unilm; Swin, table 3."""
    with _on_meta():
        made = build_encoder(encoder, None, 3, options)
        network = build("upernet", made, channels=3, classes=150, outputs=2, width=width)
    assert millions(network) == pytest.approx(published, abs=0.6)


@pytest.mark.parametrize("name", ["vit", "resnet18", "mit_b0"])
def test_outputs_are_at_a_quarter_and_a_sixteenth(name: str, build: Any) -> None:
    encoder = vit() if name == "vit" else build_encoder(name, None, 1, {})
    network = build("upernet", encoder, outputs=2, **TINY)
    images = torch.randn(2, 1, 64, 96)
    logits, auxiliary = network.train()(images)
    assert (logits.shape, auxiliary.shape) == ((2, 2, 16, 24), (2, 2, 4, 6))
    assert network.eval()(images).shape == (2, 2, 16, 24)


def test_the_auxiliary_head_reads_the_encoder_itself(build: Any) -> None:
    """Smp's decoder normalises its list of features in place."""
    network = build("upernet", build_encoder("resnet18", None, 1, {}), outputs=2, dropout=0, **TINY)
    images = torch.randn(2, 1, 64, 64)
    network.eval()
    with torch.no_grad():
        expected = network.auxiliary(network.encoder(images)[4])
    network.training = True  # itself alone: norms and dropout stay as they are
    with torch.no_grad():
        torch.testing.assert_close(network(images)[1], expected)


@pytest.mark.learns
def test_upernet_learns_discs_on_a_vision_transformer(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("upernet", vit(), outputs=2, **TINY)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=80), 0.75)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    objective = Objective(LOSS, scales=SCALES)
    same_with_checkpointing(lambda: build("upernet", vit(), outputs=2, **TINY), objective)
