"""ResUNet-a: its size, its pooling, and the tasks beside masks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zoo.config import check_config
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.multitask import MultitaskObjective
from zoo.families.nets.resunet_a import DECODER_DILATIONS, ENCODER_DILATIONS, PyramidPooling
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

NAME = "resunet_a"
LOSS = Objective({"bce": 0.5, "dice": 0.5})


@pytest.mark.parametrize(("depth", "halving"), [(6, 1), (6, 3), (7, 1)])
def test_it_has_as_many_kernels_as_are_described(depth: int, halving: int, build: Any) -> None:
    """Units: two 3x3 convolutions a branch; between: 1x1 or 3x3; combining and pooling: 1x1."""
    network = build(NAME, channels=3, classes=6, depth=depth, halving=halving)
    w = [32 * 2**n for n in range(depth)]
    units = zip(w, ENCODER_DILATIONS[depth], strict=True)
    units = [*units, *zip(w[:-1], DECODER_DILATIONS[depth], strict=True)]
    expected = sum(2 * 9 * c * c * len(d) for c, d in units)
    expected += halving**2 * sum(a * b for a, b in pairwise(w))
    expected += sum(b * a // 2 + (a // 2 + a) * a for a, b in pairwise(w))
    levels = {6: 4, 7: 3}[depth]
    part = w[-1] // levels
    expected += levels * w[-1] * part + (w[-1] + levels * part) * w[-1]
    expected += 64 * 32 + (64 + 32) * 32 + 3 * 32 + 32 * 6
    assert sum(p.numel() for p in network.parameters() if p.ndim == 4) == expected


@pytest.mark.parametrize("depth", [6, 7])
@pytest.mark.parametrize("size", [(64, 96), (96, 160)])
def test_logits_have_the_images_size(depth: int, size: tuple[int, int], build: Any) -> None:
    network = build(NAME, depth=depth, width=4)
    assert network(torch.zeros(2, 1, *size)).shape == (2, 2, *size)


def test_pooling_takes_the_highest_of_each_cell() -> None:
    """The authors halve rows and columns again and again, and take the highest of each part."""
    torch.manual_seed(0)
    pool, features = PyramidPooling(6, 8, 4).eval(), torch.randn(2, 6, 16, 24)
    parts = [features]
    for level in range(4):
        side = 2**level
        cells = features.unflatten(3, (side, -1)).unflatten(2, (side, -1))
        highest = cells.amax((3, 5), keepdim=True).expand_as(cells)
        highest = highest.flatten(4, 5).flatten(2, 3)
        parts.append(pool.norms[level](F.conv2d(highest, pool.convolve[level].weight)))
    torch.testing.assert_close(pool(features), pool.mix(torch.cat(parts, 1)))


def test_pooling_learns_from_a_single_image(build: Any) -> None:
    network = build(NAME, width=4).train()
    assert network(torch.randn(1, 1, 64, 64)).isfinite().all()


def test_masks_depend_on_outlines_and_those_on_distances(build: Any) -> None:
    heads = build(NAME, width=4, multitask=True).head
    plain, pooled = torch.randn(2, 8, 16, 16), torch.randn(2, 4, 16, 16)
    touched = {}
    for task in ("distances", "outlines", "masks"):
        heads.zero_grad()
        heads(plain, pooled)[task].sum().backward()
        parts = heads.named_children()
        touched[task] = {k for k, part in parts if next(part.parameters()).grad is not None}
    assert touched["distances"] == {"distances"}
    assert touched["outlines"] == {"distances", "outlines"}
    assert touched["masks"] == {"distances", "outlines", "masks"}


def test_tasks_are_for_learning_alone(build: Any) -> None:
    network = build(NAME, width=4, multitask=True)
    images = torch.randn(2, 1, 64, 64)
    outputs = network.train()(images)
    assert {k: tuple(v.shape) for k, v in outputs.items()} == dict.fromkeys(
        ("masks", "outlines", "distances"), (2, 2, 64, 64)
    )
    assert network.eval()(images).shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 5}, "options.depth: expected 6 or 7, found 5"),
        ({"width": 6}, "options.width: expected a multiple of 4, found 6"),
        ({"halving": 2}, "options.halving: expected 1 or 3, found 2"),
        ({"reach": 8}, "options.reach: expected together with multitask: true"),
        ({"multitask": True, "reach": 200}, "options.reach: expected 1 to 127 pixels, found 200"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 1, "architecture": NAME, "options": options}
    with pytest.raises(ValueError, match=message):
        check_config(NetsConfig, raw, "test")


def test_it_takes_no_encoder() -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 1, "architecture": NAME, "encoder": "resnet18"}
    with pytest.raises(ValueError, match="encoder: resunet_a takes none, found 'resnet18'"):
        check_config(NetsConfig, raw, "test")


@pytest.mark.learns
@pytest.mark.parametrize("multitask", [False, True])
def test_it_learns_discs(multitask: bool, build: Any, learn: Any, exceeds: Any) -> None:
    network = build(NAME, width=8, multitask=multitask)
    objective = MultitaskObjective(LOSS, reach=8) if multitask else LOSS
    exceeds("Dice", learn(network, objective, steps=40, lr=3e-2), 0.85)


@pytest.mark.parametrize("multitask", [False, True])
def test_checkpointing_changes_nothing(
    multitask: bool, build: Any, same_with_checkpointing: Any
) -> None:
    objective = MultitaskObjective(LOSS, reach=8) if multitask else LOSS
    same_with_checkpointing(lambda: build(NAME, width=4, multitask=multitask), objective)
