"""Where the network looks, what it sees there, and how its answers are put together."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest

from converters.masks import CropMask
from converters.types import LabelSpace
from fusion.types import Prediction, SoftMask
from zoo.config import check_config
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.errors import draw_example
from zoo.families.refiner.looks import Look, Packed, finest_cell, outline_of, shrink
from zoo.families.refiner.patches import (
    LOG_ODDS,
    Place,
    cut_image,
    render,
    see,
    stack,
    tile,
    to_bytes,
)

pytestmark = pytest.mark.slow
LABELS = LabelSpace("two", ("left", "right"))


def configure(**changes: Any) -> RefinerConfig:
    raw = {"labels": LABELS.record(), "size": [32, 32], "epochs": 1, "batch": 4, "sources": ["a"]}
    return check_config(RefinerConfig, raw | changes, "test")


def disc(size_hw: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, cols = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return ((cols - x) ** 2 + (rows - y) ** 2 <= radius**2).astype(np.uint8)


def whole(prob: np.ndarray, size_hw: tuple[int, int]) -> SoftMask:
    return SoftMask((0, 0, size_hw[1], size_hw[0]), prob)


def predict(size_hw: tuple[int, int], **masks: SoftMask) -> Prediction:
    return Prediction("a", size_hw, "semantic", {n: ((1.0, m),) for n, m in masks.items()})


def test_bytes_and_log_odds() -> None:
    assert (to_bytes(LOG_ODDS) == np.arange(256)).all()
    many = np.linspace(-9, 9, 10001).astype(np.float32)
    assert ((to_bytes(many) >= 128) == (many >= 0)).all()
    assert (np.diff(to_bytes(many).astype(int)) >= 0).all()


def test_packed_is_the_mask() -> None:
    mask = SoftMask((1.5, 2, 30, 20), np.arange(60, dtype=np.uint8).reshape(6, 10))
    again = Packed.of(mask).mask()
    assert again.box_xywh == mask.box_xywh
    assert (again.prob == mask.prob).all()


@pytest.mark.parametrize("cell", [2.0, 3.5, 8.0])
def test_shrinking_keeps_the_outline(cell: float) -> None:
    """An object that ends at its raster's edge, and has a hole, has the same pixels afterward."""
    plane = disc((120, 160), 80, 60, 50) - disc((120, 160), 80, 60, 18)
    mask = CropMask(30, 10, plane[10:110, 30:130])
    full = SoftMask((30, 10, 100, 100), mask.pixels * np.uint8(255))
    small = shrink(full, cell)
    assert small.prob.size < full.prob.size / (cell * cell) * 2
    found = small.binary((120, 160)).full((120, 160))
    wrong = np.count_nonzero(found != plane)
    assert wrong < 0.35 * cell * 2 * np.pi * (50 + 18)
    assert shrink(small, cell) is small


def test_the_finest_source_decides() -> None:
    coarse = predict((96, 128), left=whole(np.full((12, 16), 200, np.uint8), (96, 128)))
    fine = predict((96, 128), right=whole(np.full((24, 32), 200, np.uint8), (96, 128)))
    nothing = predict((96, 128))
    assert finest_cell([coarse, fine, nothing], LABELS) == 4
    assert finest_cell([nothing], LABELS) == 1
    look = Look.of(np.zeros((96, 128), np.uint8), [coarse, fine], fine, LABELS, 2.0)
    assert (look.cell_px, look.image.shape) == (2, (48, 64))
    # No finer than the image itself.
    look = Look.of(np.zeros((96, 128), np.uint8), [coarse, fine], fine, LABELS, 9.0)
    assert (look.cell_px, look.image.shape) == (1, (96, 128))


@pytest.mark.parametrize("size", [(32, 32), (64, 40)])
@pytest.mark.parametrize("cell", [1.0, 2.3])
def test_every_point_lies_in_the_middle_of_a_patch(size: tuple[int, int], cell: float) -> None:
    config = configure(size=list(size))
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, 6.3, 400)
    points = np.stack([300 + 180 * np.cos(angle), 200 + 130 * np.sin(angle)], 1).astype(np.float32)
    tiling = tile(points, cell, config)
    height, width = np.array(size) * cell
    middles = np.array([(p.x + width / 2, p.y + height / 2) for p in tiling.places()])
    away = np.abs(points[:, None] - middles[None]) / np.array([width, height])
    assert (away.max(2).min(1) <= 0.25 + 1e-4).all()
    assert len(tiling.corners) < 4 * 2 * np.pi * 160 / (min(size) * cell)


def test_a_small_object_is_seen_in_one_patch_and_a_crop_may_be_coarse() -> None:
    points = np.array([[10, 10], [30, 25]], np.float32)
    (place,) = tile(points, 1.0, configure()).places()
    assert place == Place(4.0, 1.5, 1.0, (32, 32))
    far = np.array([[0, 0], [320, 100]], np.float32)
    (crop,) = tile(far, 1.0, configure(places="crops")).places()
    assert crop.cell_px == pytest.approx(320 * 1.25 / 32)
    assert len(tile(far, 1.0, configure()).corners) > 1


