"""Label Studio's JSON as Label Studio writes it, and what is wrong with it."""

from __future__ import annotations

import json
import random

import cv2
import numpy as np
import pytest
from pycocotools import mask as pycoco

import converters
from converters import DataError
from converters.masks import rasterize_labels
from converters.types import LabelSpace

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (40, 60)
TRIANGLE = [[10.5, 15.0], [55.0, 29.375], [31.8, 92.5]]


def entry(kind, label="cat", **value):
    labels = {kind: [label] if isinstance(label, str) else label} if label else {}
    return {
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "image_rotation": 0,
        "value": {**value, **labels},
        "id": f"r{random.random()}",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def polygon(label="cat", points=TRIANGLE, **more):
    return {**entry("polygonlabels", label, points=points, closed=True), **more}


def rectangle(x=10.0, y=20.0, width=30.0, height=25.0, rotation=0, **more):
    named = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return entry("rectanglelabels", **named, **more)


def annotation(*result, **more):
    return {
        "id": 1001,
        "completed_by": 1,
        "result": list(result),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2024-03-09T22:16:08.728353Z",
        "updated_at": "2024-03-09T22:16:08.728378Z",
        **more,
    }


def task(*annotations, image="/data/upload/3/0a1b2c3d-a.png", number=1, **data):
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": "0a1b2c3d-a.png",
        "drafts": [],
        "predictions": [],
        "data": {"image": image, **data},
        "meta": {},
    }


@pytest.fixture
def put(tmp_path):
    """Write images and an exported JSON; returns the folder."""
    root = tmp_path / "set"

    def write(*tasks, files=("images/a.png",), name="project-1-at-2024-03-09.json"):
        for number, file in enumerate(files):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, SIZE, np.uint8)
            cv2.imwrite(str(root / file), pixels)
        (root / name).write_text(json.dumps(tasks), encoding="utf-8")
        return root

    return write


