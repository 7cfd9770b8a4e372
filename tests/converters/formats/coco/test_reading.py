from __future__ import annotations

import contextlib
import json
import os

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

import converters
from converters.errors import DataError
from converters.formats.coco.files import annotation_files, is_test
from converters.formats.coco.images import ImageFinder
from converters.masks import crop, encode_coco_rle, rasterize
from converters.types import LabelSpace

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 30)
SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def write_image(path, size_hw):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size_hw, 7, np.uint8))
    return path


def load(path):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return COCO(str(path))


def read(data, labels, **more):
    data.save()
    return converters.read(data.root, labels=labels, **more)


def problems(data, labels, **more):
    data.save()
    return [str(p) for p in converters.scan(data.root, labels=labels, **more)[1]]


def hole_mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[4:12, 5:15] = 1
    mask[6:9, 8:11] = 0
    return mask


def uncompressed(mask):
    flat = mask.T.ravel()
    change = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *change, len(flat)]).tolist()


def shifted(polygon, by):
    return [value + by for value in polygon]


SEGMENTATIONS = {
    "a polygon": [SQUARE],
    "fractions": [[2.3, 3.7, 17.9, 4.2, 9.5, 15.1]],
    "several parts": [SQUARE, shifted(SQUARE, 9.3)],
    "parts that overlap": [SQUARE, shifted(SQUARE, 2)],
    "beyond the image": [[-5, -5, 40, -3, 35, 12.5, -2, 9]],
    "a compressed code": encode_coco_rle(crop(hole_mask()), SIZE),
    "an uncompressed code": {"size": list(SIZE), "counts": uncompressed(hole_mask())},
}


@pytest.mark.parametrize("segmentation", SEGMENTATIONS.values(), ids=SEGMENTATIONS)
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_reads_the_pixels_that_pycocotools_finds(segmentation, iscrowd, data, labels):
    (sample,) = read(data.add(segmentation, iscrowd=iscrowd), labels)
    truth = load(data.save()).annToMask({"image_id": 7, "segmentation": segmentation})
    ours = rasterize(sample.instances[0].geometry, SIZE).full(SIZE)
    np.testing.assert_array_equal(ours, truth)
    assert int(truth.sum()) > 20


@pytest.mark.parametrize("iscrowd", [1, True, "1"])
def test_crowds_are_counted(iscrowd, data, labels):
    data.add([SQUARE], iscrowd=iscrowd).add([SQUARE]).add(SEGMENTATIONS["a compressed code"])
    data.add(SEGMENTATIONS["an uncompressed code"], iscrowd=iscrowd, category=3).save()
    notes = []
    (sample,) = converters.read(data.root, labels=labels, note=notes.append)
    assert len(sample.instances) == 4
    (note,) = notes
    assert f"{data.place}: 2 crowd regions (iscrowd: 1) are read as an object each" in note


def test_a_single_polygon_needs_no_list_around_it(data, labels):
    (sample,) = read(data.add(SQUARE).add([SQUARE]), labels)
    assert sample.instances[0] == sample.instances[1]


def test_one_instance_an_annotation_by_category_name(data, labels):
    data.add([SQUARE]).add([shifted(SQUARE, 8)]).add([SQUARE], category=3)
    (sample,) = read(data, labels)
    assert [i.label for i in sample.instances] == ["Ulna", "Ulna", "Radius"]
    assert (sample.key, sample.group) == ("images/train2017/a", "")


def test_category_names_may_be_aliases(data, labels):
    data.content["categories"][0]["name"] = "MC3"
    (sample,) = read(data.add([SQUARE]), labels)
    assert sample.instances[0].label == "finger-11"


def test_thin_objects_keep_the_pixels_of_their_outline(data, labels):
    (sample,) = read(data.add([[2, 3.6, 9, 3.6, 9, 4.4, 2, 4.4]]), labels)
    assert rasterize(sample.instances[0].geometry, SIZE).area > 0


