"""STAPLE against ITK's filter, and what it does with probabilities."""

import numpy as np
import pytest

from fusion import FUSIONS
from fusion.rules.staple import Staple, estimate
from fusion.types import SoftMask

SIZE_HW = (90, 130)


@pytest.fixture
def masks(world, flaw):
    """Return each class's layers, uint8 (K, H, W) of 0 and 255, of sources of several qualities."""
    flaws = [flaw(n) for n in (1.0, 2.0, 3.0, 4.0)] + [flaw(2.5, blind=True)]
    predictions, _, _ = world(flaws, 1, seed=3)[0]
    return {
        label: np.stack([p.binary(label).full(SIZE_HW) for p in predictions]) * np.uint8(255)
        for label in predictions[0].masks
    }


@pytest.mark.parametrize("sources", [1, 2, 3, 5])
@pytest.mark.slow
def test_the_estimate_is_that_of_itk(masks, sources):
    itk = pytest.importorskip("SimpleITK")
    for layers in masks.values():
        inside = layers[:sources, 10:80, 20:120]
        reference = itk.STAPLEImageFilter()
        reference.SetMaximumIterations(1000)
        images = [itk.GetImageFromArray(np.ascontiguousarray(layer // 255)) for layer in inside]
        truth = itk.GetArrayFromImage(reference.Execute(images))
        found = estimate(inside, iterations=1000)
        assert found.truth == pytest.approx(truth, abs=1e-8)
        assert found.sensitivity == pytest.approx(reference.GetSensitivity(), abs=1e-8)
        assert found.specificity == pytest.approx(reference.GetSpecificity(), abs=1e-8)


def likelihood(layers, found, prior):
    """Log likelihood, written out: of a probability d, d counts as a mark."""
    total = 0.0
    for column in layers.reshape(len(layers), -1).T / 255:
        of_object, of_rest = prior, 1 - prior
        for d, p, q in zip(column, found.sensitivity, found.specificity, strict=True):
            of_object *= p**d * (1 - p) ** (1 - d)
            of_rest *= q ** (1 - d) * (1 - q) ** d
        total += np.log(of_object + of_rest)
    return total


def test_with_probabilities_the_likelihood_never_falls(soft_plane):
    layers = np.stack([soft_plane(seed, (9, 13), 4.0) for seed in (1, 1, 2)])
    layers[1] = np.roll(layers[1], 1, axis=1)
    prior = layers.mean() / 255
    values = [likelihood(layers, estimate(layers, 255, n), prior) for n in (1, 2, 4, 8, 40)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.1


def test_probabilities_count_as_so_many_masks(soft_plane):
    """A source that gives 2/3 is as three masks of which two mark the pixel, each a third."""
    layers = np.stack([soft_plane(seed, (30, 40), 4.0) for seed in (1, 1, 2)])
    layers[1] = np.roll(layers[1], 1, axis=1)
    found = estimate(layers, 3)
    steps = np.rint(layers * (3 / 255)).astype(int)
    masks = np.stack([steps > i for i in range(3)])
    weight = found.truth
    for k in range(3):
        p = (weight * masks[:, k]).sum() / (3 * weight.sum())
        q = ((1 - weight) * (1 - masks[:, k])).sum() / (3 * (1 - weight).sum())
        assert (p, q) == pytest.approx((found.sensitivity[k], found.specificity[k]), abs=1e-6)


def test_sure_probabilities_are_masks(masks):
    layers = masks["3"][:3]
    assert np.array_equal(estimate(layers, 1).truth, estimate(layers, 32).truth)


def test_a_poor_source_counts_less_than_two_good_ones(predict, labels):
    good, poor = np.zeros((2, *SIZE_HW), np.uint8)
    good[30:60, 40:90] = 255
    poor[20:50, 30:80] = 255
    sources = [predict({"3": plane}) for plane in (good, poor, good, poor // 255)]
    fused = Staple()(sources[:3], labels)
    assert np.array_equal(fused.binary("3").full(SIZE_HW), good // 255)
    found = estimate(np.stack([good, poor, good]))
    assert found.sensitivity[0] > found.sensitivity[1]
    assert found.specificity[0] > found.specificity[1]


def test_soft_sources_are_heard(predict, labels):
    """A pixel on which two are nearly undecided goes as the sure one says."""
    masks = np.zeros((3, *SIZE_HW), np.uint8)
    masks[:, 30:60, 40:90] = 250
    masks[0, 40:44, 50:56] = 5
    masks[1:, 40:44, 50:56] = 130
    sources = [predict({"3": plane}) for plane in masks]
    assert Staple()(sources, labels).binary("3").full(SIZE_HW)[41, 52] == 1
    assert Staple(soft=True)(sources, labels).binary("3").full(SIZE_HW)[41, 52] == 0


def test_the_margin_is_a_share_of_the_box_inside_the_image(predict, labels):
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[30:50, 0:40] = 255
    fused = Staple(margin=0.5)([predict({"3": plane})], labels)
    # The mask's cells, and one more on each side: 41 columns, 22 rows.
    assert fused.best("3")[1].window(SIZE_HW) == (0, 29 - 20, 41 + 20, 22 + 20 + 20)


@pytest.mark.parametrize("soft", [False, True])
def test_a_full_mask_stays_full(soft, predict, labels):
    full = np.full(SIZE_HW, 255, np.uint8)
    fused = Staple(soft=soft)([predict({"3": full})] * 3, labels)
    assert fused.binary("3").area == full.size


def test_many_sources_do_not_overflow(soft_plane, predict, labels):
    sources = [predict({"3": soft_plane(seed % 3)}) for seed in range(40)]
    assert Staple(soft=True)(sources, labels).binary("3").area


def test_masks_of_any_resolution_are_heard(predict, soft_plane, labels):
    small = SoftMask((20.0, 10.0, 65.0, 40.0), soft_plane(4, (20, 30)))
    fused = Staple()([predict({"3": small})] * 2, labels)
    assert np.array_equal(
        fused.binary("3").full(SIZE_HW), predict({"3": small}).binary("3").full(SIZE_HW)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"margin": -0.1}, "margin >= 0"), ({"iterations": 0}, "at least one iteration")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FUSIONS["staple"](**options)
