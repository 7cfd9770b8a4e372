"""Dice on crops against whole planes and SciPy."""

import numpy as np
import pytest
from scipy.spatial.distance import dice as scipy_dissimilarity

from converters.masks import EMPTY, CropMask, crop
from converters.types import LabelSpace
from fusion.metrics.scores import (
    Counts,
    ImageScore,
    Scores,
    dice,
    intersection,
    score_image,
    shared_parts,
)

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
    assert score.shared == dict.fromkeys((first, second), (0, 1, 0))
    assert score.shared_dice == {}


def test_shared_score_compares_overlap_with_overlap(labels):
    left = CropMask(0, 0, np.ones((2, 6), np.uint8))
    right = CropMask(4, 0, np.ones((2, 6), np.uint8))
    shifted = CropMask(5, 0, np.ones((2, 6), np.uint8))
    truth = {"3": left, "Ulna": right}
    score = score_image("x", {"3": left, "Ulna": shifted}, truth, labels)
    # True overlap: columns 4 and 5; predicted: column 5.
    assert score.shared == {"3": (2, 2, 4), "Ulna": (2, 2, 4)}
    assert score.shared_dice == {"3": pytest.approx(2 / 3), "Ulna": pytest.approx(2 / 3)}
    assert score_image("x", {"3": left}, truth, labels).shared_dice == {"3": 0.0, "Ulna": 0.0}
    # Shared in the prediction alone: no true overlap to score, but pixels to count.
    apart = score_image("x", {"3": left, "Ulna": right}, {"3": left}, labels)
    assert (apart.shared, apart.shared_dice) == ({"3": (0, 4, 0), "Ulna": (0, 4, 0)}, {})


def test_mean_goes_over_images_then_over_classes(labels):
    # By hand. Per class: .5, 1, .25, .75.
    rows = [(0.0, 1.0, 0.0, 1.0), (1.0, 1.0, 0.5, 0.5)]
    scores = Scores(
        labels,
        [
            ImageScore(f"image_{i}", dict(zip(labels.names, row, strict=True)), {})
            for i, row in enumerate(rows)
        ],
    )
    assert list(scores.per_class().values()) == [0.5, 1.0, 0.25, 0.75]
    assert scores.mean() == pytest.approx(2.5 / 4)
    assert scores.per_group() == {"long": pytest.approx(0.625), "carpals": 1.0}
    record = scores.record()
    assert record["images"] == 2
    assert record["dice_per_image"] == {"image_0": 0.5, "image_1": 0.75}


def overlap_score(key, labels, **classes):
    """An image's score from pixels by class: true, shared in both, predicted, true."""
    shared = {n: Counts(*of) for n, (_, *of) in classes.items()}
    counts = {n: Counts(0, 0, classes[n][0]) for n in classes}
    counts |= {n: Counts(0, 0, 0) for n in labels.names if n not in classes}
    return ImageScore(key, dict.fromkeys(labels.names, 0.5), shared, counts)


@pytest.fixture
def overlaps(labels):
    """Ulna overlaps in two of four images; wrist_2 always; 3 only touches, finger-1 once of 3."""
    images = [
        {"Ulna": (100, 3, 4, 6), "wrist_2": (50, 5, 10, 10), "3": (100, 0, 0, 4)},
        {"Ulna": (100, 4, 4, 5), "wrist_2": (50, 0, 30, 25), "3": (100, 2, 2, 2)},
        {"Ulna": (100, 2, 3, 4), "3": (100, 0, 9, 0), "finger-1": (10, 0, 2, 0)},
        {"Ulna": (100, 0, 7, 0), "finger-1": (10, 1, 1, 10)},
        {"finger-1": (10, 0, 0, 0)},
    ]
    found = [overlap_score(f"i_{k}", labels, **of) for k, of in enumerate(images)]
    return Scores(labels, found)


def test_shared_pixels_are_those_of_classes_that_do_overlap(overlaps):
    # At least 5 % in half of the images with the class: Ulna has 6, 5, 4 and 0 of 100.
    assert overlaps.overlapping == ("wrist_2", "Ulna")
    ulna = (2 * 3 / 10 + 2 * 4 / 9) / 2  # where it overlaps: not in the third and fourth image
    wrist = (2 * 5 / 20 + 0) / 2
    expected = {"wrist_2": wrist, "Ulna": pytest.approx(ulna)}
    assert overlaps.shared_per_class() == expected
    assert overlaps.shared() == pytest.approx((ulna + wrist) / 2)
    record = overlaps.record()
    assert record["dice_shared"] == overlaps.shared()
    assert record["dice_shared_pooled"] == overlaps.shared_pooled()
    assert record["dice_shared_per_class"] == expected
    assert record["overlapping"] == {
        "least_share_of_area": 0.05,
        "least_share_of_images": 0.5,
        "classes": ["wrist_2", "Ulna"],
    }


def test_pooled_shared_pixels_are_summed_first(overlaps):
    both, predicted, true = 3 + 4 + 2 + 5, 4 + 4 + 3 + 7 + 10 + 30, 6 + 5 + 4 + 10 + 25
    assert overlaps.shared_pooled() == pytest.approx(2 * both / (predicted + true))
    assert overlaps.shared_pooled(["wrist_2", "3"]) == pytest.approx(2 * 5 / (40 + 35))
    assert overlaps.shared_pooled(["3", "finger-1"]) is None


@pytest.mark.parametrize("seed", range(5))
def test_shared_pixels_equal_a_dense_count(seed):
    labels = LabelSpace("five", tuple(f"c{c}" for c in range(5)))
    images, dense = [], []
    for k in range(4):
        found, truth = random_masks(100 * seed + k), random_masks(100 * seed + k + 50)
        images.append(score_image(f"i_{k}", found, truth, labels))
        planes = [np.stack([m[n].full(SIZE_HW) for n in labels.names]) > 0 for m in (found, truth)]
        dense.append([plane & (plane.sum(axis=0) > 1) for plane in planes] + [planes[1]])
    predicted, true, whole = (np.stack(part) for part in zip(*dense, strict=True))
    area, shared = whole.sum(axis=(2, 3)), true.sum(axis=(2, 3))
    overlaps = (shared >= 0.05 * area) & (shared > 0)
    occurs = area.any(axis=0)
    counts = occurs & (overlaps.sum(axis=0) >= 0.5 * (area > 0).sum(axis=0))
    scores = Scores(labels, images)
    assert scores.overlapping == tuple(n for n, c in zip(labels.names, counts, strict=True) if c)
    assert 2 <= len(scores.overlapping) < 5  # the last one is empty
    both = (predicted & true).sum(axis=(2, 3))
    total = predicted.sum(axis=(2, 3)) + shared
    pooled = 2 * both[:, counts].sum() / total[:, counts].sum()
    assert scores.shared_pooled() == pytest.approx(pooled)
    means = [
        (2 * both[overlaps[:, c], c] / total[overlaps[:, c], c]).mean()
        for c in np.flatnonzero(counts)
    ]
    assert scores.shared() == pytest.approx(np.mean(means))


def test_no_shared_pixels_have_no_score(labels):
    scores = Scores(labels, [score_image("x", {}, {}, labels)])
    assert (scores.overlapping, scores.shared(), scores.shared_pooled()) == ((), None, None)
    assert scores.mean() == 1.0


def test_scores_of_nothing_are_refused(labels):
    with pytest.raises(ValueError, match="at least one image"):
        Scores(labels, [])
