"""One image by several measures, and what they come to over many images."""

import numpy as np
import pytest

from converters.masks import EMPTY, CropMask, crop
from converters.types import LabelSpace
from fusion.metrics.intervals import mean_over_people
from fusion.metrics.measures import FAST, MEASURES, measure_image, parse_measures
from fusion.metrics.scores import Counts, ImageScore, Scores, count, iou, score_image
from fusion.metrics.summary import (
    SHARED_MEASURES,
    compare,
    confusion_of,
    describe_overlapping,
    pooled_iou,
    presence_of,
    summarize,
    summarize_pairs,
    values_of,
)
from fusion.metrics.surface import boundary_error_rate, surface_distances

SIZE_HW = (18, 31)


def box_mask(x, y, width, height):
    return CropMask(x, y, np.ones((height, width), np.uint8))


TRUTH = {
    "finger-1": box_mask(0, 2, 9, 7),
    "wrist_2": box_mask(6, 4, 8, 9),
    "3": box_mask(20, 3, 7, 8),
}
FOUND = {
    "finger-1": box_mask(0, 3, 9, 7),
    "wrist_2": box_mask(8, 4, 7, 9),
    "Ulna": crop(np.eye(18, 31) * (np.arange(31) % 9 < 6)),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fast", FAST),
        ("all", tuple(MEASURES)),
        ("nsd", ("nsd",)),
        (" hd95 ,dice,hd95", ("dice", "hd95")),
        ("fast,nsd", ("dice", "iou", "nsd", "presence")),
    ],
)
def test_lists_of_measures(text, expected):
    assert parse_measures(text) == expected


@pytest.mark.parametrize(
    ("text", "message"), [("dice,iuo", "metric 'iuo': expected of dice, iou"), (" ,", "found none")]
)
def test_bad_lists_of_measures(text, message):
    with pytest.raises(ValueError, match=message):
        parse_measures(text)


def test_all_measures_of_an_image(labels):
    score = measure_image("x", FOUND, TRUTH, labels, SIZE_HW, tuple(MEASURES))
    for name in labels.names:
        pair = FOUND.get(name, EMPTY), TRUTH.get(name, EMPTY)
        distances = surface_distances(*pair)
        assert score.counts[name] == count(*pair)
        assert score.measures["nsd"][name] == distances.surface_dice(2)
        assert score.measures["hd95"][name] == distances.hausdorff(95)
        assert score.measures["asd"][name] == distances.average()
        assert score.measures["ber"][name] == boundary_error_rate(*pair, SIZE_HW)
    assert list(score.pairs) == [("finger-1", "wrist_2")]
    # The upper row of finger-1 lies on one pixel of Ulna; two columns of wrist_2 on finger-1.
    assert score.confusion == {("finger-1", "Ulna"): (1, 0), ("wrist_2", "finger-1"): (12, 10)}
    assert (score.missing, score.extra, score.doubled) == (("3",), ("Ulna",), ("Ulna",))


def test_only_what_is_asked_is_measured(labels):
    score = measure_image("x", FOUND, TRUTH, labels, SIZE_HW, ("ber",))
    assert list(score.measures) == ["ber"]
    assert (score.pairs, score.confusion, score.doubled) == ({}, {}, ())
    plain = score_image("x", FOUND, TRUTH, labels)
    assert (score.dice, score.shared, score.counts) == (plain.dice, plain.shared, plain.counts)
    with pytest.raises(ValueError, match=r"measure 'nsd': expected one of .*ask for it first"):
        summarize(Scores(labels, [score]), "nsd")


def test_background_is_what_no_other_class_has():
    labels = LabelSpace("waste_2", ("Background", "Paper", "Can"))
    truth = {"Paper": box_mask(0, 0, 10, 4), "Can": box_mask(8, 2, 5, 5)}
    found = {"Paper": box_mask(0, 0, 10, 4), "Background": box_mask(0, 0, 31, 18)}
    score = measure_image("x", found, truth, labels, SIZE_HW, ("iou",), "Background")
    union_px, pixels = 40 + 25 - 4, 18 * 31
    assert score.counts["Background"] == (pixels - union_px, pixels - 40, pixels - union_px)
    full = measure_image(
        "x", {"Can": box_mask(0, 0, 31, 18)}, truth, labels, SIZE_HW, (), "Background"
    )
    assert full.counts["Background"] == (0, 0, pixels - union_px)


