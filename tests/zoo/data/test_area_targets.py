from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from converters.masks import unpack
from zoo.augmentation.pipeline import Augmentation
from zoo.data.area_targets import shrink
from zoo.data.batches import targets_on_device
from zoo.data.items import SampleItems
from zoo.data.training_set import EpochSampler, TrainingSet, training_loader

MIX = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "CutMix", "p": 1.0},
    {"name": "CopyPaste", "classes": ["tile-1", "tile-2", "tile-3"], "p": 0.7},
]


@pytest.mark.parametrize("size", [(12, 8), (24, 24), (6, 24)])
def test_whole_ratios_give_the_mean_of_the_blocks(size: tuple[int, int]) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (24, 24, 2)).astype(np.uint8)
    packed &= np.array([7, 255], np.uint8)
    expected = unpack(packed, 11).reshape(11, size[0], 24 // size[0], size[1], 24 // size[1])
    found = shrink(packed, 11, size).planes()
    difference = np.moveaxis(found, 2, 0) - 255 * expected.mean((2, 4))
    assert np.abs(difference).max() <= 0.5


@pytest.mark.parametrize("size", [(17, 11), (30, 50)])
def test_other_ratios_keep_the_area(size: tuple[int, int]) -> None:
    packed = np.zeros((40, 32, 1), np.uint8)
    packed[7:29, 5:24, 0] = 1
    found = shrink(packed, 1, size).planes()
    share = found.astype(float).mean() / 255
    assert share == pytest.approx(22 * 19 / (40 * 32), abs=0.01)


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_masks(value: int) -> None:
    planes = shrink(np.full((8, 12, 1), value, np.uint8), 8, (4, 6)).planes()
    assert (planes == value).all()


def test_only_boxes_are_kept() -> None:
    packed = np.zeros((200, 200, 4), np.uint8)
    packed[50:60, 100:120, 2] = 1
    assert shrink(packed, 29, (100, 100)).nbytes == 5 * 10


@pytest.mark.parametrize("classes", [1, 9])
def test_targets_on_device(classes: int) -> None:
    shares = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, classes, 3, 3)
    found = targets_on_device(shares, classes, is_soft=True)
    assert found.dtype == torch.float32
    assert found[0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    bits = torch.full((1, -(-classes // 8), 2, 2), 255, dtype=torch.uint8)
    assert targets_on_device(bits, classes, is_soft=False).eq(1).all()


def _set(toys: Any, steps: list[dict[str, Any]], soft: bool, in_memory: bool = True) -> TrainingSet:
    augment = Augmentation(steps, toys.labels, soft)
    return TrainingSet(SampleItems(toys.samples, toys.labels), (48, 32), augment, 7, in_memory)


def test_a_training_sample_has_shares(toys: Any) -> None:
    data = _set(toys, [], soft=True)
    image, mask = data[0, 1]
    assert (image.shape, mask.shape, mask.dtype) == ((1, 48, 32), (9, 48, 32), torch.uint8)
    whole = unpack(SampleItems(toys.samples, toys.labels)[1].packed, 9)
    assert mask.float().mean((1, 2)).numpy() / 255 == pytest.approx(whole.mean((1, 2)), abs=0.005)
    assert ((mask > 0) & (mask < 255)).any()


@pytest.mark.parametrize("soft", [False, True])
def test_mixed_samples_depend_on_seed_epoch_and_index_alone(toys: Any, soft: bool) -> None:
    kept, read = _set(toys, MIX, soft), _set(toys, MIX, soft, in_memory=False)
    for place in ((3, 5), (0, 0), (0, 1)):
        kept[place]
    for place in ((0, 1), (1, 1), (3, 5)):
        for a, b in zip(kept[place], read[place], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(kept[0, 1][1], kept[1, 1][1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_mixed_batches_do_not_depend_on_workers(toys: Any, workers: int) -> None:
    data, sampler = _set(toys, MIX, soft=False), EpochSampler(6, seed=3)
    masks = torch.cat([b[1] for b in training_loader(data, sampler, 2, workers, False)])
    assert torch.equal(masks, torch.stack([data[place][1] for place in sampler]))


def test_a_single_sample_is_mixed_with_itself(toys: Any) -> None:
    alone = replace(toys, samples=toys.samples[:1])
    plain, mixed = _set(alone, [], False)[0, 0], _set(alone, MIX[1:2], False)[0, 0]
    assert torch.equal(plain[1], mixed[1])


def test_soft_masks_want_a_label_space() -> None:
    with pytest.raises(ValueError, match="soft masks: expected a label space"):
        Augmentation([], None, is_soft=True)
