"""Images and masks in folders that no file describes: paired, and read as what their values are."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.files.provenance import PROVENANCE
from converters.masks import rasterize_labels
from converters.tables.class_tables import read_class_names, read_class_table
from converters.types import LabelSpace

SIZE = (24, 40)


def numbers():
    values = np.zeros(SIZE, np.uint8)
    values[2:9, 3:12] = 1
    values[4:6, 5:8] = 0
    values[10:18, 5:25] = 2
    values[20:, 30:] = 2
    values[9] = 255
    return values


def black_and_white():
    return np.where(numbers() == 2, 255, 0).astype(np.uint8)


def put(root, image, mask, values):
    # No two images are the same file.
    grey = 60 + zlib.crc32(image.encode()) % 120
    for place, pixels in ((image, np.full(SIZE, grey, np.uint8)), (mask, values)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / place), pixels)
    return root


def planes(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


LAYOUTS = {
    ("images/a_1.jpg", "masks/a_1.png"): "a_1",
    ("images/a_1.jpg", "labels/a_1.tif"): "a_1",
    ("imgs/sub/a.jpg", "gt/sub/a.bmp"): "sub/a",
    ("img_dir/train/a.jpg", "ann_dir/train/a.png"): "train/a",
    ("train/a.jpg", "trainannot/a.png"): "train/a",
    ("train/images/a.jpg", "train/masks/a.png"): "train/a",
    ("Train/city/images_png/a.jpg", "Train/city/masks_png/a.png"): "Train/city/a",
    ("images/1_sat.jpg", "masks/1_mask.png"): "1_sat",
    ("images/image-07.jpg", "masks/gt-07.png"): "image-07",
    ("images/a.jpg", "labels/a_15label.png"): "a",
    ("training/image_02/0000/a.jpg", "instances/0000/a.png"): "training/0000/a",
    ("JPEGImages/a.jpg", "annotations/a.png"): "a",
    ("a.jpg", "masks/a.png"): "a",
    ("train/a.jpg", "train/a_mask.png"): "train/a",
    ("a.jpg", "a_seg.png"): "a",
}


@pytest.mark.parametrize(("layout", "key"), LAYOUTS.items(), ids=map("+".join, LAYOUTS))
def test_masks_are_found_by_folders_and_names(layout, key, tmp_path):
    put(tmp_path, *layout, numbers())
    assert converters.recognise(tmp_path) == "mask_folders"
    notes = []
    found = planes(tmp_path, note=notes.append)
    assert {name: plane.tolist() for name, plane in found.items()} == {
        str(number): (numbers() == number).tolist() for number in (1, 2)
    }
    (sample,) = converters.read(tmp_path)
    assert (sample.key, sample.image) == (key, tmp_path / layout[0])
    assert [one.key for one in converters.list_images(tmp_path)] == [key]
    assert "numbers are taken for classes (1, 2)" in notes[0]


def square(first):
    values = np.zeros(SIZE, np.uint8)
    values[first : first + 5, 3:9] = 255
    return values


CLASSES = {
    "folders": ("images/a.jpg", "masks/cat/a.png", "masks/dog/a.png"),
    "folders of a subset": ("images/train/a.jpg", "masks/train/cat/a.png", "masks/train/dog/a.png"),
    "folders, names with words": ("images/a.jpg", "masks/cat/a_mask.png", "masks/dog/a_mask.png"),
    "names": ("images/a.jpg", "annotations/a_cat_0.png", "annotations/a_dog_1.png"),
    "names without numbers": ("images/a_1.jpg", "masks/a_1_cat.png", "masks/a_1_dog.png"),
}


@pytest.mark.parametrize(("image", "cat", "dog"), CLASSES.values(), ids=CLASSES)
def test_a_mask_is_of_the_class_that_its_folder_or_its_name_says(image, cat, dog, tmp_path):
    put(tmp_path, image, cat, square(2))
    put(tmp_path, image, dog, square(5))
    notes = []
    found = planes(tmp_path, note=notes.append)
    assert {name: plane.tolist() for name, plane in found.items()} == {
        "cat": (square(2) > 0).tolist(),
        "dog": (square(5) > 0).tolist(),
    }
    assert notes == [f"{tmp_path}: classes by the folders or names of masks (cat, dog)"]


def test_a_mask_of_no_image_among_masks_of_classes_is_an_error(tmp_path):
    for name in ("a_cat", "a_dog", "b_cat"):
        put(tmp_path, "images/a.jpg", f"masks/{name}.png", square(2))
    with pytest.raises(DataError, match=r"b_cat\.png: expected an image of this name, found none"):
        converters.read(tmp_path)


def test_folders_of_classes_beside_test_images(tmp_path):
    for label in ("cat", "dog"):
        put(tmp_path, "images/a.png", f"{label}/a.png", square(2))
    photograph(tmp_path / "test/c.jpg")
    assert [s.key for s in converters.read(tmp_path, subset="all")] == ["a", "test/c"]


def test_files_that_only_have_numbers_are_objects(tmp_path):
    for number in range(3):
        put(tmp_path, "images/a.jpg", f"masks/a_{number}.png", square(number * 6))
    (sample,) = converters.read(tmp_path)
    assert [one.label for one in sample.instances] == ["object"] * 3


def test_a_mask_of_one_class_has_one_value(tmp_path):
    put(tmp_path, "images/a.jpg", "masks/cat/a.png", square(2))
    put(tmp_path, "images/a.jpg", "masks/dog/a.png", numbers() % 255)
    with pytest.raises(DataError, match="expected one value beside 0, of 'dog', found 2"):
        converters.read(tmp_path)


def test_folders_are_partners_whose_names_share_the_rest(tmp_path):
    for subset in ("train", "test"):
        put(tmp_path, f"{subset}_images/1.png", f"{subset}_masks/1.png", square(2))
    put(tmp_path, "images_more/2.png", "annotations_more/2.png", square(2))
    keys = {s: [one.key for one in converters.read(tmp_path, subset=s)] for s in ("train", "test")}
    assert keys == {"train": ["2", "train/1"], "test": ["test/1"]}


def test_names_of_classes_and_the_test_subset(tmp_path):
    put(tmp_path, "train/images/a.png", "train/masks/a.png", numbers())
    put(tmp_path, "test/images/b.png", "test/masks/b.png", numbers())
    (tmp_path / "class_names.txt").write_text("background\ncat\ndog\n")
    assert converters.label_space(tmp_path).names == ("cat", "dog")
    assert [s.key for s in converters.read(tmp_path)] == ["train/a"]
    assert [s.key for s in converters.read(tmp_path, subset="test")] == ["test/b"]
    mine = LabelSpace("mine", ("pet",), aliases={"dog": "pet"})
    np.testing.assert_array_equal(planes(tmp_path, labels=mine)["pet"], numbers() == 2)


@pytest.mark.parametrize("mask", ["a.png", "a.tif", "a.jpg"])
def test_one_value_is_one_class(mask, tmp_path):
    put(tmp_path, "images/a.jpg", f"masks/{mask}", black_and_white())
    found = planes(tmp_path)
    assert list(found) == ["object"]
    np.testing.assert_array_equal(found["object"], numbers() == 2)


def test_colours_beside_images_of_other_names(tmp_path):
    values = np.zeros((*SIZE, 3), np.uint8)
    values[2:9, 3:12], values[10:18, 5:25] = (0, 0, 200), (9, 0, 0)
    put(tmp_path, "images/1_sat.jpg", "masks/1_mask.png", values)
    found = planes(tmp_path)
    assert {name: plane.sum() for name, plane in found.items()} == {
        "color_c80000": 7 * 9,
        "color_000009": 8 * 20,
    }


def test_numbered_objects_are_objects(tmp_path):
    for name, count in (("a", 30), ("b", 7)):
        values = np.zeros(SIZE, np.uint16)
        for number in range(count):
            values[2 * (number // 10), 2 * (number % 10)] = number + 1
        put(tmp_path, f"images/{name}.png", f"masks/{name}.png", values)
    assert converters.label_space(tmp_path).names == ("object",)
    assert [len(s.instances) for s in converters.read(tmp_path)] == [30, 7]


@pytest.mark.parametrize(
    ("counts", "pieces", "are_objects"),
    [((1, 2, 3, 5), 1, True), ((1, 2, 3), 1, False), ((1, 2, 3, 5), 2, False)],
)
def test_few_numbers_are_objects_where_each_is_in_one_piece(counts, pieces, are_objects, tmp_path):
    """Of classes such as kidney, tumour and cyst few n occur, and a class has several parts."""
    for count in counts:
        values = np.zeros(SIZE, np.uint8)
        for number in range(count):
            values[2 : 2 + 4 * pieces : 4, 3 * number : 3 * number + 2] = number + 1
        put(tmp_path, f"images/{count}.png", f"masks/{count}.png", values)
    names = converters.label_space(tmp_path).names
    assert names == (("object",) if are_objects else tuple(map(str, range(1, max(counts) + 1))))
    assert [len(s.instances) for s in converters.read(tmp_path)] == list(counts)
    (tmp_path / "class_names.txt").write_text("none\na\nb\nc\nd\ne\n")
    assert converters.label_space(tmp_path).names == ("a", "b", "c", "d", "e")


def test_a_mask_for_each_object_of_a_folder_s_image(tmp_path):
    for name, count in (("abc", 2), ("def", 1)):
        for number in range(count):
            values = np.zeros(SIZE, np.uint8)
            values[3 : 8 + number, 2:9] = 255
            put(tmp_path, f"{name}/images/{name}.png", f"{name}/masks/{number}f.png", values)
    found = {s.key: len(s.instances) for s in converters.read(tmp_path)}
    assert found == {"abc/abc": 2, "def/def": 1}


def test_masks_without_image_are_errors_and_images_without_mask_are_said(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", numbers())
    put(tmp_path, "images/b.png", "masks/c.png", numbers())
    with pytest.raises(
        DataError, match=r"masks/c\.png: expected an image of this name, found none"
    ):
        converters.read(tmp_path)
    (tmp_path / "masks" / "c.png").unlink()
    notes = []
    assert len(converters.read(tmp_path, note=notes.append)) == 1
    assert "left out 1 images without a mask (b, ...)" in notes[-1]


def test_two_folders_of_masks_are_one_too_many(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", numbers())
    put(tmp_path, "images/a.png", "labels/a.png", numbers())
    with pytest.raises(
        ValueError, match="found labels, masks of the same names: move away"
    ) as error:
        converters.read(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("folder", ["masks", "depth"])
def test_grey_levels_are_no_classes(folder, tmp_path):
    values = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) % 251 * 3
    put(tmp_path, "images/a.png", f"{folder}/a.png", values)
    with pytest.raises(ValueError, match="found"):
        converters.label_space(tmp_path)


@pytest.mark.parametrize("names", [["a_cat"], ["a_m0_01234567"], ["a_m01g_1a", "a_m02_2b"]])
def test_what_names_of_masks_say_of_classes_is_not_passed_over(names, tmp_path):
    for name in names:
        put(tmp_path, "images/a.png", f"masks/{name}.png", black_and_white())
    with pytest.raises(ValueError, match="none that is known"):
        converters.recognise(tmp_path)


def test_a_mask_of_another_size_and_ade20k_are_refused(tmp_path):
    put(tmp_path / "one", "images/a.png", "masks/a.png", numbers()[:, :-1])
    with pytest.raises(DataError, match=r"expected a mask of \(24, 40\), found \(24, 39\)"):
        converters.read(tmp_path / "one")
    put(tmp_path / "two", "a.jpg", "a_seg.png", numbers())
    (tmp_path / "two" / "a_atr.txt").write_text("001 # 0 # 0 # door\n")
    with pytest.raises(ValueError, match=r"a_atr\.txt: ADE20K's colours are numbers"):
        converters.recognise(tmp_path / "two")


@pytest.mark.parametrize("folders", [("Original", "Ground Truth"), ("images", "manual1")])
def test_a_folder_around_one_that_could_be_images_names_it(folders, tmp_path):
    for name in ("1", "2"):
        photograph(tmp_path / "around" / "set" / folders[0] / f"{name}.jpg")
        put(tmp_path, "x.png", f"around/set/{folders[1]}/{name}.png", square_of(255))
    with pytest.raises(ValueError, match=r"one in a folder below: give .*set"):
        converters.recognise(tmp_path / "around")
    # What we made of a folder is no reason: its images can still be predicted.
    photograph(tmp_path / "mere" / "a.jpg")
    (tmp_path / "around" / "set").rename(tmp_path / "mere" / "set")
    (tmp_path / "mere" / "set" / PROVENANCE).write_text("{}")
    assert converters.recognise(tmp_path / "mere") == "images"


def test_a_folder_around_the_data_set_is_none(tmp_path):
    put(tmp_path, "set/images/a.png", "set/masks/a.png", numbers())
    with pytest.raises(ValueError, match=r"one in a folder below: give .*set"):
        converters.recognise(tmp_path)
    put(tmp_path, "ours/images/a.png", "ours/masks/a.png", numbers())
    (tmp_path / "ours" / "labels.yaml").write_text("{name: x, names: [a, b]}")
    assert not converters.is_data_set(tmp_path)
    put(tmp_path, "more/images/a.png", "more/masks/a.png", numbers())
    assert [sample.key for sample in converters.read(tmp_path)] == ["more/a", "set/a"]


def test_other_formats_come_first(tmp_path, samples, labels):
    converters.write(samples, tmp_path / "coco", format="coco", labels=labels)
    image = next((tmp_path / "coco").rglob("*.png"))
    (tmp_path / "coco" / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "coco" / "masks" / image.name), numbers())
    assert converters.recognise(tmp_path / "coco") == "coco"


def smoothed():
    return cv2.GaussianBlur(np.kron(square(5), np.ones((8, 8), np.uint8)), (0, 0), 1.5)


@pytest.mark.parametrize("as_colours", [False, True])
def test_smoothed_edges_of_black_and_white_are_one_class(as_colours, tmp_path):
    values = smoothed()
    values = cv2.merge([values] * 3) if as_colours else values
    for name, mask in (("a", values), ("b", (smoothed() > 127).astype(np.uint8))):
        put(tmp_path, f"images/{name}.png", f"labels/{name}.png", mask)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.full(mask.shape[:2], 9, np.uint8))
    notes = []
    for sample in converters.read(tmp_path, note=notes.append):
        (mask,) = rasterize_labels(sample.instances, sample.size_hw).values()
        assert (mask.full(sample.size_hw) == (smoothed() > 127)).all()
    assert "black and white masks are taken for one class, 'object'" in notes[0]


def test_smoothed_masks_beside_photographs_of_their_names(tmp_path):
    for name in "ab":
        photograph(tmp_path / "Imgs" / f"{name}.jpg")
        shown = cv2.resize(cv2.imread(str(tmp_path / "Imgs" / f"{name}.jpg")), (320, 192))
        assert cv2.imwrite(str(tmp_path / "Imgs" / f"{name}.jpg"), shown)
        assert cv2.imwrite(str(tmp_path / "Imgs" / f"{name}.png"), smoothed())
    assert converters.recognise(tmp_path) == "mask_folders"
    assert {s.key: [i.label for i in s.instances] for s in converters.read(tmp_path)} == {
        "a": ["object"],
        "b": ["object"],
    }


def test_parts_whose_images_have_the_same_names(tmp_path):
    for part in ("train", "val", "test"):
        put(tmp_path, f"{part}/a.png", f"{part}_labels/a.png", square_of(255))
    found = converters.read(tmp_path, subset="all")
    assert sorted(s.key for s in found) == ["test/a", "train/a", "val/a"]
    assert all(s.instances for s in found)


@pytest.mark.parametrize("values", [smoothed() > 127, smoothed()], ids=["inverted", "many"])
def test_a_palette_of_greys_is_read_by_its_greys(values, tmp_path):
    grey = values.astype(np.uint8) * 255 if values.dtype == bool else values
    palette = np.unique(grey)[::-1]
    indexes = np.searchsorted(-palette.astype(int), -grey.astype(int)).astype(np.uint8)
    mask = Image.fromarray(indexes, "P")
    mask.putpalette(np.repeat(palette, 3).tobytes())
    put(tmp_path, "images/a.png", "masks/b.png", numbers())
    (tmp_path / "masks/b.png").unlink()
    mask.save(tmp_path / "masks/a.png")
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full(grey.shape, 9, np.uint8))
    (sample,) = converters.read(tmp_path)
    (found,) = rasterize_labels(sample.instances, sample.size_hw).values()
    assert (found.full(sample.size_hw) == (smoothed() > 127)).all()


def test_masks_of_1_and_of_255_are_one_class(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square(2))
    put(tmp_path, "images/b.png", "masks/b.png", square(2) // 255)
    first, second = converters.read(tmp_path)
    assert [one.label for one in (*first.instances, *second.instances)] == ["object"] * 2
    assert first.instances == second.instances


def test_a_list_of_images_and_masks_is_no_table_of_codes(tmp_path):
    put(tmp_path, "data/a.jpg", "data/a_mask.png", square(2))
    (tmp_path / "index.csv").write_text("img,mask\na.jpg,a_mask.png\n")
    with pytest.raises(ValueError, match=r"index\.csv, but one in a folder below: give .*data"):
        converters.recognise(tmp_path)
    assert converters.recognise(tmp_path / "data") == "mask_folders"


TABLE = "Pixel Value, Class\n0, background\n1, cell body\n2, nucleus\n9, 9\n"


def put_numbers(root, *parts):
    values = np.zeros(SIZE, np.uint8)
    values[2:6, 2:6], values[8:12, 8:12] = 1, 2
    for part in parts:
        put(root, f"{part}/a.jpg", f"{part}/a_mask.png", values)


def test_classes_that_roboflow_names_in_each_part(tmp_path):
    put_numbers(tmp_path, "train", "valid")
    for part in ("train", "valid"):
        (tmp_path / part / "_classes.csv").write_text(TABLE)
    assert converters.label_space(tmp_path).names == ("cell body", "nucleus", "9")
    found = converters.read(tmp_path)
    assert [[one.label for one in s.instances] for s in found] == [["cell body", "nucleus"]] * 2
    (tmp_path / "valid" / "_classes.csv").write_text(TABLE.replace("nucleus", "cytoplasm"))
    with pytest.raises(ValueError, match=r"valid.*_classes\.csv: expected the classes of .*train"):
        converters.label_space(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("codes.txt", "Sky\nCell\nNucleus\nVoid\n", ("Sky", "Cell", "Nucleus")),
        # No line says that it is no class: the first may be number 1.
        ("codes.txt", "Sky\nCell\nNucleus\n", ("1", "2")),
        ("labels.txt", "_background_\ncell\nnucleus\n", ("cell", "nucleus")),
        ("labels.txt", "__ignore__\n_background_\ncell\nnucleus\n", ("cell", "nucleus")),
        ("classes.txt", "Background\ncell\nnucleus", ("cell", "nucleus")),
        # As many as the highest number.
        ("classes.txt", "cell\nnucleus\n", ("cell", "nucleus")),
        # From 1 on, or from 0: nobody knows.
        ("classes.txt", "cell\nnucleus\nmembrane\n", ("1", "2")),
        ("classes.txt", "cell\n", ("1", "2")),
        ("classes.txt", "cell\ncell\n", ("1", "2")),
        ("labels.txt", "", ("1", "2")),
    ],
)
def test_lists_of_names_from_0_on(name, text, expected, tmp_path):
    put_numbers(tmp_path, "train")
    (tmp_path / name).write_text(text)
    assert converters.label_space(tmp_path).names == expected


def test_a_list_without_background_counts_from_0_where_255_is_none(tmp_path):
    plane = np.full(SIZE, 255, np.uint8)
    plane[2:5, 2:5], plane[8:12, 8:12] = 0, 1
    put(tmp_path, "images/a.png", "masks/a.png", plane)
    plane[:] = 255
    plane[2:5, 2:5] = 2
    put(tmp_path, "images/b.png", "masks/b.png", plane)
    (tmp_path / "labels.txt").write_text("cell\nnucleus\nmembrane\n")
    notes = []
    first, second = converters.read(tmp_path, note=notes.append)
    assert [one.label for one in first.instances] == ["cell", "nucleus"]
    assert [one.label for one in second.instances] == ["membrane"]
    assert "255 for none; labels.txt names them from 0 on" in " ".join(notes)


def test_a_list_that_may_begin_anywhere_is_said(tmp_path):
    put_numbers(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("cell\nnucleus\nmembrane\n")
    notes = []
    converters.read(tmp_path, note=notes.append)
    assert "classes.txt (3 names) is left out, as nothing says which" in " ".join(notes)


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt", "codes.txt"])
@pytest.mark.parametrize(
    ("other", "text"),
    [
        ("id2label.json", '{"0": "background", "1": "nucleus", "2": "cell"}'),
        ("class_dict.csv", "name,r,g,b,id\nnucleus,9,0,0,1\ncell,0,9,0,2\n"),
        ("classes.csv", "id,name\n1,nucleus\n2,cell\n"),
    ],
)
def test_numbers_that_a_file_states_go_before_those_of_lines(name, other, text, tmp_path):
    put_numbers(tmp_path, "train")
    (tmp_path / name).write_text("background\ncell\nnucleus\n")
    (tmp_path / other).write_text(text)
    (sample,) = converters.read(tmp_path)
    found = rasterize_labels(sample.instances, SIZE)
    assert found["nucleus"].full(SIZE)[3, 3]
    assert found["cell"].full(SIZE)[9, 9]


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt", "codes.txt"])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        (lambda: square_of(255), ("object",)),
        (lambda: square_of(1) + 6 * square_of(1, 9), ("1", "6")),
        (lambda: np.dstack([square_of(255), square_of(9), square_of(0)]), ("color_0009ff",)),
    ],
    ids=["black and white", "other numbers", "colours"],
)
def test_lists_of_names_that_do_not_fit_are_of_something_else(name, values, names, tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", values())
    (tmp_path / name).write_text("background\ncell\nnucleus\n")
    assert converters.label_space(tmp_path).names == names


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"A00\n\nB01\n", b"a\na\n"])
def test_codes_of_anything_else_are_passed_over(content, tmp_path):
    put_numbers(tmp_path, "train")
    (tmp_path / "codes.txt").write_bytes(content)
    assert converters.label_space(tmp_path).names == ("1", "2")


def test_classes_that_mapillary_lists(tmp_path):
    put_numbers(tmp_path, "train")
    names = ("animal--bird", "cell", "void--unlabeled")
    config = {
        "labels": [{"color": [9, n, 9], "readable": "x", "name": o} for n, o in enumerate(names)]
    }
    (tmp_path / "config_v1.2.json").write_text(json.dumps(config))
    (sample,) = converters.read(tmp_path)
    assert sorted(one.label for one in sample.instances) == ["animal--bird", "cell"]
    (tmp_path / "config_v2.0.json").write_text(json.dumps(config))
    assert converters.label_space(tmp_path).names == ("1", "2")


def test_tables_that_are_no_table_of_numbers(tmp_path):
    """A classifier's export has a file of this name, too."""
    put_numbers(tmp_path, "train")
    (tmp_path / "train" / "_classes.csv").write_text("filename, cell, nucleus\na.jpg, 1, 0\n")
    assert converters.label_space(tmp_path).names == ("1", "2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"0": "background", "1": "cell", "2": "nucleus"}', ("cell", "nucleus")),
        ('{"one": "cell"}', "expected numbers with names, found 'one'"),
        ("[]", "expected numbers with names, found none"),
        ('{"1": "cell", "2": "cell"}', "expected each class once, found 'cell' twice"),
    ],
)
def test_classes_that_hugging_face_names(text, expected, tmp_path):
    put_numbers(tmp_path, "train")
    (tmp_path / "id2label.json").write_text(text)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            converters.label_space(tmp_path)
    else:
        assert converters.label_space(tmp_path).names == expected