@pytest.mark.parametrize(
    ("place", "images"),
    [
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_default.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("train.json", "."),
        ("instances_val.json", "images/val"),
    ],
)
def test_finds_images_in_the_usual_places(place, images, labels, tmp_path, new):
    data = new(tmp_path / "data", place, images).add([SQUARE])
    (sample,) = read(data, labels)
    assert sample.image == data.root / images / "a.png"


def test_file_names_may_have_folders_and_separators_of_windows(data, labels):
    write_image(data.root / "images/train2017/batch_01/b.png", SIZE)
    data.content["images"][0]["file_name"] = "batch_01\\b.png"
    (sample,) = read(data, labels)
    assert sample.key == "images/train2017/batch_01/b"


def test_several_files_and_the_test_subset(labels, tmp_path, new):
    for name in ("train", "valid", "test"):
        new(tmp_path / "data", f"{name}/_annotations.coco.json", name).add([SQUARE]).save()
    keys = {
        subset: [s.key for s in converters.read(tmp_path / "data", subset=subset, labels=labels)]
        for subset in converters.SUBSETS
    }
    assert keys == {
        "train": ["train/a", "valid/a"],
        "test": ["test/a"],
        "all": ["test/a", "train/a", "valid/a"],
    }


def test_test_images_need_no_annotations(labels, tmp_path, new):
    data = new(tmp_path / "data", "test.json", ".")
    del data.content["annotations"]
    (sample,) = read(data, labels, subset="test")
    assert sample.instances == ()


def test_same_image_in_two_files_is_read_once(labels, tmp_path, new):
    data = new(tmp_path / "data", images="images").add([SQUARE])
    data.save()
    data.place = "annotations/instances_all.json"
    (sample,) = read(data, labels)
    assert len(sample.instances) == 1


def test_same_image_with_other_objects_is_a_problem(labels, tmp_path, new):
    data = new(tmp_path / "data", images="images").add([SQUARE])
    data.save()
    data.place = "annotations/instances_all.json"
    (found,) = problems(data.add([SQUARE]), labels)
    assert "expected what annotations/instances_all.json says of it" in found


def test_files_about_other_things_are_left_out(labels, tmp_path, new):
    data = new(tmp_path / "data", images="images").add([SQUARE])
    data.save()
    data.place = "annotations/instances_erosions.json"
    data.content["categories"] = [{"id": 90, "name": "SvdH-BE-90"}]
    notes = []
    (sample,) = read(data, labels, note=notes.append)
    assert [i.label for i in sample.instances] == ["Ulna"]
    left_out = "left out 1 objects of 'SvdH-BE-90', not asked for by 'hand_bones'"
    assert notes == [f"{data.root}: {left_out}"]
    (sample,) = converters.read(data.root)
    assert {i.label for i in sample.instances} == {"Ulna", "SvdH-BE-90"}


def test_other_tasks_of_the_same_images_are_left_out(data, labels):
    data.add([SQUARE]).save()
    data.place = "annotations/person_keypoints_train2017.json"
    data.content["annotations"] = []
    data.save()
    assert [path.name for path in annotation_files(data.root)] == ["instances_train2017.json"]


def test_other_json_files_are_not_cocos(tmp_path):
    for number, text in enumerate(["", "[]", '{"images": {}}', '{"images": []}', "{"]):
        (tmp_path / f"{number}.json").write_text(text)
    assert annotation_files(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "expected"),
    [("test.json", True), ("a/image_info_test2017.json", True), ("latest.json", False)],
)
def test_files_of_the_test_subset(file, expected, tmp_path):
    assert is_test(tmp_path, tmp_path / file) == expected


# --- what is wrong

