"""The VGG Image Annotator's JSON: exports and projects, shapes, classes; and what is wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

import converters
from converters import DataError
from converters.masks import rasterize_labels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (30, 44)
XS, YS = [4, 21, 30, 9], [3, 2, 20, 25]


def shape(name="polygon", **more):
    return {"name": name, **(more or {"all_points_x": XS, "all_points_y": YS})}


def region(label="cat", own=None, **more):
    attributes = {"label": label, **more} if label is not None else more
    return {"shape_attributes": own or shape(), "region_attributes": attributes}


@pytest.fixture
def make(tmp_path):
    def build(regions, name="a.jpg", place="train/via_region_data.json", form="list"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path.parent / name), np.zeros((*SIZE, 3), np.uint8))
        if form == "dict":
            regions = {str(number): own for number, own in enumerate(regions)}
        entry = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
        record = {f"{name}123": entry}
        if form == "project":
            record = {"_via_settings": {"ui": {}}, "_via_img_metadata": record}
        path.write_text(json.dumps(record))
        return tmp_path

    return build


def planes(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


@pytest.mark.parametrize("form", ["list", "dict", "project"])
def test_a_polygon_has_the_pixels_that_pycocotools_gives_it(form, make):
    root = make([region()], form=form)
    assert converters.recognise(root) == "via"
    (sample,) = converters.read(root)
    assert (sample.key, sample.image) == ("train/a", root / "train" / "a.jpg")
    line = [float(n) for pair in zip(XS, YS, strict=True) for n in pair]
    expected = coco.decode(coco.frPyObjects([line], *SIZE))[..., 0]
    np.testing.assert_array_equal(planes(root)["cat"], expected)


def test_rectangles_circles_and_ellipses(make):
    root = make(
        [
            region("rect", shape("rect", x=3, y=4, width=10, height=6)),
            region("circle", shape("circle", cx=20, cy=15, r=8)),
            region("ellipse", shape("ellipse", cx=20, cy=15, rx=14, ry=3, theta=np.pi / 2)),
        ]
    )
    found = planes(root)
    assert found["rect"].sum() == 60
    assert found["rect"][4:10, 3:13].all()
    assert abs(found["circle"].sum() - np.pi * 64) < 0.04 * np.pi * 64
    assert found["ellipse"][3:27, 19:21].all()
    assert not found["ellipse"][:, :16].any()


def test_what_encloses_nothing_is_told(make):
    notes = []
    root = make([region(), region("cat", shape("point", cx=3, cy=3))])
    assert len(converters.read(root, note=notes.append)[0].instances) == 1
    assert "left out 1 shapes that enclose nothing (point)" in notes[0]


def test_without_attributes_all_are_of_one_class(make):
    notes = []
    assert set(planes(make([region(None)]), note=notes.append)) == {"object"}
    assert "regions without a class are of one, 'object'" in notes[0]


def test_of_several_attributes_the_one_that_is_called_so_is_the_class(make):
    notes = []
    root = make([region("cat", occluded="yes"), region("dog", occluded="no")])
    assert converters.label_space(root).names == ("cat", "dog")
    converters.read(root, note=notes.append)
    assert "the attribute 'label' is taken for the class, not 'occluded'" in notes[0]


def test_a_checkbox_with_one_tick_is_a_class(make):
    assert set(planes(make([region({"cat": True, "dog": False})]))) == {"cat"}


def test_subsets_and_an_export_beside_its_project(make):
    make([region()])
    make([region()], place="train/via_project.json", form="project")
    root = make([region("dog")], place="test/via_region_data.json")
    assert [s.key for s in converters.read(root)] == ["train/a"]
    assert [s.key for s in converters.read(root, subset="test")] == ["test/a"]


BROKEN = {
    "two ticks": (region({"a": True, "b": True}), "one class in the attribute 'label'"),
    "no class": ({**region(), "region_attributes": {}}, "one class in the attribute 'label'"),
    "odd points": (region("cat", shape(all_points_x=[1, 2, 3], all_points_y=[4])), "as many num"),
    "text": (region("cat", shape("rect", x="3", y=4, width=1, height=1)), "'x' to be a number"),
    "elsewhere": (region("cat", shape("circle", cx=900, cy=900, r=9)), "points in an image of"),
    "a film": (region("cat", shape("cuboid")), "expected a polygon, rect, circle or ellipse"),
    "nothing": ({"region_attributes": {}}, "expected 'shape_attributes', found None"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_region_is_one_line(broken, message, make):
    root = make([region(), broken])
    with pytest.raises(DataError, match=message) as error:
        converters.read(root)
    (problem,) = error.value.problems
    assert problem.startswith("train/via_region_data.json, image 'a.jpg': region 1: expected")


def test_an_image_that_is_not_there_is_named(make):
    root = make([region()])
    (root / "train" / "a.jpg").rename(root / "train" / "b.jpg")
    with pytest.raises(DataError, match=r"expected its image 'train/a\.jpg' in this folder"):
        converters.read(root)


@pytest.mark.parametrize("content", ["{", '{"a": {"filename": 3, "regions": []}}'])
def test_a_broken_file_is_one_line(content, make):
    root = make([region()])
    (root / "train" / "b.json").write_text(
        content.replace("{", '{"filename": 1, "regions": 2, ', 1)
    )
    with pytest.raises(ValueError, match=r"train/b\.json: expected") as error:
        converters.read(root)
    assert len(str(error.value).splitlines()) == 1


def test_two_files_about_the_same_images_are_one_problem(make):
    make([region()])
    root = make([region("dog")], place="train/via_more.json")
    with pytest.raises(DataError, match=r"found 1 of train/via_more\.json: move one of the two"):
        converters.read(root)
