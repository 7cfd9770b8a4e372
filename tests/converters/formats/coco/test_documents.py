from __future__ import annotations

import numpy as np
import pytest

import converters
from converters.formats.coco.documents import normal_id
from converters.formats.coco.filling import fill_each
from converters.masks import rasterize, tight_box
from converters.types import LabelSpace

SIZE = (20, 30)
SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def scan(data, labels):
    data.save()
    samples, found = converters.scan(data.root, labels=labels)
    return samples, [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        ("-7", -7),
        ("007", "007"),
        ("a", "a"),
        ("", ""),
        ("\u0667", "\u0667"),
        ("9" * 60, "9" * 60),
        (7.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ([7], None),
    ],
)
def test_one_id_however_it_is_written(value, expected):
    assert normal_id(value) == expected


@pytest.mark.parametrize("image_id", [7, 7.0, "7"])
@pytest.mark.parametrize("category_id", [90, 90.0, "90"])
def test_ids_meet_however_they_are_written(image_id, category_id, data, labels):
    data.content["images"][0]["id"] = str(data.content["images"][0]["id"])
    (sample,), found = scan(data.add([SQUARE], image_id=image_id, category_id=category_id), labels)
    assert found == []
    assert [i.label for i in sample.instances] == ["Ulna"]


def test_messages_tell_texts_from_numbers(data, labels):
    data.content["images"][0]["id"] = "7a"
    _, (found,) = scan(data.add([SQUARE], image_id="7b"), labels)
    assert "annotation 1: expected an image of this file, found '7b'" in found


def test_ids_of_annotations_do_not_matter(data, labels):
    data.image("images/train2017/b.png", id=8)
    data.add([SQUARE]).add([SQUARE], id=1).add([SQUARE], id=1, image_id=8).add([SQUARE], id=None)
    del data.content["annotations"][1]["id"]
    samples, found = scan(data, labels)
    assert found == []
    assert [len(s.instances) for s in samples] == [3, 1]


def test_two_entries_of_one_file(data, labels):
    data.content["images"].append({"id": 9, "file_name": "a.png"})
    _, (found,) = scan(data.add([SQUARE]).add([SQUARE], image_id=9), labels)
    assert "'a.png': images 7 and 9: expected a file each, found the same one" in found


def test_one_stem_with_two_suffixes_is_two_images(data, labels, tmp_path):
    data.image("images/train2017/a.jpg", id=8).add([SQUARE]).add([SQUARE], image_id=8)
    data.image("images/train2017/b.jpg", id=9)
    samples, found = scan(data, labels)
    assert found == []
    assert [s.key for s in samples] == [f"images/train2017/{n}" for n in ("a.jpg", "a.png", "b")]
    for form in ("yolo", "masks", "coco", "datumaro", "handbone"):
        converters.write(samples, tmp_path / form, format=form, labels=labels)
        again = converters.read(tmp_path / form, labels=labels)
        assert [s.key for s in again] == [s.key for s in samples]
        assert [len(s.instances) for s in again] == [1, 1, 0]


@pytest.mark.parametrize("names", [("height",), ("width",), ("height", "width")])
def test_sizes_that_are_null_are_the_images(names, data, labels):
    data.content["images"][0].update(dict.fromkeys(names))
    (sample,), found = scan(data.add([SQUARE]), labels)
    assert (found, sample.size_hw) == ([], SIZE)


# --- categories


def test_a_category_that_comes_twice_and_is_the_same(data, labels):
    data.content["categories"].append({"id": "90", "name": "Ulna"})
    (sample,), found = scan(data.add([SQUARE]), labels)
    assert (found, len(sample.instances)) == ([], 1)


def test_a_category_id_with_two_names(data, labels):
    data.content["categories"].append({"id": 90, "name": "Radius"})
    _, (found,) = scan(data.add([SQUARE]), labels)
    assert "category 90: expected one name, found 'Ulna' and 'Radius'" in found


def test_two_categories_of_one_name_are_one_class(data, labels):
    data.content["categories"].append({"id": 91, "name": "Ulna"})
    (sample,), found = scan(data.add([SQUARE]).add([SQUARE], 91), labels)
    assert found == []
    assert [i.label for i in sample.instances] == ["Ulna", "Ulna"]


