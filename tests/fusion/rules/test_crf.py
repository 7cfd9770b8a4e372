"""The dense CRF against the mean field computed with whole kernel matrices."""

import sys

import numpy as np
import pytest

from converters.errors import MissingDependency
from fusion.rules.crf import DenseCrf

SIDE_PX = 200.0


def scene(shape=(24, 32), seed=0):
    """A bright disc; a noisy probability of it whose outline is too large."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    far = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    image = np.where(far < 7, 150, 60) + rng.normal(scale=4, size=shape)
    logit = (9 - far) + rng.normal(scale=0.7, size=shape)
    prob = np.rint(255 / (1 + np.exp(-logit)))
    return far, image.clip(0, 255).astype(np.uint8), prob.astype(np.uint8)


def kernel(features):
    gaps = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    k = np.exp(-0.5 * gaps)
    root = np.sqrt(k.sum(axis=1))
    return k / root[:, None] / root[None]


def mean_field(crf, prob, image):
    places = np.stack([i.ravel() for i in np.indices(prob.shape)], axis=1)
    grey = image.reshape(-1, 1) / crf.grey
    near = np.concatenate([places / (crf.reach * SIDE_PX), grey], axis=1)
    pull = crf.weight * kernel(near)
    pull += crf.smooth_weight * kernel(places / (crf.smooth_reach * SIDE_PX))
    inside = np.clip(prob.ravel() / 255, 0.5 / 255, 1 - 0.5 / 255)
    own = np.log(np.stack([1 - inside, inside]))
    q = np.exp(own)
    for _ in range(crf.steps):
        q = np.exp(own + q @ pull)
        q /= q.sum(axis=0)
    return q[1].reshape(prob.shape)


@pytest.mark.parametrize(
    "crf",
    [
        DenseCrf(reach=0.02, smooth_reach=0.01),
        DenseCrf(reach=0.03, grey=20.0, weight=2.0, smooth_weight=0.0),
        DenseCrf(weight=0.0, smooth_weight=2.0, smooth_reach=0.01, steps=1),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mean_field_is_that_of_whole_kernels(crf, seed):
    pytest.importorskip("pydensecrf")
    _, image, prob = scene(seed=seed)
    found = crf(prob, image, SIDE_PX) / 255
    expected = mean_field(crf, prob, image)
    # The library's lattice approximates the kernels.
    assert np.abs(found - expected).mean() < 0.02
    assert ((found >= 0.5) == (expected >= 0.5)).mean() > 0.98


def test_the_outline_comes_to_lie_on_the_edge():
    pytest.importorskip("pydensecrf")
    far, image, prob = scene()
    found = DenseCrf(reach=0.02, weight=6.0)(prob, image, SIDE_PX) >= 128
    wrong, was_wrong = (found != (far < 7)).sum(), ((prob >= 128) != (far < 7)).sum()
    assert wrong < 0.3 * was_wrong


def test_without_pull_only_the_bytes_ends_change():
    pytest.importorskip("pydensecrf")
    _, image, prob = scene()
    crf = DenseCrf(weight=0.0, smooth_weight=0.0)
    assert np.abs(crf(prob, image, SIDE_PX).astype(int) - prob).max() <= 1


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 40)])
def test_tiny_parts_are_no_trouble(shape):
    pytest.importorskip("pydensecrf")
    prob = np.full(shape, 200, np.uint8)
    assert DenseCrf()(prob, prob, SIDE_PX).shape == shape


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    _, image, prob = scene()
    with pytest.raises(MissingDependency, match=r"maskzoo\[crf\]"):
        DenseCrf()(prob, image, SIDE_PX)


def test_an_image_of_another_size_is_refused():
    _, image, prob = scene()
    with pytest.raises(ValueError, match=r"expected grey uint8 \(24, 32\), found uint8 \(24, 31\)"):
        DenseCrf()(prob, image[:, 1:], SIDE_PX)


@pytest.mark.parametrize(
    "options",
    [
        *({"reach": 0.0}, {"grey": -1.0}, {"smooth_reach": float("nan")}, {"weight": -1.0}),
        *({"smooth_weight": float("inf")}, {"steps": 0}),
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"crf: '{next(iter(options))}': expected"):
        DenseCrf(**options)
