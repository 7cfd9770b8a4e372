"""The classes come from the data, and `labels` chooses, renames, groups and orders them."""

from __future__ import annotations

import json

import pytest
from shapely.geometry import box

import converters
from converters.formats.label_spaces import natural, shipped_with
from converters.splits.split import Split, make_split
from converters.types import Instance, LabelSpace, Sample
from zoo.source import DataSource

CHEST = LabelSpace(
    "chest", ("Left Lung", "Right Lung", "Heart"), {"lungs": ("Left Lung", "Right Lung")}, once=True
)
FORMATS = ("handbone", "yolo", "masks", "segformer", "datumaro", "coco")


@pytest.fixture
def samples(image_file):
    places = {"Left Lung": (2, 2, 10, 20), "Right Lung": (14, 2, 22, 20), "Heart": (8, 9, 16, 22)}
    objects = tuple(Instance(label, box(*place)) for label, place in places.items())
    keys = {f"p{i}": f"train/DCM/p{i}/a{i}" for i in range(4)}
    return [Sample(key, image_file, (32, 24), objects, group) for group, key in keys.items()]


@pytest.fixture
def image_file(tmp_path):
    import cv2
    import numpy as np

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (32, 24), np.uint8))
    return path


@pytest.fixture(params=FORMATS)
def data(request, samples, tmp_path):
    converters.write(samples, tmp_path / "data", format=request.param, labels=CHEST)
    return tmp_path / "data"


def labels_of(samples):
    return {one.label for sample in samples for one in sample.instances}


def test_what_we_write_knows_its_whole_label_space(data):
    assert converters.label_space(data) == CHEST
    assert labels_of(converters.read(data)) == set(CHEST.names)


def test_without_the_record_the_names_are_there(data):
    (data / "provenance.json").unlink()
    found = converters.label_space(data)
    assert set(found.names) == set(CHEST.names)
    assert labels_of(converters.read(data)) == set(CHEST.names)


def test_classes_are_chosen_renamed_and_ordered(data):
    notes = []
    mine = LabelSpace("mine", ("heart", "Right Lung"), aliases={"Heart": "heart"})
    found = converters.read(data, labels=mine, note=notes.append)
    assert labels_of(found) == {"heart", "Right Lung"}
    assert len(notes) == 1
    assert "left out 4 objects of 'Left Lung', not asked for by 'mine'" in notes[0]


def test_of_its_own_classes_the_user_leaves_some_out(data):
    notes: list[str] = []
    some = converters.label_space(data).only(["Right Lung", "Heart"])
    converters.read(data, labels=some, note=notes.append)
    assert "left out 4 objects of 'Left Lung', not asked for by --labels" in notes[0]


def test_what_is_left_out_of_several_classes_is_one_line(data):
    notes = []
    mine = LabelSpace("mine", ("Right Lung",))
    converters.read(data, labels=mine, note=notes.append)
    (found,) = (line for line in notes if "left out" in line)
    assert "left out 8 objects of 2 classes, not asked for by 'mine': 'Heart' 4, 'Left" in found


def test_a_group_or_classes_can_be_asked_for(data):
    source = DataSource.open(data)
    assert source.labels("lungs").names == ("Left Lung", "Right Lung")
    assert source.labels("Heart, Left Lung").names == ("Left Lung", "Heart")
    with pytest.raises(ValueError, match="some of the data set's own classes: lungs, Left Lung"):
        source.labels("?")
    with pytest.raises(ValueError, match=r"--labels: 'Hart' \(did you mean 'Heart'\?\): expected"):
        source.labels("Left Lung,Hart")
    assert labels_of(source.choosing("Heart").read(source.labels("Heart"))) == {"Heart"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Heart", "Left Lungg"), "'Left Lungg' (did you mean 'Left Lung'?)"),
        (("Heart", "left lung"), "'left lung' (did you mean 'Left Lung'?)"),
        (("Heart", "Liver"), ""),
        (("Heart", "Left Lung", "Left Lungg"), ""),
        (("Heart", "Left Lung 2"), ""),
    ],
)
def test_a_class_without_objects_that_is_nearly_called_as_others_is_said(data, names, said):
    notes = []
    converters.read(data, labels=LabelSpace("mine", names), note=notes.append)
    told = [note for note in notes if "classes without objects" in note]
    assert told == ([f"{data}; 'mine' has classes without objects: {said}"] if said else [])


def test_a_misspelt_only_class_is_named(data):
    with pytest.raises(ValueError, match=r"'Heartt' \(did you mean 'Heart'\?\)$"):
        converters.read(data, labels=LabelSpace("mine", ("Heartt",)))


def test_a_misspelt_shipped_label_space_is_named(data):
    with pytest.raises(ValueError, match=r"'hand_bonse' \(did you mean 'hand_bones'\?\)"):
        DataSource.open(data).labels("hand_bonse")


def test_no_class_at_all_is_an_error(data):
    with pytest.raises(ValueError, match="expected classes of 'mine', found"):
        converters.read(data, labels=LabelSpace("mine", ("Liver",)))


def test_shipped_label_spaces_are_known_by_their_names(samples, tmp_path):
    labels = LabelSpace.load("ram_h1200")
    objects = tuple(Instance(name, box(2, 2, 9, 9)) for name in labels.names)
    hands = [Sample("a", samples[0].image, (32, 24), objects)]
    converters.write(hands, tmp_path / "hands", format="coco", labels=labels)
    (tmp_path / "hands" / "provenance.json").unlink()
    assert converters.label_space(tmp_path / "hands") == labels


def test_the_smallest_shipped_one_is_taken():
    assert shipped_with(["Ulna", "Radius", "finger-1"]).name == "hand_bones"
    assert shipped_with(["dog"]) is None


def test_a_split_keeps_what_was_asked_for(samples, tmp_path):
    split = make_split(samples, folds=2)
    chosen = Split(1, split.seed, split.strategy, split.folds, split.groups, CHEST.only(["Heart"]))
    assert chosen.digest == split.digest
    chosen.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").labels.names == ("Heart",)
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["labels"]["names"] == ["Heart"]


def test_names_with_numbers_are_sorted_as_people_do():
    assert natural(["b10", "b9", "A", "b"]) == ("A", "b", "b9", "b10")


def test_numbers_of_thousands_of_digits_are_sorted_too():
    long, longer = "a" + "9" * 5000, "a1" + "0" * 5000
    assert natural([longer, "a010", long, "a9"]) == ("a9", "a010", long, longer)