def masks(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def filled(points):
    """What pycocotools gives a polygon in pixels, (H, W)."""
    flat = np.array(points, float).ravel().tolist()
    return pycoco.decode(pycoco.frPyObjects([flat], *SIZE))[..., 0]


# --- regions


def test_polygons_are_in_percent(put):
    root = put(task(annotation(polygon())))
    assert converters.recognise(root) == "label_studio"
    assert converters.label_space(root).names == ("cat",)
    expected = filled(np.array(TRIANGLE) * [0.6, 0.4])
    np.testing.assert_array_equal(masks(root)["cat"], expected)


def test_a_rectangle_holds_whole_pixels_from_corner_to_corner(put):
    expected = np.zeros(SIZE, np.uint8)
    expected[8:18, 6:24] = 1
    np.testing.assert_array_equal(masks(put(task(annotation(rectangle()))))["cat"], expected)


@pytest.mark.parametrize("angle", [0.5, 30, 90, 350])
def test_a_rectangle_is_turned_about_its_upper_left_corner(angle, put):
    shape = rectangle(x=45, y=40, width=20, height=25, rotation=angle)
    along = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    centre = np.array([27, 16]) + along * 6 + np.array([-along[1], along[0]]) * 5
    expected = filled(cv2.boxPoints((centre.tolist(), (12, 10), angle)))
    found = masks(put(task(annotation(shape))))["cat"]
    assert (found != expected).sum() <= 2  # OpenCV has the centre in 32 bits
    assert abs(int(found.sum()) - 120) < 12


@pytest.mark.parametrize("angle", [0, 40])
def test_an_ellipse_is_turned_about_its_centre(angle, put):
    shape = entry("ellipselabels", x=50, y=50, radiusX=20, radiusY=15, rotation=angle)
    found = masks(put(task(annotation(shape))))["cat"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x, y, turn = x - 30, y - 20, np.deg2rad(angle)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    expected = (along / 12) ** 2 + (across / 6) ** 2 <= 1
    assert (found != expected).sum() <= 6


def test_brushes_are_decoded(put, encode_brush):
    alpha = np.zeros(SIZE, np.uint8)
    alpha[4:20, 7:50] = 255
    alpha[9:12, 20:30] = 0
    alpha[30:33, 5:9] = 40
    brush = entry("brushlabels", format="rle", rle=encode_brush(alpha))
    np.testing.assert_array_equal(masks(put(task(annotation(brush))))["cat"], alpha > 0)


def test_the_tag_labels_and_entries_of_one_id(put):
    points = {"points": TRIANGLE}
    drawn = {**entry("polygon", None, **points), "id": "one"}
    named = {**entry("labels", "dog", **points), "id": "one"}
    text = {**entry("textarea", None, **points, text=["old"]), "id": "one"}
    alone = entry("labels", "cat", x=10, y=10, width=20, height=20, rotation=0)
    (sample,) = converters.read(put(task(annotation(drawn, text, named, alone))))
    assert [one.label for one in sample.instances] == ["dog", "cat"]


def test_a_region_of_two_labels_is_an_object_of_each(put):
    found = masks(put(task(annotation(polygon(["dog", "cat"])))))
    np.testing.assert_array_equal(found["cat"], found["dog"])


def test_what_has_no_pixels_is_passed_over(put):
    point = entry("keypointlabels", "eye", x=4.0, y=5.0, width=0.4)
    choice = {"value": {"choices": ["good"]}, "id": "c", "type": "choices", "to_name": "image"}
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    span = {"value": {"start": 1, "end": 2, "labels": ["x"]}, "id": "s", "type": "labels"}
    notes = []
    root = put(task(annotation(polygon(), point, choice, relation, span)))
    (sample,) = converters.read(root, note=notes.append)
    assert len(sample.instances) == 1
    assert notes == [f"{root}: left out 1 regions that enclose nothing (keypoint)"]
    assert converters.label_space(root).names == ("cat",)


# --- tasks


def test_the_latest_annotation_counts_that_was_not_cancelled(put):
    old, new = "2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z"
    chosen = annotation(polygon("new"), updated_at=new)
    others = [
        annotation(polygon("old"), updated_at=old),
        annotation(polygon("cancelled"), updated_at="2024-03-03T00:00:00Z", was_cancelled=True),
    ]
    notes = []
    root = put({**task(chosen, *others), "predictions": [{"result": [polygon("predicted")]}]})
    (sample,) = converters.read(root, note=notes.append)
    assert [one.label for one in sample.instances] == ["new"]
    assert converters.label_space(root).names == ("new",)
    said = f"{root}: took the latest annotation of each of 1 tasks that have several"
    assert notes == [said]


def test_tasks_without_annotations_are_no_images_without_objects(put):
    undone = [
        task(image="b.png"),
        task(annotation(polygon(), was_cancelled=True), image="c.png"),
        {**task(image="d.png"), "predictions": [{"result": [polygon()]}]},
    ]
    empty = task(annotation(), image="e.png")
    notes = []
    root = put(task(annotation(polygon())), *undone, empty, files=["a.png", "e.png"])
    found = converters.read(root, note=notes.append)
    assert [(sample.key, len(sample.instances)) for sample in found] == [("a", 1), ("e", 0)]
    assert notes == [f"{root}: left out 3 tasks that nobody has annotated"]


def test_classes_are_sorted_and_found_by_alias(put):
    root = put(task(annotation(polygon("b10"), polygon("b9"))))
    assert converters.label_space(root).names == ("b9", "b10")
    mine = LabelSpace("mine", ("x",), aliases={"b9": "x"})
    assert set(masks(root, labels=mine)) == {"x"}


def test_what_else_is_known_is_kept(put):
    root = put(task(annotation(polygon()), patient="p7", age=31, tags=["x"]))
    assert dict(converters.read(root)[0].attributes) == {"patient": "p7", "age": 31}


def test_several_files_and_test_images(put):
    put(task(annotation(polygon()), image="a.png"), files=["a.png"])
    one = task(annotation(polygon("dog")), image="s3://bucket/test/b.png", number=2)
    root = put(one, files=["test/b.png"], name="second.json")
    assert [sample.key for sample in converters.read(root)] == ["a"]
    assert [sample.key for sample in converters.read(root, subset="test")] == ["test/b"]


# --- images


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("/data/upload/3/0a1b2c3d-a.png", "images/a.png"),
        ("/data/upload/3/0a1b2c3d-a.png", "images/0a1b2c3d-a.png"),
        ("/data/upload/0a1b2c3d-a.png", "a.png"),
        ("/data/local-files/?d=hands/left/a.png", "left/a.png"),
        ("/data/local-files/?d=hands%5Cleft%5Ca.png", "left/a.png"),
        ("/data/local-files/?d=a+b.png", "images/a+b.png"),
        ("/data/local-files/?d=a%20b.png", "images/a b.png"),
        ("file:///home/me/a.png", "deep/down/a.png"),
        ("C:\\home\\me\\a.png", "a.png"),
        ("https://example.org/x/a%20b.png?token=1#2", "a b.png"),
        ("s3://bucket/x/a.png", "images/x/a.png"),
        ("a.png", "a.png"),
    ],
)
def test_where_an_image_may_be(image, file, put):
    (sample,) = converters.read(put(task(annotation(polygon()), image=image), files=[file]))
    assert sample.key == file.removesuffix(".png")