@pytest.fixture(scope="module")
def images(labels):
    """Random masks of four classes that overlap, some absent; two images a patient."""
    found = []
    for i in range(6):
        rng = np.random.default_rng(i)
        masks = [
            {name: crop(rng.random(SIZE_HW) < 0.5) for name in labels.names if rng.random() < 0.8}
            for _ in range(2)
        ]
        score = measure_image(f"i_{i}", *masks, labels, SIZE_HW, tuple(MEASURES))
        found.append((score, masks))
    return found


@pytest.mark.slow
def test_miou_is_torchmetrics(images, labels):
    metrics = pytest.importorskip("torchmetrics.segmentation")
    import torch

    whole = [
        torch.from_numpy(
            np.stack(
                [
                    np.stack([masks[k].get(n, EMPTY).full(SIZE_HW) for n in labels.names])
                    for _, masks in images
                ]
            )
        )
        for k in (0, 1)
    ]
    scores = Scores(labels, [score for score, _ in images])
    # Over the pixels of all images: one long image.
    long = [planes.transpose(0, 1).reshape(1, 4, 6 * SIZE_HW[0], SIZE_HW[1]) for planes in whole]
    pooled = metrics.MeanIoU(num_classes=4, per_class=True)
    assert list(pooled_iou(scores).values()) == pytest.approx(pooled(*long).tolist(), abs=1e-6)
    each = metrics.MeanIoU(num_classes=4, per_class=True)
    for n, (score, _) in enumerate(images):
        expected = each(whole[0][n : n + 1], whole[1][n : n + 1]).numpy()
        ours = values_of(Scores(labels, [score]), "iou")[0]
        # Both empty: torchmetrics has -1.
        assert ours == pytest.approx(np.where(expected < 0, 1, expected), abs=1e-6)


@pytest.mark.parametrize("a", [EMPTY, box_mask(3, 3, 5, 4), FOUND["Ulna"]])
@pytest.mark.parametrize("b", [EMPTY, box_mask(3, 3, 5, 4), box_mask(0, 0, 31, 18)])
def test_iou_is_sklearns(a, b):
    from sklearn.metrics import jaccard_score

    planes = a.full(SIZE_HW).ravel(), b.full(SIZE_HW).ravel()
    assert iou(a, b) == pytest.approx(jaccard_score(*planes, zero_division=1))


def flat(labels, key, value, **further):
    return ImageScore(key, dict.fromkeys(labels.names, value), {}, **further)


def test_means_of_groups_postures_and_classes(labels):
    scores = Scores(
        labels,
        [
            ImageScore("a", {**dict.fromkeys(labels.names, 0.5), "Ulna": 1.0}, {}, posture="bent"),
            ImageScore("b", dict.fromkeys(labels.names, 0.75), {}, posture="straight"),
            ImageScore("c", dict.fromkeys(labels.names, 0.25), {}),
        ],
    )
    found = summarize(scores, "dice")
    assert found.overall.mean == pytest.approx(scores.mean())
    assert {g: e.mean for g, e in found.groups.items()} == pytest.approx(scores.per_group())
    assert {n: e.mean for n, e in found.classes.items()} == pytest.approx(scores.per_class())
    assert {p: e.mean for p, e in found.postures.items()} == {"straight": 0.75, "bent": 0.625}


def test_a_group_and_a_class_may_have_the_same_name():
    labels = LabelSpace("twins", ("a", "b"), {"b": ("a",)})
    found = summarize(Scores(labels, [ImageScore("x", {"a": 0.25, "b": 1.0}, {})]), "dice")
    assert (found.groups["b"].mean, found.classes["b"].mean) == (0.25, 1.0)


