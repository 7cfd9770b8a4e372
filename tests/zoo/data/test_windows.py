from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.masks import CropMask
from converters.types import LabelSpace
from zoo.augmentation.pipeline import Augmentation
from zoo.data.bits import BitMask
from zoo.data.items import SampleItems
from zoo.data.training_set import EpochSampler, TrainingSet, training_loader
from zoo.data.windows import Windows, cut_image

pytestmark = pytest.mark.slow

LABELS = LabelSpace("four", ("a", "b", "c", "d"), {"pair": ("b", "c"), "rest": ("d",)})
SIZE = (60, 100)
MIX = [
    {"name": "Affine", "rotate": [-30, 30], "p": 1.0},
    {"name": "CutMix", "p": 1.0},
    {"name": "CopyPaste", "classes": ["tile-1", "tile-2", "tile-3"], "p": 1.0},
]


def _mask(masks: dict[str, CropMask] | None = None) -> BitMask:
    """An image with `a` on the left, `b` and `c`, which share pixels, on the right; no `d`."""
    given = {
        "a": CropMask(2, 3, np.ones((40, 20), np.uint8)),
        "b": CropMask(60, 20, np.ones((8, 8), np.uint8)),
        "c": CropMask(65, 25, np.ones((20, 20), np.uint8)),
    }
    return BitMask.of_masks(given if masks is None else masks, LABELS, SIZE)


def _draw(windows: Windows, kind: str | None, count: int, mask: BitMask | None = None) -> Any:
    generator = np.random.default_rng(0)
    return np.array([windows.draw(mask or _mask(), kind, generator) for _ in range(count)])


def test_kinds_come_as_often_as_they_should() -> None:
    windows = Windows((8, 8), LABELS, {"pair": 0.5, "shared": 0.2})
    generator = np.random.default_rng(1)
    kinds = [windows.draw_kind(generator) for _ in range(4000)]
    for kind, share in (("pair", 0.5), ("shared", 0.2), (None, 0.3)):
        assert kinds.count(kind) / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("focus", [{}, {"a": 1.0}, {"a": 0.0}])
def test_shares_at_the_ends(focus: dict[str, float]) -> None:
    windows, generator = Windows((8, 8), LABELS, focus), np.random.default_rng(1)
    kinds = {windows.draw_kind(generator) for _ in range(200)}
    assert kinds == ({"a"} if focus.get("a") else {None})


@pytest.mark.parametrize("kind", ["a", "b", "pair", "shared"])
def test_a_window_has_a_pixel_of_what_it_is_drawn_around(kind: str) -> None:
    planes = _mask().planes()[..., 0]
    bits = {"a": planes & 1, "b": planes & 2, "pair": planes & 6}
    wanted = bits.get(kind, (planes & 2 != 0) & (planes & 4 != 0))
    for x, y, width, height in _draw(Windows((10, 16), LABELS, {kind: 1.0}), kind, 300):
        assert (width, height) == (16, 10)
        assert np.any(wanted[y : y + height, x : x + width])


def test_classes_of_a_group_come_equally_often() -> None:
    masks = {
        "b": CropMask(0, 0, np.ones((2, 2), np.uint8)),
        "c": CropMask(70, 20, np.ones((30, 30), np.uint8)),
    }
    boxes = _draw(Windows((6, 6), LABELS, {"pair": 1.0}), "pair", 1000, _mask(masks))
    assert (boxes[:, 0] < 20).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", [None, "rest", "shared"])
def test_windows_over_all_of_the_image(kind: str | None) -> None:
    """Where nothing is to be found they lie anywhere; each edge as often as the opposite one."""
    mask = _mask({"a": CropMask(0, 0, np.ones((3, 3), np.uint8))})
    x, y, width, height = _draw(Windows((30, 40), LABELS, {}), kind, 4000, mask).T
    assert (x.min(), (x + width).max(), y.min(), (y + height).max()) == (0, 100, 0, 60)
    for place, most, share in ((x, 60, 0.2), (y, 30, 0.25)):
        assert (place == 0).mean() == pytest.approx(share, abs=0.03)
        assert (place == most).mean() == pytest.approx(share, abs=0.03)
        assert len(np.unique(place)) == most + 1


def test_a_window_as_large_as_the_image() -> None:
    windows = Windows(SIZE, LABELS)
    assert windows.margins(SIZE) == (0, 0)
    assert {tuple(box) for box in _draw(windows, "a", 20).tolist()} == {(0, 0, 100, 60)}


