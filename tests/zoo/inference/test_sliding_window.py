from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import nn

from converters.types import LabelSpace
from zoo.data.batches import normalize
from zoo.data.reading import NetworkInput
from zoo.inference import predict as inference
from zoo.inference import setting as settings
from zoo.inference.predict import predict_semantic, probabilities
from zoo.inference.setting import Setting
from zoo.inference.sliding_window import blend, importance
from zoo.inference.windows import window_corners, window_starts

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LABELS = LabelSpace("two", ("a", "b-c"))
SIZES = [(64, 64), (96, 64), (100, 37), (33, 129), (20, 50), (7, 5), (64, 31)]


def _linear(stride: int = 1) -> nn.Module:
    """One convolution, which sees the window's border, so that windows matter."""
    torch.manual_seed(1)
    return nn.Conv2d(1, 3, 5, padding=2, stride=stride).eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("window", "overlap"), [((32, 32), 0.5), ((32, 48), 0.25), ((32, 32), 0.0)]
)
def test_blending_is_monais(size: tuple[int, int], window: tuple[int, int], overlap: float) -> None:
    images, network = torch.randn(2, 1, *size), _linear()
    with torch.no_grad():
        found = blend(network, images, window, overlap, batch=3, fill=-1.5)
        expected = sliding_window_inference(
            images, window, 3, network, overlap, "gaussian", 0.125, cval=-1.5
        )
    assert found.shape == (2, 3, *size)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("window", [(32, 32), (64, 96), (5, 8)])
def test_importance_is_monais(window: tuple[int, int]) -> None:
    expected = compute_importance_map(window, mode="gaussian", sigma_scale=0.125)
    assert torch.allclose(importance(window, CPU), expected, atol=1e-7)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 100, 257])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_windows_reach_both_ends_without_a_gap(length: int, overlap: float) -> None:
    starts = window_starts(length, 32, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(length - 32, 0)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(int(32 * (1 - overlap)), 1)).all()


def test_overlap_is_kept() -> None:
    corners = window_corners((2048, 1500), (1024, 1024), 0.5)
    assert len(corners) == 6
    assert corners[-1] == (1024, 476)


@pytest.mark.parametrize("size", SIZES)
def test_a_network_of_single_pixels_gives_what_it_gives_for_the_whole(
    size: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 1)
    images = torch.randint(0, 256, (3, 1, *size), dtype=torch.uint8)
    whole = probabilities(network, images, Setting(CPU)).int()
    setting = Setting(CPU, batch=4, window=(32, 32), overlap=0.3)
    found = probabilities(network, images, setting).int()
    assert (found - whole).abs().max() <= 1


def test_coarse_logits_are_enlarged_window_by_window() -> None:
    images, network = torch.randn(1, 1, 64, 48), _linear(stride=4)
    with torch.no_grad():
        found = blend(network, images, (32, 32), 0.5, batch=2, fill=0.0)
        expected = sliding_window_inference(
            images,
            (32, 32),
            2,
            lambda part: inference.enlarge(network(part), (32, 32)),
            0.5,
            "gaussian",
            0.125,
        )
    assert torch.allclose(found, expected, atol=1e-5)


class Recording(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return images.repeat(1, 2, 1, 1)

    @property
    def batches(self) -> list[int]:
        return [len(part) for part in self.seen]


def _frames(count: int, size: tuple[int, int]) -> list[NetworkInput]:
    return [NetworkInput(f"a_{n}", size, np.full(size, 10 * n, np.uint8)) for n in range(count)]


@pytest.mark.parametrize(
    ("size", "count", "batch", "batches"),
    [
        # Nine windows an image: one image at a time, in equal parts.
        ((64, 64), 2, 4, [3, 3, 3, 3, 3, 3]),
        # Three windows an image, eight at a time: two images together.
        ((64, 32), 3, 8, [6, 3]),
        ((64, 32), 2, 6, [6]),
        # Smaller than a window.
        ((20, 16), 5, 2, [2, 2, 1]),
    ],
)
def test_batches_are_filled_with_windows_of_several_images(
    size: tuple[int, int], count: int, batch: int, batches: list[int]
) -> None:
    network = Recording()
    setting = Setting(CPU, batch=batch, window=(32, 32))
    found = list(predict_semantic(network, _frames(count, size), LABELS, setting))
    assert network.batches == batches
    assert [p.key for p in found] == [f"a_{n}" for n in range(count)]
    assert {tuple(part.shape[1:]) for part in network.seen} == {(1, 32, 32)}


def test_beyond_the_image_it_is_black() -> None:
    network = Recording()
    image = torch.full((1, 1, 16, 32), 255, dtype=torch.uint8)
    probabilities(network, image, Setting(CPU, window=(32, 32)))
    black, white = (float(normalize(torch.full((1, 1, 1), v))) for v in (0, 255))
    (seen,) = network.seen
    assert torch.all(seen[..., 8:24, :] == white)
    assert torch.all(seen[..., :8, :] == black)
    assert torch.all(seen[..., 24:, :] == black)


def test_scaled_images_are_seen_in_windows_of_the_same_size() -> None:
    network = Recording()
    setting = Setting(CPU, batch=9, tta=("scale:1.5", "hflip"), window=(32, 32), stride=32)
    found = probabilities(network, torch.zeros(1, 1, 64, 48, dtype=torch.uint8), setting)
    assert found.shape == (1, 2, 64, 48)
    # 64 x 48 in 3 x 2 windows, 96 x 72 in 5 x 4.
    assert sum(network.batches) == 6 + 20 + 6
    assert {tuple(part.shape[-2:]) for part in network.seen} == {(32, 32)}


def test_a_prediction_has_the_resolution_of_the_image_not_of_the_window() -> None:
    frame = NetworkInput("a_1", (256, 192), np.full((128, 96), 255, np.uint8))
    (found,) = predict_semantic(Recording(), [frame], LABELS, Setting(CPU, window=(32, 32)))
    best = found.best("b-c")
    assert best is not None
    assert best[1].prob.shape == (128, 96)
    assert best[1].box_xywh == (0, 0, 192, 256)


@pytest.mark.parametrize("chunk", [1, 40 * 24, 3 * 40 * 24])
def test_chunks_of_classes_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network: Any = nn.Conv2d(1, 7, 3, padding=1)
    images = torch.randint(0, 256, (2, 1, 40, 24), dtype=torch.uint8)
    setting = Setting(CPU, tta=("hflip", "scale:1.5"))
    expected = probabilities(network, images, setting)
    monkeypatch.setattr(settings, "CHUNK", chunk)
    assert torch.equal(probabilities(network, images, setting), expected)
