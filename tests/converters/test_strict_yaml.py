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


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_that_names_it(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected YAML, found: ") as error:
        read_yaml(path, "a config")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_what_looks_like_a_date_stays_a_text(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 2026-11-27\nb: 2026-11-27 10:00:00")
    expected = {"a": "2026-11-27", "b": "2026-11-27 10:00:00"}
    assert read_mapping(tmp_path / "a.yaml", "a config") == expected


@pytest.mark.parametrize("text", ["", "- 1", "1"])
def test_a_mapping_is_wanted(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match="expected a config, a mapping of keys"):
        read_mapping(tmp_path / "a.yaml", "a config")
