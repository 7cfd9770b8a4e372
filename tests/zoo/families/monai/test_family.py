from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import SwinUNETR

from zoo.config import check_config
from zoo.families import load_family
from zoo.families.monai.config import MonaiConfig
from zoo.families.monai.family import FAMILY

pytestmark = pytest.mark.slow


def make(**changes: Any) -> MonaiConfig:
    raw = {"size": [64, 96], "epochs": 1, "batch": 1, "feature_size": 12, "num_heads": [1, 2, 3, 4]}
    return check_config(MonaiConfig, raw | changes, "test")


def test_the_family_is_found_by_name() -> None:
    assert load_family("monai").Config is MonaiConfig


def test_logits_have_the_images_size() -> None:
    network = FAMILY.build(make(), 5).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 64, 96)).shape == (2, 5, 64, 96)


def test_its_volumes_have_the_size_that_is_published() -> None:
    """62.2 M parameters, as MONAI states for feature size 48, 14 classes and volumes."""
    defaults = make(feature_size=48, num_heads=[3, 6, 12, 24])
    options = {
        "feature_size": defaults.feature_size,
        "depths": defaults.depths,
        "num_heads": defaults.num_heads,
        "window_size": defaults.window_size,
    }
    network = SwinUNETR(in_channels=1, out_channels=14, spatial_dims=3, **options)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(62.19, abs=0.01)


def test_each_option_arrives() -> None:
    plain = FAMILY.build(make(), 3)
    second = FAMILY.build(make(use_v2=True, norm="batch", drop_path_rate=0.2, window_size=5), 3)
    assert not hasattr(plain.network.swinViT, "layers1c")
    assert hasattr(second.network.swinViT, "layers1c")
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in second.modules())
    assert second.network.swinViT.window_size == (5, 5)
    last = second.network.swinViT.layers4[0].blocks[-1].drop_path.drop_prob
    assert last == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_size": 20}, "feature_size: expected a multiple of 12, found 20"),
        ({"num_heads": [5, 5, 5, 5]}, r"num_heads: expected divisors of the channels \[12, 24"),
        ({"size": [32, 64]}, r"size: expected at least 64 for norm=instance"),
        (
            {"size": [256, 256], "window": [32, 64]},
            r"window: expected at least 64 for norm=instance, .* found \[32, 64\]",
        ),
        ({"architecture": "unetr"}, "'architecture': expected 'swinunetr'"),
        ({"deep_supervision": [1, 0.5]}, "gives 1 output while it learns: expected none, found 2"),
    ],
)
def test_bad_configs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
