"""FiLM and the task's head around networks of every family."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo.config import check_config
from zoo.families import load_family
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.metadata.columns import Column, Columns
from zoo.metadata.config import MetadataConfig
from zoo.metadata.network import (
    Film,
    Learned,
    MetadataNetwork,
    add_metadata,
    find_deepest,
    put,
    take,
    without_task,
)

COLUMNS = Columns((Column("age", (), 40.0, 10.0), Column("sex", ("F", "M")), Column("bmi")))
KNOWN = {"age": 60.0, "sex": "M", "bmi": -0.5}
SMALL_SWIN = {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
SWIN = {"strict_img_size": False, **SMALL_SWIN}
# Of each kind of encoder, and of what encoders give.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("smp", {"encoder": "resnet18"}),
    "attention": ("smp", {"encoder": "resnet18", "attention": "cbam"}),
    "deep": (
        "smp",
        {"architecture": "unetplusplus", "encoder": "resnet18", "deep_supervision": [1, 1, 1, 1]},
    ),
    "deeplabv3plus": ("smp", {"architecture": "deeplabv3plus", "encoder": "resnet18"}),
    "pspnet": ("smp", {"architecture": "pspnet", "encoder": "resnet18"}),
    "mit": ("smp", {"architecture": "segformer", "encoder": "mit_b0"}),
    "swin": (
        "smp",
        {"encoder": "tu-swin_tiny_patch4_window7_224", "encoder_options": SWIN},
    ),
    "vit": (
        "smp",
        {
            "architecture": "dpt",
            "encoder": "tu-vit_small_patch16_dinov3",
            "encoder_options": {"dynamic_img_size": True, "embed_dim": 48, "num_heads": 2},
        },
    ),
    "segformer": (
        "segformer",
        {
            "network": {
                "hidden_sizes": [8, 16, 16, 16],
                "depths": [1, 1, 1, 1],
                "num_attention_heads": [1, 2, 2, 2],
                "decoder_hidden_size": 16,
            }
        },
    ),
    "torchvision": (
        "torchvision",
        {"architecture": "deeplabv3_mobilenet_v3_large"},
    ),
    "monai": ("monai", {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}),
    "huggingface": (
        "huggingface",
        {
            "architecture": "upernet",
            "network": {
                "hidden_size": 8,
                "backbone_config": {
                    "model_type": "convnext",
                    "hidden_sizes": [8, 12, 16, 20],
                    "depths": [1, 1, 1, 1],
                },
            },
        },
    ),
    "unet3plus": ("nets", {"architecture": "unet3plus", "options": {"width": 4, "own_width": 4}}),
    "resunet_a": ("nets", {"architecture": "resunet_a", "options": {"width": 4}}),
    "resunet_plus_plus": ("nets", {"architecture": "resunet_plus_plus", "options": {"width": 8}}),
    "lawin": (
        "nets",
        {
            "architecture": "lawin",
            "encoder": "mit_b0",
            "options": {"width": 128, "embedding": 16},
        },
    ),
    "upernet": (
        "nets",
        {
            "architecture": "upernet",
            "encoder": "resnet18",
            "options": {"width": 16, "auxiliary_width": 8},
            "deep_supervision": [1, 0.4],
        },
    ),
    "ocr": (
        "nets",
        {
            "architecture": "ocr",
            "encoder": "tu-hrnet_w18_small",
            "options": {"width": 16, "key_width": 8},
        },
    ),
}
every = pytest.mark.parametrize("name", NETWORKS)


def config_of(name: str, **metadata: Any) -> tuple[Any, Any]:
    family_name, raw = NETWORKS[name]
    family = load_family(family_name)
    given = {"columns": ["age", "sex", "bmi"], **metadata}
    small = {"size": [64, 96], "epochs": 1, "batch": 2, "labels": "hand_bones"}
    return family, check_config(family.Config, small | raw | {"metadata": given}, name)


def wrap(name: str, **metadata: Any) -> tuple[MetadataNetwork, nn.Module, torch.Tensor]:
    family, config = config_of(name, **metadata)
    torch.manual_seed(0)
    plain = family.build(config, 3).eval()
    alone = copy.deepcopy(plain)
    images = torch.randn(2, 1, 64, 96)
    network = add_metadata(plain, COLUMNS, config.metadata, (1, 1, 64, 96)).eval()
    return network, alone, images


def rows_of(*known: dict[str, Any]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(COLUMNS.encode(values)) for values in known])


def flat(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in flat(part)]


@every
@pytest.mark.slow
def test_an_untrained_film_changes_nothing_and_a_trained_one_each_image(name: str) -> None:
    network, alone, images = wrap(name)
    rows = rows_of(KNOWN, {})
    with torch.no_grad():
        expected = flat(alone(images))
        assert all(map(torch.equal, flat(network(images, rows)), expected))
        assert all(map(torch.equal, flat(network(images)), expected))
        assert network.film is not None
        network.film.layers[-1].weight.normal_(0, 1)
        found = flat(network(images, rows))
        swapped = flat(network(images, rows.flip(0)))
    assert not any(map(torch.equal, found, expected))
    # Each image by its own row alone.
    assert all(
        not torch.allclose(a[i], b[i]) for a, b in zip(found, swapped, strict=True) for i in (0, 1)
    )


@every
@pytest.mark.slow
@pytest.mark.long
def test_an_exported_network_is_shown_rows(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from zoo.export.conversion import NetworkShape, convert
    from zoo.export.session import OnnxNetwork

    if name == "resunet_a":
        pytest.skip("expected a pooling that ONNX has, found another")
    network, _, images = wrap(name, use="both")
    assert network.film is not None
    with torch.no_grad():
        network.film.layers[-1].weight.normal_(0, 0.3)
    shape = NetworkShape(1, 3, (64, 96), 32, "sigmoid", COLUMNS)
    entry = convert(without_task(network), shape, tmp_path, "a.onnx")
    assert entry.metadata == COLUMNS
    opened = OnnxNetwork(tmp_path, entry, 1, 3)
    rows = rows_of(KNOWN, {})
    with torch.no_grad():
        wanted = [network(images, given).numpy() for given in (rows, rows.flip(0))]
    found = [opened(images.numpy(), given.numpy()) for given in (rows, rows.flip(0))]
    for number in range(2):
        apart = np.abs(wanted[0][number] - wanted[1][number]).max()
        off = max(np.abs(a[number] - b[number]).max() for a, b in zip(found, wanted, strict=True))
        assert off < apart / 100


@every
@pytest.mark.slow
def test_gradients_reach_film_head_and_encoder(name: str) -> None:
    network, _, images = wrap(name, use="both", weight=2.0)
    given = network.train()(images, rows_of(KNOWN, KNOWN))
    assert isinstance(given, Learned)
    sum(o.square().mean() for o in flat(given.outputs)).backward(retain_graph=True)
    assert network.film is not None
    assert network.head is not None
    assert network.film.layers[-1].weight.grad.abs().sum() > 0
    assert network.head.weight.grad is None
    given.loss.backward()
    assert network.head.weight.grad.abs().sum() > 0
    network.zero_grad()
    network(images, rows_of(KNOWN, KNOWN)).loss.backward()
    # What the network is shown is no way to what it predicts.
    film = [p.grad for p in network.film.parameters()]
    assert all(grad is None or not grad.any() for grad in film)
    assert any(p.grad is not None and p.grad.any() for p in network.encoder.parameters())


@every
@pytest.mark.slow
@pytest.mark.long
def test_gradient_checkpointing_computes_the_same(name: str) -> None:
    found = []
    for saves_memory in (False, True):
        network, _, images = wrap(name, use="both", dropout=0.0)
        network.train()
        if saves_memory:
            checkpoint_blocks(config_of(name)[0].blocks(network.plain))
        torch.manual_seed(1)
        given = network(images, rows_of(KNOWN, {"age": 30}))
        (sum(o.square().mean() for o in flat(given.outputs)) + given.loss).backward()
        found.append({k: p.grad for k, p in network.named_parameters() if p.grad is not None})
    plain, saving = found
    assert plain.keys() == saving.keys()
    assert all(torch.equal(plain[key], saving[key]) for key in plain)


@pytest.mark.slow
def test_a_copy_has_its_own_film() -> None:
    network, _, images = wrap("unet")
    copied = copy.deepcopy(network)
    assert copied.film is not None
    with torch.no_grad():
        copied.film.layers[-1].weight.normal_(0, 1)
        rows = rows_of(KNOWN, KNOWN)
        assert not torch.equal(copied(images, rows), network(images, rows))
        assert torch.equal(network(images, rows), network(images))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        (
            "huggingface",
            {
                "architecture": "dpt",
                "network": {
                    "hidden_size": 16,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 2,
                    "intermediate_size": 32,
                    "neck_hidden_sizes": [8, 8, 8, 8],
                    "fusion_hidden_size": 8,
                    "backbone_out_indices": [0, 1, 2, 3],
                },
            },
        ),
        (
            "nets",
            {
                "architecture": "semask",
                "encoder": "tu-swin_tiny_patch4_window7_224",
                "encoder_options": SWIN,
                "options": {"width": 16},
            },
        ),
    ],
)
@pytest.mark.slow
def test_networks_without_a_feature_map_are_refused(name: str, raw: dict[str, Any]) -> None:
    family: Any = load_family(name)
    small = {"size": [64, 64], "epochs": 1, "batch": 2, "metadata": {"columns": ["age"]}}
    config = check_config(family.Config, small | raw, "test")
    with pytest.raises(ValueError, match="metadata: expected a network whose encoder gives a feat"):
        add_metadata(family.build(config, 3), COLUMNS, config.metadata, (1, 1, 64, 64))


def test_film_is_the_papers() -> None:
    """Equation 2: gamma times the features plus beta, of each image and channel."""
    film = Film(2, 3, 4)
    rows = torch.randn(5, 2)
    with torch.no_grad():
        film.layers[-1].weight.normal_()
        film.layers[-1].bias.normal_()
        made = film.layers(rows)
    features = torch.randn(5, 3, 6, 7)
    found = film(features, rows)
    for image in range(5):
        for channel in range(3):
            gamma, beta = 1 + made[image, channel], made[image, 3 + channel]
            assert torch.allclose(
                found[image, channel], gamma * features[image, channel] + beta, atol=1e-6
            )


class Mean(nn.Module):
    """Its only feature is the image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(images)
        return features