def photograph(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


@pytest.mark.parametrize("form", ["{}", "masks_{}"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_folder_for_each_class_beside_the_images(form, suffix, tmp_path):
    plane = np.zeros(SIZE, np.uint8)
    plane[2:10, 2:10] = 255
    for name in "ab":
        photograph(tmp_path / f"images/{name}.jpg")
        for label, shift in (("cell body", 0), ("nucleus", 3)):
            path = tmp_path / form.format(label) / f"{name}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.roll(plane, shift, 1))
    assert converters.recognise(tmp_path) == "mask_folders"
    assert converters.label_space(tmp_path).names == ("cell body", "nucleus")
    found = converters.read(tmp_path)
    assert [[one.label for one in s.instances] for s in found] == [["cell body", "nucleus"]] * 2
    photograph(tmp_path / "thumbnails/a.jpg")
    notes = []
    assert converters.read(tmp_path, note=notes.append) == found
    assert (
        "left out 1 images that are no part of a pair of image and mask (in thumbnails)"
        in (notes[-1])
    )


def test_masks_that_are_called_as_their_images(tmp_path):
    for name in "ab":
        photograph(tmp_path / f"{name}.jpg")
        cv2.imwrite(str(tmp_path / f"{name}.png"), numbers())
    assert converters.recognise(tmp_path) == "mask_folders"
    assert [s.image.suffix for s in converters.read(tmp_path)] == [".jpg", ".jpg"]
    assert {one.label for s in converters.read(tmp_path) for one in s.instances} == {"1", "2"}
    photograph(tmp_path / "c.jpg")
    notes = []
    assert len(converters.read(tmp_path, note=notes.append)) == 2
    assert "left out 1 images without a mask (c, ...)" in notes[-1]
    cv2.imwrite(str(tmp_path / "d.png"), numbers())
    with pytest.raises(DataError, match=r"d\.png: expected an image of this name, found none"):
        converters.read(tmp_path)
    photograph(tmp_path / "c.png")
    (tmp_path / "d.png").unlink()
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.jpg").unlink()
    assert converters.recognise(tmp_path) == "images"


@pytest.mark.parametrize("place", ["test_images", "test", "test/images", "images/test"])
def test_images_of_a_test_folder_without_masks_are_to_be_answered(place, tmp_path):
    train = place.replace("test", "train")
    masks = train.replace("images", "masks") if "images" in train else "train_masks"
    put(tmp_path, f"{train}/a.png", f"{masks}/a.png", black_and_white())
    photograph(tmp_path / place / "c.jpg")
    read = {subset: converters.read(tmp_path, subset=subset) for subset in ("train", "test", "all")}
    (key,) = (s.key for s in read["train"])
    (found,) = read["test"]
    assert (found.key.removeprefix("images/"), found.instances) == ("test/c", ())
    assert {s.key for s in read["all"]} == {found.key, key}
    assert [s.key for s in converters.list_images(tmp_path, subset="test")] == [found.key]


@pytest.mark.parametrize(
    ("name", "read"), [("_classes.csv", read_class_names), ("class_dict.csv", read_class_table)]
)
def test_tables_that_cannot_be_read(name, read, tmp_path):
    (tmp_path / name).write_text(f"name,r,g,b\n{'x' * 2000},1,2,3\n")
    before = csv.field_size_limit(1000)
    try:
        with pytest.raises(ValueError, match=r"expected a table \(CSV\), found field larger"):
            read(tmp_path)
    finally:
        csv.field_size_limit(before)


def square_of(value, first=2):
    return (square(first) > 0).astype(np.uint8) * value


def areas(root, **more):
    """Key -> label -> pixels of its objects."""
    found = {}
    for sample in converters.read(root, **more):
        sums = found.setdefault(sample.key, {})
        for label, mask in rasterize_labels(sample.instances, SIZE).items():
            sums[label] = int(mask.full(SIZE).sum())
    return found


AREA = int((square(2) > 0).sum())


def test_white_beside_a_class_is_none(tmp_path):
    values = square_of(1)
    values[0, :11] = 255
    put(tmp_path, "images/a.png", "masks/a.png", values)
    put(tmp_path, "images/b.png", "masks/b.png", square_of(1))
    assert areas(tmp_path) == {"a": {"object": AREA}, "b": {"object": AREA}}


def test_numbers_of_many_classes_are_no_smoothed_edges(tmp_path):
    for number in range(1, 26):
        put(tmp_path, f"images/{number}.png", f"masks/{number}.png", square_of(number))
    assert len(converters.label_space(tmp_path).names) == 25
    for number in range(1, 26):
        values = square_of(number)
        values[0] = 255
        put(tmp_path, f"images/{number}.png", f"masks/{number}.png", values)
    assert len(converters.label_space(tmp_path).names) == 25


@pytest.mark.parametrize("folder", ["masks", "my masks"])
def test_a_mask_in_black_and_white_among_masks_in_colours(folder, tmp_path):
    plain, coloured = square_of(255), np.dstack([square_of(255)] * 3)
    coloured[0, 0] = (0, 0, 200)
    put(tmp_path, "images/a.png", f"{folder}/a.png", plain)
    put(tmp_path, "images/b.png", f"{folder}/b.png", coloured)
    found = areas(tmp_path)
    assert found["a"] == {"color_ffffff": AREA}
    assert found["b"] == {"color_ffffff": AREA, "color_c80000": 1}
    put(tmp_path, "images/c.png", f"{folder}/c.png", square_of(3))
    with pytest.raises(ValueError, match="colours"):
        converters.read(tmp_path)


def test_numbers_in_three_equal_channels_are_numbers(tmp_path):
    put(tmp_path, "images/a.png", "my masks/a.png", np.dstack([square_of(2)] * 3))
    put(tmp_path, "images/b.png", "my masks/b.png", square_of(1))
    assert areas(tmp_path) == {"a": {"2": AREA}, "b": {"1": AREA}}


def test_levels_that_are_spread_evenly_are_classes(tmp_path):
    values = square_of(127)
    values[0, :7] = 255
    put(tmp_path, "images/a.png", "masks/a.png", values)
    assert areas(tmp_path) == {"a": {"127": AREA, "255": 7}}


def save_palette(path, indexes, colours):
    image = Image.fromarray(indexes.astype(np.uint8)).convert("P")
    image.putpalette([part for colour in colours for part in colour])
    image.save(path)


RED, GREEN, DARK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


@pytest.mark.parametrize(
    ("palettes", "expected"),
    [
        ([[RED, DARK], [DARK, RED]], "object"),
        ([[DARK, RED, GREEN], [DARK, GREEN, RED]], "color_ff0000"),
        ([[DARK, RED, GREEN], [DARK, RED, GREEN]], "1"),
    ],
    ids=["black elsewhere", "another order", "the same"],
)
def test_palettes_of_each_image_are_read_by_their_colours(palettes, expected, tmp_path):
    for name, palette in zip("ab", palettes, strict=True):
        photograph(tmp_path / f"images/{name}.jpg")
        (tmp_path / "my masks").mkdir(exist_ok=True)
        indexes = np.full(SIZE, palette.index(DARK))
        indexes[square(2) > 0] = palette.index(RED)
        if GREEN in palette:
            indexes[0, 0] = palette.index(GREEN)
        save_palette(tmp_path / f"my masks/{name}.png", indexes, palette)
    assert {key: own[expected] for key, own in areas(tmp_path).items()} == {"a": AREA, "b": AREA}


def test_a_part_says_classes_as_the_others_do(tmp_path):
    for label in ("cat", "dog"):
        put(tmp_path, "train/images/a.png", f"train/masks/{label}/a.png", square_of(255))
    put(tmp_path, "val/images/b.png", "val/masks/cat/b.png", square_of(255))
    assert areas(tmp_path)["val/b"] == {"cat": AREA}


def test_a_part_has_a_mask_for_each_object_as_the_others_have(tmp_path):
    for number in range(2):
        put(tmp_path, "train/images/a.png", f"train/masks/a_{number}.png", square_of(255))
    put(tmp_path, "val/images/b.png", "val/masks/b_0.png", square_of(255))
    assert areas(tmp_path)["val/b"] == {"object": AREA}


def test_a_mask_that_says_no_class_among_others_is_an_error(tmp_path):
    for label in ("cat", "dog"):
        put(tmp_path, "train/images/a.png", f"train/masks/a_{label}.png", square_of(255))
    put(tmp_path, "val/images/b.png", "val/masks/b.png", square_of(1))
    with pytest.raises(DataError, match=r"val/masks/b\.png: expected a mask whose folder or name"):
        converters.read(tmp_path)


@pytest.mark.parametrize("harm", ["broken", "image", "mask"])
def test_folders_of_classes_bear_a_broken_or_missing_file(harm, tmp_path):
    for part in ("train", "test"):
        for name in "abc":
            for label in ("cat", "dog"):
                put(tmp_path, f"{part}/images/{name}.png", f"{part}/{label}/{name}.png", square(2))
    if harm == "broken":
        (tmp_path / "test/cat/a.png").write_bytes(b"no mask")
    else:
        (tmp_path / ("test/images/a.png" if harm == "image" else "test/cat/a.png")).unlink()
    found = areas(tmp_path, subset="all", skips_broken=True)
    assert {key for key, own in found.items() if own == {"cat": AREA, "dog": AREA}} >= {
        *(f"train/{name}" for name in "abc"),
        *("test/b", "test/c"),
    }
    assert found.get("test/a", {}) == ({"dog": AREA} if harm == "mask" else {})
    if harm != "mask":
        with pytest.raises(DataError, match=r"test/(cat|dog)/a\.png"):
            converters.read(tmp_path, subset="all")


@pytest.mark.parametrize("name", ["predator", "fox", "colonel"])
def test_folders_of_classes_that_sound_like_others(name, tmp_path):
    for folder in ("cat", name):
        put(tmp_path, "images/a.png", f"{folder}/a.png", square_of(255))
    assert areas(tmp_path) == {"a": {"cat": AREA, name: AREA}}


RIVALS = [
    ("cat", "target"),
    ("masks_cat", "masks"),
    ("masks", "boundary"),
    ("manual_1", "manual_2"),
    ("masks_expert1", "masks_expert2"),
]


@pytest.mark.parametrize("names", RIVALS, ids=map("+".join, RIVALS))
def test_folders_that_may_be_about_the_same_objects_are_refused(names, tmp_path):
    put(tmp_path, "images/a.png", f"{names[0]}/a.png", square_of(255))
    put(tmp_path, "images/a.png", f"{names[1]}/a.png", square_of(255))
    with pytest.raises(ValueError, match="expected one folder of images and one of their masks"):
        converters.label_space(tmp_path)


def test_a_slip_in_a_name_makes_no_field_of_view_a_mask(tmp_path):
    """As a copy of DRIVE has it."""
    view = np.zeros(SIZE, np.uint8)
    view[1:-1, 2:-2] = 255
    for number in range(21, 33):
        image = f"training/images/{number}_training.png"
        put(tmp_path, image, f"training/mask/{number}_training_mask.png", view)
        name = "32manual1" if number == 32 else f"{number}_manual1"
        put(tmp_path, image, f"training/1st_manual/{name}.png", square_of(255))
    with pytest.raises(DataError, match=r"1st_manual/32manual1\.png: expected an image of this"):
        converters.read(tmp_path)


@pytest.mark.parametrize(("drawn", "end"), [("1st_manual", "manual1"), ("manual", "manual")])
def test_beside_what_is_drawn_by_hand_masks_are_fields_of_view(drawn, end, tmp_path):
    view = np.zeros(SIZE, np.uint8)
    view[1:-1, 2:-2] = 255
    for part, number in (("training", 21), ("training", 22), ("test", 1)):
        image = f"{part}/images/{number:02}_{part}.png"
        put(tmp_path, image, f"{part}/mask/{number:02}_{part}_mask.png", view)
        if part == "training":
            put(tmp_path, image, f"{part}/{drawn}/{number}_{end}.png", square_of(255))
    notes = []
    found = converters.read(tmp_path, subset="all", note=notes.append)
    assert {s.key: [i.label for i in s.instances] for s in found} == {
        "test/01_test": [],
        "training/21_training": ["object"],
        "training/22_training": ["object"],
    }
    assert "left out 3 images that are no part of a pair" in " ".join(notes)
    assert "left out (test/mask, training/mask)" in " ".join(notes)


@pytest.mark.parametrize(
    ("drawn", "names", "first"),
    [
        ("manual", "ab", 9),
        ("manual_correction", "abcd", 9),
        # Some are drawn anew; others lie inside, of masks too small for a field of view.
        ("manual", "ab", 2),
        ("manual", "abcd", 2),
    ],
)
def test_masks_beside_some_that_are_drawn_by_hand_are_no_fields_of_view(
    drawn, names, first, tmp_path
):
    for name in "abcd":
        put(tmp_path, f"images/{name}.png", f"mask/{name}.png", square_of(255))
    for name in names:
        put(tmp_path, f"images/{name}.png", f"{drawn}/{name}.png", square_of(255, first))
    with pytest.raises(ValueError, match=f"found {drawn}, mask of the same names"):
        converters.read(tmp_path)


def test_a_manual_to_read_is_no_drawing(tmp_path):
    put(tmp_path, "images/a.png", "mask/a.png", square_of(255))
    (tmp_path / "user_manual").mkdir()
    (tmp_path / "user_manual" / "guide.pdf").write_bytes(b"%PDF")
    assert areas(tmp_path) == {"a": {"object": AREA}}


def test_of_several_who_drew_in_folders_the_first_is_taken(tmp_path):
    for who in ("1st", "2nd"):
        for number in (21, 22):
            image = f"images/{number}_training.png"
            first = 2 if who == "1st" else 9
            put(tmp_path, image, f"{who}_manual/{number}_manual1.png", square_of(255, first))
    found = converters.read(tmp_path)
    assert [planes_of(s)["object"].tolist() for s in found] == [(square_of(1) > 0).tolist()] * 2


@pytest.mark.parametrize("slips", [1, 12])
def test_masks_that_are_called_otherwise_are_told_and_not_passed_over(slips, tmp_path):
    """One slip left a whole part out, with nothing but a note."""
    for part, count in (("training", 12), ("validation", 2)):
        for number in range(10, 10 + count):
            image = f"{part}/images/{number}_{part}.png"
            put(tmp_path, image, f"{part}/1st_manual/{number}_manual1.png", square_of(255))
    masks = sorted((tmp_path / "training" / "1st_manual").iterdir())
    for number, path in enumerate(masks[:slips]):
        path.rename(path.with_name(f"{chr(97 + number)}manual.png"))
    with pytest.raises(DataError, match=r"amanual\.png: expected an image of this name"):
        converters.read(tmp_path)
    found, _ = converters.scan(tmp_path)
    assert len(found) == 14 - slips


def test_what_others_drew_again_of_more_images_is_not_passed_over(tmp_path):
    for who, numbers_of in (("1st", (21, 22)), ("2nd", (21, 22, 23))):
        for number in numbers_of:
            image = f"images/{number}_training.png"
            put(tmp_path, image, f"{who}_manual/{number}_manual1.png", square_of(255))
    with pytest.raises(ValueError, match="found 1st_manual, 2nd_manual of the same names"):
        converters.read(tmp_path)


def test_masks_of_test_images_that_are_called_otherwise_are_left_out(tmp_path):
    for name in "ab":
        put(tmp_path, f"train/images/{name}.png", f"train/masks/{name}.png", square_of(255))
    put(tmp_path, "test/images/c.png", "test/masks/out_0.png", square_of(255))
    assert len(converters.read(tmp_path)) == 2


def test_of_several_who_drew_beside_the_image_the_first_is_taken(tmp_path):
    for place in ("Image_01L", "Image_01R"):
        put(tmp_path, f"{place}.jpg", f"{place}_1stHO.png", square_of(255))
        put(tmp_path, f"{place}.jpg", f"{place}_2ndHO.png", square_of(255, 1))
    notes = []
    found = converters.read(tmp_path, note=notes.append)
    assert {s.key: len(s.instances) for s in found} == {"Image_01L": 1, "Image_01R": 1}
    (mask, _) = (planes_of(sample) for sample in found)
    assert mask["object"].tolist() == (square_of(255) > 0).tolist()
    assert "left out 2 images that are no part of a pair" in " ".join(notes)
    assert f"{tmp_path}: of what several have drawn, that of 1 is taken, not of 2" in notes


def planes_of(sample):
    found = rasterize_labels(sample.instances, SIZE)
    return {name: mask.full(SIZE) for name, mask in found.items()}


def test_masks_alone_are_left_out_and_said(tmp_path):
    for part in ("train", "test"):
        put(tmp_path, f"{part}/images/a.png", f"{part}/masks/a.png", square_of(255))
    shutil.rmtree(tmp_path / "test" / "images")
    notes = []
    assert len(converters.read(tmp_path, note=notes.append)) == 1
    assert "left out 1 images that are no part of a pair" in " ".join(notes)


def test_a_mask_that_cannot_be_read_is_named_where_none_can(tmp_path):
    for name in "ab":
        put(tmp_path, f"images/{name}.png", f"masks/{name}.png", square_of(255))
        mask = tmp_path / "masks" / f"{name}.png"
        mask.write_bytes(mask.read_bytes().replace(b"\r\n", b"\n"))
    with pytest.raises(ValueError, match=r"none that is known: masks/a\.png: expected a PNG"):
        converters.recognise(tmp_path)


def test_colours_of_isaid_are_of_their_images(tmp_path):
    for name in ("P0000", "P0001"):
        colours = np.zeros((*SIZE, 3), np.uint8)
        colours[2:6, 2:9] = (63, 0, 0)
        colours[8:12, 4:9] = (255, 127, 0)
        numbers_of_objects = np.where(colours.any(axis=-1, keepdims=True), (0, 0, 1), 0)
        place = f"train/{{}}_masks/{name}_instance_{{}}_RGB.png"
        image = f"train/images/{name}.png"
        put(tmp_path, image, place.format("Semantic", "color"), colours)
        put(tmp_path, image, place.format("Instance", "id"), numbers_of_objects.astype(np.uint8))
    assert set(converters.label_space(tmp_path).names) == {"color_00003f", "color_007fff"}


def test_a_folder_of_masks_holds_no_images(tmp_path):
    for name in ("lung", "heart_mask"):
        put(tmp_path, "images/a.png", f"masks/{name}/a.png", square_of(255))
    assert areas(tmp_path) == {"a": {"lung": AREA, "heart": AREA}}


def test_folders_of_masks_of_parts_are_no_classes(tmp_path):
    put(tmp_path, "images/a.png", "masks_train/a.png", square_of(255))
    put(tmp_path, "images/b.png", "masks_val/b.png", square_of(255))
    assert areas(tmp_path) == {"a": {"object": AREA}, "b": {"object": AREA}}


def test_images_of_one_name_in_two_folders_are_two(tmp_path):
    for part in "ab":
        put(tmp_path, f"images_{part}/1.png", f"masks_{part}/1.png", square_of(255))
    assert areas(tmp_path) == {"1": {"object": AREA}, "images_b/1": {"object": AREA}}


@pytest.mark.parametrize("place", ["images/a.bmp", "masks/a.bmp"])
def test_two_files_of_one_name_are_an_error(place, tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square_of(255))
    put(tmp_path, place, place, square_of(255))
    with pytest.raises(DataError, match="expected one file of this name"):
        converters.read(tmp_path)


def test_links_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere", "im/a.png", "ma/a.png", square_of(255))
    root = tmp_path / "data"
    put(root, "images/val/b.png", "masks/val/b.png", square_of(255))
    (root / "images/train").symlink_to(tmp_path / "elsewhere/im")
    (root / "masks/train").symlink_to(tmp_path / "elsewhere/ma")
    (root / "latest").symlink_to(".")
    assert areas(root) == {"train/a": {"object": AREA}, "val/b": {"object": AREA}}


@pytest.mark.parametrize("folder", ["val/images", "val_images", "predictions/masks"])
def test_images_that_are_left_out_are_said(folder, tmp_path):
    put(tmp_path, "train/images/a.png", "train/masks/a.png", square_of(255))
    photograph(tmp_path / folder / "b.jpg")
    notes = []
    assert len(converters.read(tmp_path, note=notes.append)) == 1
    assert (
        f"left out 1 images that are no part of a pair of image and mask (in {folder})"
        in (notes[-1])
    )


def test_a_second_mask_beside_an_image(tmp_path):
    for place in ("a (1)_mask.png", "a (1)_mask_1.png"):
        put(tmp_path, "a (1).png", place, square_of(255))
    (sample,) = converters.read(tmp_path)
    assert [one.label for one in sample.instances] == ["object", "object"]


def test_a_number_that_belongs_to_a_name(tmp_path):
    for image in "ab":
        for label in ("L1", "L2"):
            put(tmp_path, f"images/{image}.png", f"masks/{image}_{label}.png", square_of(255))
    assert areas(tmp_path)["b"] == {"L1": AREA, "L2": AREA}
    put(tmp_path, "images/c.png", "masks/c_L9.png", square_of(255))
    assert areas(tmp_path)["b"] == {"L": AREA}


def test_names_that_share_what_tells_them_apart(tmp_path):
    for number in (21, 22):
        put(tmp_path, f"images/{number}_training.png", f"gt/{number}_manual1.png", square_of(255))
    assert [*areas(tmp_path)] == ["21_training", "22_training"]


def test_masks_may_be_gif(tmp_path):
    photograph(tmp_path / "train/a.jpg")
    (tmp_path / "train_masks").mkdir()
    Image.fromarray(square_of(255)).save(tmp_path / "train_masks/a_mask.gif")
    assert areas(tmp_path) == {"train/a": {"object": AREA}}
    Image.fromarray(square_of(255)[:5]).save(tmp_path / "train_masks/a_mask.gif")
    with pytest.raises(DataError, match=r"a_mask\.gif: expected a mask of"):
        converters.read(tmp_path)


NUMBERS = {"0": "no-data", "1": "background", "2": "road"}


def test_a_class_called_background_beside_a_number_0_that_is_none(tmp_path):
    """LoveDA's background is what was looked at and is nothing else."""
    put(tmp_path, "images/a.png", "masks/a.png", square_of(1) + 2 * square_of(1, 8))
    (tmp_path / "id2label.json").write_text(json.dumps(NUMBERS))
    assert converters.label_space(tmp_path).names == ("background", "road")
    (tmp_path / "id2label.json").write_text(json.dumps({**NUMBERS, "0": "bg", "1": "void"}))
    assert converters.label_space(tmp_path).names == ("road",)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1000, 1001, 2000, 10000), {"1": 2, "2": 1}),
        ((1001, 2001, 10000), {"1": 1, "2": 1}),
        ((1001, 1300, 2005), {"1": 2, "2": 1}),
        ((11240, 11243), {"11": 2}),
        ((7, 23, 26001, 26002), {"7": 1, "23": 1, "26": 2}),
        ((11003, 11004), {"11": 2}),
        ((11 * 256, 24 * 256 + 1, 24 * 256 + 2), {"11": 1, "24": 2}),
        ((1000, 2000), {"1000": 1, "2000": 1}),
    ],
)
def test_numbers_of_a_class_and_an_object(values, expected, tmp_path):
    mask = np.zeros(SIZE, np.uint16)
    for place, value in enumerate(values):
        mask[2:6, 5 * place : 5 * place + 3] = value
    put(tmp_path, "image_02/0000/1.png", "instances/0000/1.png", mask)
    (sample,) = converters.read(tmp_path)
    assert Counter(one.label for one in sample.instances) == expected


