"""Shortcuts to a soft mask's pixels give what the long way gives, to the bit."""

import numpy as np
import pytest

from converters.masks import crop
from fusion.types import SoftMask

SIZE_HW = (90, 130)
LEVELS = (1, 77, 128, 200, 255, 256)


def blob(rng, shape):
    """A raster with sure cells, empty cells, a hole and single cells."""
    prob = rng.integers(0, 256, shape, np.uint8)
    prob[rng.random(shape) < 0.4] = 0
    prob[rng.random(shape) < 0.3] = 255
    edge = rng.integers(0, 4, 4)
    prob[: edge[0]], prob[shape[0] - edge[1] :] = 0, 0
    prob[:, : edge[2]], prob[:, shape[1] - edge[3] :] = 0, 0
    return prob


def whole_cells(rng, shape):
    across, down = rng.integers(1, 9, 2)
    x, y = rng.integers(-20, 60, 2)
    return float(x), float(y), float(shape[1] * across), float(shape[0] * down)


def whole_box(rng, shape):
    x, y = rng.integers(-20, 60, 2)
    return float(x), float(y), *map(float, rng.integers(1, 90, 2))


def any_box(rng, shape):
    return (*rng.uniform(-20, 60, 2).tolist(), *rng.uniform(0.6, 90, 2).tolist())


def at_pixels(rng, shape):
    x, y = rng.integers(-10, 60, 2)
    return float(x), float(y), float(shape[1]), float(shape[0])


@pytest.mark.parametrize("place", [whole_cells, whole_box, any_box, at_pixels])
def test_a_mask_is_what_the_rendered_window_reaches(place):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 24, 2).tolist())
        mask = SoftMask(place(rng, shape), blob(rng, shape))
        rendered = mask.render((0, 0, SIZE_HW[1], SIZE_HW[0])).astype(int)
        for level in LEVELS:
            expected = crop(rendered >= level)
            found = mask.binary(SIZE_HW, level)
            assert found.box_xywh == expected.box_xywh
            assert np.array_equal(found.pixels, expected.pixels)


@pytest.mark.parametrize("place", [whole_cells, at_pixels])
def test_a_part_of_a_mask_has_the_whole_ones_pixels(place):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 24, 2).tolist())
        mask = SoftMask(place(rng, shape), blob(rng, shape))
        whole = mask.render((0, 0, SIZE_HW[1], SIZE_HW[0]))
        x0, x1 = np.sort(rng.integers(0, SIZE_HW[1], 2)).tolist()
        y0, y1 = np.sort(rng.integers(0, SIZE_HW[0], 2)).tolist()
        part = mask.render((x0, y0, x1 - x0 + 1, y1 - y0 + 1))
        assert np.array_equal(part, whole[y0 : y1 + 1, x0 : x1 + 1])


def test_rendering_gives_an_array_of_its_own():
    prob = np.full((3, 4), 200, np.uint8)
    SoftMask((0.0, 0.0, 4.0, 3.0), prob).render((0, 0, 4, 3))[:] = 0
    assert prob.min() == 200
