"""Objects that are kept as they are drawn: the pixels of pycocotools without filling anything."""

from __future__ import annotations

import json
from itertools import chain

import cv2
import numpy as np
import pytest
from pycocotools import mask as pycoco

import converters
from converters.formats.coco import reading
from converters.formats.coco.drawn import DrawnShapes, draw
from converters.formats.coco.filling import fill_each
from converters.masks import outlines, rasterize, tight_box

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (40, 50)
SQUARE = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]


def polygon(rng, kind):
    points = rng.random((int(rng.integers(3, 9)), 2)) * (SIZE[1] + 6, SIZE[0] + 6) - 3
    rounded = {"halves": np.round(points * 2) / 2, "whole": np.round(points), "any": points}
    return rounded[kind].ravel().tolist()


@pytest.fixture(scope="module", params=["halves", "whole", "any"])
def images(request):
    """Sixty images of twelve objects, of which a few have two polygons."""
    rng = np.random.default_rng(3)
    kind = request.param
    return [
        [[polygon(rng, kind) for _ in range(1 + (rng.random() < 0.2))] for _ in range(12)]
        for _ in range(60)
    ]


def write_coco(root, images):
    record = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for number, segmentations in enumerate(images):
        path = root / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full(SIZE, 7, np.uint8))
        record["images"].append({"id": number, "file_name": path.name})
        record["annotations"] += [
            {"id": 100 * number + i, "image_id": number, "category_id": 1, "segmentation": own}
            for i, own in enumerate(segmentations)
        ]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(record))


def filled(segmentations):
    return fill_each([[np.reshape(p, (-1, 2)) for p in own] for own in segmentations], SIZE)


def texts(shapes, layout):
    """The segmentations as they are written, beside the right numbers and boxes."""
    written = shapes.write(layout)
    assert [(area, box) for area, box, _ in written] == shapes.measure()
    return [text for *_, text in written]


@pytest.mark.slow
def test_numbers_boxes_and_outlines_of_the_pixels(images):
    seen = 0
    for segmentations in images:
        masks = filled(segmentations)
        found = draw(segmentations, SIZE)
        if not all(mask.area for mask in masks):
            assert found is None
            continue
        seen += 1
        shapes, bounds = found
        assert shapes.measure() == [(mask.area, tight_box(mask)) for mask in masks]
        assert shapes.unpack() == outlines(masks)
        for own, box in zip(segmentations, bounds, strict=True):
            points = np.reshape(list(chain.from_iterable(own)), (-1, 2))
            assert box == (*points.min(axis=0), *points.max(axis=0))
    assert seen > 20


@pytest.mark.slow
def test_codes_are_those_of_pycocotools(images):
    for segmentations in images:
        if (found := draw(segmentations, SIZE)) is None:
            continue
        for text, own in zip(texts(found[0], "rle"), segmentations, strict=True):
            theirs = pycoco.merge(pycoco.frPyObjects(own, *SIZE))
            assert json.loads(text) == {"size": list(SIZE), "counts": theirs["counts"].decode()}


def test_polygons_are_written_as_they_were_read(images):
    for segmentations in images:
        if found := draw(segmentations, SIZE):
            assert [json.loads(text) for text in texts(found[0], "polygons")] == segmentations


def test_an_object_that_goes_on_in_the_next_column():
    """A run that ends at the foot and one that begins at the head are one."""
    whole = [[[0.0, 0.0, 50.0, 0.0, 50.0, 40.0, 0.0, 40.0]], SQUARE]
    shapes, _ = draw(whole, SIZE)
    assert shapes.measure() == [(2000, (0, 0, 50, 40)), (100, (5, 5, 10, 10))]
    first, second = (json.loads(text)["counts"] for text in texts(shapes, "rle"))
    for counts, own in ((first, whole[0]), (second, SQUARE)):
        assert counts == pycoco.frPyObjects(own, *SIZE)[0]["counts"].decode()


