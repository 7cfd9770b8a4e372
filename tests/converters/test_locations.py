"""A data set that is named by one of its files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import converters
from converters.recognition.location import Location
from converters.types import LabelSpace, Sample

DESCRIBED = ("yolo", "datumaro", "coco", "rle_table")


@pytest.fixture
def write(samples: list[Sample], labels: LabelSpace, tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, **more: Any) -> Path:
        converters.write(samples, tmp_path / name, format=name, labels=labels, **more)
        return tmp_path / name

    return written


def file_of(folder: Path, name: str) -> Path:
    return next(iter(converters.load_format(name).annotation_files(folder)))


@pytest.fixture
def in_two(write: Callable[..., Path]) -> Path:
    """COCO, each image of which has a file."""
    folder = write("coco")
    (file,) = (folder / "annotations").iterdir()
    record = json.loads(file.read_text())
    file.unlink()
    for number, image in enumerate(record["images"]):
        objects = [a for a in record["annotations"] if a["image_id"] == image["id"]]
        own = {**record, "images": [image], "annotations": objects}
        (folder / "annotations" / f"instances_part{number}.json").write_text(json.dumps(own))
    return folder


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_only_file_is_its_folder(write, name, tmp_path, monkeypatch):
    folder = write(name)
    file, expected = file_of(folder, name), converters.read(folder)
    assert expected
    place = converters.locate(file)
    assert (place.format, place.annotations) == (name, None)
    assert place.folder.samefile(folder)
    assert converters.read(file) == expected
    assert converters.label_space(file) == converters.label_space(folder)
    monkeypatch.chdir(file.parent)
    found = converters.read(file.name)
    assert [s.key for s in found] == [s.key for s in expected]
    assert converters.recognise(file.name) == name


def test_a_file_of_several_is_read_alone(in_two):
    whole = {sample.key: sample for sample in converters.read(in_two)}
    files = sorted((in_two / "annotations").iterdir())
    assert len(files) == len(whole) > 1
    found = [converters.read(file) for file in files]
    assert [len(own) for own in found] == [1] * len(files)
    assert {s.key: s.instances for own in found for s in own} == {
        key: sample.instances for key, sample in whole.items()
    }
    with pytest.raises(ValueError, match="of subset 'test'"):
        converters.read(files[0], subset="test")


def test_a_file_of_several_says_its_classes_alone(in_two):
    file = in_two / "annotations" / "instances_part0.json"
    record = json.loads(file.read_text())
    used = {a["category_id"] for a in record["annotations"]}
    record["categories"] = [c for c in record["categories"] if c["id"] in used]
    file.write_text(json.dumps(record))
    (in_two / "provenance.json").unlink()
    assert set(converters.label_space(file).names) == {c["name"] for c in record["categories"]}
    assert len(converters.label_space(in_two)) > len(used)


def test_a_file_with_its_images_elsewhere(in_two, tmp_path):
    expected = converters.read(in_two / "annotations" / "instances_part1.json")
    shutil.move(in_two / "annotations", tmp_path / "lists")
    image = expected[0].image
    (tmp_path / "pictures").mkdir()
    shutil.move(image, tmp_path / "pictures" / image.name)
    shutil.rmtree(in_two)
    file = tmp_path / "lists" / "instances_part1.json"
    (found,) = converters.read(file, images=tmp_path / "pictures")
    assert (found.key, found.instances) == (expected[0].key, expected[0].instances)


def test_a_test_file_is_read_where_it_is_named(in_two):
    file = in_two / "annotations" / "instances_part0.json"
    (expected,) = converters.read(file)
    named = file.rename(file.with_name("instances_test.json"))
    (in_two / "images" / "test").mkdir()
    expected.image.rename(in_two / "images" / "test" / expected.image.name)
    (found,) = converters.read(named)
    assert (found.key, found.instances) == (expected.key, expected.instances)
    assert expected.key not in {sample.key for sample in converters.read(in_two)}


@pytest.mark.parametrize("is_absolute", [True, False])
def test_yaml_that_lies_elsewhere(write, is_absolute, tmp_path):
    folder = write("yolo")
    expected = converters.read(folder)
    file = tmp_path / "configs" / "hands.yaml"
    file.parent.mkdir()
    text = (folder / "data.yaml").read_text()
    place = folder if is_absolute else Path(os.path.relpath(folder, file.parent))
    file.write_text(f"path: {place.as_posix()}\n{text}")
    found = converters.locate(file)
    assert (found.format, found.annotations) == ("yolo", file)
    assert [(s.key, s.instances) for s in converters.read(file)] == [
        (s.key, s.instances) for s in expected
    ]
    # Its own names hold, not those of the file in the folder.
    file.write_text(file.read_text().replace("Ulna", "Elle"))
    (folder / "provenance.json").unlink()
    assert "Elle" in converters.label_space(file).names


def test_yaml_whose_folder_is_another_machines(write, tmp_path):
    folder = write("yolo")
    file = folder / "data.yaml"
    file.write_text(f"path: /nobody/has/this\n{file.read_text()}")
    assert converters.locate(file) == Location(folder, "yolo")


def test_files_that_are_read_together(write):
    folder = write("rle_table")
    table = folder / "train.csv"
    shutil.copy(table, folder / "more.csv")
    with pytest.raises(ValueError, match=r"expected the folder, .*: it has other files of the"):
        converters.read(table)


@pytest.mark.parametrize("form", [None, "yolo"])
def test_a_file_that_annotates_nothing(write, form, tmp_path):
    folder = write("yolo")
    image = converters.read(folder)[0].image
    message = f"{image}: expected a data set's folder, or a file that annotates its images"
    with pytest.raises(ValueError, match=re.escape(message)):
        converters.read(image, format=form)


def test_an_archive(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"data\.zip: .*found an archive: unpack it"):
        converters.recognise(tmp_path / "data.zip")


# --- a data set in a folder that is called as a part of one


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of COCO's, or of VIA's, about some images, and the images that are there."""

    def put_file(form: str, place: str, names: list[str], there: list[str]) -> Path:
        for seed, image in enumerate(there):
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / image), np.full((20, 30), seed, np.uint8))
        points = [2, 3, 8, 3, 8, 9, 2, 9]
        images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        objects = [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [points]}
            for i in range(len(names))
        ]
        shape = {"name": "rect", "x": 2, "y": 3, "width": 6, "height": 6}
        region = {"shape_attributes": shape, "region_attributes": {"label": "cat"}}
        coco = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        via = {name: {"filename": name, "size": -1, "regions": [region]} for name in names}
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(coco if form == "coco" else via))
        return file

    return put_file