def test_another_key_than_image(put):
    one = task(annotation(polygon()))
    one["data"] = {"photo": "/data/upload/1/0a1b2c3d-a.png", "note": "a text"}
    (sample,) = converters.read(put(one))
    assert dict(sample.attributes) == {"note": "a text"}


@pytest.mark.parametrize("place", ["../a.png", "{}/a.png", "file://{}/a.png", "images/../../a.png"])
def test_nothing_outside_is_found(place, put, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros(SIZE, np.uint8))
    one = task(annotation(polygon()), image=place.format(tmp_path))
    with pytest.raises(DataError, match=r"expected its image '.*a\.png' in this folder"):
        converters.read(put(one, files=["images/b.png"]))


def test_an_image_is_not_taken_for_another_of_its_name(put):
    tasks = [task(annotation(polygon()), image=f"s3://x/{f}/a.png", number=f) for f in "pq"]
    root = put(*tasks, files=["images/q/a.png"])
    with pytest.raises(DataError, match=r"task 'p': expected one image 'p/a\.png', found several"):
        converters.read(root)
    assert [s.key for s in converters.read(root, skips_broken=True)] == ["images/q/a"]


def test_images_without_a_task_are_said(put):
    notes = []
    root = put(task(annotation(polygon())), files=["images/a.png", "images/z.png"])
    converters.read(root, note=notes.append)
    assert notes == [f"{root}: left out 1 images without annotations (images/z.png)"]


# --- what is wrong