IN_PLAIN_WORDS = {
    "other words": ("photos/a.jpg", "labelled_by_us/a.png"),
    "longer names": ("raw/a.jpg", "LabeledApproved/a_L.png"),
    "further down": ("images/a.jpg", "annotations/trimaps/a.png"),
    "one folder": ("a_sat.jpg", "a_mask.png"),
    "one folder, one word": ("a_1.jpg", "a_1_anno.png"),
    "one folder, one letter": ("a_1.jpg", "a_1_m.png"),
}


@pytest.mark.parametrize(("image", "mask"), IN_PLAIN_WORDS.values(), ids=IN_PLAIN_WORDS)
def test_masks_are_told_from_photographs_by_their_colours(image, mask, tmp_path):
    for name in "ab":
        photograph(tmp_path / image.replace("a", name, 1) if "/" not in image else tmp_path / image)
        mask_path = tmp_path / (mask.replace("a", name, 1) if "/" not in mask else mask)
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask_path), numbers())
    assert converters.recognise(tmp_path) == "mask_folders"
    assert converters.label_space(tmp_path).names == ("1", "2")
    assert len(converters.read(tmp_path)) == (1 if "/" in image else 2)


def test_heights_beside_masks_are_no_images(tmp_path):
    for name in "ab":
        photograph(tmp_path / f"{name}_dem.jpg")
        cv2.imwrite(str(tmp_path / f"{name}_seg.png"), numbers())
        (tmp_path / f"{name}_rgb.jp2").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"left out 2 files that are not read \(a_rgb\.jp2\)"):
        converters.read(tmp_path)


