"""`fusion.fuse` and `fusion.score`: several sources in memory, against rules and plain counts."""

import numpy as np
import pytest
from shapely.geometry import box

import fusion
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample
from fusion import Mean, Vote
from fusion.types import Prediction, SoftMask

LABELS = LabelSpace("toys", ("cup", "plate"))
SIZE_HW = (30, 44)


@pytest.fixture
def samples(tmp_path):
    def at(key, shift):
        parts = (Instance("cup", box(3 + shift, 4, 20, 25)), Instance("plate", box(15, 10, 43, 29)))
        return Sample(key, tmp_path / f"{key}.png", SIZE_HW, parts, group=key[0])

    return [at(f"{key}{n}", n) for key in "pq" for n in range(2)]


def predict(sample, shift):
    masks = {}
    for name, mask in rasterize_labels(sample.instances, SIZE_HW).items():
        x, y, width, height = mask.box_xywh
        soft = SoftMask((x + shift, y, width, height), mask.pixels * np.uint8(255))
        masks[name] = ((1.0, soft),)
    return Prediction(sample.key, SIZE_HW, "semantic", masks)


def test_sources_are_fused_image_by_image(samples):
    sources = [[predict(s, shift) for s in samples] for shift in (0, 0, 3)]
    for rule, expected in (("vote", Vote()), (Mean(), Mean())):
        found = fusion.fuse(sources, LABELS, rule)
        for one, *heard in zip(found, *sources, strict=True):
            other = expected(heard, LABELS)
            assert one.key == other.key
            for name in LABELS.names:
                pair = (p.binary(name).full(SIZE_HW) for p in (one, other))
                assert np.array_equal(*pair)


def test_scores_are_dice_of_the_pixels(samples):
    found = fusion.score([predict(s, 2) for s in samples[1:]], samples, LABELS, "dice,nsd")
    assert [image.key for image in found.images] == [s.key for s in samples[1:]]
    for image, sample in zip(found.images, samples[1:], strict=True):
        for name, mask in rasterize_labels(sample.instances, SIZE_HW).items():
            true = mask.full(SIZE_HW)
            moved = np.zeros_like(true)
            moved[:, 2:] = true[:, :-2]
            expected = 2 * (true & moved).sum() / (true.sum() + moved.sum())
            assert image.dice[name] == pytest.approx(expected)
            assert 0 < image.measures["nsd"][name] <= 1
        assert image.patient == sample.group
    assert found.mean() == pytest.approx(
        np.mean([[image.dice[n] for n in LABELS.names] for image in found.images])
    )


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (lambda s: [], "at least one source"),
        (lambda s: [[predict(x, 0) for x in s], [predict(s[0], 0)]], r"such as \('p1'"),
        (
            lambda s: [[predict(x, 0) for x in s], [predict(x, 0) for x in reversed(s)]],
            "in another order",
        ),
    ],
)
def test_other_sources_are_refused(samples, sources, said):
    with pytest.raises(ValueError, match=said):
        fusion.fuse(sources(samples), LABELS)


def test_an_unknown_rule_is_refused(samples):
    with pytest.raises(ValueError, match="rule 'median': expected one of mean,"):
        fusion.fuse([[predict(samples[0], 0)]], LABELS, "median")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, s: ([], s), "expected predictions, found none"),
        (lambda p, s: (p, s[1:]), "'p0': expected an annotated sample"),
        (
            lambda p, s: ([Prediction("p0", (9, 9), "semantic", {})], s),
            r"was predicted at \(9, 9\)",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(samples, change, said):
    with pytest.raises(ValueError, match=said):
        fusion.score(*change([predict(s, 0) for s in samples], samples), LABELS)
