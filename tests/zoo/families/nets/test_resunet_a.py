"""ResUNet-a: its size, its pooling, and the tasks beside masks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zoo.augmentation.pipeline import Augmentation
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.data.batches import normalize
from zoo.data.items import SampleItems
from zoo.data.reading import read_image, resize_image
from zoo.data.training_set import TrainingSet
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.family import FAMILY
from zoo.families.nets.multitask import MultitaskObjective, measure_colors, tanimoto
from zoo.families.nets.resunet_a import DECODER_DILATIONS, ENCODER_DILATIONS, PyramidPooling
from zoo.run_files.checkpoints import LAST, read_weights
from zoo.training.losses.objective import Objective, compute_loss
from zoo.training.module import SemanticModule

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


def test_it_has_the_weights_of_the_authors_code(build: Any) -> None:
    """Of d6 with four tasks, beside the kernels above: norms, biases, and heads of 3x3 kernels."""
    network = build(NAME, channels=3, classes=6, halving=3, multitask=True, colors=True)
    plain = build(NAME, channels=3, classes=6, halving=3)
    w = [32 * 2**n for n in range(6)]
    units = [*zip(w, ENCODER_DILATIONS[6], strict=True)]
    units += zip(w[:-1], DECODER_DILATIONS[6], strict=True)
    small = sum(5 * c * len(d) for c, d in units) + 2 * 32
    small += sum(2 * (a // 2) + 2 * a for a in w[:-1])
    small += 2 * 2 * 1024 + 2 * 2 * 32 + 6
    assert sum(p.numel() for p in plain.parameters() if p.ndim != 4) == small
    norm, head = 2 * 32, 32 * 6 + 6
    distances = 9 * (64 + 32) * 32 + 2 * norm + head
    outlines = 9 * (32 + 6) * 32 + norm + head
    masks = 9 * (32 + 2 * 6 + 32) * 32 + 2 * norm + head
    colors = 64 * 3 + 3
    found = sum(p.numel() for p in network.head.parameters())
    assert found == distances + outlines + masks + colors


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


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_for_learning_alone_and_change_no_prediction(channels: int, build: Any) -> None:
    plain = build(NAME, channels=channels, width=4, multitask=True).eval()
    network = build(NAME, channels=channels, width=4, multitask=True, colors=True)
    images = torch.randn(2, channels, 64, 96)
    outputs = network.train()(images)
    assert outputs.keys() == {"masks", "outlines", "distances", "colors"}
    assert outputs["colors"].shape == (2, channels, 64, 96)
    network.head.colors.weight.data.fill_(9.0)
    missing = plain.load_state_dict(network.state_dict(), strict=False)
    assert missing.unexpected_keys == ["head.colors.weight", "head.colors.bias"]
    assert not missing.missing_keys
    assert torch.equal(network.eval()(images), plain(images))


def test_no_task_depends_on_colors(build: Any) -> None:
    heads = build(NAME, width=4, multitask=True, colors=True).head.train()
    plain, pooled = torch.randn(2, 8, 16, 16), torch.randn(2, 4, 16, 16)
    outputs = heads(plain, pooled)
    sum(v.sum() for k, v in outputs.items() if k != "colors").backward(retain_graph=True)
    assert heads.colors.weight.grad is None
    others = [p.grad.clone() for k, p in heads.named_parameters() if "colors" not in k]
    outputs["colors"].sum().backward()
    now = [p.grad for k, p in heads.named_parameters() if "colors" not in k]
    assert all(torch.equal(a, b) for a, b in zip(others, now, strict=True))
    assert heads.colors.weight.grad.any()


class _Shown(torch.nn.Module):
    """Takes down what an objective is shown."""

    def __init__(self, objective: torch.nn.Module) -> None:
        super().__init__()
        self.objective, self.needs_images = objective, True

    def forward(self, outputs: Any, area: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        self.images, self.outputs = images, outputs
        loss: torch.Tensor = self.objective(outputs, area, images)
        return loss


def test_colors_are_learned_of_images_as_they_are_augmented(build: Any, toys: Any) -> None:
    """Not of those in the files, and not of what the network is shown, which is normalised."""
    augment = [
        {"name": "InvertImg", "p": 1.0},
        {"name": "HorizontalFlip", "p": 1.0},
    ]
    raw = {"size": [64, 64], "epochs": 1, "batch": 2, "architecture": NAME, "in_channels": 3}
    options = {"width": 4, "multitask": True, "colors": True}
    raw |= {"options": options, "augment": augment, "labels": str(toys.labels_file)}
    config = check_config(NetsConfig, raw, "test")
    data = TrainingSet(
        SampleItems(toys.samples[:2], toys.labels, 3),
        (64, 64),
        Augmentation(config.augment, toys.labels),
        seed=0,
    )
    network = build(NAME, channels=3, classes=len(toys.labels), **options).train()
    module = SemanticModule(network, config, toys.labels, data)
    module.objective = _Shown(module.objective)
    images, masks = (torch.stack(parts) for parts in zip(data[0, 0], data[0, 1], strict=True))
    loss = module.training_step((images, masks), 0)
    for sample, shown in zip(toys.samples, module.objective.images, strict=False):
        pixels = resize_image(read_image(sample, 3), (64, 64))
        expected = torch.from_numpy(255 - pixels[:, ::-1]).permute(2, 0, 1)
        assert torch.equal(shown, expected)
    found = module.objective.outputs["colors"].sigmoid()
    share = tanimoto(found, measure_colors(images)).detach()
    assert 0 < share < loss.detach()


@pytest.mark.learns
def test_colors_are_learned(build: Any) -> None:
    torch.manual_seed(0)
    network = build(NAME, channels=3, width=8, multitask=True, colors=True).train()
    # A disc of its own colour on a ground of another.
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((rows - 30) ** 2 + (columns - 36) ** 2 < 200)[None, None].repeat(2, 2, 1, 1)
    ground, ink = (torch.tensor(c).view(1, 3, 1, 1) for c in ([30, 60, 90], [220, 180, 20]))
    images = torch.where(disc[:, :1], ink, ground).to(torch.uint8)
    objective = MultitaskObjective(LOSS, reach=8, colors=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses, colors = [], []
    for _ in range(12):
        optimizer.zero_grad()
        outputs = network(normalize(images))
        loss = compute_loss(objective, outputs, disc.float(), images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        colors.append(tanimoto(outputs["colors"].sigmoid(), measure_colors(images)).item())
    assert losses[-1] < 0.8 * losses[0]
    assert colors[-1] < 0.4 * colors[0]


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_run_with_colors_is_saved_and_predicts(
    in_channels: int, make_job: Any, toys: Any
) -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 2, "architecture": NAME, "cache": "none"}
    raw |= {"options": {"width": 4, "multitask": True, "colors": True}, "device": "cpu"}
    raw |= {"labels": str(toys.labels_file), "in_channels": in_channels, "workers": 0}
    config = check_config(NetsConfig, raw, "test")
    job = make_job(val=toys.samples[4:5])
    FAMILY.train(config, job)
    assert read_weights(job.out / LAST)["head.colors.weight"].shape == (in_channels, 8, 1, 1)
    found = list(FAMILY.predict(job.out, config, toys.samples[:2], PredictOptions()))
    assert [p.key for p in found] == [s.key for s in toys.samples[:2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 5}, "options.depth: expected 6 or 7, found 5"),
        ({"width": 6}, "options.width: expected a multiple of 4, found 6"),
        ({"halving": 2}, "options.halving: expected 1 or 3, found 2"),
        ({"reach": 8}, "options.reach: expected together with multitask: true"),
        ({"colors": True}, "options.colors: expected together with multitask: true"),
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