@pytest.mark.parametrize("place", ["a_label_{}.png", "attributes/a_label_{}.png"])
def test_classes_in_names_beside_photographs(place, tmp_path):
    folder = "photos/" if "/" in place else ""
    photograph(tmp_path / f"{folder}a.jpg")
    for label in ("cat", "dog"):
        path = tmp_path / place.format(label)
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), square(2))
    assert areas(tmp_path) == {f"{folder}a": {"cat": AREA, "dog": AREA}}


def test_masks_of_classes_beside_a_map_of_their_edges_are_refused(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", numbers())
    put(tmp_path, "images/a.png", "boundary/a.png", square_of(255))
    with pytest.raises(ValueError, match="found boundary, masks of the same names"):
        converters.label_space(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("images/train/0", "images/train/1"), ("masks/val/0", "masks/val/1")),
        (("images/patient_1/0", "images/patient_1/1"), ("masks/patient_2/0", "masks/patient_2/1")),
        (("images/p_1_s_0", "images/p_1_s_1"), ("masks/p_2_s_0_seg", "masks/p_2_s_1_seg")),
        (("images/p_1_s_2", "images/p_2_s_1"), ("masks/s_1_p_2", "masks/s_2_p_1")),
    ],
)
def test_masks_of_other_images_are_not_paired(images, masks, tmp_path):
    for image, mask in zip(images, masks, strict=True):
        put(tmp_path, f"{image}.png", f"{mask}.png", square_of(255))
    with pytest.raises(ValueError, match="expected"):
        converters.label_space(tmp_path)


