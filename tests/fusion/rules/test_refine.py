"""Refinement against SciPy and closed forms."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from scipy import ndimage

from converters.masks import crop
from converters.types import LabelSpace
from fusion import Mean
from fusion.fit import refinement
from fusion.fit.refinement import Trying, choose_refinement
from fusion.rules import refine
from fusion.rules.crf import DenseCrf
from fusion.rules.refine import Refine, Refined, Steps, drop_parts, fill_holes
from fusion.rules.schema import DataclassReader, plain
from fusion.types import Prediction, SoftMask

SIZE_HW = (90, 130)
SIDE_PX = math.sqrt(SIZE_HW[0] * SIZE_HW[1])


def blobs(seed, shape=(60, 80), sigma=2.5):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (noise > 0.3 * noise.std()).astype(np.uint8)


def disc(radius, centre=(45, 60), shape=SIZE_HW):
    y, x = np.indices(shape)
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def soft(mask):
    return np.where(mask, 230, 20).astype(np.uint8)


# --- the steps


STEPS = [
    Steps(),
    Steps(smooth=0.02),
    Steps(threshold=0.3),
    Steps(threshold=0.95),
    Steps(opening=0.03),
    Steps(closing=0.03, holes=0.1),
    Steps(smooth=0.01, threshold=0.6, opening=0.01, closing=0.02, parts=0.3, holes=math.inf),
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_inside_is_what_the_steps_make_at_least_one_half(steps, seed):
    for mask in (blobs(seed), np.zeros((60, 80), np.uint8), np.ones((60, 80), np.uint8)):
        prob = soft(mask)
        found = steps.inside(prob, SIDE_PX)
        assert found.dtype == np.uint8
        assert np.array_equal(found, steps(prob, SIDE_PX) >= 128)


@pytest.mark.parametrize("seed", range(4))
def test_all_holes_are_those_of_scipy(seed):
    mask = blobs(seed)
    assert np.array_equal(fill_holes(mask, math.inf), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_holes_up_to_a_size_are_those_of_scipy(seed, share):
    mask = blobs(seed)
    numbers, _ = ndimage.label(ndimage.binary_fill_holes(mask) & (mask == 0))
    areas = np.bincount(numbers.ravel())
    small = np.flatnonzero(areas <= share * mask.sum())
    expected = mask | np.isin(numbers, small[small > 0])
    assert np.array_equal(fill_holes(mask, share), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_parts_are_those_of_scipy(seed, share):
    mask = blobs(seed)
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    areas = ndimage.sum_labels(mask, numbers, range(1, count + 1))
    kept = 1 + np.flatnonzero(areas >= share * areas.max())
    assert np.array_equal(drop_parts(mask, share), np.isin(numbers, kept))


def test_two_true_parts_stay_and_a_fragment_goes():
    mask = disc(14, (45, 30)) | disc(10, (45, 80)) | disc(2, (20, 110))
    kept = disc(14, (45, 30)) | disc(10, (45, 80))
    assert np.array_equal(drop_parts(mask, 0.25), kept)
    assert np.array_equal(drop_parts(mask, 1.0), disc(14, (45, 30)))


@pytest.mark.parametrize("mask", [np.zeros((5, 7), np.uint8), np.ones((5, 7), np.uint8)])
def test_empty_and_full_masks_stay(mask):
    assert np.array_equal(drop_parts(mask, 1.0), mask)
    assert np.array_equal(fill_holes(mask, math.inf), mask)


def test_a_hole_open_at_the_border_is_none():
    mask = np.ones((9, 12), np.uint8)
    mask[3:6, :4] = 0
    mask[4, 8] = 0
    filled = fill_holes(mask, math.inf)
    assert filled[4, 8] == 1
    assert not filled[3:6, :4].any()


@pytest.mark.parametrize(
    ("name", "operation"),
    [("opening", ndimage.binary_opening), ("closing", ndimage.binary_closing)],
)
@pytest.mark.parametrize("radius", [1, 3])
def test_opening_and_closing_are_those_of_scipy(name, operation, radius):
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[20:70, 30:100] = blobs(7, (50, 70))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    found = Steps(**{name: radius / SIDE_PX})(soft(mask), SIDE_PX) >= 128
    assert np.array_equal(found, operation(mask, kernel))


def test_closing_neither_eats_nor_adds_at_the_border():
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[:, 40:60] = 1
    for name in ("opening", "closing"):
        found = Steps(**{name: 5 / SIDE_PX})(soft(mask), SIDE_PX) >= 128
        assert np.array_equal(found, mask)


@pytest.mark.parametrize("sigma_px", [0.5, 0.7, 1.0, 2.048, 4.1, 8.192, 31.0])
@pytest.mark.parametrize("shape", [(60, 80), (1, 7), (9, 1), (130, 40)])
def test_smoothing_is_opencvs_gaussian_of_bytes_to_the_bit(sigma_px, shape):
    rng = np.random.default_rng(round(10 * sigma_px))
    masks = soft(blobs(3, shape)), 255 * blobs(4, shape)
    for prob in (rng.integers(0, 256, shape, np.uint8), *masks):
        expected = cv2.GaussianBlur(prob, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
        assert (refine.blur(prob, sigma_px) == expected).all()


@pytest.mark.parametrize("sigma", [0.8, 2.5])
def test_smoothing_is_scipys_gaussian(sigma, soft_plane):
    plane = soft_plane(3)
    found = Steps(smooth=sigma / SIDE_PX)(plane, SIDE_PX)
    expected = ndimage.gaussian_filter(plane.astype(float), sigma, mode="nearest")
    assert np.abs(found - expected).max() <= 1.5


@pytest.mark.parametrize("threshold", [0.1, 0.35, 0.5, 0.501, 0.8])
def test_the_threshold_becomes_one_half(threshold, soft_plane):
    plane = soft_plane(2)
    shifted = Steps(threshold=threshold)(plane, SIDE_PX)
    inside = plane >= 255 * threshold if threshold != 0.5 else plane >= 128
    assert np.array_equal(shifted >= 128, inside)
    order = np.argsort(plane, axis=None, kind="stable")
    assert (np.diff(shifted.ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("steps", [Steps(opening=0.1), Steps(threshold=0.95), Steps(smooth=0.1)])
def test_a_step_that_leaves_nothing_is_not_taken(steps):
    plane = soft(disc(2))
    assert np.array_equal(steps(plane, SIDE_PX) >= 128, plane >= 128)


# --- a prediction


@pytest.fixture
def prediction(predict, soft_plane):
    """A stem with `_`; a hole, two parts, an overlap, a border, a raster of another resolution."""
    ring = disc(25) & ~disc(4)
    border = np.zeros(SIZE_HW, np.uint8)
    border[70:, 10:60] = 1
    return predict(
        {
            "finger-1": soft(ring | disc(3, (10, 10))),
            "wrist_2": soft(disc(15, (60, 70))),
            "3": SoftMask((10.5, 3.25, 70.0, 60.0), soft_plane(5, (20, 30))),
            "Ulna": soft(border),
        }
    )


def test_all_options_off_change_not_a_byte(prediction, labels):
    assert Refine()(prediction, labels) is prediction
    everywhere = Refine(Steps(), {"long": Steps()}, {"3": Steps()})
    assert everywhere(prediction, labels) is prediction


def test_only_the_classes_that_are_named_change(prediction, labels):
    refine = Refine(
        groups={"long": Steps(holes=math.inf)}, classes={"Ulna": Steps(), "3": Steps(parts=1)}
    )
    found = refine(prediction, labels)
    assert found.masks["wrist_2"] is prediction.masks["wrist_2"]
    assert found.masks["Ulna"] is prediction.masks["Ulna"]
    expected = disc(25) | disc(3, (10, 10))
    assert np.array_equal(found.binary("finger-1").full(SIZE_HW), expected)
    was = prediction.binary("3").full(SIZE_HW)
    assert np.array_equal(found.binary("3").full(SIZE_HW), drop_parts(was, 1))


def test_a_crop_gives_what_the_whole_image_gives(prediction, labels):
    steps = Steps(smooth=2 / SIDE_PX, threshold=0.4, closing=2 / SIDE_PX, parts=0.1, holes=math.inf)
    found = Refine(steps)(prediction, labels)
    for label in labels.names:
        whole = prediction.best(label)[1].render((0, 0, SIZE_HW[1], SIZE_HW[0]))
        expected = steps(whole, SIDE_PX) >= 128
        assert np.array_equal(found.binary(label).full(SIZE_HW), expected), label


def test_classes_go_on_overlapping(prediction, labels):
    found = Refine(Steps(closing=3 / SIDE_PX))(prediction, labels)
    both = found.binary("finger-1").full(SIZE_HW) & found.binary("wrist_2").full(SIZE_HW)
    assert both.sum() >= (disc(25) & disc(15, (60, 70)) & ~disc(4)).sum()


def test_what_a_source_speaks_of_and_its_other_detections_stay(labels):
    first, second = (SoftMask((0, 0, 130, 90), soft(disc(r))) for r in (20, 9))
    masks = {"3": ((0.9, first), (0.4, second)), "Ulna": ()}
    told = Prediction("a_1", SIZE_HW, "instance", masks, frozenset(labels.names), (5, 5, 120, 80))
    found = Refine(Steps(threshold=0.4))(told, labels)
    assert found.masks["3"][0][0] == 0.9
    assert found.masks["3"][1] == told.masks["3"][1]
    assert replace(found, masks=told.masks) == told


def test_empty_predictions_and_masks_outside_the_image_stay(predict, labels):
    outside = SoftMask((500.0, 0.0, 9.0, 9.0), np.full((2, 2), 255, np.uint8))
    nothing = np.zeros(SIZE_HW, np.uint8)
    given = predict({"3": outside, "Ulna": nothing})
    assert Refine(Steps(smooth=0.02, parts=1))(given, labels) is given


def test_a_refined_rule_is_the_rule_and_then_the_refinement(prediction, labels):
    refine = Refine(Steps(holes=math.inf))
    found = Refined(Mean(), refine)([prediction, prediction], labels)
    expected = refine(Mean()([prediction, prediction], labels), labels)
    for label in labels.names:
        assert np.array_equal(found.best(label)[1].prob, expected.best(label)[1].prob)


def test_it_is_read_back_from_plain_values():
    crf = DenseCrf(grey=12.0)
    refine = Refine(Steps(parts=0.1), {"long": Steps(holes=math.inf)}, {"3": Steps(crf=crf)})
    written = yaml.safe_dump(plain(refine))
    assert DataclassReader().read(Refine, yaml.safe_load(written), "") == refine


def test_an_image_is_read_only_for_a_crf(prediction, labels):
    def refuse(key):
        raise AssertionError(key)

    assert Refined(Mean(), Refine(Steps(parts=1)), refuse)([prediction], labels).masks


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        (Refine(classes={"finger-2": Steps()}), "found 'finger-2'"),
        (Refine(groups={"toes": Steps()}), "found 'toes'"),
        (Refine(Steps(crf=DenseCrf())), r"ID001/image_1_R: refine: crf: .*\(90, 130\), found none"),
    ],
)
def test_what_does_not_fit_is_refused(refine, expected, prediction, labels):
    with pytest.raises(ValueError, match=expected):
        refine(prediction, labels)


def test_an_image_of_another_size_is_refused(prediction, labels):
    image = np.zeros((130, 90), np.uint8)
    with pytest.raises(ValueError, match=r"found uint8 \(130, 90\)"):
        Refine(Steps(crf=DenseCrf()))(prediction, labels, image)


@pytest.mark.parametrize(
    "options",
    [
        *({"threshold": 0.0}, {"threshold": 1.0}, {"threshold": math.nan}),
        *({"smooth": -0.1}, {"opening": 0.5}, {"closing": -1}),
        *({"parts": 1.1}, {"holes": -0.1}, {"holes": math.nan}),
    ],
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}': expected"):
        Steps(**options)


# --- the choice


def seen(flaw, count=24):
    """Images of two classes a group; `flaw(mask, rng)` spoils the classes of group `long`."""
    images = []
    for i in range(count):
        rng = np.random.default_rng(i)
        planes = {
            "finger-1": disc(rng.integers(14, 20), (45, 40)),
            "Ulna": disc(rng.integers(14, 20), (60, 90)),
            "wrist_2": disc(12, (30, 80)),
        }
        masks = {}
        for label, plane in planes.items():
            prob = flaw(plane, rng) if label != "wrist_2" else soft(plane)
            masks[label] = ((1.0, SoftMask((0, 0, 130, 90), prob)),)
        truth = {label: crop(plane) for label, plane in planes.items()}
        images.append((Prediction(f"im_{i}", SIZE_HW, "semantic", masks), truth, f"ID{i // 2}"))
    return images


def holed(plane, rng):
    return soft(plane & ~disc(3, (45, 40)) & ~disc(3, (60, 90)))


def too_large(plane, rng):
    distance = ndimage.distance_transform_edt(plane) - ndimage.distance_transform_edt(1 - plane)
    return np.rint(255 / (1 + np.exp(-(distance + 1)))).astype(np.uint8)


def fragmented_and_holed(plane, rng):
    return np.maximum(holed(plane, rng), soft(disc(4, (10, 10))))


def choose(images, labels, **options):
    def measure(trying):
        return (trying(prediction, truth) for prediction, truth, _ in images)

    return choose_refinement(measure, [person for *_, person in images], labels, **options)


SMALL = {"threshold": (0.4, 0.7), "parts": (0.25,), "holes": (math.inf,), "closing": (0.01,)}


@pytest.mark.parametrize(
    ("flaw", "expected"),
    [
        (holed, Steps(holes=math.inf)),
        (too_large, Steps(threshold=0.7)),
        (fragmented_and_holed, Steps(parts=0.25, holes=math.inf)),
    ],
)
def test_what_helps_is_switched_on_where_it_helps(flaw, expected, labels):
    images = seen(flaw)
    choice = choose(images, labels, candidates=SMALL)
    assert choice.refine == Refine(groups={"long": expected})
    assert choice.images == len(images)


def test_the_gain_is_what_the_refinement_brings(labels):
    images = seen(holed)
    choice = choose(images, labels, candidates={"holes": (math.inf,)})
    (trial,) = [t for t in choice.trials if t.group == "long"]
    found = []
    for prediction, truth, _ in images:
        after = choice.refine(prediction, labels)
        for label in ("finger-1", "Ulna"):
            real = truth[label].full(SIZE_HW)
            for sign, one in ((1, after), (-1, prediction)):
                mask = one.binary(label).full(SIZE_HW)
                found.append(sign * 2 * float((mask & real).sum()) / float(mask.sum() + real.sum()))
    assert trial.gain.mean == pytest.approx(2 * np.mean(found), abs=1e-6)


def test_what_helps_by_chance_stays_off(labels):
    def noisy(plane, rng):
        shift = rng.normal(scale=1.5)
        distance = ndimage.distance_transform_edt(plane) - ndimage.distance_transform_edt(1 - plane)
        return np.rint(255 / (1 + np.exp(-(distance + shift)))).astype(np.uint8)

    images = seen(noisy)
    choice = choose(images, labels, candidates={"threshold": (0.45, 0.55)})
    assert choice.refine == Refine()
    assert "threshold" in str(choice.trials[0])
    assert "does not help" in str(choice.trials[0])


@pytest.mark.parametrize(("counts", "threshold"), [((9.0, 1.0), 0.7), ((1.0, 9.0), 0.3)])
def test_images_that_count_more_decide(counts, threshold, labels):
    def too_small(plane, rng):
        return 255 - too_large(1 - plane, rng)

    images = [*seen(too_large, 12), *seen(too_small, 12)]
    tried = {"threshold": (0.3, 0.7)}
    weights = np.repeat(counts, 12)
    choice = choose(images, labels, candidates=tried, weights=weights)
    best = {trial.group: trial.steps["threshold"] for trial in choice.trials}
    assert best["long"] == threshold


def test_at_most_two_passes_are_made(labels):
    images, passes = seen(fragmented_and_holed, 12), []

    def measure(trying):
        passes.append(trying)
        return (trying(prediction, truth) for prediction, truth, _ in images)

    choose_refinement(measure, [person for *_, person in images], labels, candidates=SMALL)
    assert len(passes) == 2


@pytest.mark.parametrize(("count", "expected"), [(0, "found none"), (2, "found 1 in 2 images")])
def test_too_few_images_are_refused(count, expected, labels):
    with pytest.raises(ValueError, match=expected):
        choose(seen(holed, count), labels, candidates=SMALL)


def test_what_changes_nothing_is_not_done_and_gains_nothing(monkeypatch):
    """A ring in two parts, a disc and a ring: parts and holes are left out where there are none."""
    options = [Steps(parts=1.0), Steps(holes=math.inf), Steps(holes=0.02), Steps(smooth=0.02)]
    filled, ring, parts = (np.zeros((60, 60), np.uint8) for _ in range(3))
    for plane in (filled, ring, parts):
        cv2.circle(plane, (20, 20), 14, 255, -1)
    for plane in (ring, parts):
        cv2.circle(plane, (20, 20), 6, 0, -1)
    parts[50:54, 50:54] = 255
    labels = LabelSpace("x", ("a",))
    truth = {"a": crop((filled > 0).astype(np.uint8))}

    def predicted(prob):
        masks = {"a": ((1.0, SoftMask((0, 0, 60, 60), prob)),)}
        return Prediction("i", (60, 60), "semantic", masks)

    for prob in (filled, ring, parts):
        quick = Trying({"a": options}, labels)(predicted(prob), truth)
        with monkeypatch.context() as patch:
            patch.setattr(refinement, "_idle", lambda whole: [])
            slow = Trying({"a": options}, labels)(predicted(prob), truth)
        assert np.array_equal(quick, slow)
    done = []
    monkeypatch.setattr(Steps, "inside", lambda self, prob, *_: done.append(self) or prob)
    Trying({"a": options}, labels)(predicted(filled), truth)
    assert done == [Steps(smooth=0.02)]