@pytest.mark.parametrize(("is_used", "count"), [(True, 1), (False, 0)])
def test_two_categories_of_one_name_in_two_groups(is_used, count, data, labels):
    data.content["categories"][0]["supercategory"] = "left"
    data.content["categories"].append({"id": 91, "name": "Ulna", "supercategory": "right"})
    data.add([SQUARE]).add([SQUARE], 91 if is_used else 90)
    _, found = scan(data, labels)
    assert len(found) == count
    assert all("category 'Ulna': expected it once, found it as part of 'left'" in f for f in found)


@pytest.mark.parametrize("name", [None, ["Ulna"], True, {}])
def test_category_names_that_are_none(name, data, labels):
    data.content["categories"][0]["name"] = name
    _, (found,) = scan(data.add([SQUARE]), labels)
    assert "category 90: expected 'name'" in found


def test_names_that_are_numbers(data):
    data.content["categories"] = [{"id": 90, "name": 5}]
    (sample,), _ = scan(data.add([SQUARE]), LabelSpace("digits", ("5",)))
    assert sample.instances[0].label == "5"


# --- parts and places


def test_parts_of_one_or_two_points_have_no_pixels(data, labels):
    data.add([SQUARE, [45.0, 30.0], [1, 1, 9, 9], []]).add([SQUARE]).save()
    notes = []
    (sample,) = converters.read(data.root, labels=labels, note=notes.append)
    assert [note.split(": ")[2] for note in notes] == [
        "left out 3 parts of objects that have one point or two, and so no pixels"
    ]
    first, second = (rasterize(i.geometry, SIZE).full(SIZE) for i in sample.instances)
    assert (first == second).all()


@pytest.mark.parametrize("name", ["", " "])
@pytest.mark.parametrize("others", [True, False], ids=["beside others", "alone"])
def test_a_category_without_a_name_is_that_of_a_file(name, others, data):
    data.content["categories"][0]["name"] = name
    data.content["categories"][1:] = data.content["categories"][1:] if others else []
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match=r"category 90: expected 'name' to name a class") as error:
        converters.read(data.root)
    assert data.place in str(error.value)


@pytest.mark.parametrize(
    "segmentation",
    [[[2, 3, 8, True, 8, 9]], {"size": [20, 30], "counts": [599, True]}],
    ids=["polygon", "code"],
)
def test_truths_are_no_numbers(segmentation, data, labels):
    _, (found,) = scan(data.add(segmentation), labels)
    assert "found " in found
    assert "True" in found


def test_a_file_with_normalised_polygons(data, labels):
    small = [[0.1, 0.2, 0.35, 0.2, 0.35, 0.45]]
    data.image("images/train2017/b.png", id=8).image("images/train2017/c.png", id=9)
    data.add(small).add(small, image_id=8)
    _, (found,) = scan(data, labels)
    assert found.startswith(f"{data.place}: expected points in pixels of an image of 20 x 30")


def test_one_image_with_normalised_polygons(data, labels):
    data.image("images/train2017/b.png", id=8)
    data.add([[0.1, 0.2, 0.35, 0.2, 0.35, 0.45]]).add([SQUARE], image_id=8)
    samples, (found,) = scan(data, labels)
    assert "'a.png': expected points in pixels of an image of 20 x 30" in found
    assert [s.image.name for s in samples] == ["b.png"]


@pytest.mark.parametrize("extra", [[], [[2, 3]]], ids=["polygons", "a part of one point"])
def test_a_box_around_the_pixels_of_a_polygon_with_thin_spikes(extra, data, labels):
    """Its points reach far beyond its mask, which is what pycocotools draws a box around."""
    spiked = [2, 3, 6, 3, 6, 5, 29, 5.02, 6, 5.04, 6, 7, 2, 7]
    mask = fill_each([[np.reshape(spiked, (-1, 2))]], SIZE)[0]
    assert tight_box(mask)[2] < 6
    data.add([spiked, *extra], bbox=list(tight_box(mask)), area=mask.area)
    (sample,), problems = scan(data, labels)
    assert problems == []
    assert rasterize(sample.instances[0].geometry, SIZE).area == mask.area