@pytest.mark.parametrize(
    ("photographs", "others"), [("photos", "scans"), ("trainA", "trainB"), ("cats", "letters")]
)
def test_drawings_beside_photographs_are_no_masks(photographs, others, tmp_path):
    for name in "ab":
        photograph(tmp_path / photographs / f"{name}.jpg")
        (tmp_path / others).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / others / f"{name}.png"), square_of(255))
    assert converters.recognise(tmp_path) == "images"


@pytest.mark.parametrize("ends", [("_bw",), ("_page_1",), ("_icon", "_logo"), ("_mask", "_gt")])
def test_further_files_of_an_image_are_no_masks(ends, tmp_path):
    for name in "ab":
        photograph(tmp_path / f"{name}.jpg")
        for end in ends:
            cv2.imwrite(str(tmp_path / f"{name}{end}.png"), square_of(255))
    with pytest.raises(ValueError, match="expected"):
        converters.read(tmp_path, subset="train")


def test_folders_of_many_patients_are_looked_at_once(tmp_path):
    for number in range(150):
        put(tmp_path, f"p{number}/images/a.png", f"p{number}/masks/a.png", square_of(255))
    start = time.process_time()
    assert len(converters.list_images(tmp_path)) == 150
    assert time.process_time() - start < 20


def test_links_inside_lead_to_what_is_there_under_its_own_name(tmp_path):
    put(tmp_path, "set/images/a.png", "set/masks/a.png", square_of(255))
    (tmp_path / "again").symlink_to("set")
    put(tmp_path, "set2/images/b.png", "set2/masks/b.png", square_of(255))
    assert [s.key for s in converters.read(tmp_path)] == ["set/a", "set2/b"]