@pytest.mark.parametrize("form", ["coco", "via"])
@pytest.mark.parametrize("part", ["val", "train", "test2017"])
def test_an_image_that_is_gone_is_not_taken_from_a_data_set_beside(form, part, put):
    file = put(form, f"{part}/ann.json", ["a.png", "b.png"], [f"{part}/a.png", "other/b.png"])
    assert converters.recognise(file) == form
    said = []
    for data in (file, file.parent):
        with pytest.raises(converters.DataError, match=r"b\.png.*found none") as error:
            converters.read(data)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("form", ["coco", "via"])
@pytest.mark.parametrize(
    ("place", "names", "there", "keys"),
    [
        ("val/ann.json", ["a.png"], ["val/a.png"], ["a"]),
        ("val/ann.json", ["val/a.png"], ["val/a.png"], ["val/a"]),
        ("val/ann.json", ["a.png"], ["images/a.png"], ["images/a"]),
        ("val/ann.json", ["val/a.png", "x/a.png"], ["val/a.png", "x/a.png"], ["val/a", "x/a"]),
        ("val/ann.json", ["a.png"], ["val/a.png", "train/a.png", "a.png"], ["a"]),
    ],
)
def test_where_the_images_are_of_a_file_in_a_folder_of_a_part(form, place, names, there, keys, put):
    assert [s.key for s in converters.read(put(form, place, names, there))] == keys


@pytest.mark.parametrize("part", ["annotations", "train"])
def test_one_of_several_files_that_is_named_from_inside_its_folder(part, put, monkeypatch):
    file = put("coco", f"{part}/instances_train.json", ["a.png"], ["train/a.png"])
    put("coco", f"{part}/instances_val.json", ["a.png"], ["val/a.png"])
    expected = converters.read(file)
    monkeypatch.chdir(file.parent)
    for name in (file.name, f"./{file.name}", f"../{part}/{file.name}"):
        (found,) = converters.read(name)
        assert found.key == expected[0].key
        assert Path(str(found.image)).samefile(str(expected[0].image))


@pytest.mark.parametrize("form", ["coco", "via"])
@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_a_folder_of_test_images_that_is_named_alone_is_of_any_subset(form, subset, put):
    file = put(form, "test/ann.json", ["a.png"], ["test/a.png"])
    for data in (file, file.parent):
        (found,) = converters.read(data, subset=subset)
        assert (found.key, len(found.instances)) == ("a", 1)


@pytest.mark.parametrize("form", ["coco", "via"])
def test_a_name_that_no_image_can_have(form, put):
    file = put(form, "val/ann.json", ["b" * 5000 + ".png"], ["val/a.png"])
    with pytest.raises(converters.DataError, match="found none"):
        converters.read(file)
