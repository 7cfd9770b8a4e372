"""One reader of YAML: plain values, or one line that says what is wrong with the file."""

import pytest

from converters.strict_yaml import read_mapping, read_yaml

BROKEN = {
    "no YAML": "a: [1",
    "a key twice": "a: 1\na: 2",
    "a date that is none": 'a: !!timestamp "x"',
    "bytes": 'a: !!binary "eA=="',
    "code": "a: !!python/object/apply:os.system [ls]",
    "too deep": "[" * 5000,
    "an unknown name": "a: *b",
    "a control character": "a: \x01",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_that_names_it(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected YAML, found: ") as error:
        read_yaml(path, "a config")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-16", "byte 0xff at 0"), ("utf-16-le", "zeros"), ("latin-1", "byte 0xfc at 4")],
)
def test_a_file_in_another_encoding_says_what_to_do(encoding, found, tmp_path):
    path = tmp_path / "a.yaml"
    text = "a:  u\n" if encoding == "utf-16-le" else "a:  \u00fc\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=f"found: {found}.*: save it as UTF-8"):
        read_yaml(path, "a config")


def test_what_looks_like_a_date_stays_a_text(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 2026-11-27\nb: 2026-11-27 10:00:00")
    expected = {"a": "2026-11-27", "b": "2026-11-27 10:00:00"}
    assert read_mapping(tmp_path / "a.yaml", "a config") == expected


@pytest.mark.parametrize("text", ["", "- 1", "1"])
def test_a_mapping_is_wanted(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match="expected a config, a mapping of keys"):
        read_mapping(tmp_path / "a.yaml", "a config")