def test_a_pipe_is_no_image(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square_of(255))
    os.mkfifo(tmp_path / "masks/b.png")
    assert [s.key for s in converters.read(tmp_path)] == ["a"]


@pytest.mark.parametrize("place", ["images/{}.png+cat/{}.png", "images/{}.png+masks/{}_cat.png"])
def test_masks_of_one_class_with_a_palette_of_their_own(place, tmp_path):
    image, mask = place.split("+")
    for name in "ab":
        put(tmp_path, image.format(name), mask.replace("cat", "dog").format(name), square_of(255))
        path = tmp_path / mask.format(name)
        path.parent.mkdir(exist_ok=True)
        save_palette(path, (square_of(1) == 0).astype(np.uint8), [RED, DARK])
    assert areas(tmp_path)["a"] == {"cat": AREA, "dog": AREA}


@pytest.mark.parametrize("table", ["class_names.txt", "id2label.json"])
def test_numbers_of_palettes_that_differ_are_no_classes_of_a_table(table, tmp_path):
    for name, palette in (("a", [DARK, RED, GREEN]), ("b", [DARK, GREEN, RED])):
        photograph(tmp_path / f"images/{name}.jpg")
        (tmp_path / "my masks").mkdir(exist_ok=True)
        save_palette(tmp_path / f"my masks/{name}.png", square_of(1), palette)
    names = ["none", "cat", "dog"]
    text = "\n".join(names) if table[0] == "c" else json.dumps(dict(enumerate(names)))
    (tmp_path / table).write_text(text)
    with pytest.raises(ValueError, match="expected palettes that give a number one colour"):
        converters.read(tmp_path)


