from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import LineString, MultiPolygon, Polygon, box

from converters.types import Instance, LabelSpace, Sample

FINGERS = [f"finger-{i}" for i in range(1, 20)]
CARPALS = [*("Trapezium", "Trapezoid", "Capitate", "Hamate")]
CARPALS += [*("Scaphoid", "Lunate", "Triquetrum", "Pisiform")]


def test_hand_bones_are_in_the_order_of_the_submission(labels):
    assert labels.names == (*FINGERS, *CARPALS, "Radius", "Ulna")
    assert {group: len(members) for group, members in labels.groups.items()} == {
        "fingers": 19,
        "carpals": 8,
        "forearm": 2,
    }
    assert labels.index["Pisiform"] == 26
    assert labels.group_of("Ulna") == "forearm"
    assert labels.group_of("tooth") is None


@pytest.mark.parametrize(
    ("names", "groups", "message"),
    [
        ((), {}, "at least one class"),
        (("a", "a"), {}, r"twice: \['a'\]"),
        (("a",), {"g": ("b",)}, r"unknown classes \['b'\]"),
        (("a",), {"g": ("a",), "h": ("a",)}, "two groups"),
    ],
)
def test_label_space_refuses(names, groups, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace("some", names, groups)


def test_label_space_of_names_by_their_numbers(tmp_path):
    path = tmp_path / "id2label.json"
    path.write_text('{"0": "Background", "10": "tumour", "2": "liver"}', encoding="utf-8")
    assert LabelSpace.load(str(path)) == LabelSpace("id2label", ("liver", "tumour"))


def test_label_space_from_a_file(tmp_path):
    path = tmp_path / "waste.yaml"
    path.write_text("name: waste\nnames: [paper, glass]\n", encoding="utf-8")
    assert LabelSpace.load(str(path)) == LabelSpace("waste", ("paper", "glass"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [a]", "'name': expected a text, found no such key"),
        ("name: a", "'names': expected a list, found no such key"),
        ("{name: a, names: [a], gruops: {}}", r"unknown key 'gruops' \(did you mean 'groups'\?\)"),
        ("- a", "expected keys 'name' and 'names', found"),
        ("", "expected keys 'name' and 'names', found"),
    ],
)
def test_label_space_file_with_other_keys(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"bad.yaml: {said}"):
        LabelSpace.load(str(path))


def test_unknown_label_space_names_those_that_are_shipped():
    with pytest.raises(ValueError, match="hand_bones"):
        LabelSpace.load("feet")


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (LineString([(0, 0), (1, 1)]), "found LineString"),
        (Polygon(), "empty geometry"),
        (MultiPolygon(), "empty geometry"),
    ],
)
def test_instance_refuses(geometry, message):
    with pytest.raises(ValueError, match=message):
        Instance("Radius", geometry)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_instance_refuses_coordinates_that_are_not_finite(value):
    # NumPy warns when shapely closes such a ring.
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match="expected finite coordinates"),
    ):
        Instance("Radius", Polygon([(0, 0), (1, value), (1, 1)]))


def test_instance_keeps_parts_and_holes():
    ring = Polygon(box(0, 0, 9, 9).exterior, [box(3, 3, 5, 5).exterior])
    assert Instance("Ulna", ring).parts == (ring,)
    assert Instance("Ulna", MultiPolygon([ring, box(20, 20, 25, 25)])).parts[0] == ring


@pytest.mark.parametrize("key", ["", "/etc/image", "../image", "a/../b"])
def test_sample_refuses_keys_that_leave_the_data_set(key):
    with pytest.raises(ValueError, match="relative path"):
        Sample(key, Path("a.png"), (2, 3))


@pytest.mark.parametrize("size_hw", [(0, 3), (3, -1), (3,)])
def test_sample_refuses_sizes(size_hw):
    with pytest.raises(ValueError, match="positive"):
        Sample("a", Path("a.png"), size_hw)


def test_a_sample_keeps_objects_as_they_were_given():
    hole = Polygon([(0, 0), (9, 0), (9, 9)], [[(5, 1), (8, 1), (8, 4)]])
    crossing = Polygon([(0, 0), (3, 3), (3, 0), (0, 3)])
    thirds = Polygon((np.array([(1, 1), (9, 2), (4, 8)]) / 3).tolist())
    given = (
        Instance("a", hole),
        Instance("b", MultiPolygon([hole, thirds])),
        Instance("a", crossing),
    )
    sample = Sample("x", Path("x.png"), (9, 9), given)
    assert sample.instances == given
    assert len(sample.instances) == 3
    assert sample.instances[1] == given[1]
    assert sample.instances[1:] == given[1:]
    assert sample.instances != given[:2]
    assert pickle.loads(pickle.dumps(sample)) == sample
    assert replace(sample, instances=()).instances == ()
    assert hash(sample.instances) == hash(given)


@pytest.mark.slow
def test_thousands_of_outlines_take_little_memory():
    rng = np.random.default_rng(0)
    tracemalloc.start()
    samples = []
    for number in range(100):
        rings = [np.rint(rng.uniform(0, 2048, (60, 2))).tolist() for _ in range(29)]
        instances = tuple(Instance(f"class-{n}", Polygon(ring)) for n, ring in enumerate(rings))
        samples.append(Sample(f"{number}", Path("x.png"), (2048, 2048), instances))
    del instances, rings
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Corners drawn at random are the hardest to pack: 3,480 numbers an image.
    assert held / len(samples) < 16_000


def test_file_name_has_the_suffix():
    sample = Sample("train/image1_R", Path("/data/train/image1_R.png"), (2, 3))
    assert sample.file_name == "image1_R.png"


def test_a_background_is_one_of_the_classes(tmp_path):
    labels = LabelSpace("s", ("all else", "cup"), background="all else")
    labels.save(tmp_path / "s.yaml")
    assert LabelSpace.load(str(tmp_path / "s.yaml")) == labels
    assert LabelSpace.load("waste").background == "Background"
    assert LabelSpace.load("hand_bones").background is None
    with pytest.raises(ValueError, match=r"background name unknown classes \['sky'\]"):
        LabelSpace("s", ("cup",), background="sky")


def test_some_classes_of_a_label_space(labels):
    wrist = labels.only(["Pisiform", "Lunate"])
    assert wrist.names == ("Lunate", "Pisiform")
    assert wrist.groups == {"carpals": ("Lunate", "Pisiform")}
    assert (wrist.posture, wrist.once, wrist.name) == (None, True, "hand_bones")
    assert labels.only(labels.names) == labels
    with pytest.raises(ValueError, match=r"expected classes of 'hand_bones', found \['Talus'\]"):
        labels.only(["Talus"])


def test_an_image_of_nobody_known_stands_for_itself() -> None:
    known = Sample("a/1", Path("a.png"), (4, 5), group="ID001")
    assert known.patient == "ID001"
    assert replace(known, group="").patient == "a/1"


@pytest.mark.parametrize("names", ["[a, '']", "[yes, a]", "[null]", "[[a]]", "[1.5]"])
def test_names_of_classes_are_texts(names, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: odd\nnames: {names}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd.yaml: .*expected (texts|names of classes)"):
        LabelSpace.load(str(path))
