"""Whose an image is: by folder, name, table or field; an image of nobody is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from converters.splits.grouping import (
    group_by,
    group_versions,
    known_groups,
    likely_columns,
    with_groups,
)
from converters.tables.sample_tables import tables_beside
from converters.types import Sample

KEYS = ("a/P1_left", "a/P1_right", "b/P2_left")


@pytest.fixture
def samples():
    return [
        Sample(key, Path(f"{key}.png"), (8, 8), attributes={"person": key[2:4]}) for key in KEYS
    ]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("folder", ["a", "a", "b"]),
        ("person", ["P1", "P1", "P2"]),
        (r"P\d", ["P1", "P1", "P2"]),
        (r"/(P\d)_", ["P1", "P1", "P2"]),
    ],
)
def test_groups(by, groups, samples):
    assert [s.group for s in group_by(samples, by)] == groups


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize(
    "name",
    [
        *("P1_left.png", "P1_left", "a/P1_left", "images/a/P1_left.png", r"C:\x\a\P1_left.dcm"),
        "/home/joe/a/P1_left",
    ],
)
def test_a_table(mark, name, samples, tmp_path):
    table = tmp_path / "patients.csv"
    rows = [("note", "image", "who"), ("x", name, "7"), ("x", "P1_right.png", "7")]
    rows.append(("x", "P2_left.png", "9"))
    table.write_text("\n".join(mark.join(row) for row in rows))
    assert [s.group for s in group_by(samples, f"{table}:who")] == ["7", "7", "9"]


def test_numbers_of_patients_are_no_names_of_images(tmp_path):
    samples = [Sample(f"{n}", Path(f"{n}.png"), (8, 8)) for n in range(1, 9)]
    table = tmp_path / "patients.csv"
    for name in ("{}.png", "{}"):
        rows = [f"{(n - 1) // 3 + 1},{name.format(n)}" for n in range(1, 61)]
        for count in (60, 8):
            for columns in ("patient,image", "who,file"):
                table.write_text("\n".join([columns, *rows[:count]]))
                found = group_by(samples, f"{table}:{columns.split(',')[0]}")
                assert [s.group for s in found] == list("11122233")
    # A few images that the table lacks are told; no other column is asked for them.
    table.write_text("patient,image\n" + "\n".join(f"{n % 9 + 1},{n}.png" for n in range(1, 7)))
    with pytest.raises(ValueError, match="found none of 2: 7, 8"):
        group_by(samples, f"{table}:patient")


def test_patients_that_are_known_are_no_images_of_that_number(tmp_path):
    samples = [Sample(f"{n}", Path(f"{n}.png"), (8, 8), group=f"{9 - n}") for n in range(1, 9)]
    table = tmp_path / "patients.csv"
    table.write_text("patient,site\n" + "\n".join(f"{n},site-{n}" for n in range(1, 9)))
    found = group_by(samples, f"{table}:site")
    assert [s.group for s in found] == [f"site-{9 - n}" for n in range(1, 9)]


def test_the_longest_end_of_a_path_counts(tmp_path):
    samples = [Sample(f"{who}/a", tmp_path / f"up/{who}/a.png", (8, 8)) for who in "pq"]
    table = tmp_path / "t.csv"
    table.write_text("file,who\n./q/a.png,2\na.png,1\n,3\n,4\n")
    assert [s.group for s in group_by(samples, f"{table}:who")] == ["1", "2"]


def test_rows_of_other_folders_are_of_no_image_here(tmp_path):
    samples = [Sample(f"A/{n}", tmp_path / f"A/{n}.png", (8, 8)) for n in range(1, 7)]
    table = tmp_path / "t.csv"
    rows = [f"{'A' if n < 5 else 'B'}/{n}.png,{n % 2}" for n in range(1, 7)]
    table.write_text("\n".join(["file,who", *rows]))
    with pytest.raises(ValueError, match="found none of 2: A/5, A/6"):
        group_by(samples, f"{table}:who")


def test_a_cell_may_have_lines_of_its_own(samples, tmp_path):
    table = tmp_path / "t.csv"
    rows = [f'"one\ntwo, three",{s.file_name},{s.key[2:4]}' for s in samples]
    table.write_text("\n".join(['"a,b,c,d";', *rows]).replace('"a,b,c,d";', "note,image,who"))
    assert [s.group for s in group_by(samples, f"{table}:who")] == ["P1", "P1", "P2"]
    table.write_text('"what, they, said, of, it";image;who\nx;P1_left;7\n')
    assert group_by(samples[:1], f"{table}:who")[0].group == "7"


def test_a_table_of_patients(samples, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("patient,site\nP2,north\nP1,south\nP9,west\n")
    known = group_by(samples, r"P\d")
    assert [s.group for s in group_by(known, f"{table}:site")] == ["south", "south", "north"]
    # Names of images go first: two of a patient's may lie in groups of their own.
    table.write_text("patient,image,side\nP1,P1_left,l\nP1,P1_right,r\nP2,P2_left,l\n")
    assert [s.group for s in group_by(known, f"{table}:side")] == ["l", "r", "l"]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (
            "image,who\nP1_left,7\n",
            "who",
            "a group of each image, found none of 2: a/P1_r",
        ),
        (
            "image,who\nP1_left,7\n",
            "patient",
            "expected a column 'patient' in the first line, found image, who",
        ),
        (
            "file,who\nx,7\n",
            "who",
            "column with the images' names, such as 'P1_left.png'",
        ),
        (
            "image,who\nP1_left,7\nP1_left,8\n",
            "who",
            "one 'who' of 'P1_left', found '7' and",
        ),
        ("", "who", "expected a column 'who' in the first line, found an empty line"),
        ("image,who,who\nP1_left,7,8\n", "who", "expected a column 'who' .*found 2 of that name"),
    ],
)
def test_tables_that_do_not_say_it(text, column, message, samples, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        group_by(samples, f"{tmp_path / 't.csv'}:{column}")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("nobody", "expected a group of each image, found none of 3"),
        ("(", "expected folder, FILE.csv:COLUMN, dicom:KEYWORD, an attribute or a regular"),
        ("gone.csv:who", "gone.csv: expected a table"),
    ],
)
def test_rules_that_are_none(by, message, samples):
    with pytest.raises(ValueError, match=message):
        group_by(samples, by)


def test_what_there_is_to_group_by_is_named(samples, tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("image;Patient\nx;1\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "submission.csv").write_text("image_name,class,rle\nx.png,Ulna,1 2\n")
    tables = [table, *(tmp_path / f"{name}.csv" for name in ("binary", "gone", "submission"))]
    with pytest.raises(ValueError, match="found none of 3") as caught:
        group_by(samples, "nothing", tables)
    assert str(caught.value).endswith(
        f"there are the attributes person and the columns {table}:image, {table}:Patient"
    )
    assert likely_columns(tables) == ["people.csv:Patient"]
    for word, meant in (("persn", "person"), ("patient", "people.csv:Patient")):
        with pytest.raises(ValueError, match=rf"\(did you mean '{meant}'\?\)$"):
            group_by(samples, word, tables)


def test_versions_of_an_image_are_a_group():
    keys = ["train/a_jpg.rf.0f1e", "train/a_jpg.rf.9Zb2", "valid/b_PNG.rf.77", "train/c", "train/d"]
    samples = [Sample(key, Path(f"{key}.jpg"), (8, 8), ()) for key in keys]
    samples[-1] = replace(samples[-1], key="x/a_jpg.rf.11", group="ID1")
    found = group_versions(samples)
    assert [sample.group for sample in found] == ["a_jpg", "a_jpg", "", "", "ID1"]


def test_what_is_remembered_does_not_replace_what_is_known(samples):
    groups = {"a/P1_left": "7", "a/P1_right": "a/P1_right"}
    assert known_groups(groups) == {"a/P1_left": "7"}
    found = with_groups(samples, groups)
    assert [s.group for s in found] == ["7", "", ""]
    assert [s.group for s in with_groups(found, {"a/P1_left": "8"})] == ["7", "", ""]


def test_a_table_beside_the_data_needs_no_path(samples, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    table = tmp_path / "data" / "patients.csv"
    rows = ["image,who", *(f"{sample.file_name},{i // 2}" for i, sample in enumerate(samples))]
    table.write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    found = group_by(samples, "patients.csv:who", [table])
    assert [sample.group for sample in found] == ["0", "0", "1"]
    with pytest.raises(ValueError, match=r"other\.csv: expected a table"):
        group_by(samples, "other.csv:who", [table])


def test_a_table_among_many_is_found(samples, tmp_path, monkeypatch):
    """Submissions pile up beside the data."""
    for name in "abcdefgh":
        (tmp_path / f"{name}.csv").write_text("image_name,class,rle\n")
    (tmp_path / "patients.csv").write_text(
        "image,who\n" + "\n".join(f"{sample.file_name},1" for sample in samples)
    )
    monkeypatch.chdir(tmp_path)
    found = group_by(samples, "patients.csv:who", tables_beside(tmp_path / "x"))
    assert {sample.group for sample in found} == {"1"}
    with pytest.raises(ValueError, match=r"a column of the table is missing$"):
        group_by(samples, "patients.csv", tables_beside(tmp_path / "x"))
