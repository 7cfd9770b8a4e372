from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families import load_family
from zoo.families.huggingface.config import HuggingFaceConfig
from zoo.families.huggingface.family import FAMILY

pytestmark = pytest.mark.slow

SWIN = {
    "model_type": "swin",
    "embed_dim": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
}
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "upernet": {"hidden_size": 8, "auxiliary_channels": 8, "backbone_config": SWIN},
    "beit": {
        **TRANSFORMER,
        "out_indices": [1, 2, 3, 4],
        "use_relative_position_bias": True,
        "auxiliary_channels": 8,
    },
    "dpt": {
        **TRANSFORMER,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8,
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(architecture: str = "upernet", /, **changes: Any) -> HuggingFaceConfig:
    raw = {
        "size": [64, 64],
        "epochs": 1,
        "batch": 2,
        "architecture": architecture,
        "network": NETWORKS[architecture],
        "deep_supervision": [1.0, 0.4],
    }
    return check_config(HuggingFaceConfig, raw | changes, "test")


def test_the_family_is_found_by_name() -> None:
    assert load_family("huggingface").Config is HuggingFaceConfig


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_are_transformers_own(architecture: str, channels: int) -> None:
    mine = FAMILY.build(make(architecture, channels=channels), 5).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = mine.network(images.expand(-1, channels, -1, -1)).logits
        found = mine(images)
    size = expected.shape[-2:]
    found = F.interpolate(found, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_the_auxiliary_head_learns_beside(architecture: str) -> None:
    """Its logits are part of transformers' own loss, which asks for one class a pixel."""
    torch.manual_seed(0)
    mine = FAMILY.build(make(architecture), 5).train()
    for module in mine.modules():  # twice the same in training mode
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    images, labels = torch.randn(2, 1, 64, 64), torch.randint(0, 5, (2, 64, 64))
    every = [F.interpolate(o, (64, 64), mode="bilinear", align_corners=False) for o in mine(images)]
    weights = (1.0, mine.network.config.auxiliary_loss_weight)
    expected = mine.network(images, labels=labels).loss
    losses = [w * F.cross_entropy(o, labels) for w, o in zip(weights, every, strict=True)]
    torch.testing.assert_close(sum(losses), expected)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_images_that_are_not_square(architecture: str) -> None:
    config = make(architecture, size=[64, 96], deep_supervision=[])
    network = FAMILY.build(config, 5).train()
    logits = network(torch.randn(2, 1, 64, 96))
    height, width = logits.shape[-2:]
    assert height * 96 == width * 64


@pytest.mark.parametrize("architecture", NETWORKS)
def test_pretrained_weights_are_taken_but_for_the_classes(
    architecture: str, tmp_path: Path
) -> None:
    theirs = FAMILY.build(make(architecture, channels=3), 7)
    theirs.network.save_pretrained(tmp_path / "net")
    config = make(architecture, channels=3, pretrained=str(tmp_path / "net"))
    mine, given = FAMILY.build(config, 5).state_dict(), theirs.state_dict()
    other = [k for k in mine if mine[k].shape != given[k].shape]
    assert other
    assert all(len(mine[k]) == 5 for k in other)
    assert all(torch.equal(mine[k], given[k]) for k in mine if k not in other)


def test_pretrained_weights_of_another_network(tmp_path: Path) -> None:
    theirs = FAMILY.build(make(channels=3), 7)
    theirs.network.save_pretrained(tmp_path / "net")
    wide = {**NETWORKS["upernet"], "backbone_config": {**SWIN, "embed_dim": 24}}
    config = make(channels=3, network=wide, pretrained=str(tmp_path / "net"))
    with pytest.raises(ValueError, match=r"found others: \d+ differ, such as 'backbone\."):
        FAMILY.build(config, 5)


def test_pretrained_weights_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"pretrained '.*nowhere': could not get this UPerNet"
    ) as e:
        FAMILY.build(make(pretrained=str(tmp_path / "nowhere")), 3)
    assert "pretrained=null" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_pretrained_run_says_whose_weights_and_predicts_without_them(
    tmp_path: Path, make_job: Callable[..., Any], toys: Any
) -> None:
    theirs = FAMILY.build(make(channels=3), 7)
    theirs.network.save_pretrained(tmp_path / "net")
    labels = str(toys.labels_file)
    config = make(channels=3, pretrained=str(tmp_path / "net"), labels=labels)
    job = make_job()
    FAMILY.train(config, job)
    (source,) = json.loads((job.out / "licences.json").read_text())
    assert (source["source"], source["licence"]) == (str(tmp_path / "net"), "unknown")
    (tmp_path / "net" / "model.safetensors").unlink()
    assert len(list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))) == 6


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("upernet", {"network": {}}, "network.backbone_config: expected its dimensions"),
        (
            "upernet",
            {"network": {"backbone_config": {"model_type": "swim"}}},
            "with model_type: swin, convnext",
        ),
        (
            "upernet",
            {"network": {"backbone_config": {**SWIN, "depth": 2}}},
            r"network\.backbone_config\.depth: unknown key; known are .*depths",
        ),
        ("beit", {"network": {"hiden_size": 8}}, r"network\.hiden_size: unknown key"),
        ("dpt", {"network": {"num_labels": 8}}, r"network\.num_labels: unknown key"),
        ("dpt", {"network": {"patch_size": 24}}, r"multiples of network\.patch_size 24"),
        (
            "beit",
            {"network": {**NETWORKS["beit"], "num_attention_heads": 3}},
            r"network\.num_attention_heads: expected a divisor of hidden_size 16, found 3",
        ),
        ("beit", {"batch": 1}, "batch: expected at least 2"),
        ("upernet", {"deep_supervision": [1, 1, 1]}, "expected 2 weights, finest first, or none"),
        ("upernet", {"architecture": "mask2former"}, "'upernet', 'beit' or 'dpt'"),
    ],
)
def test_bad_configs(architecture: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(architecture, **changes)


def test_values_of_another_type() -> None:
    config = make("beit", network={**NETWORKS["beit"], "hidden_size": "wide"})
    with pytest.raises(ValueError, match=r"network: .*hidden_size"):
        FAMILY.build(config, 3)


def test_dimensions_that_do_not_fit() -> None:
    config = make("beit", network={**NETWORKS["beit"], "out_indices": [1, 2]})
    with pytest.raises(ValueError, match="network: these dimensions do not fit: ValueError"):
        FAMILY.build(config, 3)