def tiny(**metadata: Any) -> MetadataNetwork:
    config = MetadataConfig(columns={"age": "auto", "sex": "auto", "bmi": "auto"}, **metadata)
    return add_metadata(Mean(), COLUMNS, config, (1, 1, 4, 4))


def test_the_tasks_loss_is_the_mean_of_what_is_known() -> None:
    network = tiny(use="task", weight=0.5)
    assert network.head is not None
    images = torch.randn(3, 1, 4, 4)
    rows = rows_of(KNOWN, {"age": 20.0}, {"sex": "F"})
    guess = network.head(images.mean((2, 3)))
    # In units of the deviation: ages 60 and 20 are 2 and -2.
    ages = nn.functional.smooth_l1_loss(guess[:2, 0], torch.tensor([2.0, -2.0]))
    sexes = nn.functional.cross_entropy(guess[[0, 2], 1:3], torch.tensor([1, 0]))
    bmi = nn.functional.smooth_l1_loss(guess[:1, 3], torch.tensor([-0.5]))
    expected = 0.5 * (ages + sexes + bmi) / 3
    assert torch.allclose(network.train()(images, rows).loss, expected)
    nothing = network(images, rows_of({}, {}, {})).loss
    assert nothing.requires_grad
    assert float(nothing.detach()) == 0