def test_shared_pixels_average_over_the_images_that_have_them(labels):
    scores = sharing(labels, OVERLAPS)
    found = summarize(scores, "shared")
    assert found.overall.mean == pytest.approx(scores.shared())
    assert {n: e.mean for n, e in found.classes.items()} == pytest.approx(scores.shared_per_class())
    assert list(found.classes) == ["wrist_2", "3"]
    assert {g: e.mean for g, e in found.groups.items()} == {
        "carpals": scores.shared_per_class()["wrist_2"]
    }
    for measure in SHARED_MEASURES:
        nothing = summarize(Scores(labels, [flat(labels, "x", 1.0)]), measure)
        assert (nothing.overall, nothing.classes, nothing.groups) == (None, {}, {})


OVERLAPS = [
    # Of wrist_2 and of 3: shared in both, predicted, true.
    ((4, 5, 6), (1, 3, 5), "p_1", "bent"),
    ((0, 4, 3), (2, 2, 4), "p_1", "straight"),
    ((9, 9, 12), (0, 0, 0), "p_2", "bent"),
    ((3, 8, 5), (5, 6, 6), "p_3", "bent"),
]


def sharing(labels, rows):
    images = []
    for k, (wrist, other, patient, posture) in enumerate(rows):
        shared = {"wrist_2": Counts(*wrist), "3": Counts(*other)}
        counts = {n: Counts(0, 9, 20) for n in labels.names}
        dice = dict.fromkeys(labels.names, 1.0)
        images.append(ImageScore(f"i_{k}", dice, shared, counts, patient=patient, posture=posture))
    return Scores(labels, images)


def pooled_dice(rows, columns=(0, 1)):
    both, predicted, true = np.sum([row[c] for row in rows for c in columns], axis=0)
    return 2 * both / (predicted + true)


def test_pooled_shared_pixels_have_intervals_over_patients(labels):
    scores = sharing(labels, OVERLAPS)
    found = summarize(scores, "shared_pooled")
    assert found.overall.mean == pytest.approx(scores.shared_pooled())
    assert found.overall.mean == pytest.approx(pooled_dice(OVERLAPS))
    assert found.classes["3"].mean == pytest.approx(pooled_dice(OVERLAPS, (1,)))
    assert found.groups["carpals"].mean == pytest.approx(pooled_dice(OVERLAPS, (0,)))
    assert found.postures["bent"].mean == pytest.approx(
        pooled_dice([OVERLAPS[i] for i in (0, 2, 3)])
    )
    # A second bootstrap by plain loops: patients drawn whole, pixels summed, then divided.
    rng = np.random.default_rng(1)
    people = {p: [row for row in OVERLAPS if row[2] == p] for p in ("p_1", "p_2", "p_3")}
    draws = []
    for _ in range(4000):
        drawn = rng.choice(list(people), 3)
        draws.append(pooled_dice([row for p in drawn for row in people[p]]))
    assert found.overall.interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)


def test_pooled_shared_pixels_are_compared_draw_by_draw(labels):
    better = [((b + 1, p + 1, t), *rest) for (b, p, t), *rest in OVERLAPS]
    new, old = sharing(labels, better), sharing(labels, OVERLAPS)
    found = compare(new, Scores(labels, old.images[::-1]), "shared_pooled")
    gain = pooled_dice(better) - pooled_dice(OVERLAPS)
    assert found.overall.mean == pytest.approx(gain)
    assert found.classes["3"].mean == 0
    assert found.classes["3"].interval == (0, 0)
    assert found.overall.is_gain
    same = compare(old, old, "shared_pooled").overall
    assert (same.mean, same.interval) == (0, (0, 0))


def test_it_is_said_which_classes_overlap(labels):
    said = describe_overlapping(sharing(labels, OVERLAPS))
    assert said.startswith("shared pixels: of 2 of 4 classes: wrist_2, 3 (at least 5% of the true")
    assert describe_overlapping(Scores(labels, [flat(labels, "x", 1.0)])).startswith(
        "shared pixels: of no class (at least 5%"
    )