@pytest.mark.parametrize("more", [{"bbox": [0, 0, 1, 1]}, {"area": 1}])
def test_an_object_of_one_pixel_whose_box_or_area_shows_it(more, data, labels):
    data.add([[0.2, 0.1, 0.9, 0.1, 0.9, 0.8]], **more)
    (sample,), problems = scan(data, labels)
    assert problems == []
    assert rasterize(sample.instances[0].geometry, SIZE).area == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bbox": [20, 12, 9, 7]}, "where 'bbox' says, x 20 to 29 and y 12 to 19, found x 2 to 8"),
        ({"area": 3600}, "expected about 3600 pixels as 'area' says, found 36"),
    ],
)
def test_annotations_that_contradict_themselves(more, message, data, labels):
    _, (found,) = scan(data.add([SQUARE], **more), labels)
    assert "annotation 1 ('Ulna'): expected" in found
    assert message in found


@pytest.mark.parametrize(
    "more",
    [
        {"bbox": [2, 3, 6, 6], "area": 36},
        {"bbox": [2, 3, 8, 9], "area": 0},
        {"bbox": [0, 0, 0, 0], "area": None},
        {"bbox": None, "area": "36"},
        {"bbox": [1.2, 2.2, 8, 7.9], "area": float("nan")},
    ],
)
def test_annotations_that_do_not(more, data, labels):
    _, found = scan(data.add([SQUARE], **more), labels)
    assert found == []


def test_a_group_may_be_anything(data, labels):
    for group in ({"a": 1}, ["b"], 3):
        data.content["categories"][0]["supercategory"] = group
        data.content["annotations"] = []
        assert scan(data.add([SQUARE]), labels)[1] == []


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("place", ["category_id", "segmentation"])
def test_numbers_that_are_none_are_said_of_their_annotation(number, place, data, labels):
    data.add([SQUARE]).add([SQUARE]).add([SQUARE])
    data.save()
    (path,) = data.root.rglob("*.json")
    before, last, after = path.read_text().rpartition(f'"{place}": ')
    end = {"segmentation": "[[2, 3", "category_id": "90"}[place]
    assert after.startswith(end), after
    new = f"[[2, {number}" if place == "segmentation" else number
    path.write_text(before + last + new + after.removeprefix(end))
    _, found = converters.scan(data.root, labels=labels)
    (problem,) = found
    assert "annotation 3" in str(problem)


def test_a_broken_file_comes_before_a_wrong_entry(data, labels):
    data.add([SQUARE])
    data.content["annotations"].insert(0, 5)
    data.save()
    (path,) = data.root.rglob("*.json")
    path.write_text(path.read_text()[:-1])
    _, (found,) = converters.scan(data.root, labels=labels)
    assert "expected JSON, found a broken file" in str(found)


@pytest.mark.parametrize("place", [0, 1])
def test_a_number_of_thousands_of_digits_names_the_file(place, data, labels):
    data.add([SQUARE]).add([SQUARE]).add([SQUARE])
    data.content["annotations"][place]["extra"] = "LONG"
    data.save()
    (path,) = data.root.rglob("*.json")
    path.write_text(path.read_text().replace('"LONG"', "1" * 4500))
    _, (found,) = converters.scan(data.root, labels=labels)
    assert path.name in str(found)
    assert "set_int_max_str_digits" not in str(found)


@pytest.mark.parametrize("first", ["[[30, 40, 50]]", "[[NaN, 1, 2, 3, 40, 5]]", "[[1e400, 1, 2]]"])
def test_polygons_in_parts_are_known_beside_a_broken_one(first, data, labels):
    part = [0.1, 0.1, 0.4, 0.1, 0.4, 0.45]
    data.add("FIRST").add([part]).add([[value + 0.2 for value in part]])
    data.save()
    (path,) = data.root.rglob("*.json")
    path.write_text(path.read_text().replace('"FIRST"', first))
    _, found = converters.scan(data.root, labels=labels)
    assert any("multiply x by the width" in str(problem) for problem in found)
