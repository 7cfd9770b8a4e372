"""Distances of outlines against SciPy's distance transform, MONAI and DeepMind's package."""

import warnings
from itertools import product

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from converters.masks import EMPTY, CropMask, crop
from fusion.metrics.surface import (
    SurfaceDistances,
    boundary_error_rate,
    disc,
    edge_points,
    surface_distances,
)

SIZE_HW = (24, 37)


def draw(*calls):
    plane = np.zeros(SIZE_HW, np.uint8)
    for name, *arguments in calls:
        getattr(cv2, name)(plane, *arguments)
    return plane


def with_noise(seed):
    rng = np.random.default_rng(seed)
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[4:19, 6:30] = rng.random((15, 24)) < 0.7
    return plane


SHAPES = {
    "disc": draw(("circle", (15, 12), 7, 1, -1)),
    "moved": draw(("circle", (17, 11), 7, 1, -1)),
    "hole": draw(("circle", (16, 12), 8, 1, -1), ("circle", (15, 13), 3, 0, -1)),
    "two_parts": draw(("circle", (8, 8), 4, 1, -1), ("circle", (27, 16), 5, 1, -1)),
    "line": draw(("line", (3, 20), (33, 2), 1, 1)),
    "pixel": draw(("line", (30, 3), (30, 3), 1, 1)),
    "border": draw(("rectangle", (0, 14), (9, 23), 1, -1)),
    "full": np.ones(SIZE_HW, np.uint8),
    "empty": np.zeros(SIZE_HW, np.uint8),
    "noise": with_noise(0),
    "other_noise": with_noise(1),
}
PAIRS = list(product(SHAPES, SHAPES))