@pytest.mark.parametrize("box", [(0, 0, 5, 4), (-3, -2, 6, 9), (4, 5, 9, 9), (-2, -2, 20, 20)])
def test_beyond_the_image_it_is_black(box: tuple[int, int, int, int]) -> None:
    image = np.arange(1, 57, dtype=np.uint8).reshape(8, 7)
    x, y, width, height = box
    expected = np.pad(image, 20)[20 + y : 20 + y + height, 20 + x : 20 + x + width]
    assert np.array_equal(cut_image(image, box), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focus": {"carpals": 0.5}}, r"focus: .*found 'carpals'; or 'shared'"),
        ({"focus": {"a": 0.6, "shared": 0.5}}, "focus: expected shares"),
        ({"focus": {"a": -0.1}}, "focus: expected shares"),
        ({"focus": {"a": float("nan")}}, "focus: expected shares"),
        ({"per_image": 0}, "windows_per_image: expected at least 1, found 0"),
        ({"size_hw": (0, 4)}, "window: expected a positive height and width"),
        ({"margin": -0.1}, "window margin: expected 0 to 1"),
    ],
)
def test_bad_windows(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Windows((8, 8), LABELS), **changes)


def _set(toys: Any, steps: Any, soft: bool = False, **further: Any) -> TrainingSet:
    augment = Augmentation(steps, toys.labels, soft)
    changes = {key: further.pop(key) for key in ("focus", "per_image", "margin") if key in further}
    windows = Windows(
        (32, 24), toys.labels, **({"focus": {"tile-4": 0.5, "shared": 0.3}} | changes)
    )
    items = SampleItems(toys.samples, toys.labels)
    return TrainingSet(items, (96, 64), augment, 7, windows=windows, **further)


def test_without_augmentation_a_window_is_a_part_of_its_image(toys: Any) -> None:
    items = SampleItems(toys.samples, toys.labels)
    data = _set(toys, [], per_image=3)
    assert len(data) == 18
    for index in (0, 4, 17):
        image, mask = (tensor.numpy() for tensor in data[0, index])
        whole = items[index // 3]
        views = np.lib.stride_tricks.sliding_window_view(whole.image, (32, 24))
        ((y, x),) = np.argwhere((views == image[0]).all((2, 3)))
        expected = whole.packed[y : y + 32, x : x + 24]
        assert np.array_equal(np.moveaxis(mask, 0, 2), expected)


def test_what_a_rotation_brings_in_is_the_images_own(toys: Any) -> None:
    turn = [{"name": "Affine", "rotate": [20, 20], "p": 1.0}]
    bright = replace(toys, samples=toys.samples[:1])
    inside = {"focus": {"tile-3": 1.0}}
    black = [
        [
            float((_set(bright, turn, margin=margin, **inside)[epoch, 0][0] == 0).float().mean())
            for epoch in range(20)
        ]
        for margin in (0.0, 0.5)
    ]
    assert np.mean(black[0]) > 0.05
    assert np.mean(black[1]) < 0.3 * np.mean(black[0])


@pytest.mark.parametrize("soft", [False, True])
def test_windows_depend_on_seed_epoch_and_index_alone(
    toys: Any, tmp_path: Path, soft: bool
) -> None:
    kept, read = _set(toys, MIX, soft), _set(toys, MIX, soft, in_memory=False)
    stored = _set(toys, MIX, soft, cache_dir=tmp_path)
    kept[3, 5], read[0, 1]
    for place in ((0, 1), (1, 1), (3, 5)):
        for a, b, c in zip(kept[place], read[place], stored[place], strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)
    assert not torch.equal(kept[0, 1][0], kept[1, 1][0])


@pytest.mark.parametrize(("soft", "channels"), [(False, 2), (True, 9)])
def test_shapes_of_windows(toys: Any, soft: bool, channels: int) -> None:
    image, mask = _set(toys, MIX, soft)[0, 0]
    assert (image.shape, image.dtype) == ((1, 32, 24), torch.uint8)
    assert (mask.shape, mask.dtype) == ((channels, 32, 24), torch.uint8)
    assert image.is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_windows_do_not_depend_on_workers(toys: Any, workers: int) -> None:
    data = _set(toys, MIX, per_image=2)
    sampler = EpochSampler(len(data), seed=3)
    images = torch.cat([b[0] for b in training_loader(data, sampler, 4, workers, False)])
    assert torch.equal(images, torch.stack([data[place][0] for place in sampler]))


def test_windows_larger_than_the_images(toys: Any) -> None:
    with pytest.raises(ValueError, match=r"window: expected at most the images' size \(30, 64\)"):
        TrainingSet(
            SampleItems(toys.samples, toys.labels),
            (30, 64),
            Augmentation([]),
            7,
            windows=Windows((32, 24), toys.labels),
        )
