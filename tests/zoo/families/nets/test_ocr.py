"""OCRNet: its size, what regions and pixels say to each other, and its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.families.encoders import build_encoder
from zoo.families.nets.ocr import ObjectContext, gather_regions
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY = {"width": 16, "key_width": 8}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 0.4)


def test_it_has_the_published_size(build: Any, millions: Any) -> None:
    """70.5 M of HRNet-W48 + OCR for ADE20K's 150 classes, as Xie et al. 2021 list it (table 2)."""
    with torch.device("meta"):
        encoder = build_encoder("tu-hrnet_w48", None, 3, {"feature_location": ""})
        network = build("ocr", encoder, channels=3, classes=150, outputs=2)
    assert sum(encoder.out_channels[2:]) == 720
    assert millions(network) == pytest.approx(70.5, abs=0.05)


def test_regions_are_means_of_pixels_weighed_by_a_softmax_over_places() -> None:
    """The object region representation, summed pixel by pixel."""
    pixels, soft = torch.randn(1, 5, 3, 4), torch.randn(1, 2, 3, 4)
    found = gather_regions(pixels, soft)
    assert found.shape == (1, 5, 2, 1)
    for k in range(2):
        weights = soft[0, k].exp() / soft[0, k].exp().sum()
        expected = sum(weights[y, x] * pixels[0, :, y, x] for y in range(3) for x in range(4))
        torch.testing.assert_close(found[0, :, k, 0], expected)


def test_regions_of_many_pixels_survive_half_precision() -> None:
    pixels = torch.full((1, 2, 256, 256), 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = gather_regions(pixels, torch.zeros(1, 1, 256, 256))
    torch.testing.assert_close(found, torch.full((1, 2, 1, 1), 0.5))


def test_context_is_what_alike_regions_say() -> None:
    """Pixels and regions compared with the layers' own outputs."""
    context = ObjectContext(6, 4).eval()
    pixels, regions = torch.randn(2, 6, 3, 5), torch.randn(2, 6, 3, 1)
    queries, keys, values = (
        layer(given).flatten(2)
        for layer, given in (
            (context.queries, pixels),
            (context.keys, regions),
            (context.values, regions),
        )
    )
    weights = torch.einsum("ncp,nck->npk", queries, keys).div(4**0.5).softmax(2)
    said = torch.einsum("npk,nck->ncp", weights, values).reshape(2, 4, 3, 5)
    torch.testing.assert_close(context(pixels, regions), context.project(said))


@pytest.mark.parametrize(
    ("encoder", "options"),
    [("resnet18", {}), ("mit_b0", {}), ("tu-hrnet_w18_small", {"feature_location": ""})],
)
def test_it_gives_logits_and_soft_regions(encoder: str, options: Any, build: Any) -> None:
    made = build_encoder(encoder, None, 1, options)
    network = build("ocr", made, outputs=2, classes=3, **TINY)
    images = torch.randn(2, 1, 64, 96)
    logits, soft = network.train()(images)
    assert logits.shape == soft.shape == (2, 3, 16, 24)
    assert network.eval()(images).shape == (2, 3, 16, 24)
    # The regions that are told of are those that are learnt: the last layer of both gets a
    # gradient from the logits alone.
    logits.sum().backward()
    assert network.regions[1].weight.grad.abs().sum() > 0


@pytest.mark.learns
def test_ocr_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    small = {"width": 32, "key_width": 16}
    torch.manual_seed(0)
    network = build("ocr", build_encoder("tu-lcnet_035", None, 1, {}), outputs=2, **small)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=100, lr=5e-3), 0.75)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    def make() -> Any:
        torch.manual_seed(0)
        return build("ocr", build_encoder("tu-lcnet_035", None, 1, {}), outputs=2, **TINY)

    same_with_checkpointing(make, Objective(LOSS, scales=SCALES))
