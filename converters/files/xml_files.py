"""XML files: one reader, which expands no entities and opens no other file."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat


def read_xml(path: Path) -> Element:
    """Read an XML file, whoever wrote it.

    A document type is refused: only there can entities be defined, which may expand to gigabytes or
    name other files.

    Raises:
        ValueError: no such file, none that holds XML, or one with a document type; the message does
            not name the file.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except OSError as error:
        raise ValueError(f"expected an XML file, found: {error.strerror}") from None
    except expat.ExpatError as error:
        raise ValueError(f"expected XML, found a broken file ({error})") from None
    except LookupError as error:
        raise ValueError(f"expected XML in UTF-8, found: {error}") from None


def _refuse(name: str, *_: object) -> NoReturn:
    raise ValueError(f"expected XML without a document type, found <!DOCTYPE {name:.20}: delete it")
