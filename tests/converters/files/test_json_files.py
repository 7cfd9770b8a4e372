"""One reader of JSON: plain values, or one line that says what is wrong with the file."""

import pytest

from converters.files.json_files import read_json

BROKEN = {
    "nothing": b"",
    "blank": b" \n",
    "cut off": b'{"a": 1',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "no UTF-8": b'{"a": "\xff"}',
    "too deep": b"[" * 200_000,
    "a number without end": b"[" + b"9" * 5000 + b"]",
    "half a character": rb'{"a": ["\ud83d"]}',
    "half a character as a name": rb'{"\uDC00": 1}',
    "a name twice": b'{"a": 1, "a": 2}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_that_names_it(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a list: ") as error:
        read_json(path, "a list")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_no_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_json(tmp_path / "a.json", "a list")
    with pytest.raises(ValueError, match="directory"):
        read_json(tmp_path, "a list")


def test_a_character_of_two_halves_is_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(rb'["\ud83d\ude00"]')
    assert read_json(tmp_path / "a.json", "a list") == ["\U0001f600"]


def test_a_mark_of_byte_order_is_no_matter(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(tmp_path / "a.json", "a list") == {"a": [1]}


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    with pytest.raises(
        ValueError, match=r"a\.json: expected x: expected JSON, found a pointer of Git"
    ):
        read_json(path, "x")