# A run of 9600 values, all 0, of 40 x 60 pixels.
EMPTY = int(f"{9600:032b}001110010001101111111111{9599:016b}00000000", 2)
RLE = list(EMPTY.to_bytes(10, "big"))
BROKEN = {
    "no points": (polygon(points=None), "(polygon): expected points [x, y] in percent, found None"),
    "ragged": (polygon(points=[[1, 2], [3]]), "expected points [x, y] in percent"),
    "words": (polygon(points=[["a", "b"]] * 3), "expected points [x, y] in percent"),
    "truths": (polygon(points=[[1, 2], [3, True], [9, 9]]), "expected points [x, y] in percent"),
    "NaN": (polygon(points=[[float("nan"), 1], [3, 9], [9, 9]]), "found NaN, infinity"),
    "two points": (polygon(points=TRIANGLE[:2]), "expected at least 3 points"),
    "in pixels": (polygon(points=[[400, 300], [500, 300], [450, 390]]), "expected points in an im"),
    "no label": (polygon(None), "expected a label, found none: give it one, or delete it"),
    "no label but empty": (polygon([]), "expected a label, found none"),
    "width": (rectangle(width=None), "expected 'width' to be a number, found None"),
    "width below 0": (rectangle(width=-1), "expected 'width' above 0, found -1"),
    "angle": (rectangle(rotation="up"), "expected 'rotation' to be a number, found 'up'"),
    "a truth": (rectangle(x=True), "expected 'x' to be a number, found True"),
    "infinite": (rectangle(x=float("inf")), "expected 'x' to be a number, found inf"),
    "huge": (rectangle(x=10**400), "expected 'x' to be a number"),
    "radius": (entry("ellipselabels", x=5, y=5, radiusX=0, radiusY=2), "expected 'radiusX' above"),
    "no code": (entry("brushlabels", format="rle"), "found one that is cut off"),
    "empty brush": (entry("brushlabels", rle=RLE), "expected a brush with pixels, found an empty"),
    "bitmask": (
        entry("bitmasklabels", imageDataURL="data:image/png;base64,"),
        "expected polygon, rectangle, ellipse or brush, found bitmask: draw it as one of them",
    ),
    "turned image": (polygon(image_rotation=90), "expected 'image_rotation' to be 0, found 90"),
    "size": (
        polygon(original_width=40, original_height=60),
        "region 1: expected an image of (60, 40) (height, width), found (40, 60)",
    ),
    "no object": (7, "region 1: expected an object, found 7"),
    "no value": ({"type": "polygonlabels"}, "region 1: expected a 'value', found None"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_region_is_one_line_and_can_be_skipped(broken, message, put):
    tasks = [
        task(annotation(polygon(), broken)),
        task(annotation(polygon()), image="b.png", number=2),
    ]
    root = put(*tasks, files=["images/a.png", "images/b.png"])
    with pytest.raises(DataError) as error:
        converters.read(root)
    (line,) = error.value.problems
    assert line.startswith("project-1-at-2024-03-09.json, task 1: region 1")
    assert message in line
    assert [s.key for s in converters.read(root, skips_broken=True)] == ["images/b"]


FRACTIONS = {
    "polygon": polygon(points=[[0.1, 0.2], [0.5, 0.3], [0.3, 0.9]]),
    "rectangle": rectangle(0.1, 0.2, 0.3, 0.25),
    "ellipse": entry("ellipselabels", x=0.5, y=0.5, radiusX=0.25, radiusY=0.1),
}


@pytest.mark.parametrize("kind", FRACTIONS)
def test_parts_of_the_sides_are_no_percent(kind, put):
    root = put(task(annotation(FRACTIONS[kind], FRACTIONS["polygon"])))
    with pytest.raises(
        DataError, match=r"09\.json: expected points in percent of the image's sides"
    ):
        converters.read(root)


@pytest.mark.parametrize(("side", "is_refused"), [(60, True), (2000, False)])
def test_parts_of_the_sides_beside_what_is_in_percent(side, is_refused, put):
    tasks = [
        task(annotation({**FRACTIONS["polygon"], "original_width": None})),
        task(annotation(polygon()), image="b.png", number=2),
    ]
    root = put(*tasks, files=["images/a.png", "images/b.png"])
    cv2.imwrite(str(root / "images/a.png"), np.zeros((side, side), np.uint8))
    notes = []
    if is_refused:
        with pytest.raises(DataError, match=r"task 1: expected points in percent of the image's"):
            converters.read(root)
        return
    assert len(converters.read(root, note=notes.append)) == 2
    assert "all objects of 1 images lie in the upper left hundredth: make sure" in notes[0]


TASKS = {
    "image absent": (task(annotation(polygon()), image="x/z.png"), "expected its image 'x/z.png'"),
    "no image": (task(annotation(polygon()), image=None), "expected 'image' in 'data' to name an"),
    "several images": (task(annotation(polygon()), image=["a.png"]), "expected 'image' in 'data'"),
    "annotations": ({**task(), "annotations": 7}, "expected 'annotations' to be a list of objects"),
    "result": (task(annotation(result=None)), "expected 'result' to be a list, found None"),
}


@pytest.mark.parametrize(("broken", "message"), TASKS.values(), ids=TASKS)
def test_a_broken_task_is_one_line_and_can_be_skipped(broken, message, put):
    good = task(annotation(polygon()), image="b.png", number=2)
    root = put(broken, good, files=["images/a.png", "images/b.png"])
    with pytest.raises(DataError) as error:
        converters.read(root)
    (line,) = error.value.problems
    assert line.startswith("project-1-at-2024-03-09.json, task 1: ")
    assert message in line
    assert [s.key for s in converters.read(root, skips_broken=True)] == ["images/b"]


def test_two_tasks_of_one_image(put):
    root = put(task(annotation(polygon())), task(annotation(polygon()), number=2))
    with pytest.raises(DataError, match=r"task 2: expected an image of its own, found that of"):
        converters.read(root)


MIN = [
    {
        "image": "/data/upload/3/0a1b2c3d-a.png",
        "id": 1,
        "label": [{"points": TRIANGLE, "polygonlabels": ["cat"], "original_width": 60}],
        "annotator": 1,
        "annotation_id": 1001,
        "created_at": "2024-03-09T22:16:08.728353Z",
        "updated_at": "2024-03-09T22:16:08.728378Z",
        "lead_time": 4.2,
    }
]
FILES = {
    "JSON-MIN": (json.dumps(MIN), 'found its JSON-MIN.*: export the project as "JSON"'),
    "JSON-MIN, little of it": (
        json.dumps([{"image": "a.png", "id": 1, "label": MIN[0]["label"]}]),
        'found its JSON-MIN.*: export the project as "JSON"',
    ),
    "cut off": (json.dumps([task(annotation())])[:-9], "found a broken file"),
    "a number": ('[{"annotations": [], "data": {}}, 7]', "a list of tasks, found"),
    "no data": ('[{"annotations": [{"result": []}]}]', "task 0: expected 'data', found"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_broken_file_is_named(text, message, tmp_path):
    (tmp_path / "p.json").write_text(text)
    assert converters.recognise(tmp_path) == "label_studio"
    with pytest.raises(ValueError, match=message) as error:
        converters.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'p.json'}: ")


@pytest.mark.parametrize("record", [{"annotations": [], "data": 1}, [{"image_id": 1}], [], [1]])
def test_json_of_others_is_not_label_studios(record, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(record))
    assert not converters.load_format("label_studio").matches(tmp_path)


@pytest.mark.parametrize("kind", ["cubiclabels", ["polygonlabels"], 5, None])
def test_what_looks_drawn_but_has_no_known_type_is_refused(kind, put):
    root = put(task(annotation(polygon(), {**polygon(), "id": "x", "type": kind})))
    with pytest.raises(DataError, match=r"task 1: region 1 \(.*\): expected polygon, rectangle"):
        converters.read(root)


def test_what_is_said_of_a_region_is_no_outline(put):
    text = {**rectangle(), "id": "x", "type": "textarea"}
    root = put(task(annotation(polygon(), text)))
    (sample,) = converters.read(root)
    assert len(sample.instances) == 1


def test_an_image_in_two_tasks_is_said_so(put):
    root = put(task(annotation(polygon())), task(annotation(polygon()), number=2))
    with pytest.raises(DataError, match=r"task 2: expected an image of its own") as error:
        converters.read(root)
    assert len(error.value.problems) == 1


def test_without_any_sound_task_the_first_broken_one_is_named(put):
    root = put(task(annotation(7)))
    with pytest.raises(ValueError, match=r"json: task 0: region 0: expected an object, found 7"):
        converters.read(root)


def test_a_name_of_endless_folders_is_no_image(put):
    root = put(task(annotation(polygon()), image="a/" * 200_000 + "a.png"))
    with pytest.raises(DataError, match=r"expected its image 'a/a/a"):
        converters.read(root)


def test_a_problem_is_one_line_whatever_names_hold(put):
    root = put(task(annotation(polygon()), image="a\n\x1b[2Jb.png"))
    with pytest.raises(DataError, match=r"expected its image 'a  \[2Jb.png'") as error:
        converters.read(root)
    assert len(str(error.value).splitlines()) == 1


def test_json_in_a_folder_annotations_may_be_named(put):
    root = put(task(annotation(polygon())))
    expected = converters.read(root)
    (file,) = root.glob("*.json")
    (root / "annotations").mkdir()
    file = file.rename(root / "annotations" / "export.json")
    assert converters.recognise(root) == converters.recognise(file) == "label_studio"
    assert converters.read(root) == converters.read(file) == expected
