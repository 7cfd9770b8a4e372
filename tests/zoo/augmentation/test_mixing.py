"""CopyPaste and CutMix: what is seen is what is labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.types import LabelSpace
from zoo.augmentation.mixing import fit, fit_grey
from zoo.augmentation.pipeline import Augmentation

NAMES = ("a", "b", "c", "d")
SIZE = (96, 80)
CENTRES = {"a": (30, 30), "b": (60, 34), "c": (40, 70)}


def _labels(once: bool) -> LabelSpace:
    return LabelSpace("four", NAMES, {"discs": ("a", "b", "c")}, once=once)


def _sample(matrix: np.ndarray | None = None, grey: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Three discs of their own grey values on a sheet, which is class d; moved by a matrix."""
    rows, columns = np.indices(SIZE)
    image = np.full(SIZE, grey, np.uint8)
    packed = np.full((*SIZE, 1), 8, np.uint8)
    for i, (name, (x, y)) in enumerate(CENTRES.items()):
        if matrix is not None:
            x, y = matrix @ (x, y, 1)
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= 36
        image[disc] = grey + 40 + 20 * i
        packed[disc, 0] |= 1 << NAMES.index(name)
    return image, packed


MOVED = {
    "shifted": np.array([[1.0, 0, 6], [0, 1, -5]]),
    "turned": np.array([[0.94, -0.34, 12], [0.34, 0.94, -10]]),
    "mirrored": np.array([[-1.0, 0, 80], [0, 1, 3]]),
}


@pytest.mark.parametrize("matrix", MOVED.values(), ids=MOVED.keys())
def test_the_other_sample_is_laid_on_this_one(matrix: np.ndarray) -> None:
    image, packed = _sample()
    step = {"name": "CopyPaste", "classes": ["discs"], "p": 1.0, "margin": 0.02}
    augment = Augmentation([step], _labels(once=True))
    pasted, mask = augment(image, packed, (0,), lambda _: _sample(matrix))
    for c in range(3):
        ours, new = (m[..., 0] >> c & 1 for m in (packed, mask))
        assert (ours & new).sum() / (ours | new).sum() > 0.8
    assert np.abs(pasted.astype(int) - image).mean() < 2


def test_ones_own_objects_are_replaced_where_classes_occur_once() -> None:
    image, packed = _sample()
    other = _sample(MOVED["shifted"])
    step = {"name": "CopyPaste", "classes": ["discs"], "align": False, "p": 1.0}
    for once, objects in ((True, 1), (False, 2)):
        mask = Augmentation([step], _labels(once))(image, packed, (0,), lambda _: other)[1]
        disc = mask[..., 0] & 1
        assert disc[30 - 5, 30 + 6] == 1
        assert disc[30 + 4, 30 - 3] == objects - 1


def test_every_bit_is_that_of_the_sample_that_is_seen() -> None:
    image, packed = _sample(grey=60)
    other_image, other = _sample(MOVED["shifted"], grey=160)
    other[..., 0] &= 7
    steps: list[dict[str, Any]] = [{"name": "CutMix", "area_range": [0.2, 0.2], "p": 1.0}]
    mixed, mask = Augmentation(steps)(image, packed, (3,), lambda _: (other_image, other))
    from_other = mixed >= 160
    assert from_other.mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(mask, np.where(from_other[..., None], other, packed))


def test_a_rectangle_is_pasted() -> None:
    nothing = np.zeros((*SIZE, 1), np.uint8)
    black, white = np.zeros(SIZE, np.uint8), np.full(SIZE, 255, np.uint8)
    steps = [{"name": "CutMix", "p": 1.0}]
    mixed = Augmentation(steps)(black, nothing, (5,), lambda _: (white, nothing))[0]
    rows, columns = np.nonzero(mixed)
    assert (mixed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 255).all()


def test_fewer_than_three_common_classes_change_nothing() -> None:
    image, packed = _sample()
    other_image, other = _sample()
    other[..., 0] &= 9
    step = {"name": "CopyPaste", "classes": ["discs"], "p": 1.0}
    augment = Augmentation([step], _labels(once=True))
    mixed, mask = augment(image, packed, (0,), lambda _: (other_image, other))
    assert np.array_equal(mixed, image)
    assert np.array_equal(mask, packed)


@pytest.mark.parametrize("matrix", MOVED.values(), ids=MOVED.keys())
def test_fit_finds_the_move(matrix: np.ndarray) -> None:
    points = np.array(list(CENTRES.values()), float)
    # The turn is only nearly one; its scale is found as well.
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    found = fit(points, moved)
    assert found is not None
    assert np.allclose(points @ found[:, :2].T + found[:, 2], moved, atol=1e-6)


@pytest.mark.parametrize("points", [np.zeros((2, 2)), np.ones((4, 2))])
def test_fit_wants_three_places(points: np.ndarray) -> None:
    assert fit(points, points) is None


def test_grey_values_are_fitted_to_the_surroundings() -> None:
    generator = np.random.default_rng(0)
    fixed = generator.normal(120, 8, (40, 40)).astype(np.uint8)
    moving = generator.normal(60, 12, (40, 40)).astype(np.uint8)
    band = np.zeros((40, 40), bool)
    band[:20] = True
    fitted = fit_grey(moving, fixed, band)[band]
    assert fitted.mean() == pytest.approx(fixed[band].mean(), abs=1)
    assert fitted.std() == pytest.approx(fixed[band].std(), rel=0.1)


def test_mixing_wants_another_sample() -> None:
    with pytest.raises(ValueError, match="CutMix: expected other samples"):
        Augmentation([{"name": "CutMix", "p": 1.0}])(*_sample(), (0,))


def test_augmentation_knows_whether_it_mixes() -> None:
    inner = {"name": "OneOf", "transforms": [{"name": "CutMix"}, {"name": "HorizontalFlip"}]}
    assert Augmentation([inner]).mixes
    assert not Augmentation([{"name": "HorizontalFlip"}]).mixes
