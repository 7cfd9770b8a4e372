from __future__ import annotations

import pytest
import yaml

import converters
from converters.types import LabelSpace

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def refusal(data, labels):
    data.add([SQUARE]).save()
    with pytest.raises(ValueError, match="expected categories of 'hand_bones'") as error:
        converters.read(data.root, labels=labels)
    return str(error.value)


@pytest.mark.parametrize(
    "names", [["a", "b"], ["7", "yes", "x: y", "뼈, #2", "it's"], [f"class {i}" for i in range(90)]]
)
def test_names_of_no_label_space_come_ready_to_be_one(names, data, labels, tmp_path):
    data.content["categories"] = [{"id": 90 + i, "name": name} for i, name in enumerate(names)]
    said, *lines = refusal(data, labels).splitlines()
    assert said.endswith("put these lines into a file and choose --labels FILE.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == "data"
    mine = LabelSpace.load(str(path))
    assert mine.names == tuple(names)
    (sample,) = converters.read(data.root, labels=mine)
    assert sample.instances[0].label == names[0]


def test_a_shipped_label_space_that_has_few_of_the_names_is_no_way_out(data, labels):
    names = ["Plastic bag", *(f"class {i}" for i in range(9))]
    data.content["categories"] = [{"id": 90 + i, "name": name} for i, name in enumerate(names)]
    assert "FILE.yaml" in refusal(data, labels)


def test_one_name_too_many(data):
    data.content["categories"] = [{"id": 90, "name": "a"}, {"id": 3, "name": "b"}]
    data.add([SQUARE]).add([SQUARE], 3).save()
    _, (found,) = converters.scan(data.root, labels=LabelSpace("mine", ("a",)))
    assert str(found).endswith(
        "category 'b': expected a class of 'mine' or an alias, found another one with 1 "
        "annotations: add it to the label space's 'names', 'aliases' or 'ignored'"
    )
