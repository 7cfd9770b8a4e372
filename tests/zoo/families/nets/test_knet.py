"""K-Net: what a kernel gathers and becomes, its stages, and its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo.families.encoders import build_encoder
from zoo.families.nets.knet import KernelUpdate, KernelUpdater, gather_claimed
from zoo.families.nets.network import count_outputs
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY = {"width": 32, "feedforward": 64}
SWIN = {
    "strict_img_size": False,
    "embed_dim": 24,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 2],
    "drop_path_rate": 0.0,
}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 1.0, 1.0, 1.0)


def swin() -> Any:
    torch.manual_seed(0)
    return build_encoder("tu-swin_tiny_patch4_window7_224", None, 1, SWIN)


@pytest.mark.parametrize("masks", ["sigmoid", "softmax"])
def test_a_kernel_gathers_the_mean_of_what_it_claims(masks: str) -> None:
    features, logits = torch.randn(2, 5, 3, 4), torch.randn(2, 3, 3, 4)
    found = gather_claimed(features, logits, masks)
    claims = torch.sigmoid(logits) if masks == "sigmoid" else torch.softmax(logits, 1)
    for n in range(2):
        for k in range(3):
            claim = claims[n, k]
            expected = (claim * features[n]).sum((1, 2)) / claim.sum()
            torch.testing.assert_close(found[n, k], expected)


def test_a_kernel_that_claims_nothing_gathers_nothing() -> None:
    found = gather_claimed(torch.ones(1, 2, 4, 4), torch.full((1, 1, 4, 4), -100.0), "sigmoid")
    assert found.abs().max() < 1e-6


def test_kernels_are_updated_as_in_the_paper() -> None:
    """The adaptive kernel update, one kernel after the other."""
    update = KernelUpdater(6)
    features, kernels = torch.randn(1, 2, 6), torch.randn(1, 2, 6)
    found = update(features, kernels)
    for k in range(2):
        of_features, of_kernels = (
            update.of_features(features[0, k]),
            update.of_kernels(kernels[0, k]),
        )
        both = of_features[:6] * of_kernels[:6]
        (fc_f, norm_f, _), (fc_k, norm_k, _) = update.gate_features, update.gate_kernels
        gate_f, gate_k = norm_f(fc_f(both)).sigmoid(), norm_k(fc_k(both)).sigmoid()
        new = gate_f * update.norm_features(of_features[6:])
        new = new + gate_k * update.norm_kernels(of_kernels[6:])
        torch.testing.assert_close(found[0, k], update.project(new))


def test_new_logits_are_the_new_kernels_convolution() -> None:
    stage = KernelUpdate(8, 2, 16, "sigmoid")
    features, kernels, logits = (
        torch.randn(2, 8, 5, 6),
        torch.randn(2, 3, 8),
        torch.randn(2, 3, 5, 6),
    )
    found, updated = stage(features, kernels, logits)
    for n in range(2):
        weights = stage.claim(updated[n])[..., None, None]
        expected = torch.nn.functional.conv2d(stage.transform(features[n : n + 1]), weights)
        torch.testing.assert_close(found[n : n + 1], expected)


def test_a_stage_has_the_weights_of_the_authors_code(millions: Any) -> None:
    """KernelUpdateHead and KernelUpdator of 512 channels, 2048 inside, layer by layer."""
    width, inside = 512, 2048
    dense = width * width + width
    updater = 2 * (2 * dense) + 2 * dense + dense + 5 * 2 * width
    attention = 4 * dense + 2 * width
    feedforward = 2 * width * inside + inside + width + 2 * width
    claim = width * width + 2 * width + dense
    expected = dense + updater + attention + feedforward + claim
    assert millions(KernelUpdate(width, 8, inside, "sigmoid")) * 1e6 == pytest.approx(expected)


@pytest.mark.parametrize("decoder", ["upernet", "fpn"])
@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0"])
def test_every_stage_gives_an_output(decoder: str, encoder: str, build: Any) -> None:
    options = {"decoder": decoder, **TINY}
    network = build("knet", build_encoder(encoder, None, 1, {}), outputs=4, classes=3, **options)
    images = torch.randn(2, 1, 64, 96)
    outputs = network.train()(images)
    assert [tuple(o.shape) for o in outputs] == 4 * [(2, 3, 16, 24)]
    network.eval()
    with torch.no_grad():
        features = network.decoder(network.encoder(images))
        first = network.kernels(features)
        kernels = network.kernels.weight.flatten(1).expand(2, -1, -1)
        second, kernels = network.stages[0](features, kernels, first)
        third, kernels = network.stages[1](features, kernels, second)
        fourth, _ = network.stages[2](features, kernels, third)
        assert torch.equal(network(images), fourth)
    outputs[0].square().sum().backward()
    assert {n for n, p in network.named_parameters() if p.grad is None} == set()


def test_kernels_depend_on_their_image(build: Any) -> None:
    network = build("knet", swin(), **TINY).eval()
    a, b = torch.randn(2, 1, 1, 64, 64)
    with torch.no_grad():
        alone, together = network(a), network(torch.cat([a, b]))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_outputs_follow_the_stages() -> None:
    assert count_outputs("knet", {}) == 4
    assert count_outputs("knet", {"stages": 1}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "unet"}, "expected decoder upernet or fpn"),
        ({"masks": "none"}, "masks sigmoid or softmax, found upernet and none"),
        ({"stages": 0}, "expected at least 1 stage"),
        ({"width": 20}, "a width that heads divide; found 3 stages, width 20 and 8 heads"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, build: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build("knet", build_encoder("resnet18", None, 1, {}), **options)


@pytest.mark.learns
def test_knet_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("knet", swin(), outputs=4, **TINY)
    exceeds("Dice", learn(network, Objective(LOSS, scales=SCALES), steps=60), 0.8)


def test_checkpointing_changes_nothing(build: Any, same_with_checkpointing: Any) -> None:
    objective = Objective(LOSS, scales=SCALES)
    same_with_checkpointing(lambda: build("knet", swin(), outputs=4, **TINY), objective)
