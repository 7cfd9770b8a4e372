"""What every fusion rule keeps to; a new entry of FUSIONS needs examples here and nothing else:
in `RULES`, `ALONE` and `WITHOUT_THIRD`."""

import dataclasses

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace
from fusion import FUSIONS, Hybrid, Mean, Vote
from fusion.checks.adjacency import Adjacency
from fusion.checks.layout import Place
from fusion.rules.base import FusionRule, WrappedRule, layers
from fusion.rules.classwise import Classwise
from fusion.rules.evidence import ZONES
from fusion.rules.file import dump_rule, read_rule
from fusion.rules.flagged import FlaggedRule
from fusion.rules.hybrid import ClassWeights
from fusion.rules.pooling import Max, Weighted
from fusion.rules.refine import Refine, Refined
from fusion.rules.staple import Staple
from fusion.types import Prediction, SoftMask

SIZE_HW = (90, 130)
ABC = ("a", "b", "c")
# One weight a source, then that of their mean.
WEIGHTS = {
    "alone": (0.5, 0.25, 0.25, 0.5),
    "shared": (0.0, 0.75, 0.25, 0.0),
    "outline": (0.25, 0.25, 0.5, 0.25),
}
RULES = {
    "mean": Mean(),
    "mean of names": Mean(ABC),
    "mean, thresholds": Mean(thresholds={"long": 0.4, "3": 0.55}),
    "weighted": Weighted(
        weights={"a": 0.6, "b": 0.3, "c": 0.1}, classes={"long": {"a": 2.0}, "3": {"c": 1e-3}}
    ),
    "weighted, thresholds": Weighted(ABC, {"a": 1, "b": 2, "c": 1}, thresholds={"wrist_2": 0.45}),
    "vote": Vote(ABC, prefer=("b", "a")),
    "vote, two": Vote(k=2),
    "vote of votes": Vote(votes=(("a", "b"), "c"), prefer=("b", "c")),
    "max": Max(),
    "classwise": Classwise(ABC, {"long": "a", "3": Mean(("c", "b"))}, "b"),
    "classwise of rules": Classwise(ABC, {"carpals": Vote(("b", "c"), prefer=("b",))}, Staple()),
    "staple": Staple(),
    "staple, soft": Staple(soft=True, margin=0.1),
    "hybrid": Hybrid(),
    "hybrid, fitted": Hybrid(ABC, dict.fromkeys(("3", "Ulna"), ClassWeights(0.125, WEIGHTS))),
}
ALONE = {
    "mean": Mean(),
    "weighted": Weighted(weights={"a": 0.3}),
    "vote": Vote(),
    "vote of votes": Vote(votes=((("a",),),)),
    "max": Max(),
    "classwise": Classwise(rest="a"),
    "staple": Staple(),
    "hybrid": Hybrid(),
    "hybrid, fitted": Hybrid(("a",), {"3": ClassWeights.single(0, ("a",))}),
}
# A rule of three sources -> the rule that is left where the third has nothing to say.
WITHOUT_THIRD = {
    "mean": (Mean(), Mean()),
    "weighted": (
        Weighted(weights={"a": 0.6, "b": 0.3, "c": 0.1}),
        Weighted(weights={"a": 0.6, "b": 0.3}),
    ),
    "vote": (Vote(), Vote()),
    "vote of all": (Vote(k=3), Vote(k=2)),
    "max": (Max(), Max()),
    "classwise": (Classwise(ABC, {"long": "c"}, Mean(("a", "b"))), Mean()),
    "staple": (Staple(), Staple()),
    "staple, soft": (Staple(soft=True), Staple(soft=True)),
    "hybrid": (Hybrid(), Hybrid()),
}


def draw_shapes():
    """One class each: a ring that overlaps the next, two parts, one at the border, everything."""
    planes = {name: np.zeros(SIZE_HW, np.uint8) for name in ("finger-1", "wrist_2", "3", "Ulna")}
    cv2.ellipse(planes["finger-1"], (45, 40), (25, 18), 20, 0, 360, 255, -1)
    cv2.ellipse(planes["finger-1"], (45, 40), (8, 6), 0, 0, 360, 0, -1)
    planes["wrist_2"][30:55, 60:80] = 255
    planes["wrist_2"][60:80, 20:30] = 255
    planes["3"][70:, 100:] = 255
    planes["Ulna"][:] = 255
    return planes


def seen(blur, shift=0, kind="semantic", without=(), size_hw=SIZE_HW):
    masks = {}
    for label, plane in draw_shapes().items():
        if label in without:
            continue
        soft = cv2.GaussianBlur(np.roll(plane, shift, 1), (0, 0), blur)
        # The raster reaches beyond the image, as a detection's box may.
        wide = cv2.copyMakeBorder(soft, 2, 3, 4, 5, cv2.BORDER_REPLICATE)
        box = (-4.0, -2.0, size_hw[1] + 9.0, size_hw[0] + 5.0)
        masks[label] = ((0.75 if kind == "instance" else 1.0, SoftMask(box, wide)),)
    return Prediction("ID001/image_1_R", size_hw, kind, masks)


