"""Plain Vision Transformers as encoders: their features, their weights, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from zoo.families.encoders import build_encoder
from zoo.run_files.checkpoints import save_weights

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"embed_dim": 16, "depth": 6, "num_heads": 2}
VIT, BEIT = "tu-vit_tiny_patch16_224", "tu-beit_base_patch16_224"


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        (VIT, {"dynamic_img_size": True}, (64, 96)),
        (VIT, {"img_size": (96, 64)}, (96, 64)),
        (BEIT, {"img_size": 64}, (64, 64)),
        (VIT, {"dynamic_img_size": True, "out_indices": [0, 1, 2, 5]}, (32, 32)),
    ],
)
def test_features_have_an_ordinary_encoders_sizes(
    name: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    encoder = build_encoder(name, None, 1, SMALL | options)
    found = encoder(torch.randn(2, 1, *size))
    widths = [1, 0, 16, 16, 16, 16]
    assert encoder.out_channels == widths
    expected = [(2, w, size[0] // 2**i, size[1] // 2**i) for i, w in enumerate(widths)]
    assert [tuple(f.shape) for f in found] == expected


def test_each_resolution_is_of_its_own_block() -> None:
    """At a third, a half, two thirds and the end: 3, 5, 7 and 11 of 12, as by BEiT's authors."""
    encoder = build_encoder(VIT, None, 1, SMALL | {"depth": 12, "dynamic_img_size": True}).eval()
    images = torch.randn(1, 1, 64, 64)
    blocks = encoder.model.model.blocks
    read: dict[int, torch.Tensor] = {}
    for place, block in enumerate(blocks):
        block.register_forward_hook(lambda _, __, out, place=place: read.update({place: out}))
    with torch.no_grad():
        features = encoder(images)[2:]
    for scale, place, found in zip(encoder.scales, (3, 5, 7, 11), features, strict=True):
        plane = read[place][:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
        with torch.no_grad():
            torch.testing.assert_close(found, scale(plane))


def test_weights_of_timm_from_a_file(tmp_path: Path) -> None:
    """Colours are summed, positions are stretched, and the classifier is left out."""
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7, **SMALL)
    save_weights(theirs, tmp_path / "vit.safetensors")
    given = str(tmp_path / "vit.safetensors")
    mine = build_encoder(VIT, given, 1, SMALL | {"img_size": 64}).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        colours = images.expand(-1, 3, -1, -1)
        *_, last = theirs.eval().forward_intermediates(colours, intermediates_only=True)
        torch.testing.assert_close(mine(images)[4 + 1], mine.scales[3](last))
    larger = build_encoder(VIT, given, 1, SMALL | {"img_size": 96})
    assert larger.model.model.pos_embed.shape == (1, 37, 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tu-vit_tiny_patch16_224", {"patch_size": 8}, "expected patches of 16 x 16"),
        (VIT, {"out_indices": [1, 3]}, r"4 blocks, found features of blocks \[1, 3\]"),
        (VIT, {"depth": 4}, r"4 blocks, found features of blocks \[0, 1, 1, 3\]"),
    ],
)
def test_what_makes_no_pyramid(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(name, None, 1, SMALL | options)
