"""A list that stays in its file is the list that was read whole, whatever surrounds it."""

import json
import random
import tracemalloc
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import converters.files.json_lists as json_lists
from converters.files.json_files import load_json
from converters.files.json_lists import scan_list

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda own: st.lists(own, max_size=4) | st.dictionaries(st.text(max_size=3), own, max_size=3),
    max_leaves=12,
)


NUMBERS = st.integers() | st.floats() | st.integers(-(10**30), 10**30)
FLAT = st.dictionaries(
    st.sampled_from(["id", "points", "name", "a:b", '"', "\u00e4"]),
    NUMBERS | st.text(max_size=4) | st.lists(st.lists(NUMBERS, max_size=5), max_size=2),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "a.json"


@settings(max_examples=400, deadline=None)
@given(
    content=st.dictionaries(st.sampled_from(["a", "\u00e4", "list", ""]), ANY),
    entries=st.lists(ANY, max_size=9) | st.lists(FLAT, max_size=9),
    block=st.sampled_from([7, 60, 300, 1 << 22]),
    indent=st.sampled_from([None, 1, "\t"]),
    is_ascii=st.booleans(),
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n "]),
)
def test_the_same_as_reading_all(file, content, entries, block, indent, is_ascii, start):
    content["list"] = entries
    text = json.dumps(content, indent=indent, ensure_ascii=is_ascii)
    file.write_bytes(start + text.encode("utf-8", errors="replace") + b"\n")
    content = load_json(file)
    seen = []

    def look(entry):
        seen.append({**entry} if isinstance(entry, Mapping) else entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_BLOCK", block)
        found, kept = scan_list(file, "list", look)
    assert repr(found) == repr({**content, "list": []})
    # By what is written: NaN is not equal to itself, and 1 and 1.0 are.
    assert repr(kept.read(range(len(kept)))) == repr(seen) == repr(content["list"])
    assert len(kept) == len(entries)
    places = random.Random(0).choices(range(len(entries)), k=5) if entries else []
    assert repr(kept.read(places)) == repr([seen[place] for place in places])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"list": [1, 2',
        b'{"list": [1, 2}',
        b'{"list": [1 2]}',
        b'{"list": [1, 2,]}',
        b'{"list": [1], "list": [2]}',
        b'{"list": [{"a": 1, "a": 2}]}',
        b'{"list": [{"a": 1, "a": 2}, {"a": 3}, {"a": 4}]}',
        b'{"list": [{"a": {"b": 1, "b": 2}}, {"a": 3}]}',
        b'{"list": [{"a": 1}, {"a": 2}, {"a": 3},]}',
        b'{"list": [{"a": 1}, {"a" 2}, {"a": 3}]}',
        b'{"list": [{"a": 1},, {"a": 3}]}',
        b'{"list": [1]} x',
        b'{"list": [1], 2: 3}',
        b'{"list" [1]}',
        b'{"list": ["\xff"]}',
        rb'{"list": ["\ud83d"]}',
        b'{"list": [' + b"9" * 5000 + b"]}",
        b'{"list": ' + b"[" * 100_000,
        '{"list": [1]}'.encode("utf-16"),
    ],
)
def test_a_broken_file_is_what_it_is_to_the_other_reader(content, file):
    file.write_bytes(content)
    with pytest.raises(ValueError, match="expected") as whole:
        load_json(file)
    with pytest.raises(ValueError, match="expected") as scanned:
        scan_list(file, "list", lambda entry: None)
    assert str(scanned.value) == str(whole.value)


@pytest.mark.parametrize("content", ["[1, 2]", '{"other": [1]}', '{"list": {"a": 1}}', "3", "{}"])
def test_a_file_without_the_list_is_returned_as_it_is(content, file):
    file.write_text(content)
    found, kept = scan_list(file, "list", lambda entry: pytest.fail("no entries"))
    assert found == json.loads(content)
    assert len(kept) == 0


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="expected a JSON file, found: No such file"):
        scan_list(tmp_path / "a.json", "list", lambda entry: None)


def test_a_file_that_is_changed_meanwhile_is_not_believed(file):
    file.write_text('{"list": [1, 2]}')
    _, kept = scan_list(file, "list", lambda entry: None)
    file.write_text('{"list": [1, 20]}')
    with pytest.raises(ValueError, match="expected the file as it was"):
        kept.read([1])
    file.unlink()
    with pytest.raises(ValueError, match="expected the file as it was"):
        kept.read([1])


def test_what_stays_in_memory_are_places(file, monkeypatch):
    monkeypatch.setattr(json_lists, "_BLOCK", 1 << 16)
    entry = {"points": [number + 0.5 for number in range(200)]}
    file.write_text(json.dumps({"list": [entry] * 2000}))
    tracemalloc.start()
    try:
        _, kept = scan_list(file, "list", lambda entry: None)
        assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 4
    finally:
        tracemalloc.stop()
    assert kept.read([1999]) == [entry]


@pytest.mark.parametrize("depth", [100, 300, 500, 700, 800, 900, 950, 990])
def test_deep_brackets_are_read_or_refused_in_one_line(file, depth):
    deep = "[" * depth + "]" * depth
    file.write_text(f'{{"list": [{{"a": 1, "b": {deep}}}, {{"a": 2}}, {{"a": {deep}}}]}}')
    said = "nested too deeply"
    try:
        _, kept = scan_list(file, "list", lambda entry: dict(entry))
        found = [len(entry) for entry in kept.read(range(len(kept)))]
    except ValueError as error:
        found, said = [2, 1, 1], str(error)
    assert found == [2, 1, 1]
    assert "nested too deeply" in said
