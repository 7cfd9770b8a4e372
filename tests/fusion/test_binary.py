"""From a prediction to masks: of classes that overlap, and of classes of which a pixel has one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from converters.masks import decode_rle
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.rules.pooling import Mean
from fusion.sources.submission import encode
from fusion.types import Prediction, SoftMask

SIZE = 40, 52
FREE = LabelSpace("waste", ("ground", "metal", "glass", "paper"))
OPEN = replace(FREE, exclusive="large_first")
CLOSED = replace(OPEN, background="ground")


def _probs(seed: int, classes: int) -> npt.NDArray[np.uint8]:
    """Probabilities of classes of which a pixel has one or none, uint8 (C, H, W)."""
    logits = np.random.default_rng(seed).normal(0, 2, (classes + 1, *SIZE))
    shares = np.exp(logits) / np.exp(logits).sum(0)
    return np.rint(255 * shares[:classes]).astype(np.uint8)


def _prediction(planes: dict[str, npt.NDArray[np.uint8]]) -> Prediction:
    box = (0.0, 0.0, float(SIZE[1]), float(SIZE[0]))
    masks = {name: ((1.0, SoftMask(box, plane)),) for name, plane in planes.items()}
    return Prediction("a", SIZE, "semantic", masks)


def _planes(prediction: Prediction, labels: LabelSpace) -> npt.NDArray[np.uint8]:
    masks = binary_masks(prediction, labels)
    assert tuple(masks) == labels.names
    return np.stack([masks[name].full(SIZE) for name in labels.names])


@pytest.mark.parametrize("seed", range(4))
def test_a_pixel_is_its_likeliest_classs_or_none(seed: int) -> None:
    probs = _probs(seed, 4)
    found = _planes(_prediction(dict(zip(FREE.names, probs, strict=True))), OPEN)
    rest = 255 - np.minimum(probs.sum(0, dtype=np.int64), 255)
    best = np.where(probs.max(0) >= rest, probs.argmax(0), -1)
    expected = np.stack([best == c for c in range(4)])
    assert np.array_equal(found, expected)
    # Not what a threshold of one half gives.
    assert (found != (probs >= 128)).any()
    assert found.sum(0).max() == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_background_has_what_is_left(seed: int) -> None:
    probs = _probs(seed, 3)
    found = _planes(_prediction(dict(zip(FREE.names[1:], probs, strict=True))), CLOSED)
    assert (found.sum(0) == 1).all()
    rest = 255 - np.minimum(probs.sum(0, dtype=np.int64), 255)
    assert np.array_equal(found[0], (probs.max(0) < rest))


def test_a_background_that_is_predicted_is_a_class_like_others() -> None:
    probs = _probs(7, 4)
    probs[0] = 255 - np.minimum(probs[1:].sum(0, dtype=np.int64), 255)
    found = _planes(_prediction(dict(zip(FREE.names, probs, strict=True))), CLOSED)
    assert np.array_equal(found.argmax(0), probs.argmax(0))


def test_of_equal_probabilities_the_first_class_has_the_pixel() -> None:
    half = np.full(SIZE, 127, np.uint8)
    found = binary_masks(_prediction({"paper": half, "metal": half}), OPEN)
    assert (found["metal"].area, found["paper"].area) == (SIZE[0] * SIZE[1], 0)


def test_nothing_predicted_is_nothing_or_background() -> None:
    empty = Prediction("a", SIZE, "instance", {})
    assert all(mask.area == 0 for mask in binary_masks(empty, OPEN).values())
    assert binary_masks(empty, CLOSED)["ground"].area == SIZE[0] * SIZE[1]


def test_objects_that_lie_on_each_other() -> None:
    """Of detections, the surer pixel counts."""
    below = SoftMask((0.0, 0.0, 20.0, 20.0), np.full((20, 20), 200, np.uint8))
    above = SoftMask((10.0, 0.0, 20.0, 20.0), np.full((20, 20), 250, np.uint8))
    masks = {"metal": ((0.9, below),), "glass": ((0.5, above),)}
    found = binary_masks(Prediction("a", SIZE, "instance", masks), OPEN)
    assert (found["metal"].area, found["glass"].area) == (200, 400)


def test_classes_that_may_overlap_keep_their_half() -> None:
    probs = _probs(1, 4)
    prediction = _prediction(dict(zip(FREE.names, probs, strict=True)))
    assert np.array_equal(_planes(prediction, FREE), probs >= 128)


def test_a_fusion_and_its_submission_have_one_label_a_pixel() -> None:
    sources = [
        _prediction(dict(zip(FREE.names, _probs(seed, 4), strict=True))) for seed in (1, 2, 3)
    ]
    fused = Mean()(sources, OPEN)
    rows = list(encode(fused, "a.png", OPEN))
    masks = [decode_rle(row.rle, SIZE).full(SIZE) for row in rows]
    assert np.array_equal(np.stack(masks), _planes(fused, OPEN))
    assert np.stack(masks).sum(0).max() == 1
