"""Targets and losses of the tasks beside masks, against SciPy, OpenCV and colorsys."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from zoo.config import check_config
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.multitask import (
    MultitaskObjective,
    find_outlines,
    measure_colors,
    measure_distances,
    tanimoto,
)
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow


def _draw(draw: Callable[[np.ndarray], None], size: tuple[int, int] = (40, 52)) -> np.ndarray:
    plane = np.zeros(size, np.uint8)
    draw(plane)
    return plane.astype(bool)


def _ring(plane: np.ndarray) -> None:
    cv2.circle(plane, (25, 20), 15, 1, -1)
    cv2.circle(plane, (28, 18), 5, 0, -1)


def _two(plane: np.ndarray) -> None:
    cv2.circle(plane, (8, 8), 5, 1, -1)
    cv2.circle(plane, (40, 30), 8, 1, -1)


MASKS = {
    "empty": _draw(lambda plane: None),
    "full": _draw(lambda plane: plane.fill(1)),
    "a pixel": _draw(lambda plane: plane.__setitem__((7, 9), 1)),
    "a hole": _draw(_ring),
    "two parts": _draw(
        lambda p: (cv2.circle(p, (8, 8), 5, 1, -1), cv2.circle(p, (40, 30), 8, 1, -1))
    ),
    "at the border": _draw(lambda plane: cv2.circle(plane, (0, 39), 14, 1, -1)),
    "all but a pixel": _draw(lambda plane: (plane.fill(1), plane.__setitem__((20, 30), 0))),
}


@pytest.mark.parametrize("reach", [1, 5, 127])
@pytest.mark.parametrize("name", MASKS)
def test_distances_are_scipys(name: str, reach: int) -> None:
    mask = MASKS[name]
    padded = distance_transform_edt(mask) if not mask.all() else np.full(mask.shape, 1e9)
    expected = np.minimum(padded, reach)
    expected = expected / max(expected.max(), 1)
    found = measure_distances(torch.from_numpy(mask)[None, None], reach)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_each_image_and_class_has_its_own_farthest() -> None:
    planes = torch.from_numpy(np.stack(list(MASKS.values())))
    several = measure_distances(planes.reshape(7, 1, 40, 52).repeat(1, 2, 1, 1), 9)
    for plane, found in zip(planes, several, strict=True):
        alone = measure_distances(plane[None, None], 9)[0, 0]
        assert torch.equal(found[0], alone)
        assert torch.equal(found[1], alone)


@pytest.mark.parametrize("name", MASKS)
def test_outlines_are_scipys(name: str) -> None:
    mask = MASKS[name]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    expected = binary_dilation(mask, cross) & ~binary_erosion(mask, cross, border_value=1)
    found = find_outlines(torch.from_numpy(mask)[None, None])[0, 0].numpy()
    assert (found == expected).all()


@pytest.mark.parametrize("name", ["a hole", "two parts", "at the border"])
def test_outlines_lie_where_the_authors_find_them(name: str) -> None:
    """Canny's edges lie on one side of an outline or the other: within a pixel of ours."""
    mask = MASKS[name].astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    theirs = cv2.dilate(cv2.Canny(mask, 0, 1), cross) > 0
    found = find_outlines(torch.from_numpy(mask)[None, None].bool())[0, 0].numpy()
    square = np.ones((3, 3), bool)
    inner = np.s_[2:-2, 2:-2]
    assert (theirs & ~binary_dilation(found, square))[inner].sum() == 0
    assert (found & ~binary_dilation(theirs, square))[inner].sum() == 0


def test_tanimoto_is_its_formula() -> None:
    torch.manual_seed(0)
    p, q = torch.rand(2, 3, 8, 9), (torch.rand(2, 3, 8, 9) > 0.6).float()
    ratios = []
    for a, b in ((p, q), (1 - p, 1 - q)):
        for n in range(2):
            for c in range(3):
                x, y = a[n, c].flatten(), b[n, c].flatten()
                ratios.append(x @ y / (x @ x + y @ y - x @ y))
    torch.testing.assert_close(tanimoto(p, q), 1 - torch.stack(ratios).mean())


