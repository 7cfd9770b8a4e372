"""U-Net 3+: its size, what each node reads, its outputs, and the module that guides it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zoo.families.encoders import build_encoder
from zoo.families.nets.unet3plus import GuidedObjective, close
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

TINY = {"width": 4, "own_width": 4}
LOSS = {"bce": 0.5, "dice": 0.5}
SCALES = (1.0, 0.5, 0.25, 0.125, 0.0625)


def test_it_has_the_published_size(build: Any, millions: Any) -> None:
    """26.97 M, table 1, with and without deep supervision; colours and one organ."""
    for outputs in (1, 5):
        network = build("unet3plus", channels=3, classes=1, outputs=outputs)
        assert millions(network) == pytest.approx(26.97, abs=0.014)


def test_a_link_is_as_many_weights_as_the_paper_counts(build: Any) -> None:
    """Equation 4: nodes of the decoder, 3 x 3 kernels: 64 of each level, 320 of those together."""
    network = build("unet3plus", channels=3, classes=1)
    encoder = [64, 128, 256, 512, 1024]
    for level, node in enumerate(network.nodes):
        read = encoder[: level + 1] + [320] * (3 - level) + encoder[-1:]
        expected = 9 * (sum(read) * 64 + 320 * 320)
        assert sum(p.numel() for p in node.parameters() if p.ndim == 4) == expected


@pytest.mark.parametrize(
    ("encoder", "first", "options"),
    [
        (None, 1, {}),
        ("resnet18", 2, {}),
        (
            "tu-swin_tiny_patch4_window7_224",
            2,
            {"strict_img_size": False, "embed_dim": 12, "num_heads": (1, 1, 2, 2)},
        ),
    ],
)
def test_outputs_have_the_sizes_of_their_nodes(
    encoder: str | None, first: int, options: dict[str, Any], build: Any
) -> None:
    made = encoder and build_encoder(encoder, None, 1, options)
    network = build("unet3plus", made, outputs=5, **TINY)
    images = torch.randn(2, 1, 64, 96)
    sizes = [(2, 2, 64 // s, 96 // s) for s in (first * 2**level for level in range(5))]
    assert [tuple(o.shape) for o in network.train()(images)] == sizes
    assert network.eval()(images).shape == sizes[0]


def test_each_node_reads_all_levels(build: Any) -> None:
    """A node's gradient reaches the encoder's finer levels, its own, and coarser nodes alone."""
    network = build("unet3plus", outputs=5, **TINY)
    outputs = network.train()(torch.randn(1, 1, 64, 64))
    for level in range(4):
        network.zero_grad()
        outputs[level].sum().backward(retain_graph=True)
        touched = [
            k for k, node in enumerate(network.nodes) if node.fuse[0][0].weight.grad is not None
        ]
        assert touched == list(range(level, 4))
        links = [link.convolve[0].weight.grad for link in network.nodes[level].links]
        assert all(g.abs().sum() > 0 for g in links)


@pytest.mark.learns
def test_it_learns_discs(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("unet3plus", outputs=5, **TINY)
    found = learn(network, Objective(LOSS, scales=SCALES), steps=32, lr=1e-2)
    exceeds("Dice", found, 0.8)


@pytest.mark.parametrize("guided", [False, True])
def test_checkpointing_changes_nothing(
    guided: bool, build: Any, same_with_checkpointing: Any
) -> None:
    loss = Objective(LOSS, scales=SCALES)
    objective = GuidedObjective(loss) if guided else loss
    same_with_checkpointing(lambda: build("unet3plus", outputs=5, guided=guided, **TINY), objective)


def test_a_class_that_is_not_there_is_nowhere() -> None:
    logits = torch.tensor([3.0, -30.0]).reshape(1, 1, 1, 2).repeat(1, 2, 1, 1)
    found = close(logits, torch.tensor([0.1, -0.1]).reshape(1, 2, 1, 1))
    assert found[0, 0].tolist() == [[3.0, -30.0]]
    assert found[0, 1].tolist() == [[-20.0, -30.0]]


def test_the_guide_learns_which_classes_are_there() -> None:
    area = torch.zeros(2, 3, 8, 8)
    area[0, 1, 2, 3], area[1, 0], area[1, 2, 0, 0] = 1, 0.7, 0.4
    presence = torch.randn(2, 3, 1, 1)
    masks = torch.randn(2, 3, 8, 8)
    there = torch.tensor([[0.0, 1, 0], [1, 0, 0]])[..., None, None]
    expected = Objective(LOSS)(masks, area) + F.binary_cross_entropy_with_logits(presence, there)
    found = GuidedObjective(Objective(LOSS))({"masks": masks, "classes": presence}, area)
    torch.testing.assert_close(found, expected)


@pytest.mark.learns
def test_a_guided_network_closes_what_is_not_there(build: Any, learn: Any, exceeds: Any) -> None:
    network = build("unet3plus", guided=True, dropout=0.1, **TINY)
    exceeds("Dice", learn(network, GuidedObjective(Objective(LOSS)), steps=32, lr=1e-2), 0.8)
    with torch.no_grad():
        network.guide.classify.bias.fill_(-1e3)
        assert network(torch.randn(1, 1, 64, 64)).max() <= -20