def test_infinite_distances_are_counted_and_left_out(labels):
    scores = Scores(labels, [measure_image("x", FOUND, TRUTH, labels, SIZE_HW, ("hd95", "nsd"))])
    found = summarize(scores, "hd95")
    assert found.infinite == 2  # "3" is missing, "Ulna" is extra
    assert list(found.classes) == ["finger-1", "wrist_2"]
    assert found.overall.mean == pytest.approx((1 + 2) / 2)
    assert summarize(scores, "nsd").classes["Ulna"].mean == 0


def test_means_of_pairs_confusion_and_presence(images, labels):
    scores = Scores(labels, [score for score, _ in images])
    overall, pairs = summarize_pairs(scores, "dice")
    by_hand = {}
    for image in scores.images:
        for pair, values in image.pairs.items():
            by_hand.setdefault(pair, []).append(values["dice"])
    assert {p: e.mean for p, e in pairs.items()} == pytest.approx(
        {p: np.mean(v) for p, v in by_hand.items()}
    )
    assert overall.mean == pytest.approx(np.mean([np.mean(v) for v in by_hand.values()]))
    confusion = confusion_of(scores)
    pixels = [n for n, _ in confusion.values()]
    assert pixels == sorted(pixels, reverse=True)
    assert sum(pixels) == sum(n for i in scores.images for n, _ in i.confusion.values())
    assert all(0 <= right <= n for n, right in confusion.values())
    missing = [(i.key, n) for i in scores.images for n in labels.names if n in i.missing]
    assert presence_of(scores)["missing"] == missing
    assert missing


def test_nothing_shared_has_no_pairs(labels):
    assert summarize_pairs(Scores(labels, [flat(labels, "x", 1.0)]), "dice") == (None, {})


def test_two_predictions_are_compared_image_by_image(labels):
    gains = [0.1, 0.3, 0.0, 0.2]
    people = ["p_1", "p_1", "p_2", "p_3"]
    old = [flat(labels, f"i_{i}", 0.1 * i) for i in range(4)]
    new = [
        flat(labels, f"i_{i}", 0.1 * i + gain, patient=people[i], posture="bent" if i else "")
        for i, gain in enumerate(gains)
    ]
    # The other way round in one of them: joined by key.
    found = compare(Scores(labels, new), Scores(labels, old[::-1]), "dice")
    expected = mean_over_people(np.array(gains), people)
    for estimate in (found.overall, found.groups["long"], found.classes["3"]):
        assert estimate.mean == pytest.approx(expected.mean)
        assert estimate.interval == pytest.approx(expected.interval)
    assert found.postures["bent"].mean == pytest.approx(0.5 / 3)


def test_a_distance_that_one_of_them_lacks_is_not_compared(labels):
    ours, theirs = (
        Scores(labels, [measure_image("x", found, TRUTH, labels, SIZE_HW, ("hd95",))])
        for found in (FOUND, TRUTH)
    )
    found = compare(ours, theirs, "hd95")
    assert found.infinite == 2
    assert {n: e.mean for n, e in found.classes.items()} == {"finger-1": 1, "wrist_2": 2}
    assert compare(ours, ours, "hd95").infinite == 2


def test_other_images_or_classes_are_not_compared(labels):
    one, other = (Scores(labels, [flat(labels, key, 1.0)]) for key in ("a_1", "b_1"))
    with pytest.raises(ValueError, match="same images; 'a_1' is in one of them only"):
        compare(one, other, "dice")
    renamed = LabelSpace("other", tuple(f"{n}?" for n in labels.names))
    with pytest.raises(ValueError, match="same classes"):
        compare(one, Scores(renamed, [flat(renamed, "a_1", 1.0)]), "dice")


def test_miou_needs_pixels(labels):
    with pytest.raises(ValueError, match="expected images with counted pixels"):
        pooled_iou(Scores(labels, [flat(labels, "x", 1.0)]))
    empty = Scores(labels, [score_image("x", {}, TRUTH, labels)])
    assert pooled_iou(empty) == {"finger-1": 0, "wrist_2": 0, "3": 0}