def scipy_distances(a, b):
    """Distances from the edge pixels of whole planes, by brute force."""
    edges = [plane.astype(bool) & ~binary_erosion(plane) for plane in (a, b)]
    return [
        distance_transform_edt(~other)[edge] if other.any() else np.full(edge.sum(), np.inf)
        for edge, other in (edges, edges[::-1])
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_distances_are_scipys(a, b):
    found = surface_distances(crop(SHAPES[a]), crop(SHAPES[b]))
    for ours, theirs in zip(
        (found.to_truth, found.to_prediction), scipy_distances(SHAPES[a], SHAPES[b]), strict=True
    ):
        assert np.sort(ours) == pytest.approx(np.sort(theirs), abs=1e-9)


def test_distances_across_a_large_image_are_exact():
    corners = CropMask(0, 0, np.ones((1, 1), np.uint8)), CropMask(2047, 1999, np.ones((1, 1), "u1"))
    found = surface_distances(*corners)
    assert found.to_truth.tolist() == found.to_prediction.tolist() == [np.hypot(2047, 1999)]


@pytest.fixture(scope="module")
def monai_metrics():
    return pytest.importorskip("monai.metrics")


def planes_of_all_pairs(torch):
    pick = [[SHAPES[pair[i]] for pair in PAIRS] for i in (0, 1)]
    return [torch.from_numpy(np.stack(planes))[:, None] for planes in pick]


def ours_of_all_pairs():
    return [surface_distances(crop(SHAPES[a]), crop(SHAPES[b])) for a, b in PAIRS]


@pytest.mark.parametrize("tolerance", [0.0, 2.0])
@pytest.mark.slow
def test_surface_dice_is_monais(monai_metrics, tolerance):
    import torch

    metric = monai_metrics.SurfaceDiceMetric([tolerance], include_background=True, reduction="none")
    with warnings.catch_warnings(action="ignore"):  # of empty masks
        expected = metric(*planes_of_all_pairs(torch))[:, 0].numpy()
    found = [distances.surface_dice(tolerance) for distances in ours_of_all_pairs()]
    # Both empty: MONAI has no value, we have 1.
    both_empty = PAIRS.index(("empty", "empty"))
    assert np.isnan(expected[both_empty])
    assert found[both_empty] == 1
    rest = np.arange(len(PAIRS)) != both_empty
    assert np.array(found)[rest] == pytest.approx(expected[rest], abs=1e-6)


@pytest.mark.parametrize("percentile", [95, 100])
@pytest.mark.slow
def test_hausdorff_is_monais(monai_metrics, percentile):
    import torch

    metric = monai_metrics.HausdorffDistanceMetric(
        include_background=True, percentile=percentile, reduction="none"
    )
    with warnings.catch_warnings(action="ignore"):
        expected = metric(*planes_of_all_pairs(torch))[:, 0].numpy()
    found = np.array([distances.hausdorff(percentile) for distances in ours_of_all_pairs()])
    defined = np.isfinite(expected)
    assert found[defined] == pytest.approx(expected[defined], abs=1e-5)
    # Where one is empty there is no distance.
    assert [PAIRS[i] for i in np.flatnonzero(np.isinf(found))] == [
        pair for pair in PAIRS if (pair[0] == "empty") != (pair[1] == "empty")
    ]


@pytest.mark.slow
def test_average_distance_is_monais(monai_metrics):
    import torch

    metric = monai_metrics.SurfaceDistanceMetric(
        include_background=True, symmetric=True, reduction="none"
    )
    with warnings.catch_warnings(action="ignore"):
        expected = metric(*planes_of_all_pairs(torch))[:, 0].numpy()
    found = np.array([distances.average() for distances in ours_of_all_pairs()])
    defined = np.isfinite(expected)
    assert found[defined] == pytest.approx(expected[defined], abs=1e-5)


def blob(seed, size=160):
    """A smooth round outline."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radius = 45 + sum(
        rng.normal(0, 3 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3)
    )
    points = np.stack([80 + radius * np.cos(angle), 76 + radius * np.sin(angle)], axis=1)
    plane = np.zeros((size, size + 11), np.uint8)
    cv2.fillPoly(plane, [np.rint(points).astype(np.int32)], (1,))
    return plane


# The package looks for two SciPy functions at their old places.
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize("seed", range(6))
def test_smooth_outlines_score_about_as_between_the_pixels(seed):
    deepmind = pytest.importorskip("surface_distance")
    a, b = blob(seed), blob(seed + 1)
    theirs = deepmind.compute_surface_distances(b.astype(bool), a.astype(bool), (1, 1))
    ours = surface_distances(crop(a), crop(b))
    at_2_px = deepmind.compute_surface_dice_at_tolerance(theirs, 2)
    assert 0.2 < at_2_px < 0.98
    assert ours.surface_dice(2) == pytest.approx(at_2_px, abs=0.08)
    assert ours.hausdorff() == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 95), abs=0.8)


def test_pooled_directions_would_be_another_distance():
    # 95 % of all distances together are 0; from the truth's side a tenth is 9.
    found = SurfaceDistances(np.zeros(190), np.repeat([0.0, 9.0], [9, 1]))
    assert found.hausdorff() == pytest.approx(9 * 0.55)
    assert found.average() == pytest.approx(9 / 200)


def test_edges_of_an_empty_and_of_a_thin_mask():
    assert edge_points(EMPTY).shape == (0, 2)
    assert edge_points(CropMask(5, 7, np.ones((1, 3), np.uint8))).tolist() == [
        [5, 7],
        [6, 7],
        [7, 7],
    ]


def brute_boundary_error(prediction, truth, radius):
    """By distances on whole planes; the truth goes on beyond the image's border."""
    padded = np.pad(truth, radius, mode="edge")
    to_truth = distance_transform_edt(~(truth > 0)) if truth.any() else np.full(SIZE_HW, np.inf)
    nowhere = np.full(padded.shape, np.inf)
    to_rest = distance_transform_edt(padded) if not padded.all() else nowhere
    to_rest = to_rest[radius:-radius, radius:-radius]
    band = (to_truth <= radius) & (to_rest <= radius)
    return np.count_nonzero((prediction != truth) & band) / band.sum() if band.any() else None


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_boundary_error_is_that_of_whole_planes(a, b, radius):
    expected = brute_boundary_error(SHAPES[a], SHAPES[b], radius)
    if expected is None:
        expected = float(a != b)
    found = boundary_error_rate(crop(SHAPES[a]), crop(SHAPES[b]), SIZE_HW, radius)
    assert found == pytest.approx(expected)


def test_the_band_is_a_disc_wide():
    assert np.array_equal(disc(1), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert disc(3).sum() == 29
