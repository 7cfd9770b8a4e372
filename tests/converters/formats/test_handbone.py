from __future__ import annotations

import json
import math
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from openpyxl import Workbook
from shapely.geometry import MultiPolygon, Polygon

import converters
from converters import DataError
from converters.formats.handbone import places
from converters.formats.handbone_patients import read_patients
from converters.masks import rasterize_labels
from converters.types import Instance

A = [(5, 5), (20, 6), (12, 25)]
B = [(30, 5), (45, 6), (37, 25)]
STEM = "image1661130828152_R"


def test_keys_groups_and_sizes(tree, labels):
    tree.hand(f"ID001/{STEM}", ("Radius", A))
    (sample,) = converters.read(tree.root, labels=labels)
    assert sample.key == f"train/DCM/ID001/{STEM}"
    assert sample.group == "ID001"
    assert sample.file_name == f"{STEM}.png"
    assert sample.size_hw == (40, 60)
    assert sample.instances[0].geometry.equals(Polygon(A))
    assert sample.attributes == {}


def test_the_same_stem_in_two_folders_is_two_images(tree, labels):
    tree.hand("ID001/image1", ("Radius", A))
    tree.hand("ID002/image1", ("Ulna", B))
    samples = converters.read(tree.root, labels=labels)
    assert [(s.group, s.instances[0].label) for s in samples] == [
        ("ID001", "Radius"),
        ("ID002", "Ulna"),
    ]


def test_label_that_comes_twice_is_one_instance_of_two_parts(tree, labels):
    tree.hand("ID001/a", ("Ulna", A), ("finger-1", A), ("Ulna", B))
    (sample,) = converters.read(tree.root, labels=labels)
    assert [i.label for i in sample.instances] == ["finger-1", "Ulna"]
    assert sample.instances[1].geometry.equals(MultiPolygon([Polygon(A), Polygon(B)]))


def test_order_of_annotations_does_not_matter(tree, labels):
    tree.hand("ID001/a", ("Ulna", A), ("Pisiform", B), ("finger-1", A))
    tree.hand("ID001/b", ("finger-1", A), ("Ulna", A), ("Pisiform", B))
    one, other = converters.read(tree.root, labels=labels)
    assert one.instances == other.instances


def test_aliases_and_labels_that_are_ignored(tree, labels):
    tree.hand("ID001/a", ("ulna", A), ("Sesamoid", B))
    space = replace(labels, aliases={"ulna": "Ulna"}, ignored=("Sesamoid",))
    (sample,) = converters.read(tree.root, labels=space)
    assert [instance.label for instance in sample.instances] == ["Ulna"]


def test_floats_and_closed_rings(tree, labels):
    tree.hand("ID001/a", ("Ulna", [(5.25, 5), (20, 6.75), (12, 25), (5.25, 5)]))
    (sample,) = converters.read(tree.root, labels=labels)
    assert list(sample.instances[0].geometry.exterior.coords)[:3] == [
        (5.25, 5),
        (20, 6.75),
        (12, 25),
    ]


@pytest.mark.parametrize("shift", [1, 2, 7])
@pytest.mark.parametrize("start", [9.5, 10.5, 10.25, 10])
def test_objects_move_by_as_many_pixels_as_their_points(start, shift, tree, labels):
    square = [(start, 5), (start + 10, 5), (start + 10, 15), (start, 15)]
    tree.hand("ID001/p", ("Radius", square))
    tree.hand("ID001/q", ("Radius", [(x + shift, y) for x, y in square]))
    samples = converters.read(tree.root, labels=labels)
    p, q = (rasterize_labels(s.instances, s.size_hw) for s in samples)
    assert q["Radius"].x == p["Radius"].x + shift
    np.testing.assert_array_equal(q["Radius"].pixels, p["Radius"].pixels)


