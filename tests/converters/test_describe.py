"""Tables of what a data set is like, counted by hand or by other libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from shapely.geometry import MultiPolygon, Polygon, box

from converters.describe import Histogram, Spread, describe, whole_classes
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample

LABELS = LabelSpace("toy", ("paper", "glass", "can"), {"box": ("glass", "can")})


def scene(tmp_path, number=0, size_hw=(40, 60), group="", attributes=None, **things):
    path = tmp_path / f"image_{number}.png"
    cv2.imwrite(str(path), np.full(size_hw, 100 + number, np.uint8))
    found = tuple(Instance(name, outline) for name, outline in things.items())
    return Sample(f"image_{number}", path, size_hw, found, group, attributes or {})


def row(description, name):
    return next(found for found in description.classes if found.name == name)


def test_areas_are_pixels_of_masks_and_parts_of_the_hand(tmp_path):
    samples = [
        scene(tmp_path, 0, paper=box(0, 0, 9, 9), glass=box(20, 20, 29, 24)),
        scene(tmp_path, 1, paper=box(0, 0, 19, 9)),
    ]
    found = describe(samples, LABELS)
    paper, glass = row(found, "paper"), row(found, "glass")
    assert (paper.images, glass.images, row(found, "can").images) == (2, 1, 0)
    assert (paper.area_px.mean, paper.area_px.quantiles[0]) == (150, 100)
    assert paper.area_px.sd == pytest.approx(np.std([100, 200], ddof=1))
    assert glass.area_share.mean == pytest.approx(50 / 150)
    assert row(found, "can").area_px is None
    assert found.whole_px.quantiles == pytest.approx(np.quantile([150, 200], [0, *QUANTILES, 1]))


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def test_bones_that_the_border_cuts_are_no_part_of_the_hand(labels):
    assert set(labels.names) - set(whole_classes(labels)) == {"Radius", "Ulna"}
    assert whole_classes(LABELS) == LABELS.names


def test_objects_of_a_class_are_counted_one_by_one(tmp_path, labels):
    two = scene(tmp_path, 0, paper=box(0, 0, 9, 9), glass=box(20, 20, 29, 24))
    more = (*two.instances, Instance("paper", box(20, 0, 39, 9)))
    found = describe([replace(two, instances=more), scene(tmp_path, 1)], LABELS)
    assert found.has_several
    paper = row(found, "paper")
    assert (paper.objects.count, paper.objects.mean) == (1, 2)
    assert (paper.object_px.count, paper.object_px.mean) == (2, 150)
    assert row(found, "can").objects is None
    # No posture is known, and none is spoken of.
    assert not {"bent", "bend_deg"} & found.record().keys()
    assert "bent" in describe([], labels).record()


def test_where_a_class_occurs_once_nothing_is_counted(tmp_path, labels):
    found = describe([scene(tmp_path, 0, Ulna=box(0, 0, 9, 9))], labels)
    assert not found.has_several
    assert row(found, "Ulna").objects is None


def test_overlaps_against_pycocotools(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for number in range(6):
        corners = rng.integers(0, 25, (3, 2))
        outlines = [box(x, y, x + 14, y + 11) for x, y in corners.tolist()]
        samples.append(scene(tmp_path, number, **dict(zip(LABELS.names, outlines, strict=True))))
    found = describe(samples, LABELS)
    ious = []
    common = np.zeros((3, 3))
    for sample in samples:
        masks = rasterize_labels(sample.instances, sample.size_hw)
        full = [np.asfortranarray(masks[name].full(sample.size_hw)) for name in LABELS.names]
        codes = [coco.encode(mask) for mask in full]
        ious.append(coco.iou(codes, codes, [0] * 3))
        common += np.array([[(a & b).sum() for b in full] for a in full])
    off = ~np.eye(3, dtype=bool)
    assert np.array(found.iou, float)[off] == pytest.approx(np.mean(ious, axis=0)[off])
    shared = common / common.diagonal()[:, None]
    assert np.array(found.shared, float)[off] == pytest.approx(shared[off])
    assert [found.iou[i][i] for i in range(3)] == [None] * 3


def test_classes_that_never_meet_have_no_iou(tmp_path):
    samples = [scene(tmp_path, 0, paper=box(0, 0, 9, 9)), scene(tmp_path, 1, can=box(0, 0, 9, 9))]
    found = describe(samples, LABELS)
    assert found.iou[0][2] is None
    assert found.shared[0][2] == 0
    assert found.shared[1] == (None, None, None)


def test_pixels_with_several_labels(tmp_path):
    square = box(5, 5, 14, 14)
    found = describe([scene(tmp_path, paper=square, glass=square, can=box(5, 5, 14, 24))], LABELS)
    assert found.shared_share.mean == pytest.approx(100 / 200)


def test_parts_holes_and_vertices(tmp_path):
    ring = Polygon(box(3, 3, 30, 30).exterior, [box(10, 10, 20, 20).exterior])
    parts = MultiPolygon([box(0, 0, 5, 5), Polygon([(30, 0), (40, 0), (35, 9)])])
    twice = [scene(tmp_path, 0, paper=ring), scene(tmp_path, 1, paper=parts)]
    apart = scene(tmp_path, 2)
    loose = tuple(Instance("paper", part) for part in parts.geoms)
    found = row(describe([*twice, replace(apart, instances=loose)], LABELS), "paper")
    assert (found.split, found.holed) == (2, 1)
    assert found.vertices.mean == pytest.approx((8 + 7 + 7) / 3)


def test_sizes_and_modes(tmp_path):
    samples = [scene(tmp_path, n, size_hw=(40, 60 + 10 * (n == 2))) for n in range(3)]
    cv2.imwrite(str(samples[0].image), np.zeros((40, 60, 3), np.uint8))
    samples[1].image.write_bytes(b"nothing of the kind")
    found = describe(samples, LABELS)
    assert found.sizes == {"60 x 40": 2, "70 x 40": 1}
    assert found.modes == {"RGB": 1, "unreadable": 1, "L": 1}
    assert (found.images, found.annotated, found.groups) == (3, 0, 3)


def test_posture(labels, tmp_path):
    def hand(number, bend):
        shaft = box(140, 200, 220, 320)
        angle = np.radians(bend)
        along, across = (
            np.array([np.sin(angle), np.cos(angle)]),
            np.array([-np.cos(angle), np.sin(angle)]),
        )
        ends = [60 * a * along + 15 * b * across for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
        bone = Polygon([(180 + x, 100 + y) for x, y in ends])
        path = tmp_path / f"{number}.png"
        instances = (Instance("finger-11", bone), Instance("Radius", shaft))
        return Sample(str(number), path, (300, 360), instances)

    found = describe([hand(n, bend) for n, bend in enumerate((2, 3, 41))], labels)
    assert found.bent == pytest.approx(1 / 3)
    assert found.bent_above_deg == labels.posture.bent_above_deg
    counts = dict(zip(found.bend_deg.edges, found.bend_deg.counts, strict=False))
    assert (counts[0], counts[40], sum(counts.values())) == (2, 1, 3)
    assert describe([], LABELS).bent is None


def test_patients_count_once(tmp_path):
    people = [("A", {"age": 30, "sex": "F"}), ("A", {"age": 30, "sex": "F"}), ("B", {"age": 50.5})]
    samples = [scene(tmp_path, n, group=g, attributes=a) for n, (g, a) in enumerate(people)]
    found = describe(samples, LABELS)
    assert found.groups == 2
    assert found.numbers["age"].spread.mean == pytest.approx((30 + 50.5) / 2)
    assert found.categories == {"sex": {"F": 1}}


@pytest.mark.parametrize(
    "values", [[None, ""], [float("nan")], [f"note {n}" for n in range(30)]], ids=str
)
def test_attributes_that_say_nothing_in_numbers(tmp_path, values):
    samples = [scene(tmp_path, n, attributes={"note": v}) for n, v in enumerate(values)]
    found = describe(samples, LABELS)
    assert (found.numbers, found.categories) == ({}, {})


@pytest.mark.slow
def test_the_result_does_not_depend_on_processes(tmp_path):
    samples = [scene(tmp_path, n, paper=box(0, 0, 5 + n, 9)) for n in range(5)]
    done = []
    one = describe(samples, LABELS, progress=lambda n, total: done.append((n, total)))
    assert describe(samples, LABELS, jobs=2) == one
    assert done == [(n, 5) for n in range(1, 6)]


def test_record_is_json(tmp_path):
    samples = [scene(tmp_path, n, paper=box(0, 0, 5 + n, 9), attributes={"age": n}) for n in (0, 1)]
    found = describe(samples, LABELS)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["classes"][0]["area_px"]["count"] == 2
    assert record["numbers"]["age"]["counts"] == list(found.numbers["age"].counts)


def test_an_unknown_label_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image_0: expected a label of 'toy', found 'Radius'"):
        describe([scene(tmp_path, Radius=box(0, 0, 5, 5))], LABELS)


def test_an_outline_beyond_the_image_has_no_pixels(tmp_path):
    found = describe([scene(tmp_path, paper=box(900, 900, 950, 950), can=box(0, 0, 9, 9))], LABELS)
    assert row(found, "paper").area_px.mean == 0
    assert found.iou[0][2] == 0


def test_spread_of_nothing_and_of_one():
    assert Spread.of([]) is None
    assert Histogram.of([]) is None
    assert Spread.of([3]) == Spread(1, 3.0, 0.0, (3.0,) * 7)


def test_histogram_with_edges():
    found = Histogram.of([0, 4, 5, 10], (0, 5, 10))
    assert (found.edges, found.counts) == ((0, 5, 10), (2, 2))


def test_image_that_is_no_path(tmp_path):
    class Cell:
        name, stem, suffix = "x.png", "x", ".png"

        def read_bytes(self):
            return cv2.imencode(".png", np.zeros((40, 60), np.uint8))[1].tobytes()

    assert describe([Sample("x", Cell(), (40, 60))], LABELS).modes == {"L": 1}
    assert describe([Sample("x", Path("gone.png"), (40, 60))], LABELS).modes == {"unreadable": 1}
