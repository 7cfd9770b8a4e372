"""Dice on crops against whole planes and SciPy."""

import numpy as np
import pytest
from scipy.spatial.distance import dice as scipy_dissimilarity

from converters.masks import EMPTY, CropMask, crop
from fusion.metrics.scores import ImageScore, Scores, dice, intersection, score_image, shared_parts

SIZE_HW = (17, 29)


def random_masks(seed, count=5):
    """Boxes with noise: overlapping, with holes, at the border; the last one is empty."""
    rng = np.random.default_rng(seed)
    masks = {}
    for c in range(count):
        plane = np.zeros(SIZE_HW, np.uint8)
        y, x = rng.integers(0, SIZE_HW[0] - 3), rng.integers(0, SIZE_HW[1] - 3)
        plane[y : y + 9, x : x + 14] = rng.random(plane[y : y + 9, x : x + 14].shape) < 0.8
        masks[f"c{c}"] = crop(plane if c < count - 1 else plane * 0)
    return masks


@pytest.mark.parametrize("seed", range(8))
def test_dice_equals_scipy_on_whole_planes(seed):
    masks = random_masks(seed)
    for a in masks.values():
        for b in masks.values():
            if a.area + b.area:
                full_a, full_b = a.full(SIZE_HW).ravel() > 0, b.full(SIZE_HW).ravel() > 0
                assert dice(a, b) == pytest.approx(1 - scipy_dissimilarity(full_a, full_b))
                assert intersection(a, b) == np.count_nonzero(full_a & full_b)


DOT = CropMask(4, 2, np.ones((1, 1), np.uint8))
FULL = CropMask(0, 0, np.ones(SIZE_HW, np.uint8))
PAIRS = [
    (EMPTY, EMPTY, 1.0),
    (EMPTY, DOT, 0.0),
    (DOT, EMPTY, 0.0),
    (DOT, DOT, 1.0),
    (FULL, FULL, 1.0),
    (DOT, FULL, 2 / (1 + 17 * 29)),
    # Zeros around the pixels, and crops that only touch, count nothing.
    (CropMask(3, 1, np.array([[0, 0], [0, 1]], np.uint8)), DOT, 1.0),
    (CropMask(5, 2, np.ones((1, 1), np.uint8)), DOT, 0.0),
    (CropMask(0, 0, np.zeros((3, 0), np.uint8)), DOT, 0.0),
]


@pytest.mark.parametrize(("a", "b", "expected"), PAIRS)
def test_dice_of_special_masks(a, b, expected):
    assert dice(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_shared_parts_are_the_pixels_with_two_labels(seed):
    masks = random_masks(seed)
    planes = np.stack([mask.full(SIZE_HW) for mask in masks.values()])
    several = planes.sum(axis=0) > 1
    for plane, part in zip(planes, shared_parts(masks).values(), strict=True):
        assert np.array_equal(part.full(SIZE_HW), plane & several)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 0)])
def test_shared_parts_of_empty_crops(shape):
    nothing = CropMask(0, 0, np.zeros(shape, np.uint8))
    parts = shared_parts({"a": nothing, "b": DOT, "c": nothing})
    assert [part.area for part in parts.values()] == [0, 0, 0]
    assert shared_parts({}) == {}


def test_score_image_counts_absent_labels_as_empty(labels):
    first, second = labels.names[:2]
    score = score_image("x", {first: DOT, second: DOT}, {first: DOT}, labels)
    assert score.dice == {"finger-1": 1.0, "wrist_2": 0.0, "3": 1.0, "Ulna": 1.0}
    assert score.shared == {}


def test_shared_score_compares_overlap_with_overlap(labels):
    left = CropMask(0, 0, np.ones((2, 6), np.uint8))
    right = CropMask(4, 0, np.ones((2, 6), np.uint8))
    shifted = CropMask(5, 0, np.ones((2, 6), np.uint8))
    truth = {"3": left, "Ulna": right}
    score = score_image("x", {"3": left, "Ulna": shifted}, truth, labels)
    # True overlap: columns 4 and 5; predicted: column 5.
    assert score.shared == {"3": pytest.approx(2 / 3), "Ulna": pytest.approx(2 / 3)}
    assert score_image("x", {"3": left}, truth, labels).shared == {"3": 0.0, "Ulna": 0.0}


def test_mean_goes_over_images_then_over_classes(labels):
    # By hand. Per class: .5, 1, .25, .75; shared: wrist_2 only in one image.
    rows = [(0.0, 1.0, 0.0, 1.0), (1.0, 1.0, 0.5, 0.5)]
    shared = [{"wrist_2": 0.4, "3": 0.2}, {"3": 0.6}]
    scores = Scores(
        labels,
        [
            ImageScore(f"image_{i}", dict(zip(labels.names, row, strict=True)), shared[i])
            for i, row in enumerate(rows)
        ],
    )
    assert list(scores.per_class().values()) == [0.5, 1.0, 0.25, 0.75]
    assert scores.mean() == pytest.approx(2.5 / 4)
    assert scores.per_group() == {"long": pytest.approx(0.625), "carpals": 1.0}
    assert scores.shared_per_class() == {"wrist_2": 0.4, "3": pytest.approx(0.4)}
    assert scores.shared() == pytest.approx(0.4)
    record = scores.record()
    assert record["images"] == 2
    assert record["dice_per_image"] == {"image_0": 0.5, "image_1": 0.75}


def test_no_shared_pixels_have_no_score(labels):
    scores = Scores(labels, [score_image("x", {}, {}, labels)])
    assert scores.shared() is None
    assert scores.mean() == 1.0


def test_scores_of_nothing_are_refused(labels):
    with pytest.raises(ValueError, match="at least one image"):
        Scores(labels, [])
