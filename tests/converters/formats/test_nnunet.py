"""nnU-Net's raw data sets: numbers, regions that overlap, old descriptions, and what is refused."""

import json

import cv2
import numpy as np
import pytest

import converters
from converters import DataError
from converters.masks import rasterize_labels

SIZE = (24, 40)
LABELS = {"background": 0, "lung": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def index_map():
    values = np.zeros(SIZE, np.uint8)
    values[2:12, 2:20], values[4:8, 4:9] = 1, 2
    return values


@pytest.fixture
def data(tmp_path):
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
    for name in ("case_1", "case_2"):
        cv2.imwrite(str(tmp_path / f"imagesTr/{name}_0000.png"), np.full(SIZE, 99, np.uint8))
        cv2.imwrite(str(tmp_path / f"labelsTr/{name}.png"), index_map())
    cv2.imwrite(str(tmp_path / "imagesTs/case_3_0000.png"), np.full(SIZE, 99, np.uint8))
    return described(tmp_path, LABELS)


def described(root, labels):
    content = {"channel_names": {"0": "xray"}, "labels": labels, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def planes(root):
    sample = converters.read(root)[0]
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def test_numbers_are_classes(data):
    assert converters.recognise(data) == "nnunet"
    assert converters.label_space(data).names == ("lung", "tumour")
    np.testing.assert_array_equal(planes(data)["lung"], index_map() == 1)
    np.testing.assert_array_equal(planes(data)["tumour"], index_map() == 2)
    keys = {part: [s.key for s in converters.read(data, subset=part)] for part in ("train", "test")}
    assert keys == {"train": ["case_1", "case_2"], "test": ["test/case_3"]}
    listed = converters.list_images(data, subset="all")
    assert [s.key for s in listed] == ["case_1", "case_2", "test/case_3"]


@pytest.mark.parametrize("place", [".", "dataset.json"])
def test_regions_overlap(place, data):
    described(data, REGIONS)
    found = planes(data / place)
    np.testing.assert_array_equal(found["whole"], index_map() > 0)
    np.testing.assert_array_equal(found["core"], index_map() == 2)
    assert list(found) == ["whole", "core"]


def test_test_images_may_have_maps(data):
    (data / "labelsTs").mkdir()
    cv2.imwrite(str(data / "labelsTs/case_3.png"), index_map())
    (sample,) = converters.read(data, subset="test")
    assert {one.label for one in sample.instances} == {"lung", "tumour"}


def test_old_descriptions_have_names_by_numbers(data):
    described(data, {"0": "background", "1": "lung", "2": "tumour"})
    assert converters.label_space(data).names == ("lung", "tumour")


def test_what_is_ignored_is_no_class(data):
    values = index_map()
    values[0] = 3
    cv2.imwrite(str(data / "labelsTr/case_1.png"), values)
    with pytest.raises(
        DataError, match=r"labelsTr/case_1\.png: expected a number of dataset\.json"
    ):
        converters.read(data)
    described(data, {**LABELS, "ignore": 3})
    assert list(planes(data)) == ["lung", "tumour"]


@pytest.mark.parametrize(
    "labels",
    [
        *(None, {}, {"a": "b"}, {"background": 0}, {"a": None}, [1]),
        *({"a": 1, "b": 1}, {"a": 0, "b": 1}),
    ],
)
def test_descriptions_without_classes_are_refused(labels, data):
    described(data, labels)
    with pytest.raises(ValueError, match=r"dataset\.json: expected"):
        converters.label_space(data)


def test_several_files_an_image_are_refused(data):
    cv2.imwrite(str(data / "imagesTr/case_1_0001.png"), np.full(SIZE, 99, np.uint8))
    with pytest.raises(ValueError, match=r"case_1_0001\.png: expected one file an image"):
        converters.read(data)


def test_what_has_no_partner_is_said(data):
    (data / "labelsTr/case_2.png").unlink()
    notes = []
    assert [s.key for s in converters.read(data, note=notes.append)] == ["case_1"]
    assert "left out 1 images without a map in labelsTr (case_2, ...)" in notes[-1]
    (data / "imagesTr/case_1_0000.png").unlink()
    with pytest.raises(DataError, match="expected an image case_1_0000, found none"):
        converters.read(data)


def test_names_that_end_in_four_digits_are_names(data):
    for year in ("2020", "2021"):
        cv2.imwrite(str(data / f"imagesTr/scan_{year}.png"), np.full(SIZE, 9, np.uint8))
        cv2.imwrite(str(data / f"labelsTr/scan_{year}.png"), index_map())
    assert [s.key for s in converters.read(data)][2:] == ["scan_2020", "scan_2021"]


def test_a_second_map_and_other_folders_are_told(data):
    (data / "imagesVal").mkdir()
    cv2.imwrite(str(data / "imagesVal/x_0000.png"), np.full(SIZE, 9, np.uint8))
    notes = []
    converters.read(data, note=notes.append)
    assert "left out 1 images that are no part of a pair" in notes[0]
    cv2.imwrite(str(data / "labelsTr/case_1.tif"), index_map())
    with pytest.raises(DataError, match="expected one map of this name"):
        converters.read(data)


def test_pixels_that_nobody_annotated_are_said(data):
    described(data, {**LABELS, "ignore": "3"})
    notes = []
    converters.read(data, note=notes.append)
    assert notes == [f"{data}: pixels of the number 3 ('ignore') are no class"]
