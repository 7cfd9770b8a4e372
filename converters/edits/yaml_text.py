"""An entry put into the text of an edits file, or taken out of it, with all else as it stands.

People write comments between entries. A file is not written anew, but changed where the entry is:
after its section's last entry, or where it stood. What cannot be changed so, such as a file with
anchors, is None: then the caller writes it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from converters.strict_yaml import parse_nodes, parse_yaml

_INDENT = "  "


def add_to_text(text: str, section: str, entry: Mapping[str, Any]) -> str | None:
    """Return the text with an entry at the end of its section; None where that cannot be done."""
    record = parse_yaml(text)
    listed = record.get(section) or []
    wanted = {**record, section: [*listed, dict(entry)]}
    return _checked(_add(text, section, entry), wanted)


def remove_from_text(text: str, section: str, number: int) -> str | None:
    """Return the text without an entry, and without a section that has none left.

    A comment on the entry's own lines goes with it, all others stay. None where that cannot be
    done.
    """
    record = parse_yaml(text)
    left = [one for place, one in enumerate(record[section]) if place != number]
    wanted = {name: value for name, value in record.items() if name != section}
    return _checked(_remove(text, section, number), {**wanted, **({section: left} if left else {})})


def _checked(text: str | None, wanted: Mapping[str, Any]) -> str | None:
    try:
        return text if text is not None and parse_yaml(text) == wanted else None
    except ValueError:
        return None


def _section(text: str, section: str) -> tuple[Any, Any] | None:
    """The nodes of a section's name and of its entries; None where there is none."""
    root = parse_nodes(text)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    return next(((key, value) for key, value in root.value if key.value == section), None)


def _add(text: str, section: str, entry: Mapping[str, Any]) -> str | None:
    text = text if text.endswith("\n") else text + "\n"
    found = _section(text, section)
    if found is None:
        return f"{text}{section}:\n{_block(entry, '')}"
    _, value = found
    if isinstance(value, yaml.ScalarNode):
        # A section without entries: nothing, or null.
        start, end = value.start_mark.index, _line_end(text, value.end_mark.index)
        line = text[:start] + text[value.end_mark.index : end]
        return f"{line.rstrip(' ')}\n{_block(entry, _INDENT)}{text[end + 1 :]}"
    if value.flow_style:
        flow = _flow(entry)
        if not value.value:
            at = value.end_mark.index - 1
            return text[:at] + flow + text[at:]
        at = _end_of(text, value.value[-1])
        return f"{text[:at]}, {flow}{text[at:]}"
    at = _line_end(text, _end_of(text, value.value[-1])) + 1
    return text[:at] + _block(entry, " " * value.start_mark.column) + text[at:]


def _remove(text: str, section: str, number: int) -> str | None:
    found = _section(text, section)
    if found is None:
        return None
    key, value = found
    items = value.value
    if value.flow_style:
        if len(items) == 1:
            return _without(text, key.start_mark.index, value.end_mark.index)
        if number:
            start = _end_of(text, items[number - 1])
            return text[:start] + text[_end_of(text, items[number]) :]
        return text[: items[0].start_mark.index] + text[items[1].start_mark.index :]
    before = _end_of(text, items[number - 1]) if number else value.start_mark.index
    start = text.rfind("-", before, items[number].start_mark.index)
    if start < 0:
        return None
    end = _line_end(text, _end_of(text, items[number])) + 1
    shorter = text[: text.rfind("\n", 0, start) + 1] + text[end:]
    if len(items) > 1:
        return shorter
    return _without(shorter, key.start_mark.index, text.index(":", key.end_mark.index) + 1)


def _without(text: str, start: int, end: int) -> str:
    """Cut a piece out, and its line with it where nothing else stands there."""
    first, last = text.rfind("\n", 0, start) + 1, _line_end(text, end)
    rest = text[first:start] + text[end:last].lstrip()
    return text[:first] + (f"{rest}\n" if rest.strip() else "") + text[last + 1 :]


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _end_of(text: str, node: Any) -> int:
    """Where a node's own text ends; PyYAML lets that of a block reach to what comes next."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end_of(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return len(text[: max(end, node.start_mark.index)].rstrip("\n")) if end else end


def _block(entry: Mapping[str, Any], indent: str) -> str:
    text = yaml.safe_dump(
        [dict(entry)], sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))


def _flow(entry: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        dict(entry), sort_keys=False, allow_unicode=True, default_flow_style=True, width=1e9
    )
    return text.strip()