BROKEN = {
    "only a box": (None, "found only a box"),
    "no polygons": ([], "found only a box"),
    "an odd number": ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points x, y, found 7 numbers"),
    "two points": ([[1, 2, 3, 4]], "at least 3 points x, y, found 4 numbers"),
    "NaN": ([[1, 2, float("nan"), 4, 5, 6]], "found NaN, infinity"),
    "infinity": ([[1, 2, float("inf"), 4, 5, 6]], "found NaN, infinity"),
    "a huge number": ([[1, 2, 10**30, 4, 5, 6]], "expected a polygon"),
    "text": ([["1", "2", "3", "4", "5", "6"]], "expected a polygon"),
    "pairs": ([[[1, 2], [3, 4], [5, 6]]], "expected a polygon"),
    "ragged": ([[1, [2], 3]], "expected a polygon"),
    "a number": (5, "expected polygons or a run-length code, found 5"),
    "outside": ([[50, 50, 60, 50, 60, 60]], "points in an image of 20 x 30 (height x width)"),
    "another size": ({"size": [30, 20], "counts": [600]}, "size (20, 30), found [30, 20]"),
    "no size": ({"counts": [600]}, "size (20, 30), found None"),
    "no counts": ({"size": [20, 30]}, "'counts' to be a text or whole numbers"),
    "counts that are text": ({"size": [20, 30], "counts": ["a"]}, "'counts' to be a text"),
    "too few runs": ({"size": [20, 30], "counts": [5, 5]}, "runs that fill 20 x 30"),
    "a cut code": ({"size": [20, 30], "counts": "PPYo1"[:4] + "p"}, "COCO RLE"),
    "an empty code": ({"size": [20, 30], "counts": [600]}, "found none"),
}


@pytest.mark.parametrize("segmentation", [None, []])
def test_a_data_set_of_boxes_is_refused_in_one_line_with_a_remedy(segmentation, data, labels):
    for place in ("annotations/instances_train2017.json", "annotations/instances_val2017.json"):
        data.place = place
        data.add(segmentation, bbox=[2, 3, 6, 6]).add(segmentation, bbox=[1, 1, 4, 4]).save()
    samples, problems = converters.scan(data.root, labels=labels)
    assert not samples
    assert [problem.where for problem in problems] == [
        f"annotations/instances_{name}2017.json" for name in ("train", "val")
    ]
    assert "found nothing but 2 boxes (detection): export the annotations" in problems[0].what


@pytest.mark.parametrize(("segmentation", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_annotations_are_named_and_the_others_read(segmentation, message, data, labels):
    data.add([SQUARE]).add(segmentation).save()
    samples, (problem,) = converters.scan(data.root, labels=labels)
    assert str(problem).startswith(
        "annotations/instances_train2017.json: annotation 2 ('Ulna'): expected"
    ) or "COCO RLE" in str(problem)
    assert message in str(problem)
    assert problem.key == "images/train2017/a"
    assert [len(s.instances) for s in samples] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "annotation 1: expected an image of this file, found 8"),
        ({"image_id": [7]}, "expected 'image_id' to be a whole number or a text, found [7]"),
        ({"category_id": 5}, "annotation 1: expected a category of this file, found 5"),
        (
            {"category_id": None},
            "expected 'category_id' to be a whole number or a text, found None",
        ),
    ],
)
def test_annotations_of_nothing_known(change, message, data, labels):
    (found,) = problems(data.add([SQUARE], **change), labels)
    assert message in found


@pytest.mark.parametrize("name", ["", "..", "a/..", "C:\\", "/", None, 5])
def test_file_names_that_are_no_path_of_an_image(name, data, labels):
    data.content["images"][0]["file_name"] = name
    (found,) = problems(data, labels)
    assert "expected 'file_name' to be a path of an image, found" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "b.png"}, "'b.png': expected an image beside this file or in images/"),
        ({"id": None}, "expected 'id' to be a whole number or a text, found None"),
        ({"width": 31}, "expected height and width (20, 31) as is said here, found (20, 30)"),
        ({"sample": {"key": "/etc"}}, "expected a relative path, found '/etc'"),
        ({"sample": []}, "expected key, group and frame of an image"),
    ],
)
def test_broken_entries_of_images(change, message, data, labels):
    data.content["images"][0].update(change)
    (found,) = problems(data, labels)
    assert message in found