def test_black_and_white_of_the_only_class_of_a_table(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square_of(255))
    (tmp_path / "class_names.txt").write_text("background\ncat\n")
    assert areas(tmp_path) == {"a": {"cat": AREA}}
    (tmp_path / "class_names.txt").write_text("background\ncat\ndog\n")
    notes = []
    converters.read(tmp_path, note=notes.append)
    assert "masks of 2 classes by their numbers, 255 for none" in notes[0]


def test_a_colour_that_the_table_has_not_is_an_error(tmp_path):
    values = np.dstack([square_of(0), square_of(0), square_of(255)])
    values[0, 0] = (0, 255, 0)
    put(tmp_path, "photos/a.png", "seg/a.png", values)
    photograph(tmp_path / "photos/a.png")
    (tmp_path / "labelmap.txt").write_text("cat:255,0,0::\n")
    with pytest.raises(DataError, match="expected a colour of the table, found #00ff00"):
        converters.read(tmp_path, format="mask_folders")


def test_a_table_of_greys_says_the_numbers(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square_of(2))
    (tmp_path / "labelmap.txt").write_text("dog:2,2,2::\ncat:1,1,1::\nbackground:0,0,0::\n")
    assert areas(tmp_path) == {"a": {"dog": AREA}}


def test_numbers_of_a_class_and_an_object_are_named_by_the_class(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", square_of(1).astype(np.uint16) * 1001)
    (tmp_path / "id2label.json").write_text('{"1": "car", "2": "pedestrian"}')
    (sample,) = converters.read(tmp_path)
    assert [one.label for one in sample.instances] == ["car"]


def test_a_class_without_objects_is_named_beside_such_with_objects(tmp_path):
    values = square_of(7).astype(np.uint16)
    values[0, 0] = 26001
    put(tmp_path, "images/a.png", "masks/a.png", values)
    (tmp_path / "id2label.json").write_text('{"7": "road", "26": "car"}')
    assert areas(tmp_path) == {"a": {"road": AREA, "car": 1}}


@pytest.mark.parametrize("hidden", [None, 0, 1])
def test_a_gif_of_several_pictures_or_with_transparent_objects_is_refused(hidden, tmp_path):
    photograph(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    put(tmp_path, "images/b.png", "masks/b.png", square_of(255))
    first = Image.fromarray(square_of(1) + 2 * square_of(1, 14)).convert("P")
    first.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 0])
    if hidden is None:
        first.save(tmp_path / "masks/a.gif", save_all=True, append_images=[first.rotate(180)])
    else:
        first.save(tmp_path / "masks/a.gif", transparency=hidden)
    if hidden == 0:
        assert areas(tmp_path) == {"a": {"object": AREA}, "b": {"object": AREA}}
        return
    with pytest.raises(DataError, match=r"a\.gif: expected (one picture|a mask without)"):
        converters.read(tmp_path)