def test_an_object_without_pixels_in_its_middle_column():
    """Two triangles that meet there in a point."""
    bow = [[5.0, 5.0, 16.0, 15.0, 16.0, 5.0, 5.0, 15.0]]
    (mask,) = filled([bow])
    assert not mask.full(SIZE)[:, 10].any()
    shapes, _ = draw([bow, SQUARE], SIZE)
    assert shapes.measure() == [(mask.area, tight_box(mask)), (100, (5, 5, 10, 10))]


@pytest.mark.parametrize("own", [[[0, 1]], [[0, 1], [0, 1]], [[0], [0, 1]], [[0]]], ids=str)
def test_codes_of_objects_with_one_polygon_or_several(own):
    """Also where no object of the image has but one."""
    second = [30.0, 20.0, 40.0, 20.0, 40.0, 30.0, 30.0, 30.0]
    objects = [[[SQUARE[0], second][number] for number in numbers] for numbers in own]
    shapes, _ = draw(objects, SIZE)
    for text, polygons in zip(texts(shapes, "rle"), objects, strict=True):
        theirs = pycoco.merge(pycoco.frPyObjects(polygons, *SIZE))
        assert json.loads(text)["counts"] == theirs["counts"].decode()


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [5.0] * 8,
        [[5.0, 5.0, 15.0, 5.0]],
        [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0]],
        [[5.0, 5.0, 15.0, 5.0, 15.0, "15"]],
        [[5.0, 5.0, 15.0, True, 15.0, 15.0]],
        [[5.0, 5.0, 15.0, float("nan"), 15.0, 15.0]],
        [[5.0, 5.0, 15.0, 10**400, 15.0, 15.0]],
        [[5.0, 5.0, 5.1, 5.0, 5.1, 5.1]],
        [[500.0, 5.0, 515.0, 5.0, 515.0, 15.0]],
        {"size": [40, 50], "counts": [0, 2000]},
    ],
    ids=str,
)
def test_what_has_a_fault_is_left_to_who_can_say_it(segmentation):
    assert draw([SQUARE, segmentation], SIZE) is None
    assert draw([SQUARE], SIZE) is not None


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["polygons", "rle"])
def test_both_ways_of_reading_give_the_same(images, layout, tmp_path, monkeypatch):
    """The same objects and, but for the corners of polygons, the same files."""
    write_coco(tmp_path / "data", [own for own in images if draw(own, SIZE)][:8])
    labels = converters.label_space(tmp_path / "data")
    found = []
    for name in ("drawn", "filled"):
        if name == "filled":
            monkeypatch.setattr(reading, "draw", lambda *_: None)
        samples = converters.read(tmp_path / "data", labels=labels)
        converters.write(
            samples, tmp_path / name, format="coco", labels=labels, layout=layout, jobs=1
        )
        again = converters.read(tmp_path / name, labels=labels)
        assert [sample.instances for sample in again] == [sample.instances for sample in samples]
        record = json.loads((tmp_path / name / "annotations/instances_train.json").read_text())
        found.append((samples, record))
    (drawn, ours), (_, theirs) = found
    assert [sample.instances for sample in drawn] == [sample.instances for sample in found[1][0]]
    for one, other in zip(ours["annotations"], theirs["annotations"], strict=True):
        if layout == "polygons":
            del one["segmentation"], other["segmentation"]
        assert one == other
    assert all(
        rasterize(instance.geometry, SIZE).area for sample in drawn for instance in sample.instances
    )


@pytest.mark.parametrize("value", [-0.0, 0.1, 1e-9, 1 / 3, 2047.995, 65535.5, 70000.25, -3.5])
def test_points_are_kept_to_the_last_bit(value):
    points = np.array([[value, 5.0], [30.5, 5.25], [30.125, 40.01]])
    shapes = DrawnShapes.of((100, 100), points, np.array([3]), np.array([1]))
    ((found,),) = shapes.polygons()
    assert found.tobytes() == points.tobytes()
