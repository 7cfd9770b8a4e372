import pytest
import yaml

from converters import DataError
from converters.edits.edits import Edits
from converters.edits.recording import add_entry, load_or_empty, remove_entry

KEY = "train/a"
DROP = {"key": KEY, "label": "Ulna", "part": 1, "why": "a ring"}


def test_without_a_file_there_are_no_corrections(tmp_path):
    assert load_or_empty(tmp_path / "edits.yaml").entries == ()


def test_an_entry_is_added_and_taken_back(tmp_path):
    path = tmp_path / "edits.yaml"
    found = add_entry(path, "drop", DROP)
    assert Edits.load(path).entries == found.entries
    assert yaml.safe_load(path.read_text()) == {"version": 1, "drop": [DROP]}
    assert remove_entry(path, "drop", 0).entries == ()
    assert yaml.safe_load(path.read_text()) == {"version": 1}


def test_others_and_the_comments_at_the_top_stay(tmp_path):
    path = tmp_path / "edits.yaml"
    path.write_text(
        "# mine\n\n# and theirs\nversion: 1\nregroup: [{key: b, group: G}, {key: c, group: H}]\n"
        "replace: [{key: d, label: Ulna, polygons: [[[0, 0], [9, 0], [9, 9]]]}]\n"
    )
    before, text = Edits.load(path).entries, path.read_text()
    add_entry(path, "exclude_images", {"key": KEY})
    assert {e.section for e in Edits.load(path).entries} > {e.section for e in before}
    remove_entry(path, "exclude_images", 0)
    assert path.read_text() == text
    remove_entry(path, "regroup", 0)
    assert [e.key for e in Edits.load(path).entries if e.section == "regroup"] == ["c"]
    assert path.read_text().startswith("# mine\n\n# and theirs\nversion: 1\n")


@pytest.mark.parametrize(
    ("section", "entry", "expected"),
    [
        ("drop", {"key": KEY}, "expected 'label'"),
        ("drop", {"key": KEY, "label": "Ulna", "colour": "red"}, "found 'colour'"),
        ("paint", {"key": KEY}, "expected a section of"),
        ("relabel", {"key": KEY, "label": "Ulna", "to": "Radius"}, "is about the same"),
        ("exclude_images", {"key": KEY}, "its image is excluded"),
    ],
)
def test_what_does_not_fit_leaves_the_file_as_it_was(tmp_path, section, entry, expected):
    path = tmp_path / "edits.yaml"
    add_entry(path, "drop", DROP)
    before = path.read_bytes()
    with pytest.raises(DataError, match=expected):
        add_entry(path, section, entry)
    assert path.read_bytes() == before


def test_what_is_no_file_of_edits_is_not_touched(tmp_path):
    path = tmp_path / "notes.yaml"
    path.write_text("title: mine\n")
    with pytest.raises(DataError, match="version: expected 1"):
        add_entry(path, "drop", DROP)
    assert path.read_text() == "title: mine\n"


@pytest.mark.parametrize("number", [-1, 1])
def test_what_is_not_there_cannot_be_taken_back(tmp_path, number):
    path = tmp_path / "edits.yaml"
    add_entry(path, "drop", DROP)
    with pytest.raises(ValueError, match="expected an entry to take back"):
        remove_entry(path, "drop", number)
