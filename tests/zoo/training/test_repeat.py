"""The same seed gives the same weights, whatever prepares the batches; windows and caches too."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from run_weights import differing_weights

from zoo.config import check_config
from zoo.data.windows import Windows
from zoo.families import load_family

pytestmark = pytest.mark.slow

AUGMENT = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "rotate": [-10, 10], "p": 0.5},
]
SIZES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
# Each with what is random in it: dropout, and blocks that are skipped by chance.
FAMILIES: dict[str, dict[str, Any]] = {
    "smp": {
        "encoder": "tu-lcnet_035",
        "options": {"decoder_channels": [32, 24, 16, 16, 8]},
        "optim": {"lr": 3e-3},
    },
    "segformer": {
        "network": {**SIZES, "num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 16},
    },
    "huggingface": {
        "network": {
            "hidden_size": 16,
            "backbone_config": {
                "model_type": "convnext",
                "hidden_sizes": [8, 12, 16, 20],
                "depths": [1, 1, 1, 1],
                "drop_path_rate": 0.2,
            },
        }
    },
    "monai": {"feature_size": 12, "drop_path_rate": 0.2},
    "torchvision": {"architecture": "deeplabv3_mobilenet_v3_large"},
    "nets": {"architecture": "unet3plus", "options": {"width": 4, "own_width": 4, "guided": True}},
}


def _train(family_name: str, job: Any, toys: Any, **changes: Any) -> Path:
    family = load_family(family_name)
    raw = {
        "labels": str(toys.labels_file),
        "size": [64, 64],
        "epochs": 2,
        "batch": 2,
        "augment": AUGMENT,
    }
    raw = raw | FAMILIES[family_name] | changes
    family.train(check_config(family.Config, raw, "test"), job)
    return Path(job.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights(family: str, make_job: Any, toys: Any) -> None:
    first = _train(family, make_job("first"), toys)
    torch.rand(3)
    again = _train(family, make_job("again"), toys)
    assert not differing_weights(first, again)
    other = _train(family, make_job("other"), toys, seed=1)
    assert differing_weights(first, other)


WINDOWS = {"size": [32, 32], "window": [32, 32], "work_size": [96, 64], "windows_per_image": 2}


@pytest.mark.parametrize(
    "changes",
    [{}, {**WINDOWS, "focus": {"tile-3": 0.5, "shared": 0.25}}, {"soft_targets": True}],
    ids=["whole", "windows", "soft"],
)
def test_neither_workers_nor_caches_decide(changes: Any, make_job: Any, toys: Any) -> None:
    first = _train("smp", make_job("none"), toys, **changes, cache="none")
    ways = {
        "workers": {"workers": 2},
        "disk": {"cache": "disk", "cache_dir": str(make_job("files").out)},
        "warm": {"cache": "disk", "cache_dir": str(make_job("files").out)},
    }
    for name, way in ways.items():
        other = _train("smp", make_job(name), toys, **changes, **way)
        assert not differing_weights(first, other), name
    assert any(make_job("files").out.glob("*.npy"))


@pytest.mark.learns
def test_windows_are_learned_and_scored(make_job: Any, toys: Any, exceeds: Any) -> None:
    pair = toys.samples[:2]
    job = make_job(train=pair, val=pair)
    # Large enough for batch norms whose statistics are any good.
    sizes = {"size": [64, 64], "window": [64, 64], "work_size": [192, 128]}
    changes = {**sizes, "windows_per_image": 3, "optim": {"lr": 1e-2}, "augment": []}
    out = _train("smp", job, toys, **changes, epochs=60, validate_every=60)
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    # Three windows of each of two images, two in a batch.
    assert row["step"] == str(60 * 3)
    # Where it is everywhere, it is .79.
    exceeds("Dice", float(row["sheet"]), 0.9)


def test_only_what_the_network_sees_has_to_be_whole_strides(tiny_smp: Any) -> None:
    config = tiny_smp(size=[100, 70], window=[64, 32])
    assert (config.image_size, config.input_size) == ((100, 70), (64, 32))


def test_the_margin_arrives(tiny_smp: Any, toys: Any) -> None:
    windows = tiny_smp(**WINDOWS, window_margin=0.5).windows(toys.labels)
    assert windows.margins((96, 64)) == (16, 16)
    # Without one, what is augmented is the window.
    assert tiny_smp(**WINDOWS, window_margin=0).windows(toys.labels).margins((96, 64)) == (0, 0)
    assert tiny_smp(**WINDOWS).windows(toys.labels) == Windows((32, 32), toys.labels, {}, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"focus": {"shared": 0.5}}, "focus: expected together with 'window'"),
        ({"windows_per_image": 2}, "windows_per_image: expected together with 'window'"),
        ({"window_margin": 0.25}, "window_margin: expected together with 'window'"),
        (WINDOWS | {"window_margin": 2}, "'window_margin': expected a value less than or equal"),
        ({"size": [100, 64]}, "'size': .* multiples of 32, found"),
        ({"size": [96, 64], "window": [40, 32]}, "'window': .* multiples of 32, found"),
        ({"size": [0, 64], "window": [32, 32]}, "'size': .* positive height and width"),
        (WINDOWS | {"focus": {"tyle": 0.5}}, "focus: .*tyle"),
        (WINDOWS | {"focus": {"tile-1": 0.7, "shared": 0.7}}, "focus: expected shares"),
        (WINDOWS | {"size": [64, 64]}, "size: expected the window's"),
    ],
)
def test_windows_that_make_no_sense(tiny_smp: Any, changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_smp(**changes)
