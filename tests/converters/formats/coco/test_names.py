from __future__ import annotations

import pytest

import converters
from converters.types import LabelSpace

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def categories(*names, group=None):
    extra = {"supercategory": group} if group else {}
    return [{"id": 90 + i, "name": name, **extra} for i, name in enumerate(names)]


@pytest.mark.parametrize(
    "names", [["a", "b"], ["7", "yes", "x: y", "뼈, #2", "it's"], [f"class {i}" for i in range(90)]]
)
def test_categories_are_the_classes(names, data):
    data.content["categories"] = categories(*names)
    data.add([SQUARE]).save()
    assert converters.label_space(data.root) == LabelSpace("data", tuple(names))
    (sample,) = converters.read(data.root)
    assert sample.instances[0].label == names[0]


def test_none_of_the_classes_is_an_error_with_the_way_out(data, labels):
    data.content["categories"] = categories("a", "b")
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match="expected classes of 'hand_bones', found a, b") as error:
        converters.read(data.root, labels=labels)
    assert "leave --labels out" in str(error.value)


def test_a_shipped_label_space_that_has_them_is_named(data):
    data.content["categories"] = categories("Ulna", "Radius")
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match="choose --labels hand_bones"):
        converters.read(data.root, labels=LabelSpace("mine", ("a",)))


def test_what_is_not_chosen_is_counted(data):
    data.content["categories"] = [{"id": 90, "name": "a"}, {"id": 3, "name": "b"}]
    data.add([SQUARE]).add([SQUARE], 3).save()
    notes = []
    (sample,) = converters.read(data.root, labels=LabelSpace("mine", ("a",)), note=notes.append)
    assert [one.label for one in sample.instances] == ["a"]
    assert notes == [f"{data.root}: left out 1 objects of 'b', not asked for by 'mine'"]


def test_roboflow_s_group_of_all_is_no_class(data):
    head = {"id": 0, "name": "cells", "supercategory": "none"}
    data.content["categories"] = [head, *categories("a", "b", group="cells")]
    data.add([SQUARE]).save()
    assert converters.label_space(data.root).names == ("a", "b")


def test_a_class_called_as_roboflow_s_group_of_all_is_one(data):
    head = {"id": 0, "name": "cells", "supercategory": "none"}
    data.content["categories"] = [head, *categories("a", "cells", group="cells")]
    data.add([SQUARE]).add([SQUARE], data.content["categories"][2]["id"]).save()
    assert sorted(converters.label_space(data.root).names) == ["a", "cells"]
    (sample,) = converters.read(data.root)
    assert sorted(one.label for one in sample.instances) == ["a", "cells"]


def test_roboflow_s_group_with_objects_is_named(data):
    head = {"id": 0, "name": "cells", "supercategory": "none"}
    data.content["categories"] = [head, *categories("a", "b", group="cells")]
    data.add([SQUARE]).add([SQUARE], 0).save()
    _, (found,) = converters.scan(data.root)
    assert "category 'cells': expected it without annotations" in str(found)


def test_classes_of_a_large_file_are_read_without_its_annotations(data, monkeypatch):
    data.add([SQUARE]).save()
    monkeypatch.setattr("converters.files.json_files.parse_json", None)
    assert "Ulna" in converters.label_space(data.root).names
