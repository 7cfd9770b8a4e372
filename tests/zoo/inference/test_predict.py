from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converters.types import LabelSpace
from fusion.types import Prediction
from zoo.data.reading import GREY_MEAN, NetworkInput
from zoo.inference.frames import read_frames, to_prediction
from zoo.inference.predict import enlarge, predict_semantic, probabilities
from zoo.inference.setting import Setting

CPU = torch.device("cpu")
LABELS = LabelSpace("two", ("bright-part", "left"))


class Threshold(nn.Module):
    """Class 0 where the image is bright; class 1 in the left half of whatever it sees."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        images = images[..., :: self.stride, :: self.stride]
        left = torch.full_like(images, -20.0)
        left[..., : images.shape[-1] // 2] = 20
        return torch.cat([(images - GREY_MEAN) * 20, left], dim=1)


def _frame(name: str = "a_1", size_hw: tuple[int, int] = (400, 100)) -> NetworkInput:
    """At 64 x 32: bright in rows 16 to 31 and columns 24 to 31; rows are 6.25 pixels high."""
    image = np.zeros((64, 32), np.uint8)
    image[16:32, 24:] = 255
    return NetworkInput(name, size_hw, image)


def test_prediction_is_in_the_images_own_frame() -> None:
    (found,) = predict_semantic(Threshold(), [_frame()], LABELS, Setting(CPU))
    assert (found.key, found.size_hw, found.kind) == ("a_1", (400, 100), "semantic")
    bright = found.binary("bright-part").full((400, 100))
    # A cell is 6.25 pixels high and 3.125 wide; the outline is right to half of it.
    assert bright[104:196, 78:].all()
    assert bright.sum() == bright[97:203, 73:].sum()
    left = found.binary("left")
    assert left.box_xywh == (0, 0, 50, 400)


def test_low_logits_are_enlarged_before_the_sigmoid() -> None:
    images = torch.from_numpy(_frame().image)[None, None]
    found = probabilities(Threshold(stride=4), images, Setting(CPU))
    logits = Threshold(stride=4)((images.float() / 255 - 0.449) / 0.226)
    expected = (enlarge(logits, (64, 32)).sigmoid() * 255).round().to(torch.uint8)
    assert found.shape == (1, 2, 64, 32)
    assert torch.equal(found, expected)


def test_score_is_the_highest_probability_and_empty_classes_are_absent() -> None:
    probs = np.zeros((2, 8, 4), np.uint8)
    probs[0, 2, 1] = 51
    found = to_prediction("a", (16, 8), probs, LABELS)
    assert set(found.masks) == {"bright-part"}
    best = found.best("bright-part")
    assert best is not None
    assert best[0] == pytest.approx(0.2)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_keep_order_and_sizes(batch: int) -> None:
    frames = [_frame(f"a_{i}", (100 + i, 50)) for i in range(5)]
    network = Threshold()
    found = list(predict_semantic(network, frames, LABELS, Setting(CPU, batch=batch)))
    assert [(p.key, p.size_hw) for p in found] == [(f.key, f.size_hw) for f in frames]
    assert max(shape[0] for shape in network.seen) == batch


def test_flipped_probabilities_are_averaged() -> None:
    image = torch.from_numpy(_frame().image)[None, None]
    found = probabilities(Threshold(), image, Setting(CPU, tta=("hflip",)))
    # `left` is one half in each pass, `bright-part` moves along with the image.
    assert set(found[0, 1].unique().tolist()) == {128}
    assert found[0, 0, 20, 28] == 255
    assert found[0, 0, 20, 2] < 10


def test_no_frames_no_predictions() -> None:
    assert list(predict_semantic(Threshold(), [], LABELS, Setting(CPU))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tta": ("vflop",)}, "tta 'vflop': expected hflip, vflip, scale:0.75"),
        ({"batch": 0}, "at least 1"),
        ({"overlap": 1.0}, "overlap: expected 0 up to below 1, found 1.0"),
    ],
)
def test_bad_setting(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(CPU, **changes)


def test_images_of_different_sizes_in_one_batch() -> None:
    frames = [
        NetworkInput(f"a_{n}", size, np.zeros(size, np.uint8)) for n, size in enumerate(SIZES)
    ]
    network = Threshold()
    found = list(predict_semantic(network, frames, LABELS, Setting(CPU, batch=4)))
    assert [(p.key, p.size_hw) for p in found] == [(f.key, f.size_hw) for f in frames]
    assert [shape[0] for shape in network.seen] == [2, 1, 2]


SIZES = ((8, 4), (8, 4), (4, 8), (6, 6), (6, 6))


def _convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))


def _planes(found: Iterable[Prediction]) -> list[tuple[Any, ...]]:
    return [
        (p.key, label, score, mask.box_xywh, mask.prob.tobytes())
        for p in found
        for label, _, score, mask in p.rows()
    ]


@pytest.mark.parametrize("window", [None, (32, 32)])
@pytest.mark.parametrize("tta", [(), ("hflip", "scale:0.75", "contrast:0.8")])
def test_the_batch_size_does_not_matter(window: tuple[int, int] | None, tta: Any) -> None:
    generator = np.random.default_rng(0)
    frames = [
        NetworkInput(f"a_{n}", (80, 48), generator.integers(0, 256, (80, 48), np.uint8))
        for n in range(5)
    ]
    network = _convolutions()
    found = [
        _planes(
            predict_semantic(network, frames, LABELS, Setting(CPU, batch=n, tta=tta, window=window))
        )
        for n in (1, 2, 5, 16)
    ]
    assert len(found[0]) == 10
    assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("size", [None, (64, 32)])
def test_the_number_of_readers_does_not_matter(toys: Any, size: tuple[int, int] | None) -> None:
    network, setting = _convolutions(), Setting(CPU, batch=2)
    found = [
        _planes(
            predict_semantic(
                network, read_frames(toys.samples, size, readers=readers), LABELS, setting
            )
        )
        for readers in (1, 2, 7)
    ]
    assert [row[0] for row in found[0][::2]] == [sample.key for sample in toys.samples]
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_frames_keep_their_own_size_where_none_is_given(toys: Any) -> None:
    frames = list(read_frames(toys.samples[:2], None))
    assert [f.image.shape for f in frames] == [s.size_hw for s in toys.samples[:2]]
    assert [f.image.shape for f in read_frames(toys.samples[:1], (64, 32))] == [(64, 32)]
