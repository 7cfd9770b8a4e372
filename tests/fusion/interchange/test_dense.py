"""Dense planes to predictions and back."""

import numpy as np
import pytest

from converters.types import LabelSpace
from fusion import Mean
from fusion.interchange.dense import from_planes, to_masks, to_planes
from fusion.types import Prediction, SoftMask

LABELS = LabelSpace("toys", ("cup", "plate", "spoon"))
SIZE_HW = (37, 53)


def planes_of(seed):
    planes = np.random.default_rng(seed).integers(0, 256, (3, *SIZE_HW), dtype=np.uint8)
    planes[1] = 0  # empty
    planes[2] = 255  # full
    planes[0, :, :9] = 0
    planes[0, 12:15, 20:23] = 0  # a hole
    return planes


@pytest.mark.parametrize("seed", range(3))
def test_bytes_come_back_to_the_last_one(seed):
    planes = planes_of(seed)
    found = from_planes("a", planes, LABELS)
    assert np.array_equal(to_planes(found, LABELS), planes)
    assert set(found.masks) == {"cup", "spoon"}
    assert found.classes is None


def test_floats_are_kept_to_a_byte():
    planes = np.random.default_rng(0).random((3, *SIZE_HW)).astype(np.float32)
    back = to_planes(from_planes("a", planes, LABELS), LABELS) / 255
    assert np.abs(back - planes).max() <= 0.5 / 255 + 1e-6


def test_masks_come_back():
    masks = planes_of(1) >= 128
    found = from_planes("a", masks, LABELS)
    assert np.array_equal(to_masks(found, LABELS), masks)
    assert found.best("spoon")[0] == 1.0


def test_a_pixel_has_one_label_where_the_label_space_says_so():
    labels = LabelSpace("toys", LABELS.names, exclusive="by_class")
    planes = planes_of(2)
    masks = to_masks(from_planes("a", planes, labels), labels)
    assert masks.sum(axis=0).max() == 1
    assert masks[2].sum() >= masks[0].sum()


def test_an_enlarged_mask_is_what_is_rendered():
    soft = SoftMask((3.5, 2.25, 40.0, 30.5), np.full((4, 5), 200, np.uint8))
    found = Prediction("a", SIZE_HW, "semantic", {"cup": ((0.8, soft),)})
    plane = to_planes(found, LABELS)[0]
    assert np.array_equal(plane, soft.render((0, 0, SIZE_HW[1], SIZE_HW[0])))


def test_planes_of_a_small_input_are_stretched_over_the_image():
    small = planes_of(3)
    whole = (4 * SIZE_HW[0], 3 * SIZE_HW[1])
    found = from_planes("a", small, LABELS, whole)
    assert found.size_hw == whole
    planes = to_planes(found, LABELS)
    assert planes.shape == (3, *whole)
    assert not planes[1].any()
    assert planes[2].min() == 255
    # What is enlarged lies where it lay: 4 x 3 pixels for each.
    means = planes[0].reshape(SIZE_HW[0], 4, SIZE_HW[1], 3).mean((1, 3))
    assert np.corrcoef(means.ravel(), small[0].ravel())[0, 1] > 0.9


def test_of_an_absent_class_nothing_is_said():
    found = from_planes("a", {"cup": planes_of(0)[0]}, LABELS)
    assert found.classes == {"cup"}
    assert not found.speaks_of("plate")
    whole = from_planes("a", planes_of(0), LABELS)
    fused = Mean()([found, whole], LABELS)
    # Who says nothing of spoons does not vote against them.
    assert to_planes(fused, LABELS)[2].min() == 255


@pytest.mark.parametrize(
    ("planes", "said"),
    [
        (np.zeros((2, 4, 4), np.uint8), r"expected planes \(3, H, W\).*found \(2, 4, 4\)"),
        (np.zeros((3, 4), np.uint8), r"found \(3, 4\)"),
        (np.full((3, 4, 4), 7.5), "probabilities in 0..1, found 7.5 to 7.5"),
        (np.full((3, 4, 4), np.nan), "probabilities in 0..1"),
        (np.ones((3, 4, 4), np.uint8), "found no value above 1: give a mask of 0 and 1 as bool"),
        (np.zeros((3, 4, 4), np.int64), "expected bool, uint8 or floats, found int64"),
        ({"fork": np.zeros((4, 4), bool)}, r"expected classes of 'toys' .*, found \['fork'\]"),
        ({}, "expected at least one plane"),
        ({"cup": np.zeros((4, 4), bool), "plate": np.zeros((4, 5), bool)}, "of one size"),
    ],
)
def test_other_arrays_are_refused(planes, said):
    with pytest.raises(ValueError, match=said):
        from_planes("a", planes, LABELS)