@pytest.fixture
def sources():
    return [seen(2.0), seen(3.0, 3), seen(1.5, -2, "instance", ("Ulna",))]


def planes_of(prediction):
    height, width = prediction.size_hw
    return {n: prediction.best(n)[1].render((0, 0, width, height)) for n in prediction.masks}


def assert_same(found, expected, steps=0):
    found, expected = planes_of(found), planes_of(expected)
    assert set(found) == set(expected)
    for label, plane in expected.items():
        assert np.abs(found[label].astype(int) - plane).max() <= steps, label


def permuted(rule, order):
    """The same rule whose sources come in another order."""
    options = {}
    if rule.sources:
        options["sources"] = tuple(rule.sources[i] for i in order)
    if isinstance(rule, Hybrid):
        options["classes"] = {
            label: dataclasses.replace(
                w, weights={z: (*(row[i] for i in order), row[-1]) for z, row in w.weights.items()}
            )
            for label, w in rule.classes.items()
        }
    return dataclasses.replace(rule, **options)


def test_every_rule_has_examples():
    for kind in FUSIONS.values():
        for examples in (RULES.values(), ALONE.values(), (r for r, _ in WITHOUT_THIRD.values())):
            assert any(type(rule) is kind for rule in examples), kind


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_the_base(name):
    rule = RULES[name]
    assert isinstance(rule, FusionRule)
    assert isinstance(rule.sources, tuple)
    assert rule.innermost() is rule


def masks_of(prediction, size_hw):
    """A source's masks with rows of another length, as of a submission without images."""
    masks = {}
    for label in prediction.masks:
        plane = 255 * prediction.binary(label).full(SIZE_HW).reshape(size_hw)
        masks[label] = ((1.0, SoftMask((0.0, 0.0, size_hw[1], size_hw[0]), plane)),)
    return Prediction(prediction.key, size_hw, "semantic", masks)


@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if rule.is_pixelwise])
def test_a_pixelwise_rule_needs_no_sizes(name, sources, labels):
    other_hw = (SIZE_HW[0] // 2, SIZE_HW[1] * 2)
    found = RULES[name]([masks_of(p, other_hw) for p in sources], labels)
    expected = RULES[name]([masks_of(p, SIZE_HW) for p in sources], labels)
    assert set(found.masks) == set(expected.masks)
    for label in labels.names:
        plane = found.binary(label).full(other_hw).reshape(SIZE_HW)
        assert np.array_equal(plane, expected.binary(label).full(SIZE_HW)), label


def test_some_rules_look_around():
    assert not Staple().is_pixelwise
    assert not Hybrid().is_pixelwise
    assert Classwise(ABC, {"3": Mean(("c", "b"))}, "b").is_pixelwise
    assert not Classwise(ABC, {"3": Mean(("c", "b"))}, Staple()).is_pixelwise


@pytest.mark.parametrize("inner", [Mean(ABC), Vote(), Staple(), Hybrid(ABC)])
def test_what_is_around_a_rule_has_a_base_too(inner, places):
    adjacency = Adjacency("shapes", 12, places)
    refined, flagged = Refined(inner, Refine()), FlaggedRule(inner, adjacency)
    both = FlaggedRule(refined, adjacency)
    for rule in (refined, flagged, both):
        assert isinstance(rule, WrappedRule)
        assert rule.sources == inner.sources
        assert rule.innermost() is inner
        # Parts, outlines and places are looked at, not pixels.
        assert not rule.is_pixelwise
        assert Classwise(rest=rule).sources == inner.sources
        assert not Classwise(rest=rule).is_pixelwise
    assert list(layers(both)) == [both, refined, inner]
    assert list(layers(inner)) == [inner]


@pytest.fixture
def places():
    names = ("finger-1", "wrist_2", "3", "Ulna")
    return {
        name: Place((0.1 * k, 0.2), 0.1, names[:k], (0, 0, 0), (1, 1, 1), (1.0,) * 9, 1.0, 1.0)
        for k, name in enumerate(names)
    }


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_pure(name, sources, labels):
    before = [planes_of(p) for p in sources]
    first, second = RULES[name](sources, labels), RULES[name](sources, labels)
    assert_same(first, second)
    assert (first.key, first.size_hw, first.kind) == (sources[0].key, SIZE_HW, "semantic")
    for prediction, planes in zip(sources, before, strict=True):
        assert all(np.array_equal(planes_of(prediction)[n], p) for n, p in planes.items())


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_the_classes_does_not_matter(name, sources, labels):
    turned = LabelSpace(labels.name, labels.names[::-1], labels.groups)
    assert_same(RULES[name](sources, turned), RULES[name](sources, labels))
    found = RULES[name](sources, turned).masks
    assert list(found) == [label for label in turned.names if label in found]


def exact(prediction):
    """All that a prediction says, to the byte."""
    return [
        (label, rank, score, mask.box_xywh, mask.prob.shape, mask.prob.tobytes())
        for label, rank, score, mask in prediction.rows()
    ]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (0, 2, 1)])
def test_sources_may_change_places_with_their_names(name, order, sources, labels):
    found = permuted(RULES[name], order)([sources[i] for i in order], labels)
    assert exact(found) == exact(RULES[name](sources, labels))


