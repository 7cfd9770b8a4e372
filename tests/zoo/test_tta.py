from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import adjust_contrast, adjust_gamma

from zoo.data.batches import normalize
from zoo.inference.predict import probabilities
from zoo.inference.setting import Setting
from zoo.tta import Variant, parse_variant, parse_variants

CPU = torch.device("cpu")


class Twice(nn.Module):
    """Logits that depend on each pixel alone; keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.cat([2 * images, 1 - images], dim=1)


def _images(height: int = 64, width: int = 96) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(2, 1, height // 8, width // 8)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hflip", Variant(hflip=True)),
        ("vflip", Variant(vflip=True)),
        ("scale:1.25", Variant(scale=1.25)),
        ("gamma:.9", Variant(gamma=0.9)),
        ("vflip+contrast:0.8+hflip", Variant(hflip=True, vflip=True, contrast=0.8)),
    ],
)
def test_names(name: str, expected: Variant) -> None:
    assert parse_variant(name) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["scale"], "tta 'scale': expected hflip, .* found the factor ''"),
        (["scale:big"], "found the factor 'big'"),
        (["scale:-1"], "expected a positive factor, found -1"),
        (["scale:nan"], "expected a positive factor, found nan"),
        (["gamma:1.0"], "a factor of 1 is the plain image"),
        (["hflip:2"], "found 'hflip:2'"),
        (["hflip+"], "found ''"),
        (["rot90"], "found 'rot90'"),
        (["hflip+hflip"], "found 'hflip' twice"),
        (["hflip", "scale:0.50", "scale:0.5"], "tta 'scale:0.5': expected each variant once"),
        (["hflip+vflip", "vflip+hflip"], "each variant once"),
    ],
)
def test_bad_names(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_variants(names)


@pytest.mark.parametrize("name", ["hflip", "vflip", "hflip+vflip"])
def test_flips_are_undone_exactly(name: str) -> None:
    images, network = _images(), Twice()
    plain = probabilities(network, images, Setting(CPU))
    found = probabilities(network, images, Setting(CPU, tta=(name,)))
    assert torch.equal(found, plain)
    axes = [axis for axis, flip in ((-1, "hflip"), (-2, "vflip")) if flip in name]
    assert torch.equal(network.seen[-1], network.seen[0].flip(axes))


@pytest.mark.parametrize(
    ("scale", "stride", "seen"),
    [(0.75, 32, (64, 64)), (1.5, 32, (96, 160)), (0.75, 1, (48, 72)), (0.1, 32, (32, 32))],
)
def test_scaled_images_have_sides_of_whole_strides(
    scale: float, stride: int, seen: tuple[int, int]
) -> None:
    network = Twice()
    setting = Setting(CPU, tta=(f"scale:{scale}",), stride=stride)
    found = probabilities(network, _images(), setting)
    assert [tuple(values.shape[-2:]) for values in network.seen] == [(64, 96), seen]
    assert found.shape == (2, 2, 64, 96)


@pytest.mark.parametrize("scale", [0.75, 1.25, 1.5])
def test_scales_show_the_same_place(scale: float) -> None:
    """A ramp stays a ramp: any shift of half a pixel would move it by 2 levels or more."""
    ramp = (torch.arange(128) * 2).to(torch.uint8).expand(1, 1, 64, 128)
    plain = probabilities(Twice(), ramp, Setting(CPU)).int()
    found = probabilities(Twice(), ramp, Setting(CPU, tta=(f"scale:{scale}",), stride=32)).int()
    inner = (found - plain)[..., 4:-4]
    assert inner.abs().max() <= 1


def test_changes_of_brightness_are_torchvisions() -> None:
    images, network = _images(), Twice()
    probabilities(network, images, Setting(CPU, tta=("contrast:0.8", "gamma:1.2")))
    values = images.float() / 255
    for seen, expected in zip(
        network.seen[1:], (adjust_contrast(values, 0.8), adjust_gamma(values, 1.2)), strict=True
    ):
        assert torch.allclose(seen, normalize(expected * 255), atol=1e-5)


def test_contrast_is_each_images_own() -> None:
    images = _images()
    both, one = Twice(), Twice()
    setting = Setting(CPU, tta=("contrast:1.3",))
    probabilities(both, images, setting)
    probabilities(one, images[1:], setting)
    assert torch.allclose(both.seen[1][1:], one.seen[1], atol=1e-6)


class Corner(nn.Module):
    """One class: logit 4 in the upper left pixel of what it sees, else -1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.full_like(images, -1.0)
        logits[..., 0, 0] = 4
        return logits


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_what_is_averaged(average: str) -> None:
    setting = Setting(CPU, tta=("hflip", "vflip"), average=average)  # type: ignore[arg-type]
    found = probabilities(Corner(), torch.zeros(1, 1, 4, 6, dtype=torch.uint8), setting)[0, 0]

    def sigmoid(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    in_one = sigmoid((4 - 1 - 1) / 3)
    if average == "probabilities":
        in_one = (sigmoid(4) + 2 * sigmoid(-1)) / 3
    for place in ((0, 0), (0, 5), (3, 0)):
        assert found[place] == round(255 * in_one)
    assert found[3, 5] == round(255 * sigmoid(-1))


def test_a_name_of_two_moves_is_one_pass() -> None:
    network = Twice()
    probabilities(network, _images(), Setting(CPU, tta=("hflip+gamma:1.2", "vflip")))
    assert len(network.seen) == 3
    values = adjust_gamma(_images().float() / 255, 1.2).flip(-1)
    assert torch.allclose(network.seen[1], normalize(values * 255), atol=1e-5)
