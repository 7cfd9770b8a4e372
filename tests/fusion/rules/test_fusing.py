"""`fusion.fuse` and `fusion.score`: several sources in memory, against rules and plain counts."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

import fusion
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample
from fusion import Mean, Vote, Weighted
from fusion.rules.file import dump_rule
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
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


def write(folder, samples, shifts):
    """Write a store a source, and a rule that trusts one of them alone."""
    names = tuple(f"by {shift}" for shift in shifts)
    stores = []
    for name, shift in zip(names, shifts, strict=True):
        entries = {s.key: (*SIZE_HW, s.file_name) for s in samples}
        manifest = Manifest("semantic", LABELS.name, LABELS.names, entries, space=LABELS)
        with StoreWriter(folder / name, manifest) as writer:
            for sample in samples:
                writer.append(predict(sample, shift))
        stores.append(fusion.PredictionStore(str(folder / name)))
    weights = dict(zip(names, (1.0, 0.0, 0.0), strict=True))
    rule = Weighted(names, weights)
    (folder / "rule.yaml").write_text(dump_rule(rule))
    return stores, folder / "rule.yaml"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_rule_that_names_its_sources_finds_them(order, samples, tmp_path):
    stores, rule = write(tmp_path, samples, (0, 4, 9))
    given = [stores[i] for i in order]
    found = fusion.fuse(given, LABELS, str(rule))
    assert fusion.score(found, samples, LABELS).mean() == 1.0
    named = {stores[i].name: list(stores[i]) for i in order}
    assert fusion.score(fusion.fuse(named, LABELS, rule), samples, LABELS).mean() == 1.0


def test_other_names_are_refused(samples, tmp_path):
    stores, rule = write(tmp_path, samples, (0, 4, 9))
    with pytest.raises(ValueError, match="expects the sources by 0, by 4, by 9; given are a, b"):
        fusion.fuse({"a": stores[0], "b": stores[1]}, LABELS, rule)
    with pytest.raises(ValueError, match=r"expected Mean\(\), found the class"):
        fusion.fuse(stores, LABELS, Mean)
    with pytest.raises(ValueError, match="expected a list of sources"):
        fusion.fuse(stores[0], LABELS)


def test_a_store_is_looked_up_by_key(samples, tmp_path):
    (store, *_), _ = write(tmp_path, samples, (0, 4, 9))
    assert (len(store), store.keys()) == (len(samples), tuple(s.key for s in samples))
    assert [store[one.key].key for one in store] == list(store.keys())
    assert repr(store).endswith("by 0': semantic, 4 images, 2 classes)")
    with pytest.raises(KeyError, match="p9"):
        store["p9"]


def test_classes_of_another_name_are_no_empty_masks(samples):
    masks = {"bowl": predict(samples[0], 0).masks["cup"]}
    wrong = Prediction(samples[0].key, SIZE_HW, "semantic", masks)
    said = r"p0: expected classes of 'toys' \(cup, plate\), found 'bowl'"
    with pytest.raises(ValueError, match=said):
        fusion.score([wrong], samples, LABELS)
    with pytest.raises(ValueError, match=said):
        fusion.fuse([[wrong]], LABELS)


def test_objects_of_what_was_fused():
    labels = LabelSpace("cells", ("cell",))
    planes = [np.zeros(SIZE_HW, bool) for _ in range(2)]
    planes[0][3:9, 3:9] = planes[1][3:9, 9:20] = True
    apart = fusion.predict_objects(
        "a", SIZE_HW, [fusion.MaskObject.of("cell", 0.9, plane) for plane in planes], labels
    )
    (fused,) = fusion.fuse([[apart]], labels)
    divided = fusion.split_prediction(fused, [apart], labels)
    found = [own.mask.full(SIZE_HW) for own in fusion.objects_of(divided, labels)]
    assert len(found) == 2
    assert all(any(np.array_equal(own, plane) for plane in planes) for own in found)
    truth = tuple(Instance("cell", box(*corners)) for corners in ((3, 3, 8, 8), (9, 3, 19, 8)))
    sample = Sample("a", Path("a.png"), SIZE_HW, truth)
    quality = [fusion.score([one], [sample], labels, "objects").pq() for one in (divided, fused)]
    assert quality[0] == 1.0
    assert quality[1] < 0.5
    assert fusion.score([divided], [sample], labels).pq() is None
