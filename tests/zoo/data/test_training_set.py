from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.functional import to_tensor
from torchvision.transforms.v2 import Normalize

import converters
from converters.crops import crop
from converters.formats.hf import dataset as hf_dataset
from converters.masks import pack, rasterize_labels, unpack
from zoo.augmentation.pipeline import Augmentation
from zoo.data.batches import as_tensor, normalize, unpack_on_device
from zoo.data.bits import BitMask
from zoo.data.cases import Cases
from zoo.data.items import HuggingFaceItems, Item, SampleItems
from zoo.data.reading import read_ahead, resize_image, resize_packed
from zoo.data.training_set import EpochSampler, TrainingSet, training_loader

pytestmark = pytest.mark.slow

FLIP = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "Affine", "rotate": [-30, 30], "p": 1.0}]


@pytest.mark.parametrize("classes", [1, 8, 9, 29, 32])
def test_unpack_on_device_is_unpack(classes: int) -> None:
    shape = (2, 5, 7, -(-classes // 8))
    packed = np.random.default_rng(classes).integers(0, 256, shape, np.uint8)
    found = unpack_on_device(torch.from_numpy(packed).permute(0, 3, 1, 2), classes)
    assert found.shape == (2, classes, 5, 7)
    for mine, one in zip(found.numpy(), packed, strict=True):
        assert np.array_equal(mine, unpack(one, classes))


def test_items_are_the_samples(toys: Any) -> None:
    items = SampleItems(toys.samples, toys.labels)
    sample, item = toys.samples[2], items[2]
    truth = pack(rasterize_labels(sample.instances, sample.size_hw), toys.labels, sample.size_hw)
    assert len(items) == 6
    assert item.key == sample.key
    assert item.image.shape == (96, 64)
    assert np.array_equal(item.packed, truth)


def test_hugging_face_items_are_the_same(toys: Any, tmp_path: Path) -> None:
    converters.write(toys.samples, tmp_path / "hf", format="segformer", labels=toys.labels)
    rows = HuggingFaceItems(hf_dataset.open_split(tmp_path / "hf", "train"), toys.labels)
    assert len(rows) == len(toys.samples)
    for mine, plain in zip(rows, SampleItems(toys.samples, toys.labels), strict=True):
        assert mine.key == plain.key
        assert np.array_equal(mine.image, plain.image)
        assert np.array_equal(mine.packed, plain.packed)


def read_one(toys: Any, **changes: Any) -> np.ndarray:
    return SampleItems([replace(toys.samples[0], **changes)], toys.labels)[0].image


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 6), 200, np.uint8),
        np.full((4, 6), 200 * 256 + 7, np.uint16),
        np.full((4, 6, 3), 200, np.uint8),
        np.full((4, 6, 4), 200, np.uint8),
    ],
    ids=["grey", "16 bit", "colour", "alpha"],
)
def test_every_image_is_read_as_grey(toys: Any, tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), pixels)
    image = read_one(toys, image=path, size_hw=(4, 6))
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.full((4, 6), 200))


def test_not_an_image(toys: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ValueError, match=r"a\.png: expected an image"):
        read_one(toys, image=tmp_path / "a.png")


def test_another_size_than_the_sample_says(toys: Any) -> None:
    with pytest.raises(ValueError, match=r"expected \(64, 96\), found \(96, 64\)"):
        read_one(toys, size_hw=(64, 96))


def test_a_crop_is_cut_from_its_image(toys: Any) -> None:
    (part,) = crop(toys.samples[:1], ["tile-3"], 5, toys.labels)
    item = SampleItems([part], toys.labels)[0]
    whole = SampleItems(toys.samples[:1], toys.labels)[0]
    x, y, width, height = part.frame.box_xywh
    window = slice(y, y + height), slice(x, x + width)
    assert np.array_equal(item.image, whole.image[window])
    assert np.array_equal(item.packed, whole.packed[window])


def test_items_check_their_arrays() -> None:
    image, mask = np.zeros((4, 5), np.uint8), BitMask((4, 5), 1, ())
    with pytest.raises(ValueError, match="expected an image"):
        Item("a", image.astype(np.float32), mask)
    with pytest.raises(ValueError, match=r"expected a mask \(4, 5\)"):
        Item("a", image, replace(mask, size_hw=(5, 4)))