@pytest.mark.parametrize("cell", [1.0, 2.0, 3.3])
def test_joined_patches_are_what_each_of_them_says(cell: float) -> None:
    """A smooth change, cut into patches, comes back where patches count fully."""
    angle = np.linspace(0, 6.3, 500)
    points = np.stack([160 + 90 * np.cos(angle), 140 + 90 * np.sin(angle)], 1).astype(np.float32)
    tiling = tile(points, cell, configure())
    changes = []
    for place in tiling.places():
        rows, cols = np.mgrid[:32, :32] + 0.5
        changes.append((place.x + cols * cell) / 100 - (place.y + rows * cell) / 70)
    window = (20, 10, 260, 250)
    joined = tiling.join(np.array(changes, np.float32), window)
    at = points.astype(int)
    found = joined[at[:, 1] - 10, at[:, 0] - 20]
    expected = (at[:, 0] + 0.5) / 100 - (at[:, 1] + 0.5) / 70
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert joined[125, 140] == 0 or cell > 1  # the middle of the ring lies in no patch


def test_image_and_masks_are_seen_in_the_same_place() -> None:
    """A disc in the image and the same disc as a mask coincide in a patch of any scale."""
    size_hw = (200, 260)
    plane = disc(size_hw, 120.5, 90.5, 40)
    image = cv2.GaussianBlur(plane * np.uint8(200) + np.uint8(20), (0, 0), 1)
    prediction = predict(size_hw, left=whole(plane * np.uint8(255), size_hw))
    look = Look.of(image, [prediction], prediction, LABELS, 1.0)
    for place in (Place(70.0, 40.0, 1.0, (96, 96)), Place(61.3, 33.7, 2.5, (48, 48))):
        bright = cut_image(look, place)[0]
        inside = bright > (bright.max() + bright.min()) / 2
        mask = render(look.classes["left"].fused, place) >= 128
        assert np.count_nonzero(inside != mask) < 0.04 * np.count_nonzero(mask)


def test_other_classes_and_sources_that_do_not_speak() -> None:
    size_hw = (64, 64)
    left, right = (whole(disc(size_hw, x, 32, 14) * np.uint8(250), size_hw) for x in (24, 42))
    both = predict(size_hw, left=left, right=right)
    silent = Prediction("a", size_hw, "instance", {})
    look = Look.of(np.zeros(size_hw, np.uint8), [both, silent], both, LABELS, 1.0)
    seen = see(look, "left", Place(0, 0, 1.0, (64, 64)))
    assert seen.speaks == (True, False)
    assert (seen.sources[1] == 0).all()
    assert ((seen.others > 0) == (right.prob > 127)).all()
    planes = stack(seen, None, ("sources", "others"))
    assert planes.shape == (1 + 4 + 1, 64, 64)
    assert (planes[3] == 1).all()
    assert (planes[4] == 0).all()


def test_examples_are_decided_by_the_seed_and_keep_truth_in_place() -> None:
    size_hw = (128, 128)
    plane = disc(size_hw, 60, 66, 33)
    prediction = predict(size_hw, left=whole(plane * np.uint8(255), size_hw))
    truth = {"left": CropMask(0, 0, plane)}
    image = plane * np.uint8(150)
    look = Look.of(image, [prediction], prediction, LABELS, 1.0, truth)
    config = configure(errors=0, drop=0, inputs=["image"])
    for seed in range(8):
        first, again = (
            draw_example(look, "left", np.random.default_rng(seed), config) for _ in range(2)
        )
        assert (first.planes == again.planes).all()
        assert (first.truth == again.truth).all()
        claimed, real = first.planes[0] > 0, first.truth[0] > 0.5
        bright = first.planes[1] > (first.planes[1].max() + first.planes[1].min()) / 2
        assert 0.02 < real.mean() < 0.98
        assert np.count_nonzero(claimed != real) < 0.04 * real.size
        assert np.count_nonzero(bright != real) < 0.04 * real.size
    spoiled = draw_example(look, "left", np.random.default_rng(0), configure(inputs=["image"]))
    assert (spoiled.planes[0] != first.planes[0]).any()


def test_memory_does_not_grow_with_classes_times_pixels() -> None:
    """Of 40 small objects in a large image, what is kept is far below 40 planes of it."""
    size_hw, count = (1024, 1024), 40
    names = tuple(f"c{i}" for i in range(count))
    labels = LabelSpace("many", names)
    tracemalloc.start()
    masks = {}
    for i, name in enumerate(names):
        prob = disc((60, 60), 30, 30, 20) * np.uint8(255)
        masks[name] = ((1.0, SoftMask((i * 24, i * 23, 60, 60), prob)),)
    prediction = Prediction("a", size_hw, "semantic", masks)
    image = np.zeros(size_hw, np.uint8)
    tracemalloc.reset_peak()
    look = Look.of(image, [prediction], prediction, labels, 2.0)
    for name in names:
        tiling = tile(look.classes[name].outline_px, look.cell_px, configure())
        for place in tiling.places():
            see(look, name, place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size_hw[0] * size_hw[1]


def test_outline_of_parts_and_holes() -> None:
    prob = (
        disc((50, 80), 20, 25, 15) - disc((50, 80), 20, 25, 6) + disc((50, 80), 62, 25, 9)
    ) * 255
    points = outline_of(SoftMask((10, 20, 160, 100), prob.astype(np.uint8)))
    radii = [np.hypot(*((points - (10, 20)) / 2 - middle).T) for middle in ((20, 25), (62, 25))]
    near = [np.abs(radii[0] - 15) < 1.5, np.abs(radii[0] - 6) < 1.5, np.abs(radii[1] - 9) < 1.5]
    assert all(part.any() for part in near)
    assert np.logical_or.reduce(near).all()
    assert len(outline_of(SoftMask((0, 0, 4, 4), np.zeros((4, 4), np.uint8)))) == 0