def test_images_and_masks_whose_names_do_not_fit_are_said(tmp_path):
    for name in ("images/01_test", "images/02_training", "masks/1st", "masks/2nd"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.eye(8, dtype=np.uint8))
    with pytest.raises(ValueError, match="of no image in images/ there is a mask of the same name"):
        converters.read(tmp_path)


@pytest.mark.parametrize(
    "names", [("caseA_{}", "caseB_{}"), ("{}_left", "{}_right"), ("p1_{}", "p2_{}")]
)
def test_masks_of_another_case_or_side_are_no_masks_of_these_images(names, tmp_path):
    for number in range(4):
        image, mask = (name.format(number) for name in names)
        put(tmp_path, f"images/{image}.png", f"masks/{mask}.png", square_of(255))
    with pytest.raises(ValueError, match="of no image in images/ there is a mask of the same name"):
        converters.read(tmp_path)


TESTS = ["testing", "Testing", "test_set", "test_data", "test_1", "stage1_test", "Test_Images"]


@pytest.mark.parametrize("part", TESTS)
@pytest.mark.parametrize("place", ["{part}/{kind}", "{kind}/{part}"])
def test_a_test_set_by_any_name_is_not_learned_from(part, place, tmp_path):
    for name in ("train", part):
        image, mask = (place.format(part=name, kind=kind) for kind in ("images", "masks"))
        put(tmp_path, f"{image}/{name}1.png", f"{mask}/{name}1.png", square_of(255))
    (learned,) = converters.read(tmp_path)
    (held_out,) = converters.read(tmp_path, subset="test")
    assert learned.key == "train/train1"
    assert held_out.key.endswith(f"/{part}1")


def test_a_number_that_a_table_names_is_no_number_of_a_class_and_an_object(tmp_path):
    values = np.zeros((24, 40), np.uint16)
    values[2:6], values[10:12] = 1001, 1002
    put(tmp_path, "images/a.png", "masks/a.png", values)
    table = {"1": "vehicle", "1001": "car", "1002": "truck"}
    (tmp_path / "id2label.json").write_text(json.dumps(table))
    (sample,) = converters.read(tmp_path)
    assert sample.labels == ("car", "truck")


def test_a_numbered_mask_is_of_the_image_with_that_number(tmp_path):
    for image, mask in (("a", "a_mask"), ("a_1", "a_mask_1")):
        put(tmp_path, f"{image}.png", f"{mask}.png", square_of(255))
    assert areas(tmp_path) == {"a": {"object": AREA}, "a_1": {"object": AREA}}
