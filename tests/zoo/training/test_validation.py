from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import JaccardIndex

from converters.masks import CropMask, crop
from converters.types import LabelSpace
from fusion.metrics.scores import intersection
from fusion.types import TO_LOG_ODDS
from zoo.data.cases import Case
from zoo.inference import setting as inference
from zoo.inference.frames import to_prediction
from zoo.inference.predict import predict_semantic
from zoo.inference.setting import Setting
from zoo.training import validation
from zoo.training.validation import count_on_crops, count_on_device, count_pixels, dice_of, mean_iou

CPU = torch.device("cpu")
LABELS = LabelSpace("five", ("a", "b-c", "border", "empty", "full"))


def _blob(size: tuple[int, int], seed: int) -> Any:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4) * 60
    return np.rint(255 / (1 + np.exp(-smooth))).astype(np.uint8)


def _probs(size: tuple[int, int]) -> Any:
    """Two blobs with holes and several parts that overlap, a bone at the border, none, and all."""
    border = np.zeros(size, np.uint8)
    border[:, -5:] = _blob(size, 3)[:, -5:]
    full = np.full(size, 255, np.uint8)
    return np.stack([_blob(size, 1), _blob(size, 2), border, full * 0, full])


def _truth(size: tuple[int, int]) -> dict[str, CropMask]:
    masks = {name: crop(_blob(size, 10 + n) > 128) for n, name in enumerate(LABELS.names)}
    del masks["full"]
    return masks


def _on_crops(probs: Any, size: tuple[int, int], truth: dict[str, CropMask]) -> list[list[int]]:
    found = to_prediction("a", size, probs, LABELS)
    masks = [found.binary(name) for name in LABELS.names]
    real = [truth.get(name, CropMask(0, 0, np.zeros((0, 0), np.uint8))) for name in LABELS.names]
    return [[intersection(m, t), m.area, t.area] for m, t in zip(masks, real, strict=True)]


@pytest.mark.parametrize("size", [(64, 64), (90, 50)])
@pytest.mark.parametrize("chunk", [1, 2**25])
def test_counts_are_those_on_crops(
    size: tuple[int, int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "CHUNK", chunk)
    probs, truth = _probs(size), _truth(size)
    found = count_pixels(torch.from_numpy(probs), size, truth, LABELS)
    assert found.tolist() == _on_crops(probs, size, truth)
    assert found.dtype == torch.int64


@pytest.mark.parametrize(("size", "times"), [((64, 64), 2), ((96, 50), 4), ((50, 80), 8)])
def test_counts_of_enlarged_masks_are_exact(size: tuple[int, int], times: int) -> None:
    """As OpenCV counts where it does not round on the way."""
    probs, whole = _probs(size), (size[0] * times, size[1] * times)
    truth = _truth(whole)
    found = count_pixels(torch.from_numpy(probs), whole, truth, LABELS).tolist()
    for name, plane, (both, area, real) in zip(LABELS.names, probs, found, strict=True):
        large = cv2.resize(TO_LOG_ODDS[plane], whole[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
        mask = crop(large >= 128)
        true = truth.get(name, CropMask(0, 0, np.zeros((0, 0), np.uint8)))
        assert (both, area, real) == (intersection(mask, true), mask.area, true.area)


@pytest.mark.parametrize(
    ("size", "whole"),
    [((64, 64), (128, 128)), ((96, 64), (128, 97)), ((100, 60), (411, 333)), ((80, 64), (50, 40))],
)
def test_dice_of_enlarged_masks_is_that_on_crops(
    size: tuple[int, int], whole: tuple[int, int]
) -> None:
    probs, truth = _probs(size), _truth(whole)
    found = count_pixels(torch.from_numpy(probs), whole, truth, LABELS).double().numpy()
    expected = np.array(_on_crops(probs, whole, truth), float)
    for counts, others in zip(found, expected, strict=True):
        total, other = counts[1:].sum(), others[1:].sum()
        if total == 0:
            assert other == 0
        else:
            assert 2 * counts[0] / total == pytest.approx(2 * others[0] / other, abs=2e-3)


def _case(name: str, size: tuple[int, int], whole: tuple[int, int], seed: int) -> Case:
    return Case(name, whole, _blob(size, seed), _truth(whole))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(1, len(LABELS), 3, padding=1)


@pytest.mark.parametrize("window", [None, (32, 32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_scores_are_those_on_crops(window: tuple[int, int] | None, batch: int) -> None:
    sizes = [(64, 48), (64, 48), (48, 64), (48, 64)]
    cases = [_case(f"a_{n}", size, size, n) for n, size in enumerate(sizes)]
    setting = Setting(CPU, batch=batch, window=window)
    found = count_on_device(_network(), cases, LABELS, setting)
    assert found.dtype == torch.int64
    assert torch.equal(found, count_on_crops(_network(), cases, LABELS, setting))


class Silent(nn.Module):
    """Sees nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 5, *images.shape[-2:]), -30.0)


@pytest.mark.parametrize("count", [count_on_device, count_on_crops])
def test_both_empty_is_one(count: Callable[..., torch.Tensor]) -> None:
    case = _case("a", (32, 32), (32, 32), 0)
    (row,) = dice_of(count(Silent(), [case], LABELS, Setting(CPU))).tolist()
    assert row == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("count", [count_on_device, count_on_crops])
def test_no_cases(count: Callable[..., torch.Tensor]) -> None:
    assert count(_network(), [], LABELS, Setting(CPU)).shape == (0, 5, 3)


def test_one_label_a_pixel_is_counted_on_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "count_on_crops", lambda *_: "crops")
    labels = replace(LABELS, exclusive="large_first")
    found: Any = validation.count_cases(_network(), [], labels, Setting(torch.device("cuda")))
    assert found == "crops"


def test_mean_iou_is_of_all_pixels_together() -> None:
    """Beside torchmetrics' Jaccard index, of classes of which a pixel has one."""
    generator = torch.Generator().manual_seed(0)
    found, real = torch.randint(0, 4, (2, 6, 40, 30), generator=generator)
    counts = torch.stack(
        [
            torch.stack([((found == c) & (real == c)).sum(), (found == c).sum(), (real == c).sum()])
            for c in range(5)
        ]
    )
    theirs = JaccardIndex(task="multiclass", num_classes=4, average="macro")(found, real)
    assert mean_iou(counts) == pytest.approx(float(theirs), abs=1e-6)
    assert mean_iou(torch.zeros(3, 3)) == 1


def _nothing(network: Any, frames: Any, labels: Any, setting: Any) -> Any:
    return iter(())


@pytest.mark.parametrize(
    ("device", "predict", "expected"),
    [
        ("cpu", predict_semantic, "crops"),
        ("cuda", predict_semantic, "device"),
        ("cuda", _nothing, "crops"),
    ],
)
def test_a_gpu_counts_what_is_a_semantic_networks(
    device: str, predict: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("crops", "device"):
        monkeypatch.setattr(validation, f"count_on_{name}", lambda *_, name=name: name)
    setting = Setting(torch.device(device))
    found: Any = validation.count_cases(_network(), [], LABELS, setting, predict)
    assert found == expected