# Rules that need no names, on sources that are alike, differ, tie, find nothing or nowhere enough.
UNNAMED = {name: rule for name, rule in RULES.items() if not rule.sources}


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("name", UNNAMED)
def test_the_order_of_the_sources_does_not_matter(name, count, once, labels):
    generator = np.random.default_rng(count)
    space = dataclasses.replace(labels, once=once)
    seen_by = [
        seen(1.0 + 0.3 * i, 2 * i - 3, "instance" if i % 2 else "semantic", ("Ulna",) * (i == 1))
        for i in range(count)
    ]
    faint = SoftMask((10.0, 10.0, 20.0, 20.0), np.full((5, 5), 60, np.uint8))
    other = SoftMask((40.0, 10.0, 20.0, 20.0), np.full((5, 5), 60, np.uint8))
    # Of one class all are faint and equally sure: none is the best by its place.
    seen_by = [
        dataclasses.replace(p, masks={**p.masks, "wrist_2": ((0.5, other if i % 2 else faint),)})
        for i, p in enumerate(seen_by)
    ]
    expected = exact(UNNAMED[name](seen_by, space))
    assert expected
    for _ in range(4):
        order = generator.permutation(count).tolist()
        found = UNNAMED[name]([seen_by[i] for i in order], space)
        assert exact(found) == expected, order


@pytest.mark.parametrize("name", WITHOUT_THIRD)
def test_who_abstains_has_no_weight(name, sources, labels):
    rule, rest = WITHOUT_THIRD[name]
    silent = dataclasses.replace(sources[2], masks={}, classes=frozenset())
    assert_same(rule([*sources[:2], silent], labels), rest(sources[:2], labels))


@pytest.mark.parametrize("name", RULES)
def test_a_class_of_which_nobody_speaks_is_absent(name, sources, labels):
    classes = frozenset({"finger-1", "3"})
    partial = [
        dataclasses.replace(p, masks={n: p.masks[n] for n in classes}, classes=classes)
        for p in sources
    ]
    fused = RULES[name](partial, labels)
    assert set(fused.masks) == classes
    if not isinstance(RULES[name], Hybrid):
        assert [fused.speaks_of(n) for n in labels.names] == [n in classes for n in labels.names]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_nothing_is_made_of_nothing(name, kind, labels):
    nothing = Prediction("ID001/image_1_R", SIZE_HW, kind, {})
    assert not RULES[name]([nothing] * 3, labels).masks


@pytest.mark.parametrize("name", RULES)
def test_masks_outside_the_image_are_nothing(name, labels):
    far = SoftMask((500.0, 0.0, 9.0, 9.0), np.full((2, 2), 255, np.uint8))
    outside = Prediction("k", SIZE_HW, "semantic", {"3": ((1.0, far),), "Ulna": ((1.0, far),)})
    fused = RULES[name]([outside] * 3, labels)
    assert not any(fused.binary(n).area for n in labels.names)


@pytest.mark.parametrize("name", RULES)
def test_an_empty_mask_is_no_object(name, labels):
    blank = SoftMask((0.0, 0.0, 130.0, 90.0), np.zeros((9, 13), np.uint8))
    empty = Prediction("k", SIZE_HW, "semantic", {"3": ((0.0, blank),)})
    assert not RULES[name]([empty] * 3, labels).binary("3").area


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_one_source_alone_is_its_masks(name, kind, labels):
    """Among them: a hole, two parts, an overlap, a bone at the border, the whole image."""
    source = seen(2.0, kind=kind)
    fused = ALONE[name]([source], labels)
    assert set(fused.masks) == set(source.masks)
    for label in source.masks:
        found, expected = fused.binary(label), source.binary(label)
        assert np.array_equal(found.full(SIZE_HW), expected.full(SIZE_HW)), label
    assert fused.binary("Ulna").area == SIZE_HW[0] * SIZE_HW[1]


@pytest.mark.parametrize("name", RULES)
def test_predictions_of_different_images_are_refused(name, sources, labels):
    for other in (
        dataclasses.replace(sources[2], key="other"),
        dataclasses.replace(sources[2], size_hw=(130, 90)),
    ):
        with pytest.raises(ValueError, match=r"expected ID001/image_1_R \(90, 130\), found"):
            RULES[name]([*sources[:2], other], labels)
    with pytest.raises(ValueError, match="at least one source"):
        RULES[name]([], labels)


@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if rule.sources])
def test_another_number_of_sources_is_refused(name, sources, labels):
    with pytest.raises(ValueError, match=r"expected 3 sources \(a, b, c\), found 2"):
        RULES[name](sources[:2], labels)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_survives_its_file(name, tmp_path, sources, labels):
    path = tmp_path / "rule.yaml"
    notes = {label: f"a note: of {label} # 1" for label in labels.names}
    for text in (dump_rule(RULES[name]), dump_rule(RULES[name], notes)):
        path.write_text(text, encoding="utf-8")
        assert read_rule(path) == RULES[name]


def test_zones_are_named(labels):
    assert set(WEIGHTS) == set(ZONES)