def test_columns_are_dropped_while_learning_alone() -> None:
    network = tiny(dropout=0.3)
    rows = rows_of(KNOWN).expand(4000, -1)
    torch.manual_seed(0)
    shown = network._drop(rows)
    gone = shown[:, [1, 4, 6]]
    # Each by its own draw, or by the image's: 1 - .7 * .7; all three: .3 + .7 * .3 ** 3.
    assert gone.mean(0).tolist() == pytest.approx([0.51] * 3, abs=0.03)
    assert float(gone.all(1).float().mean()) == pytest.approx(0.3 + 0.7 * 0.3**3, abs=0.03)
    # A column is missing as it is where it is not known, or there as it was.
    missing = network.missing
    for first, last in ((0, 2), (2, 5), (5, 7)):
        is_gone = (shown[:, first:last] == missing[first:last]).all(1)
        assert (is_gone | (shown[:, first:last] == rows[:, first:last]).all(1)).all()
    assert torch.equal(tiny(dropout=0.0)._drop(rows), rows)
    assert torch.equal(tiny(use="task", dropout=0.9)._drop(rows), rows)


def test_features_are_put_back_where_they_were() -> None:
    def maps() -> list[torch.Tensor]:
        return [torch.zeros(1, 4, 8, 8), torch.zeros(1, 9, 2, 2)]

    tokens, changed = torch.zeros(1, 5, 9), torch.ones(1, 9, 2, 2)
    for given in (maps()[1], maps(), tuple(maps()), (maps(), [None]), (maps(), None, tokens)):
        place = find_deepest(given)
        assert place is not None
        found = put(given, place, changed)
        assert type(found) is type(given)
        assert take(found, place) is changed
    assert find_deepest([tokens]) is find_deepest({"last_hidden_state": tokens}) is None
