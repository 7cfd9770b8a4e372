"""The sizes of networks beside their papers', as the documentation lists them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from zoo.families.encoders import build_encoder
from zoo.families.nets.network import NETWORKS
from zoo.families.outlines import _on_meta

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[4] / "docs" / "training.md"
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| [^|]+ \| (?P<theirs>[\d.]+) \([^|]+\) "
    r"\| (?P<ours>[\d.]+) \| (?P<why>[^|]*)\|$",
    re.MULTILINE,
)
# Name -> encoder, what it takes, and what the network takes: those of the table's rows.
BUILT: dict[str, tuple[str | None, dict[str, Any], dict[str, Any]]] = {
    "unet3plus": (None, {}, {"classes": 1, "outputs": 5}),
    "resunet_plus_plus": (None, {}, {"classes": 1}),
    "resunet_a": (None, {}, {"classes": 6, "halving": 3, "multitask": True, "colors": True}),
    "swin_unet": ("tu-swin_tiny_patch4_window7_224", {}, {"classes": 9, "encoder_blocks": 2}),
    "effisegnet": ("tu-tf_efficientnet_b7", {}, {"classes": 1}),
    "ocr": ("tu-hrnet_w48", {"feature_location": ""}, {"outputs": 2}),
    "sam2_unet": ("tu-sam2_hiera_large", {}, {"classes": 1, "outputs": 3}),
    "maxvit_unet": ("tu-maxvit_tiny_tf_512", {}, {"classes": 2, "outputs": 2}),
    "lawin": ("mit_b5", {}, {}),
    "knet": ("tu-swin_large_patch4_window7_224", {}, {"outputs": 4}),
    "semask": ("tu-swin_base_patch4_window12_384", {}, {}),
    "upernet": ("tu-beit_base_patch16_224", {"img_size": 640}, {"outputs": 2, "width": 768}),
}
ROWS = {row["name"]: row for row in ROW.finditer(TABLE.read_text("utf-8"))}


def test_every_network_has_a_row() -> None:
    assert ROWS.keys() == BUILT.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_size_is_the_one_that_is_told_and_a_difference_has_a_reason(
    name: str, build: Any, millions: Any
) -> None:
    kind, takes, options = BUILT[name]
    with _on_meta():
        encoder = None if kind is None else build_encoder(kind, None, 3, takes)
        network = build(name, encoder, **{"channels": 3, "classes": 150, **options})
    row = ROWS[name]
    assert millions(network) == pytest.approx(float(row["ours"]), abs=0.006)
    differs = abs(float(row["ours"]) / float(row["theirs"]) - 1) > 0.01
    assert differs == bool(row["why"].strip())


def test_a_knet_is_a_upernet_and_its_stages(build: Any, millions: Any) -> None:
    """So that what its decoder has is UPerNet's, whose size is published."""
    with _on_meta():
        swin = ("tu-swin_large_patch4_window7_224", None, 3, {})
        knet = build("knet", build_encoder(*swin), channels=3, classes=150, outputs=4)
        upernet = build("upernet", build_encoder(*swin), channels=3, classes=150)
    stages = 3 * millions(knet.stages[0])
    assert millions(knet) == pytest.approx(millions(upernet) + stages)
