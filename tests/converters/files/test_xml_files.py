"""One reader of XML: no entities, no other files, and one line for what is wrong."""

from __future__ import annotations

import pytest

from converters.files.xml_files import read_xml

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<a>&c;</a>"""
OUTSIDE = b"""<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>"""

BROKEN = {
    "nothing": (b"", "no element found"),
    "no XML": (b"{}", "broken file"),
    "cut off": (b"<a><b>", "no element found"),
    "an entity that is not known": (b"<a>&b;</a>", "undefined entity"),
    "no UTF-8": (b"<a>\xff</a>", "broken file"),
    "an encoding of its own": (b'<?xml version="1.0" encoding="klingon"?><a/>', "klingon"),
    "an attribute twice": (b'<a b="1" b="2"/>', "duplicate attribute"),
    "entities in entities": (BOMB, "without a document type, found <!DOCTYPE a: delete it"),
    "an entity from a file": (OUTSIDE, "without a document type, found <!DOCTYPE a: delete it"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line(content, message, tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_xml(path)
    assert str(error.value).startswith("expected XML")
    assert "\n" not in str(error.value)


def test_no_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_xml(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="directory"):
        read_xml(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_text_and_attributes_in_any_known_encoding(encoding, tmp_path):
    said = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{said}"?>\n<a b="ü &amp; &#228;"><c>Größe</c></a>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    found = read_xml(tmp_path / "a.xml")
    assert (found.tag, found.get("b"), found.findtext("c")) == ("a", "ü & ä", "Größe")


def test_many_elements_in_each_other(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<a>" * 100_000 + b"</a>" * 100_000)
    assert read_xml(tmp_path / "a.xml").tag == "a"