def test_a_side_that_was_rounded_is_no_other_image(data, labels):
    write_image(data.root / "images/train2017/a.png", (100, 80))
    data.content["images"][0].update(height=101, width=80)
    notes = []
    data.add([SQUARE]).save()
    (sample,) = converters.read(data.root, labels=labels, note=notes.append)
    assert sample.size_hw == (100, 80)
    assert "1 images have a side that is a pixel longer or shorter" in notes[0]
    data.content["images"][0]["height"] = 102
    data.save()
    _, (problem,) = converters.scan(data.root, labels=labels)
    assert problem.key.endswith("a")
    assert "expected height and width (102, 80)" in str(problem)


def test_an_image_id_that_comes_twice(data, labels):
    write_image(data.root / "images/train2017/b.png", SIZE)
    data.content["images"].append({"id": "7", "file_name": "b.png"})
    (found,) = problems(data.add([SQUARE]), labels)
    assert "'b.png': image '7': expected an id of its own, found that of 'a.png' too" in found


def test_a_missing_image_can_be_excluded_by_its_key(samples, labels, tmp_path):
    converters.write(samples, tmp_path / "out", format="coco", labels=labels)
    (tmp_path / "out/images/train" / samples[2].image.name).unlink()
    _, (problem,) = converters.scan(tmp_path / "out", labels=labels)
    assert (problem.key, problem.group) == (samples[2].key, samples[2].group)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [', "expected JSON, found a broken file"),
        ('[{"images": [], "annotations": []}]', "expected an object with 'images'"),
        ('{"images": [5], "annotations": []}', "'images' to be a list of objects"),
        ('{"images": [], "categories": [{"name": "x"}]}', "category: expected 'id'"),
        ('{"images": [], "categories": [], "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"images": [], "annotations": [], "x": "\\ud800\xff', "expected UTF-8, found byte 0xff"),
    ],
)
def test_broken_files(text, message, labels, tmp_path):
    (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.json") as error:
        converters.read(tmp_path, labels=labels)
    assert message in str(error.value)


def test_what_a_label_space_ignores_is_not_read(data):
    data.content["categories"] = [{"id": 90, "name": "Ulna"}, {"id": 3, "name": "Ring"}]
    (sample,) = read(data.add([SQUARE]).add([SQUARE], category=3), LabelSpace.load("ram_h1200"))
    assert [i.label for i in sample.instances] == ["Ulna"]


def test_a_category_without_annotations_does_not_matter(data, labels):
    data.content["categories"][1]["name"] = "bones"
    (sample,) = read(data.add([SQUARE]), labels)
    assert len(sample.instances) == 1


def test_no_known_category_at_all(data, labels):
    data.content["categories"] = [{"id": 90, "name": "Plastic bag"}]
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match=r"found Plastic bag: choose --labels waste"):
        converters.read(data.root, labels=labels)


def test_a_subset_that_is_not_there(data, labels):
    data.save()
    with pytest.raises(ValueError, match="of subset 'test', found instances_train2017"):
        converters.read(data.root, subset="test", labels=labels)


def test_images_are_only_looked_for_below_the_folder(tmp_path):
    write_image(tmp_path / "images" / "a.png", SIZE)
    finder = ImageFinder(tmp_path / "data", tmp_path / "data" / "train.json")
    with pytest.raises(ValueError, match="expected an image beside this file"):
        finder.find({"file_name": "a.png"})


@pytest.mark.parametrize(
    ("names", "is_said"), [(("a", "b"), True), (("train", "valid"), False), (("train",), False)]
)
def test_folders_that_are_no_parts_are_said_to_be_joined(names, is_said, tmp_path):
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), np.zeros((20, 20), np.uint8))
        content = {
            "images": [{"id": 1, "file_name": f"{name}.png"}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": [[1, 1, 9, 1, 9, 9]],
                }
            ],
        }
        (tmp_path / name / "_annotations.coco.json").write_text(json.dumps(content))
    notes = []
    assert len(converters.read(tmp_path, note=notes.append)) == len(names)
    assert any("read as one data set: 2 folders" in line for line in notes) is is_said
