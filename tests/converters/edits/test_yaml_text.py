"""Entries put into people's files, and taken out again: every comment stays."""

import pytest
import yaml

from converters.edits.edits import Edits
from converters.edits.recording import add_entry, remove_entry

BLOCK = """\
# my corrections
version: 1

# these rings are jewellery
drop:  # checked by E.
  # first one
  - {key: train/a, label: Ulna}  # a bracelet
  # second one: "- not an entry"
  - key: train/b
    label: Radius
    why: >
      two lines
      of text

  # the end of drop

# people
regroup:
- {key: c, group: H}
# the very end
"""
FLOW = """\
version: 1
drop: [{key: train/a, label: Ulna},  # a bracelet
       {key: train/b, label: Radius}, # b
      ]
exclude_images: []
regroup:   # nothing yet
"""
NEW = {"key": "train/z", "label": "Ulna", "part": 2, "why": "it's: <odd> # no comment, ü"}
RING = {"key": "train/y", "label": "Ulna", "polygons": [[[0, 0], [9.5, 0], [9, 9]]]}


def comments(text):
    return [part.strip() for line in text.splitlines() for part in [line.partition("#")[2]] if part]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "edits.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("text", [BLOCK, FLOW, BLOCK.rstrip("\n"), "version: 1\n"])
@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("drop", NEW),
        ("replace", RING),
        ("regroup", {"key": "n", "group": "G"}),
        ("exclude_images", {"key": "e"}),
    ],
)
def test_an_entry_is_added_and_taken_back_to_the_letter(written, text, section, entry):
    path = written(text)
    before = yaml.safe_load(text)
    add_entry(path, section, entry)
    now = path.read_text(encoding="utf-8")
    assert yaml.safe_load(now) == {**before, section: [*(before.get(section) or []), entry]}
    kept = comments(now.replace("# no comment", ""))
    assert kept == comments(text)
    remove_entry(path, section, len(before.get(section) or []))
    after = path.read_text(encoding="utf-8")
    assert comments(after) == comments(text)
    if before.get(section) or section not in before:
        assert after.rstrip("\n") == text.rstrip("\n")
    else:
        # A section without entries goes.
        assert yaml.safe_load(after) == {k: v for k, v in before.items() if k != section}


@pytest.mark.parametrize("text", [BLOCK, FLOW])
@pytest.mark.parametrize("order", [(0, 0), (1, 0)])
def test_the_users_own_entries_are_taken_out_one_by_one(written, text, order):
    path = written(text)
    entries = yaml.safe_load(text)["drop"]
    for number in order:
        remove_entry(path, "drop", number)
        entries.pop(number)
        assert (yaml.safe_load(path.read_text()).get("drop") or []) == entries
    left = comments(path.read_text())
    if text is BLOCK:
        assert left == [c for c in comments(BLOCK) if c != "a bracelet"]


def test_many_entries_come_and_go_in_any_order(written):
    path = written(BLOCK)
    for number in range(6):
        add_entry(path, "drop", {"key": f"k{number}", "label": "Ulna"})
    for number in (7, 2, 4, 2, 3, 2):
        remove_entry(path, "drop", number)
    assert path.read_text() == BLOCK


@pytest.mark.parametrize(
    "text",
    [
        "# top\n{version: 1, drop: [{key: a, label: Ulna}]}\n",
        "# top\nversion: 1\ndrop:\n- &one {key: a, label: Ulna}\nrelabel: []\n",
        "# top\r\nversion: 1\r\ndrop:\r\n- {key: a, label: Ulna}\r\n",
        "# top\nversion: 1\ndrop:\n-\n  key: a\n  label: Ulna\n",
        "# top\nversion: 1\ndrop: null\n",
        "# top\n'version': 1\n\"drop\":\n    -   key: a\n        label: Ulna\n",
        "# top\nversion: 1\ndrop:\n- key: a\n  label: Ulna\n  why: |\n    one\n    two\n\n",
    ],
)
def test_files_of_other_styles_hold_what_they_should(written, text):
    path = written(text)
    before = Edits.load(path)
    add_entry(path, "drop", NEW)
    found = Edits.load(path)
    assert [e.key for e in found.entries] == [*(e.key for e in before.entries), "train/z"]
    assert found.entries[-1].why == NEW["why"]
    remove_entry(path, "drop", len(before.entries))
    assert Edits.load(path).digest == before.digest
    assert path.read_text().startswith("# top\n")
