"""On arrays as in torch: whole, in windows, in several forms, with every activation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from converters.types import LabelSpace
from zoo.contract import DivergedError
from zoo.data.batches import normalize
from zoo.data.reading import NetworkInput
from zoo.inference import arrays, predict, sliding_window
from zoo.inference.activation import activate
from zoo.inference.setting import Setting

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LABELS = LabelSpace("three", ("a", "b-c", "d"))
SETTINGS = {
    "whole": {},
    "forms": {"tta": ("hflip", "vflip+gamma:1.3", "contrast:0.7"), "stride": 8},
    "scales": {"tta": ("scale:0.75", "scale:1.25+hflip"), "stride": 8},
    "logits": {"tta": ("scale:0.5", "hflip"), "average": "logits", "stride": 8},
    "windows": {"window": (32, 24), "overlap": 0.25, "batch": 3},
    "wide windows": {"window": (64, 96), "batch": 4},
    "windows of forms": {"window": (24, 24), "tta": ("scale:0.8", "hflip"), "batch": 5},
}


def build(channels: int, stride: int) -> nn.Module:
    torch.manual_seed(channels + stride)
    deep = nn.Conv2d(8, 3, 3, padding=1)
    nn.init.normal_(deep.weight, std=0.5)
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride, 1), nn.ReLU(), deep).eval()


def compute_by(network: nn.Module) -> arrays.Compute:
    def compute(*given):
        with torch.inference_mode():
            return network(*map(torch.from_numpy, given)).numpy()

    return compute


def photos(channels: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    # Smooth, as images are: of noise a shrunk one keeps nothing.
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.uniform(0, 255, (2, channels, 6, 5)))
    fine = nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return fine.clamp(0, 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "softmax_or_none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_probabilities_are_those_of_torch(name, stride, channels, activation):
    setting = Setting(CPU, activation=activation, **SETTINGS[name])
    network, images = build(channels, stride), photos(channels)
    wanted = predict.probabilities(network, torch.from_numpy(images), setting).numpy()
    found = arrays.probabilities(compute_by(network), images, setting)
    assert found.shape == wanted.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.mean(found != wanted) < 0.01
    assert np.ptp(wanted) > 30


class Shown(nn.Module):
    """Moves its logits by what is known of an image."""

    def __init__(self):
        super().__init__()
        self.plain = build(1, 4)

    def forward(self, images, rows):
        return self.plain(images) + rows[:, :, None, None]


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_go_with_their_images(name):
    setting, network, images = Setting(CPU, **SETTINGS[name]), Shown(), photos(1)
    rows = np.array([[-3, 0, 2], [2, -1, 0]], np.float32)
    given = torch.from_numpy(images), setting, torch.from_numpy(rows)
    wanted = predict.probabilities(network, *given).numpy()
    found = arrays.probabilities(compute_by(network), images, setting, rows)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    frames = [
        NetworkInput(str(n), (48, 40), images[n, 0], metadata=rows[n]) for n in range(len(rows))
    ]
    predictions = arrays.predict_semantic(compute_by(network), frames, LABELS, setting)
    for planes, prediction in zip(found, predictions, strict=True):
        assert {n: p.max() / 255 for n, p in zip(LABELS.names, planes, strict=True)} == {
            label: score for label, ((score, _),) in prediction.masks.items()
        }


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_alike(channels):
    images = photos(channels)
    wanted = normalize(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(arrays.normalize(images), wanted, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "softmax_or_none"])
def test_activated_alike_however_sure(activation):
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 60, (2, 3, 5, 7)).astype(np.float32)
    wanted = activate(torch.from_numpy(logits), activation).numpy()
    np.testing.assert_allclose(arrays.activate(logits, activation), wanted, atol=1e-6)


@pytest.mark.parametrize("window", [(32, 24), (7, 64), (1, 1)])
def test_windows_count_alike(window):
    wanted = sliding_window.importance(window, CPU).numpy()
    np.testing.assert_allclose(arrays.importance(window), wanted, atol=1e-6)


def test_predictions_are_those_of_torch():
    network, setting = build(1, 2), Setting(CPU, batch=2, window=(32, 32))
    frames = [
        NetworkInput("small", (96, 80), photos(1)[0, 0]),
        NetworkInput("large", (64, 100), photos(1, (64, 100))[1, 0]),
        NetworkInput("again", (64, 100), photos(1, (64, 100))[0, 0]),
    ]
    wanted = list(predict.predict_semantic(network, frames, LABELS, setting))
    found = list(arrays.predict_semantic(compute_by(network), frames, LABELS, setting))
    assert [(p.key, p.size_hw, set(p.masks)) for p in found] == [
        (p.key, p.size_hw, set(p.masks)) for p in wanted
    ]
    for ours, theirs in zip(found, wanted, strict=True):
        for label in theirs.masks:
            window = (0, 0, *theirs.size_hw[::-1])
            pair = (one.best(label)[1].render(window).astype(int) for one in (ours, theirs))
            assert np.abs(np.subtract(*pair)).max() <= 3


def test_not_a_number_is_no_probability():
    frames = [NetworkInput("bone_1", (8, 8), np.zeros((8, 8), np.uint8))]
    with pytest.raises(DivergedError, match="'bone_1': expected probabilities, found NaN"):
        list(arrays.predict_semantic(lambda v: v * np.nan, frames, LABELS, Setting(CPU)))


def test_no_torch_is_needed():
    code = (
        "import sys, zoo.inference.arrays; assert not {'torch', 'torchvision'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
