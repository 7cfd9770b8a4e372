"""Tables that name the colours and the numbers of masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import converters
from converters import DataError
from converters.masks import rasterize_labels

SIZE = (8, 10)
TABLES = {
    "labelmap.txt": "background:0,0,0::\nroad:128,64,128::\ncar:64,0,128::\n",
    "class_dict.csv": "name, r, g, b\nvoid,0,0,0\nroad,128,64,128\ncar,64,0,128\n",
    "label_colors.txt": "0 0 0 void\n128 64 128\troad\n64 0 128 car\n",
    "dataset_meta.json": '{"label_map": {"0": "void", "1": "road", "2": "car"}, '
    '"segmentation_colors": [[0, 0, 0], [128, 64, 128], [64, 0, 128]]}',
}
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [64, 0, 128]], np.uint8)


def put(root, values, folder="masks"):
    for place, pixels in (("images", np.full(SIZE, 99, np.uint8)), (folder, values)):
        (root / place).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / place / "a.png"), pixels)


def numbers():
    values = np.zeros(SIZE, np.uint8)
    values[2:4], values[6:] = 1, 2
    return values


def labels(root):
    (sample,) = converters.read(root)
    masks = rasterize_labels(sample.instances, SIZE)
    return {name: mask.full(SIZE).tolist() for name, mask in masks.items()}


EXPECTED = {"road": (numbers() == 1).tolist(), "car": (numbers() == 2).tolist()}


@pytest.mark.parametrize("folder", ["masks", "annotations"])
@pytest.mark.parametrize(("name", "text"), TABLES.items(), ids=TABLES)
def test_a_table_names_colours(name, text, folder, tmp_path):
    put(tmp_path, COLOURS[numbers()][..., ::-1], folder)
    (tmp_path / name).write_text(text)
    assert labels(tmp_path) == EXPECTED


CSVS = {
    "semicolons": "name;r;g;b\nvoid;0;0;0\nroad;128;64;128\ncar;64;0;128\n",
    "tabs": "name\tr\tg\tb\nvoid\t0\t0\t0\nroad\t128\t64\t128\ncar\t64\t0\t128\n",
    "blue first": "class,b,g,r\nvoid,0,0,0\nroad,128,64,128\ncar,128,0,64\n",
    "numbers before": "id,class_name,red,green,blue\n0,void,0,0,0\n1,road,128,64,128\n"
    "2,car,64,0,128\n",
    "after a comment": "\n# colours of our labels\nname,r,g,b\nvoid,0,0,0\nroad,128,64,128\n"
    "car,64,0,128\n",
    "another word": "Klasse,R,G,B\nvoid,0,0,0\nroad,128,64,128\ncar,64,0,128\n",
}


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS)
def test_columns_are_found_by_their_names(text, tmp_path):
    put(tmp_path, COLOURS[numbers()][..., ::-1])
    (tmp_path / "class_dict.csv").write_text(text)
    assert labels(tmp_path) == EXPECTED


@pytest.mark.parametrize("name", ["ignore", "void", "no data"])
def test_what_255_is_called_may_say_that_it_is_none(name, tmp_path):
    values = numbers()
    values[5] = 255
    put(tmp_path, values)
    named = f'{{"0": "background", "1": "road", "2": "car", "255": "{name}"}}'
    (tmp_path / "id2label.json").write_text(named)
    assert labels(tmp_path) == EXPECTED


def test_masks_of_nothing_but_255_are_said_to_be_empty(tmp_path):
    put(tmp_path, np.where(numbers() > 0, 255, 0).astype(np.uint8))
    (tmp_path / "class_names.txt").write_text("background\nroad\ncar\n")
    notes: list[str] = []
    assert converters.read(tmp_path, note=notes.append)[0].instances == ()
    empty = "none of its 1 images has an object of the classes that are wanted (road, car)"
    assert any(empty in note for note in notes)


def test_a_line_without_a_name_is_an_error(tmp_path):
    put(tmp_path, numbers())
    (tmp_path / "class_names.txt").write_text("background\nroad\n\ncar\n\n\n")
    with pytest.raises(ValueError, match="line 3: expected the name of a class, found none"):
        converters.read(tmp_path)
    (tmp_path / "class_names.txt").write_text("\nroad\ncar\n\n\n")
    assert labels(tmp_path) == EXPECTED


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"labelmap.txt"}))
def test_the_lines_of_a_table_are_numbers(name, tmp_path):
    put(tmp_path, numbers())
    (tmp_path / name).write_text(TABLES[name])
    assert labels(tmp_path) == EXPECTED
    put(tmp_path, numbers() * 3)
    with pytest.raises(DataError, match=r"expected a class of .*, found 3"):
        converters.read(tmp_path)


BROKEN = {
    ("class_dict.csv", "name,r,g,b\ncar,1,2\n"): "line 2: expected name,r,g,b, found",
    ("label_colors.txt", "1 2 x car\n"): "line 1: expected r g b name, found '1 2 x car'",
    ("label_colors.txt", "1 2 3 car\n1 2 3 dog\n"): "line 2: expected a colour of its own",
    ("dataset_meta.json", '{"label_map": {"0": "a"}}'): "expected 'label_map' and",
    ("dataset_meta.json", "[]"): "expected 'label_map' and",
}


@pytest.mark.parametrize(("table", "message"), BROKEN.items())
def test_a_broken_table_is_an_error(table, message, tmp_path):
    put(tmp_path, COLOURS[numbers()])
    (tmp_path / table[0]).write_text(table[1])
    with pytest.raises(ValueError, match=message):
        converters.label_space(tmp_path)


def test_a_classifier_s_table_is_none_of_colours(tmp_path):
    put(tmp_path, numbers())
    (tmp_path / "class_dict.csv").write_text("class_index,class,height,width\n0,cat,224,224\n")
    assert converters.label_space(tmp_path).names == ("1", "2")


NAMES = {
    ("_classes.csv", "Pixel Value, Class\n0,bg\n1,cat\n1,fox\n"): "each number once, found 1 twice",
    (
        "_classes.csv",
        "Pixel Value, Class\n0,bg\n1,cat\n01,fox\n",
    ): "each number once, found 1 twice",
    ("_classes.csv", "Pixel Value, Class\n0,bg\n\n1\n"): "line 4: expected a number and its class",
    ("_classes.csv", "Pixel Value, Class\n0,bg\n1,\n"): "line 3: expected a number and its class",
    ("id2label.json", '{"0": "bg", "1": "cat", "2": null}'): "a name of number 2, found null",
    ("id2label.json", '{"0": "bg", "1": " "}'): 'a name of number 1, found " "',
    ("id2label.json", '{"1": "cat", "01": "fox"}'): "each number once, found 1 twice",
    ("id2label.json", '{"1": "cat", "1": "fox"}'): "found: ",
    ("id2label.json", ""): "expected numbers with names: expected JSON, found an empty file",
    ("id2label.json", "{}"): "expected numbers with names, found none",
    ("class_names.txt", ""): "expected numbers with names, found none",
}


@pytest.mark.parametrize(("table", "message"), NAMES.items())
def test_a_broken_table_of_names_is_an_error_that_names_it(table, message, tmp_path):
    put(tmp_path, numbers())
    (tmp_path / table[0]).write_text(table[1])
    with pytest.raises(ValueError, match=message) as error:
        converters.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / table[0]}: ")


def test_the_number_0_needs_no_name(tmp_path):
    put(tmp_path, numbers())
    for name, text in {
        "_classes.csv": "Pixel Value, Class\n1,road\n2,car\n",
        "id2label.json": '{"1": "road", "2": "car"}',
    }.items():
        (tmp_path / name).write_text(text)
        assert labels(tmp_path) == EXPECTED
        (tmp_path / name).unlink()