@pytest.mark.parametrize(("image", "json"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_that_look_the_same_belong_together(image, json, tree, labels):
    name = "\uc190\ubf08\u00e4"
    tree.image(f"ID1/{unicodedata.normalize(image, name)}")
    tree.annotate(f"ID1/{unicodedata.normalize(json, name)}", ("Radius", A))
    (sample,) = converters.read(tree.root, labels=labels)
    assert sample.key == f"train/DCM/ID1/{unicodedata.normalize('NFC', name)}"
    assert [instance.label for instance in sample.instances] == ["Radius"]


def test_two_images_whose_names_look_the_same(tree, labels):
    for form in ("NFC", "NFD"):
        tree.image("ID1/" + unicodedata.normalize(form, "hand-\u00e4"))
    tree.annotate("ID1/hand-\u00e4", ("Radius", A))
    with pytest.raises(DataError, match="expected one file of this name, found also hand-"):
        converters.read(tree.root, labels=labels)


def test_annotations_whose_folder_of_images_is_gone(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    tree.image("ID040/b", subset="test")
    shutil.rmtree(tree.root / "train" / "DCM")
    with pytest.raises(DataError, match=r"ID001/a\.json: expected an image of this name, found no"):
        converters.read(tree.root, subset="all", labels=labels)
    assert len(converters.read(tree.root, subset="test", labels=labels)) == 1


def test_an_image_that_is_gone_with_its_annotations(tree, labels, tmp_path):
    tree.hand("ID001/a", ("Ulna", A))
    tree.hand("ID001/b", ("Ulna", A))
    samples = converters.read(tree.root, labels=labels)
    converters.write(samples, tmp_path / "out", format="handbone", labels=labels)
    for path in tmp_path.glob("out/train/*/ID001/b.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"ID001/b: expected an image as images\.json says"):
        converters.read(tmp_path / "out", labels=labels)
    assert converters.read(tree.root, labels=labels)


def test_test_images_need_no_annotations_but_may_have_the_truth(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    tree.image("ID040/c", subset="test")
    tree.image("ID040/b", subset="test")
    tree.annotate("ID040/b", ("Ulna", B), folder="truth")
    known, unknown = converters.read(tree.root, subset="test", labels=labels)
    assert known.instances[0].geometry.equals(Polygon(B))
    assert (unknown.key, unknown.instances) == ("test/DCM/ID040/c", ())
    every = converters.read(tree.root, subset="all", labels=labels)
    assert [s.key for s in every] == ["test/DCM/ID040/b", "test/DCM/ID040/c", "train/DCM/ID001/a"]


def test_subset_that_is_not_there(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    with pytest.raises(ValueError, match="expected a folder test/DCM"):
        converters.read(tree.root, subset="test", labels=labels)


def test_files_that_file_managers_leave(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    for name in ("._a.png", "Thumbs.db", ".DS_Store"):
        (tree.root / "train/DCM/ID001" / name).write_bytes(b"?")
    assert len(converters.read(tree.root, labels=labels)) == 1


# --- bad input


def test_all_problems_come_in_one_error(tree, labels):
    tree.hand("ID001/good", ("Ulna", A))
    tree.hand("ID001/few", ("Ulna", A[:2]))
    tree.hand("ID001/closed", ("Ulna", [*A[:2], A[0]]))
    tree.hand("ID001/label", ("finger-20", A), ("Ulna", [(1, math.nan), (2, 2), (3, 1)]))
    tree.hand("ID001/shape", ("Ulna", [(1, 2, 3)] * 3), ("Radius", [(1, "x"), (2, 2), (3, 1)]))
    tree.hand("ID001/truth", ("Ulna", [(1.5, True), (2, 2), (3, 1)]))
    tree.hand("ID001/cut")
    cut = tree.annotate("ID001/cut", ("Ulna", A))
    cut.write_bytes(cut.read_bytes()[:60])
    tree.hand("ID001/list")
    tree.annotate("ID001/list", annotations={"Ulna": A})
    tree.hand("ID001/kind")
    tree.annotate("ID001/kind", annotations=[{"label": "Ulna", "type": "box", "points": A}, 7])
    tree.image("ID002/alone")
    tree.annotate("ID002/orphan", ("Ulna", A))
    tree.hand("ID002/header", ("Ulna", A))
    (tree.root / "train/DCM/ID002/header.png").write_bytes(b"not an image")
    tree.hand("ID003/twice", ("Ulna", A))
    images = tree.root / "train/DCM/ID003"
    shutil.copy(images / "twice.png", images / "twice.bmp")

    with pytest.raises(DataError) as error:
        converters.read(tree.root, labels=labels)

    found = dict(problem.split(": ", 1) for problem in error.value.problems)
    expected = {
        "ID001/few.json": "annotation 0: 'Ulna': expected at least 3 points, found 2",
        "ID001/closed.json": "annotation 0: 'Ulna': expected at least 3 points, found 2",
        "ID001/label.json": "annotation 1: 'Ulna': expected finite points",
        "ID001/shape.json": "annotation 1: 'Radius': expected numbers as points",
        "ID001/truth.json": "annotation 0: 'Ulna': expected numbers as points",
        "ID001/cut.json": "expected JSON, found a broken file",
        "ID001/list.json": "expected a list 'annotations'",
        "ID001/kind.json": "annotation 1: expected an object, found 7",
        "ID002/orphan.json": "expected an image of this name",
    }
    images = {
        "ID002/alone.png": "expected a JSON file of this name",
        "ID002/header.png": "without a readable header",
        "ID003/twice.png": "expected one file of this name, found also twice.bmp",
    }
    wanted = {f"train/outputs_json/{k}": v for k, v in expected.items()}
    wanted |= {f"train/DCM/{k}": v for k, v in images.items()}
    assert set(found) == set(wanted)
    for place, problem in wanted.items():
        assert problem in found[place]
    assert len(error.value.problems) == len(wanted) + 3
    assert "expected a label of 'hand_bones', found 'finger-20'" in str(error.value)
    assert str(error.value).startswith(
        f"{tree.root}: found 15 problems; --broken skip goes on without 12 images\n"
    )


def test_problems_name_the_image_and_its_patient(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    tree.hand("ID001/label", ("finger-20", A), ("Ulna", A))
    tree.hand("ID002/header", ("Ulna", A))
    (tree.root / "train/DCM/ID002/header.png").write_bytes(b"not an image")
    tree.image("ID003/alone")
    tree.annotate("ID004/orphan", ("Ulna", A))
    samples, problems = converters.scan(tree.root, labels=labels)
    assert [(s.group, len(s.instances)) for s in samples] == [
        ("ID001", 1),
        ("ID001", 1),
        ("ID003", 0),
    ]
    assert sorted((p.key, p.group) for p in problems) == [
        ("train/DCM/ID001/label", "ID001"),
        ("train/DCM/ID002/header", "ID002"),
        ("train/DCM/ID003/alone", "ID003"),
        ("train/DCM/ID004/orphan", "ID004"),
    ]


def test_files_at_another_depth_are_not_passed_over(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    tree.image("b")
    tree.image("ID001/old/c")
    with pytest.raises(DataError) as error:
        converters.read(tree.root, labels=labels)
    assert error.value.problems == (
        "train/DCM/ID001/old/c.png: expected it at train/DCM/GROUP/c.png",
        "train/DCM/b.png: expected it at train/DCM/GROUP/b.png",
    )


def test_message_stops_after_twenty_problems(tree, labels):
    for i in range(25):
        tree.image(f"ID001/image{i:02d}")
    with pytest.raises(DataError) as error:
        converters.read(tree.root, labels=labels)
    assert len(error.value.problems) == 25
    assert str(error.value).splitlines()[-1] == "  and 5 more"
    assert len(str(error.value).splitlines()) == 22


# --- writing


def write(samples, out, labels):
    return converters.write(samples, out, format="handbone", labels=labels)


def files(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def annotations(root, place):
    return json.loads((root / f"{place}.json").read_text(encoding="utf-8"))["annotations"]


def test_a_tree_comes_back_file_by_file(tree, labels, tmp_path):
    tree.hand("ID001/image_1_R.v2", ("Ulna", A), ("Radius", B))
    tree.image("ID040/b", subset="test")
    tree.annotate("ID040/b", ("Ulna", B), folder="truth")
    tree.image("ID040/c", subset="test")
    samples = converters.read(tree.root, subset="all", labels=labels)
    write(samples, tmp_path / "out", labels)
    added = ["images.json", "provenance.json"]
    assert files(tmp_path / "out") == sorted([*files(tree.root), *added])
    again = converters.read(tmp_path / "out", subset="all", labels=labels)
    assert [replace(s, image=None) for s in again] == [replace(s, image=None) for s in samples]
    (tmp_path / "out" / "images.json").unlink()
    again = converters.read(tmp_path / "out", subset="all", labels=labels)
    assert [replace(s, image=None) for s in again] == [replace(s, image=None) for s in samples]


def test_other_keys_get_a_place_and_come_back(draw, labels, tmp_path):
    one = draw("plain")
    keys = {
        "images/train/x_1": ("", "train/DCM/unknown/x_1"),
        "b/x_1": ("", "train/DCM/unknown/x_1-2"),
        "c/X_1": ("", "train/DCM/unknown/X_1-3"),
        "scan": ("clinic A/7", "train/DCM/clinic_A_7/scan"),
        "test/scan": ("..", "test/DCM/unknown/scan"),
        "test/DCM/ID040/.hidden": ("ID040", "test/DCM/ID040/hidden"),
        "train/DCM/ID001/image1": ("ID009", "train/DCM/ID001/image1"),
    }
    samples = [replace(one, key=key, group=group) for key, (group, _) in keys.items()]
    assert places(samples) == [place for _, place in keys.values()]
    write(samples, tmp_path / "out", labels)
    for _, place in keys.values():
        assert (tmp_path / "out" / f"{place}.png").is_file()
    again = converters.read(tmp_path / "out", subset="all", labels=labels)
    assert {s.key: s.group for s in again} == {key: group for key, (group, _) in keys.items()}


def test_a_place_that_a_key_has_is_not_taken(draw, labels, tmp_path):
    one = draw("plain")
    samples = [replace(one, key=key, group="ID001") for key in ("x", "train/DCM/ID001/x")]
    assert places(samples) == ["train/DCM/ID001/x-2", "train/DCM/ID001/x"]
    write(samples, tmp_path / "out", labels)
    again = converters.read(tmp_path / "out", labels=labels)
    assert [sample.key for sample in again] == ["train/DCM/ID001/x", "x"]


def test_coordinates_come_back_to_the_last_digit(draw, labels, tmp_path):
    ring = [(1 / 3, 2.0000000001), (30.1, 7), (11, 1e-9)]
    exact = (Instance("Ulna", MultiPolygon([Polygon(ring), Polygon(B)])),)
    write([replace(draw("plain"), instances=exact)], tmp_path / "out", labels)
    (again,) = converters.read(tmp_path / "out", labels=labels)
    assert again.instances == exact
    written = annotations(tmp_path / "out", "train/outputs_json/ID001/image1661130828152")
    assert [a["points"] for a in written] == [[list(p) for p in ring], [list(p) for p in B]]
    assert [(a["label"], a["type"]) for a in written] == [("Ulna", "poly_seg")] * 2
    assert all(isinstance(x, int) for point in written[1]["points"] for x in point)


@pytest.mark.parametrize("kind", ["hole", "two holes", "island in a hole"])
def test_holes_become_rings_that_cost_no_pixel(kind, draw, labels, tmp_path):
    sample = draw(kind)
    assert not write([sample], tmp_path / "out", labels)
    (again,) = converters.read(tmp_path / "out", labels=labels)
    assert not any(part.interiors for part in again.instances[0].parts)
    before, after = (rasterize_labels(s.instances, (48, 48)) for s in (sample, again))
    np.testing.assert_array_equal(before["Radius"].full((48, 48)), after["Radius"].full((48, 48)))


def test_objects_of_a_label_stay_apart(draw, labels, tmp_path):
    two = (Instance("Ulna", MultiPolygon([Polygon(A), Polygon(B)])), Instance("Ulna", Polygon(A)))
    write([replace(draw("plain"), instances=two)], tmp_path / "out", labels)
    assert converters.read(tmp_path / "out", labels=labels)[0].instances == two


def test_images_that_were_added_by_hand_are_read(tree, labels, tmp_path):
    tree.hand("ID001/a", ("Ulna", A))
    write(converters.read(tree.root, labels=labels), tmp_path / "out", labels)
    replace(tree, root=tmp_path / "out").hand("ID002/b", ("Radius", B))
    again = converters.read(tmp_path / "out", labels=labels)
    assert [(s.key, s.group) for s in again] == [
        ("train/DCM/ID001/a", "ID001"),
        ("train/DCM/ID002/b", "ID002"),
    ]


def test_what_the_table_and_the_index_know_is_joined(draw, labels, tmp_path):
    write([replace(draw("plain"), attributes={"note": "ring"})], tmp_path / "out", labels)
    write_workbook(tmp_path / "out" / "meta_data.xlsx", KOREAN, (1, 42, "남", None, None, "?"))
    (again,) = converters.read(tmp_path / "out", labels=labels)
    assert again.attributes == {"age": 42.0, "sex": "M", "note": "ring"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: [1], "images.json: expected places with their keys, found [1]"),
        (lambda index: {"train/DCM/ID001/a": 7}, "'train/DCM/ID001/a': expected key, group"),
        (lambda index: {p: {**r, "key": "x"} for p, r in index.items()}, "expected another key"),
        (
            lambda index: {p: {**r, "key": "../" + r["key"]} for p, r in index.items()},
            "expected a relative path, found '../train/DCM/ID001/a'",
        ),
        (
            lambda index: {p: {**r, "size_hw": [60, 40]} for p, r in index.items()},
            "train/DCM/ID001/a.png: expected [60, 40] as in images.json, found [40, 60]",
        ),
        (
            lambda index: {
                p: {**r, "frame": {"box_xywh": [0, 0, 9, 9], "full_hw": [5, 5]}}
                for p, r in index.items()
            },
            "'train/DCM/ID001/a': frame: expected a box inside (5, 5)",
        ),
    ],
)
def test_an_index_that_is_wrong(tree, labels, tmp_path, change, message):
    tree.hand("ID001/a", ("Ulna", A))
    tree.hand("ID001/b", ("Ulna", A))
    write(converters.read(tree.root, labels=labels), tmp_path / "out", labels)
    path = tmp_path / "out" / "images.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError) as error:
        converters.read(tmp_path / "out", labels=labels)
    assert message in str(error.value)


# --- meta_data.xlsx


def write_workbook(path, *rows):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


KOREAN = ("ID", "나이", "성별", "체중(몸무게)", "키(신장)", None)


@pytest.mark.slow
def test_patients_with_the_traps_of_the_real_file(tmp_path):
    path = tmp_path / "meta_data.xlsx"
    write_workbook(
        path,
        KOREAN,
        (1, 42, "_x0008_남", 70.5, 172, None),
        (2.0, "n/a", "여", None, "160", "네일아트 "),
        ("ID040", 30, "F", 51, 158, None),
        (None, None, None, None, None, "a note without a patient"),
    )
    assert read_patients(path) == {
        "ID001": {"age": 42.0, "sex": "M", "weight": 70.5, "height": 172.0},
        "ID002": {"sex": "F", "height": 160.0, "note": "네일아트"},
        "ID040": {"age": 30.0, "sex": "F", "weight": 51.0, "height": 158.0},
    }


def test_english_headings_in_another_order(tmp_path):
    path = tmp_path / "meta_data.xlsx"
    write_workbook(path, ("Height", "Sex", "Id", "Unnamed: 5"), (180, "m", 7, "ring"))
    assert read_patients(path) == {"ID007": {"height": 180.0, "sex": "M", "note": "ring"}}


def test_attributes_reach_both_hands(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    tree.hand("ID001/b", ("Ulna", A))
    tree.hand("ID002/a", ("Ulna", A))
    write_workbook(tree.root / "meta_data.xlsx", KOREAN, (1, 42, "남", 70, 172, None))
    ages = [s.attributes.get("age") for s in converters.read(tree.root, labels=labels)]
    assert ages == [42.0, 42.0, None]


def test_rows_of_a_patient_that_differ(tree, labels):
    tree.hand("ID001/a", ("Ulna", A))
    row = (1, 42, "남", 70, 172, None)
    write_workbook(tree.root / "meta_data.xlsx", KOREAN, row, row)
    assert converters.read(tree.root, labels=labels)[0].attributes["age"] == 42
    write_workbook(tree.root / "meta_data.xlsx", KOREAN, row, (1, 43, "남", 70, 172, None))
    with pytest.raises(DataError, match="expected one row for ID001, found two that differ"):
        converters.read(tree.root, labels=labels)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", "no ID"])
def test_workbook_that_is_none_is_a_problem(tree, labels, content):
    tree.hand("ID001/a", ("Ulna", A))
    path = tree.root / "meta_data.xlsx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_workbook(path, ("person", "age"), (1, 2))
    with pytest.raises(DataError, match=r"meta_data\.xlsx: expected a (spreadsheet|column 'ID')"):
        converters.read(tree.root, labels=labels)


def test_a_workbook_that_would_fill_the_memory(tree, labels, monkeypatch):
    tree.hand("ID001/a", ("Ulna", A))
    book = Workbook()
    book.active.append(("ID", "age"))
    book.save(tree.root / "meta_data.xlsx")
    monkeypatch.setattr("converters.formats.handbone_patients.LARGEST_TABLE", 1000)
    with pytest.raises(DataError, match=r"meta_data\.xlsx: expected a table of at most 1000 bytes"):
        converters.read(tree.root, labels=labels)
