"""supervision's and FiftyOne's detections: there and back, held against the libraries."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from converters.errors import MissingDependency
from converters.masks import rasterize
from converters.types import Instance, LabelSpace, Sample
from fusion.interchange import fiftyone as to_fo
from fusion.interchange import supervision as to_sv
from fusion.types import Prediction, SoftMask

LABELS = LabelSpace("toys", ("cup", "plate", "spoon"), aliases={"mug": "cup"})
SIZE_HW = (40, 61)


def planes():
    """Two cups that overlap, a plate with a hole that touches the border, in two parts."""
    first, second, plate = (np.zeros(SIZE_HW, bool) for _ in range(3))
    first[3:20, 4:31], second[10:25, 25:50] = True, True
    plate[25:40, 30:61] = True
    plate[30:33, 40:44] = False
    plate[28:33, 2:9] = True
    return {"cup": ((0.9, first), (0.6, second)), "plate": ((0.75, plate),)}


def predicted():
    masks = {}
    for name, found in planes().items():
        box = (0, 0, SIZE_HW[1], SIZE_HW[0])
        masks[name] = tuple((s, SoftMask(box, p * np.uint8(255))) for s, p in found)
    return Prediction("a", SIZE_HW, "instance", masks)


def same(found, expected):
    assert (found.key, found.size_hw, found.kind) == (expected.key, SIZE_HW, "instance")
    assert found.masks.keys() == expected.masks.keys()
    for name, evidence in expected.masks.items():
        scores = [score for score, _ in evidence]
        assert [score for score, _ in found.masks[name]] == pytest.approx(scores)
        for (_, ours), (_, theirs) in zip(found.masks[name], evidence, strict=True):
            pair = (mask.binary(SIZE_HW).full(SIZE_HW) for mask in (ours, theirs))
            assert np.array_equal(*pair)


# --- supervision


def test_detections_are_what_supervision_makes_of_the_masks():
    sv = pytest.importorskip("supervision")
    found = to_sv.to_detections(predicted(), LABELS)
    expected = np.stack([p for listed in planes().values() for _, p in listed])
    assert np.array_equal(found.mask, expected)
    assert np.array_equal(found.xyxy, sv.mask_to_xyxy(expected))
    assert found.class_id.tolist() == [0, 0, 1]
    assert found.data["class_name"].tolist() == ["cup", "cup", "plate"]
    # It filters as its own do.
    assert len(found[found.confidence > 0.7]) == 2
    assert np.array_equal(found.area, expected.sum(axis=(1, 2)))


def test_detections_come_back():
    pytest.importorskip("supervision")
    detections = to_sv.to_detections(predicted(), LABELS)
    same(to_sv.from_detections("a", detections, LABELS, SIZE_HW), predicted())
    shuffled = detections[np.array([2, 1, 0])]
    same(to_sv.from_detections("a", shuffled, LABELS, SIZE_HW), predicted())


def test_no_detection_is_a_prediction_too():
    sv = pytest.importorskip("supervision")
    nothing = Prediction("a", SIZE_HW, "instance", {})
    found = to_sv.to_detections(nothing, LABELS)
    assert len(found) == 0
    for empty in (found, sv.Detections.empty()):
        assert to_sv.from_detections("a", empty, LABELS, SIZE_HW).masks == {}


def test_classes_are_found_by_number_and_alias():
    sv = pytest.importorskip("supervision")
    mask = np.zeros((1, *SIZE_HW), bool)
    mask[0, 2:5, 3:9] = True
    one = {"xyxy": sv.mask_to_xyxy(mask).astype(float), "mask": mask, "class_id": np.array([2])}
    found = to_sv.from_detections("a", sv.Detections(**one), LABELS, SIZE_HW)
    assert [(n, e[0][0]) for n, e in found.masks.items()] == [("spoon", 1.0)]
    named = sv.Detections(**one, data={"class_name": np.array(["mug"])})
    assert set(to_sv.from_detections("a", named, LABELS, SIZE_HW).masks) == {"cup"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": None}, "expected detections with masks, found boxes alone"),
        ({"class_id": np.array([7])}, "expected 'class_id' from 0 to 2"),
        ({"class_id": None}, "found neither"),
        (
            {"data": {"class_name": np.array(["fork"])}},
            "expected a class of 'toys' .*, found 'fork'",
        ),
        ({"mask": np.ones((1, 4, 4), bool)}, r"found \(4, 4\)"),
    ],
)
def test_other_detections_are_refused(change, said):
    sv = pytest.importorskip("supervision")
    one = {
        "xyxy": np.array([[3.0, 2, 8, 4]]),
        "mask": np.ones((1, *SIZE_HW), bool),
        "class_id": np.array([0]),
    }
    with pytest.raises(ValueError, match=said):
        to_sv.from_detections("a", sv.Detections(**{**one, **change}), LABELS, SIZE_HW)


def test_a_foreign_class_is_refused():
    with pytest.raises(ValueError, match=r"expected classes of 'few' .*, found"):
        to_fo.detection_records(predicted(), LabelSpace("few", ("cup",)))


# --- FiftyOne


def test_records_are_boxes_and_masks_in_shares_of_the_image():
    found = to_fo.detection_records(predicted(), LABELS)
    assert [r["label"] for r in found] == ["cup", "cup", "plate"]
    for record, plane in zip(
        found, (p for listed in planes().values() for _, p in listed), strict=True
    ):
        rows, cols = np.nonzero(plane)
        left, top, width, height = record["bounding_box"]
        assert (left, top) == pytest.approx((cols.min() / 61, rows.min() / 40))
        assert (width, height) == pytest.approx(
            (np.ptp(cols) / 61 + 1 / 61, np.ptp(rows) / 40 + 1 / 40)
        )
        part = plane[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
        assert np.array_equal(record["mask"], part)
        assert record["mask"].dtype == bool
        json.dumps([record["bounding_box"], record["confidence"]])


def test_records_come_back():
    records = to_fo.detection_records(predicted(), LABELS)
    same(to_fo.from_fiftyone("a", records, LABELS, SIZE_HW), predicted())
    # As FiftyOne's objects are read: by their attributes.
    objects = SimpleNamespace(detections=[SimpleNamespace(**r) for r in records])
    same(to_fo.from_fiftyone("a", objects, LABELS, SIZE_HW), predicted())


def test_fiftyone_itself_takes_and_gives_them():
    fo = pytest.importorskip("fiftyone")
    found = to_fo.to_fiftyone(predicted(), LABELS)
    assert isinstance(found, fo.Detections)
    same(to_fo.from_fiftyone("a", found, LABELS, SIZE_HW), predicted())
    fo.Segmentation(**to_fo.segmentation_record(Prediction("a", SIZE_HW, "semantic", {}), LABELS))


def test_without_fiftyone_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(MissingDependency, match="fiftyone"):
        to_fo.to_fiftyone(predicted(), LABELS)


def test_the_truth_as_records(toy_sample):
    found = to_fo.truth_records(toy_sample)
    for record, instance in zip(found, toy_sample.instances, strict=True):
        mask = rasterize(instance.geometry, SIZE_HW)
        assert record["label"] == instance.label
        assert record["mask"].sum() == mask.area
        assert "confidence" not in record


@pytest.fixture
def toy_sample(tmp_path):
    from shapely.geometry import box

    parts = (Instance("cup", box(3, 4, 20, 30)), Instance("plate", box(10, 10, 60, 39)))
    return Sample("a", tmp_path / "a.png", SIZE_HW, parts)


def test_a_segmentation_has_one_class_a_pixel():
    plate = planes()["plate"][0][1]
    cup = planes()["cup"][0][1] & ~plate
    box = (0, 0, SIZE_HW[1], SIZE_HW[0])
    masks = {
        n: ((1.0, SoftMask(box, p * np.uint8(255))),) for n, p in (("cup", cup), ("plate", plate))
    }
    found = to_fo.segmentation_record(Prediction("a", SIZE_HW, "semantic", masks), LABELS)["mask"]
    assert np.array_equal(found, cup * 1 + plate * 2)
    assert to_fo.mask_targets(LABELS) == {1: "cup", 2: "plate", 3: "spoon"}
    masks["spoon"] = masks["cup"]
    with pytest.raises(ValueError, match="found 'cup' and 'spoon' on one: take detections"):
        to_fo.segmentation_record(Prediction("a", SIZE_HW, "semantic", masks), LABELS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": None}, "expected a detection with a mask, found a box alone"),
        ({"mask": np.ones((3, 3), bool)}, r"found \(3, 3\)"),
        ({"bounding_box": [0.9, 0.5, 0.4426229508196721, 0.425]}, "found"),
        ({"label": "fork"}, "found 'fork'"),
        ({"confidence": 1.5}, "expected sorted scores in 0..1"),
    ],
)
def test_other_records_are_refused(change, said):
    record = to_fo.detection_records(predicted(), LABELS)[0] | change
    with pytest.raises(ValueError, match=said):
        to_fo.from_fiftyone("a", [record], LABELS, SIZE_HW)
