from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box

from converters.loss import ConversionLoss, joined_objects, lossless, measure
from converters.masks import CropMask, rasterize_labels
from converters.types import Instance, LabelSpace


def test_nothing_lost(sample):
    loss = measure(sample, rasterize_labels(sample.instances, sample.size_hw))
    assert not loss
    assert loss == lossless(sample)
    assert loss.dice == {}
    assert loss.describe() == ""


def test_hole_that_was_filled(draw):
    sample = draw("hole")
    loss = measure(sample, {"Radius": CropMask(8, 8, np.ones((23, 23), np.uint8))})
    pixels = 23 * 23
    inside = 5 * 13
    assert (loss.holes, loss.parts, loss.shared_px) == (1, 0, 0)
    assert loss.dice == {"Radius": pytest.approx(2 * (pixels - inside) / (2 * pixels - inside))}
    assert "1 holes filled" in loss.describe()
    assert "Radius: mean Dice 0.93" in loss.describe()


def test_parts_that_were_joined(draw):
    sample = draw("two parts")
    loss = measure(sample, {"Radius": CropMask(0, 0, np.ones((48, 48), np.uint8))})
    assert loss.parts == 1


def test_overlap_that_went_to_one_label(draw):
    sample = draw("overlap")
    masks = rasterize_labels(sample.instances, sample.size_hw)
    free = masks["Triquetrum"].pixels - masks["Pisiform"].window(masks["Triquetrum"].box_xywh)
    free = np.where(masks["Pisiform"].window(masks["Triquetrum"].box_xywh) > 0, 0, free)
    masks["Triquetrum"] = CropMask(8, 8, free.astype(np.uint8))
    loss = measure(sample, masks)
    assert loss.shared_px == 11 * 13
    assert list(loss.dice) == ["Triquetrum"]


def test_label_that_is_gone(draw):
    loss = measure(draw("plain"), {})
    assert loss.dice == {"Radius": 0.0}
    assert loss.parts == 1


def test_sum_is_the_mean_over_the_images_of_a_label(draw):
    sample, other = draw("plain"), draw("overlap")
    total = ConversionLoss() + lossless(sample) + measure(sample, {}) + lossless(other)
    assert total.samples == 3
    assert total.dice == {"Radius": 0.5}
    assert total.describe().startswith("lost in 1 of 3 images: 1 parts joined")


CELLS = LabelSpace("cells", ("cell", "nucleus"))


def test_objects_that_become_one_mask_are_counted(draw):
    cells = tuple(Instance("cell", box(9 * i, 2, 9 * i + 5, 9)) for i in range(3))
    outside = Instance("cell", box(70, 70, 80, 80))
    nucleus = Instance("nucleus", box(3, 3, 9, 9))
    sample = replace(draw("empty"), instances=(*cells, outside, nucleus))
    loss = joined_objects(sample, CELLS)
    assert (loss.objects, loss.masks) == (3, 1)
    assert loss
    both = loss + joined_objects(sample, CELLS)
    assert both.describe() == (
        "lost in 2 of 2 images: 6 objects joined with others of their class into 2 masks"
    )


def test_parts_of_what_occurs_once_are_no_objects(draw):
    cells = tuple(Instance("cell", box(9 * i, 2, 9 * i + 5, 9)) for i in range(3))
    sample = replace(draw("empty"), instances=cells)
    assert joined_objects(sample, replace(CELLS, once=True)) == lossless(sample)