def test_tanimoto_of_what_is_right_and_wrong() -> None:
    truth = torch.zeros(1, 2, 4, 4)
    truth[0, 0, :2] = 1
    assert tanimoto(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert tanimoto(1 - truth, truth).item() == pytest.approx(1, abs=1e-5)


def test_tasks_are_added_by_weight() -> None:
    torch.manual_seed(0)
    area = torch.from_numpy(np.stack([MASKS["a hole"], MASKS["two parts"]]))[None].float()
    outputs = {k: torch.randn(1, 2, 40, 52) for k in ("masks", "outlines", "distances")}
    base = Objective({"bce": 1.0})
    outlines = tanimoto(outputs["outlines"].sigmoid(), find_outlines(area > 0).float())
    distances = tanimoto(outputs["distances"].sigmoid(), measure_distances(area > 0, 6))
    expected = base(outputs["masks"], area) + 0.3 * (outlines + distances)
    torch.testing.assert_close(MultitaskObjective(base, 6, 0.3)(outputs, area), expected)


def _colored_images() -> torch.Tensor:
    """Bytes (2, 3, 40, 52): noise, and beside it black, white, grey and the six pure colours."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 40, 52), generator=generator).to(torch.uint8)
    pure = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (255, 255, 0), (0, 255, 0)]
    pure += [(0, 255, 255), (0, 0, 255), (255, 0, 255), (0, 0, 1)]
    images[0, :, 0, : len(pure)] = torch.tensor(pure, dtype=torch.uint8).T
    return images


def test_colors_are_those_of_python() -> None:
    images = _colored_images()
    found = measure_colors(images).permute(0, 2, 3, 1).reshape(-1, 3)
    pixels = (images.double() / 255).permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    expected = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_colors_are_the_authors_without_their_rounding() -> None:
    images = _colored_images()
    planes = cv2.cvtColor(images[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV)
    theirs = torch.from_numpy(planes / [179.0, 255.0, 255.0]).permute(2, 0, 1)
    apart = (measure_colors(images)[0] - theirs).abs()
    # Hue is a circle: what they round up to the whole of it becomes 0.
    apart[0] = torch.minimum(apart[0], 1 - apart[0])
    assert (apart.amax((1, 2)) < torch.tensor([0.01, 0.01, 1e-6])).all()


def test_of_grey_images_the_color_is_their_brightness() -> None:
    grey = _colored_images()[:, :1]
    assert torch.equal(measure_colors(grey), grey.float() / 255)
    as_colors = measure_colors(grey.repeat(1, 3, 1, 1))
    assert torch.equal(as_colors[:, 2:], grey.float() / 255)
    assert not as_colors[:, :2].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_a_task_like_the_others(channels: int) -> None:
    torch.manual_seed(0)
    area = torch.from_numpy(np.stack([MASKS["a hole"], MASKS["two parts"]]))[None].float()
    outputs = {k: torch.randn(1, 2, 40, 52) for k in ("masks", "outlines", "distances")}
    base, images = Objective({"bce": 1.0}), _colored_images()[:1, :channels]
    without = MultitaskObjective(base, 6, 0.3)(outputs, area)
    outputs["colors"] = torch.randn(1, channels, 40, 52)
    colors = tanimoto(outputs["colors"].sigmoid(), measure_colors(images))
    found = MultitaskObjective(base, 6, 0.3, colors=True)(outputs, area, images)
    torch.testing.assert_close(found, without + 0.3 * colors)


def test_a_config_sets_it_up() -> None:
    raw = {
        **{"size": [64, 64], "epochs": 1, "batch": 1, "architecture": "resunet_a"},
        "options": {"multitask": True, "reach": 20, "task_weight": 0.2},
    }
    config = check_config(NetsConfig, raw, "test")
    objective = config.objective(config.labels)
    assert isinstance(objective, MultitaskObjective)
    assert (objective.reach, objective.weight, objective.needs_images) == (20, 0.2, False)
    coloured = check_config(NetsConfig, raw | {"options": {"multitask": True, "colors": True}}, "")
    assert coloured.objective(coloured.labels).needs_images
    plain = check_config(NetsConfig, raw | {"options": {}}, "test")
    assert type(plain.objective(plain.labels)) is Objective