@pytest.mark.parametrize("size", [(32, 64), (10, 7), (96, 64), (200, 50)])
def test_resized_masks_lie_on_their_images(size: tuple[int, int]) -> None:
    image = np.zeros((96, 64), np.uint8)
    image[20:70, 12:50] = 255
    packed = (image > 0).astype(np.uint8)[..., None]
    small, mask = resize_image(image, size), resize_packed(packed, size)
    assert small.shape == size
    assert mask.shape == (*size, 1)
    centre = [(np.argwhere(m > 0).mean(0)) for m in (small > 127, mask[..., 0])]
    assert np.abs(centre[0] - centre[1]).max() <= 0.51


def _set(toys: Any, in_memory: bool = True) -> TrainingSet:
    items = SampleItems(toys.samples, toys.labels)
    return TrainingSet(items, (64, 32), Augmentation(FLIP), 7, in_memory)


def test_a_training_sample(toys: Any) -> None:
    image, packed = _set(toys)[0, 1]
    assert (image.shape, image.dtype) == ((1, 64, 32), torch.uint8)
    assert (packed.shape, packed.dtype) == ((2, 64, 32), torch.uint8)


def test_a_training_sample_depends_on_seed_epoch_and_index_alone(toys: Any) -> None:
    kept, read = _set(toys), _set(toys, in_memory=False)
    for place in ((3, 5), (0, 0), (0, 1)):
        kept[place]
    for place in ((0, 1), (1, 1), (3, 5)):
        for a, b in zip(kept[place], read[place], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(kept[0, 1][0], kept[1, 1][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(toys: Any, workers: int) -> None:
    data = _set(toys)
    sampler = EpochSampler(6, seed=3)
    sampler.set_epoch(2)
    images = torch.cat([b[0] for b in training_loader(data, sampler, 2, workers, False)])
    assert torch.equal(images, torch.stack([data[place][0] for place in sampler]))


@pytest.mark.parametrize(("batch", "expected"), [(1, 2), (2, 2), (6, 1)])
def test_there_are_no_more_workers_than_cores_or_batches(
    toys: Any, batch: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.data.training_set.count_cores", lambda: 2)
    loader = training_loader(_set(toys), EpochSampler(6, seed=3), batch, 64, False)
    assert loader.num_workers == expected


def test_order_changes_with_the_epoch_and_not_otherwise() -> None:
    sampler = EpochSampler(20, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(20))
    assert [i for _, i in first] != [i for _, i in second]
    assert {e for e, _ in second} == {1}


def test_processes_share_an_epoch_evenly() -> None:
    shares = [list(EpochSampler(7, seed=1, rank=r, processes=3)) for r in range(3)]
    assert {len(s) for s in shares} == {3}
    assert {i for s in shares for _, i in s} == set(range(7))


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4]), (6, [6]), (8, [6]), (2, [2, 2, 2])])
def test_batches_have_one_size(toys: Any, batch: int, sizes: list[int]) -> None:
    loader = training_loader(_set(toys), EpochSampler(6, 0), batch, 0, False)
    assert [len(images) for images, _ in loader] == sizes


def test_normalize() -> None:
    found = normalize(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2))
    assert found.ravel().tolist() == pytest.approx([-0.449 / 0.226, 0.551 / 0.226], rel=1e-5)


def test_normalize_colours_by_imagenets_numbers() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    wanted = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(to_tensor(image))
    torch.testing.assert_close(normalize(as_tensor(image)[None])[0], wanted)


def test_read_ahead_keeps_the_order() -> None:
    assert list(read_ahead(lambda i: i * i, range(50), readers=3)) == [i * i for i in range(50)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_cases_have_the_truth_at_the_images_size(toys: Any, in_memory: bool) -> None:
    cases = Cases(SampleItems(toys.samples, toys.labels), (32, 32), toys.labels, in_memory)
    for _ in range(2):
        (case,) = cases.read([3])
    sample = toys.samples[3]
    assert (case.key, case.size_hw, case.image.shape) == (sample.key, (96, 64), (32, 32))
    for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        assert np.array_equal(case.truth[name].full((96, 64)), mask.full((96, 64)))
