"""Shared pixels by pairs, confusion and doubled bones, against whole planes and other libraries."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import label as scipy_label
from sklearn.metrics import confusion_matrix

from converters.masks import EMPTY, CropMask, common_part, crop
from fusion.metrics.overlaps import (
    count_confusion,
    is_doubled,
    parts_px,
    score_pairs,
    shared_pairs,
)

SIZE_HW = (21, 34)


def random_planes(seed, names):
    """Overlapping boxes with noise, one at the border, the last one empty."""
    rng = np.random.default_rng(seed)
    planes = {name: np.zeros(SIZE_HW, np.uint8) for name in names}
    for plane in list(planes.values())[:-1]:
        y, x = rng.integers(0, SIZE_HW[0] - 8), rng.integers(0, SIZE_HW[1] - 12)
        plane[y : y + 12, x : x + 18] = rng.random(plane[y : y + 12, x : x + 18].shape) < 0.8
    return planes


def masks_of(planes):
    return {name: crop(plane) for name, plane in planes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_common_parts_are_those_of_whole_planes(seed, labels):
    planes = random_planes(seed, labels.names)
    for a in planes.values():
        for b in planes.values():
            assert np.array_equal(common_part(crop(a), crop(b)).full(SIZE_HW), a & b)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_pairs_score_as_monai_scores_their_overlaps(seed, labels):
    metrics = pytest.importorskip("monai.metrics")
    import torch

    real, found = random_planes(seed, labels.names), random_planes(seed + 1, labels.names)
    scores = score_pairs(masks_of(found), masks_of(real), labels)
    pairs = [
        (a, b)
        for i, a in enumerate(labels.names)
        for b in labels.names[i + 1 :]
        if (real[a] & real[b]).any()
    ]
    assert list(scores) == pairs
    overlaps = [
        torch.from_numpy(np.stack([planes[a] & planes[b] for a, b in pairs]))[:, None]
        for planes in (found, real)
    ]
    with warnings.catch_warnings(action="ignore"):  # of empty masks
        dice = metrics.DiceMetric(reduction="none")(*overlaps)
        near = metrics.SurfaceDiceMetric([2.0], include_background=True, reduction="none")(
            *overlaps
        )
    assert [s["dice"] for s in scores.values()] == pytest.approx(dice[:, 0].tolist(), abs=1e-6)
    assert [s["nsd"] for s in scores.values()] == pytest.approx(near[:, 0].tolist(), abs=1e-6)


def test_an_overlap_that_is_not_predicted_scores_0(labels):
    left, right = CropMask(0, 0, np.ones((3, 6), "u1")), CropMask(4, 0, np.ones((3, 6), "u1"))
    beside = CropMask(6, 0, np.ones((3, 4), "u1"))
    truth = {"3": left, "Ulna": right}
    for found in ({}, {"3": left}, {"3": left, "Ulna": beside}):
        assert score_pairs(found, truth, labels) == {("3", "Ulna"): {"dice": 0.0, "nsd": 0.0}}
    # And one that is only predicted has nothing to be scored against.
    assert score_pairs(truth, {"3": left, "Ulna": beside}, labels) == {}


def test_pairs_come_in_the_order_of_the_classes(labels):
    full = CropMask(0, 0, np.ones((2, 2), "u1"))
    pairs = shared_pairs({"Ulna": full, "wrist_2": full, "finger-1": full, "3": EMPTY}, labels)
    assert list(pairs) == [("finger-1", "wrist_2"), ("finger-1", "Ulna"), ("wrist_2", "Ulna")]


@pytest.mark.parametrize("seed", range(3))
def test_with_one_label_a_pixel_it_is_the_usual_confusion_matrix(seed, labels):
    rng = np.random.default_rng(seed)
    real, found = rng.integers(0, 5, (2, *SIZE_HW))  # 4: none of the classes
    expected = confusion_matrix(real.ravel(), found.ravel(), labels=range(5))[:4, :4]
    planes = [
        masks_of({name: plane == i for i, name in enumerate(labels.names)})
        for plane in (found, real)
    ]
    counts = count_confusion(*planes)
    matrix = [[counts.get((a, b), (0, 0))[0] for b in labels.names] for a in labels.names]
    assert np.array_equal(matrix, expected - np.diag(np.diag(expected)))
    assert not any(right for _, right in counts.values())


@pytest.mark.parametrize("seed", range(4))
def test_confusion_of_overlapping_labels_is_that_of_whole_planes(seed, labels):
    real, found = random_planes(seed, labels.names), random_planes(seed + 9, labels.names)
    expected = {}
    for a in labels.names:
        for b in labels.names:
            taken = (real[a] > 0) & (found[a] == 0) & (found[b] > 0)
            if taken.any():
                expected[a, b] = (int(taken.sum()), int((taken & (real[b] > 0)).sum()))
    assert expected
    assert count_confusion(masks_of(found), masks_of(real)) == expected


def test_a_shared_pixel_given_to_one_bone_is_told_from_a_mistaken_one():
    truth = {"a": CropMask(0, 0, np.ones((1, 4), "u1")), "b": CropMask(2, 0, np.ones((1, 4), "u1"))}
    # The overlap (columns 2 and 3) goes to b alone; b also takes column 1 from a.
    found = {"a": CropMask(0, 0, np.ones((1, 1), "u1")), "b": CropMask(1, 0, np.ones((1, 5), "u1"))}
    assert count_confusion(found, truth) == {("a", "b"): (3, 2)}
    assert count_confusion(truth, truth) == {}


def plane_of(*rows):
    return crop(np.array([[c == "#" for c in row] for row in rows]))


ONE = plane_of("####", "####", "....", "....", "....")
WITH_CRUMB = plane_of("####", "####", "....", "...#", "....")
TWO = plane_of("####", "####", "....", "####", "....")
BY_CORNER = plane_of("##..", "##..", "..##", "..##", "....")
DOUBLED = [
    (ONE, ONE, False),
    (TWO, ONE, True),
    (TWO, TWO, False),
    (TWO, EMPTY, True),
    (ONE, TWO, False),
    (ONE, EMPTY, False),
    (EMPTY, ONE, False),
    (EMPTY, EMPTY, False),
    (WITH_CRUMB, ONE, False),
    (BY_CORNER, ONE, False),
]


@pytest.mark.parametrize(("prediction", "truth", "expected"), DOUBLED)
def test_doubled_bones(prediction, truth, expected):
    assert is_doubled(prediction, truth, share=0.25) is expected


def test_a_crumb_is_a_second_bone_where_the_share_says_so():
    assert is_doubled(WITH_CRUMB, ONE, share=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_parts_are_scipys(seed):
    plane = np.random.default_rng(seed).random(SIZE_HW) < 0.3
    found, count = scipy_label(plane, structure=np.ones((3, 3)))
    sizes = np.bincount(found.ravel())[1:]
    assert parts_px(crop(plane)) == sorted(sizes.tolist(), reverse=True)
    assert len(sizes) == count
    assert parts_px(EMPTY) == []
