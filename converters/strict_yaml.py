"""YAML files that people write: the one reader, strict and with one line for what is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from converters.errors import one_line

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class StrictLoader(yaml.SafeLoader):
    """A safe loader of plain values.

    A key that comes twice in one mapping is an error, and so is a tag for anything but texts,
    numbers, lists and mappings. What looks like a date stays the text that it is.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (as the base class has it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_scalar(self, node: Any) -> Any:
        """Return a text; raises a YAML error where it holds half a character."""
        value = super().construct_scalar(node)
        if (
            isinstance(value, str)
            and not value.isascii()
            and any("\ud800" <= letter <= "\udfff" for letter in value)
        ):
            problem = "half a character (a lone surrogate)"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises a YAML error where a key comes twice."""
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key.value for key, _ in pairs if isinstance(key.value, str)]
        if len(set(keys)) < len(keys):
            twice = min(key for key, times in Counter(keys).items() if times > 1)
            problem = f"'{twice}' comes twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def _refuse(loader: StrictLoader, node: Any) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {node.tag} is not read", node.start_mark
    )


for _tag in ("timestamp", "binary", "omap", "pairs", "set"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping of plain values. Nothing in it is run.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ValueError: no such file, not YAML in UTF-8, a key that comes twice, or no mapping.
    """
    record = read_yaml(path, what)
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected {what}, a mapping of keys, found {record!r:.80}")
    return record


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file of plain values; an empty one holds None. Nothing in it is run.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ValueError: no such file, not YAML in UTF-8, or a key that comes twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        # PyYAML takes zeros, as UTF-16 has them, for an error of its own that names no remedy.
        if "\0" in text:
            raise ValueError("zeros, as UTF-16 has them: save it as UTF-8")
        return parse_yaml(text)
    except OSError as error:
        raise ValueError(f"{path}: expected {what}, found: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: expected YAML, found: {one_line(error)}") from None


def parse_yaml(text: str) -> Any:
    """Return the plain values that a YAML text holds; None where it is empty.

    Raises:
        ValueError: not YAML, or a key that comes twice.
    """
    try:
        # A subclass of the safe loader: it builds nothing but plain values.
        return yaml.load(text, Loader=StrictLoader)
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None
    # Which of them a value raises that is not what its tag says depends on the tag.
    except (ValueError, AttributeError, LookupError, TypeError, yaml.YAMLError) as error:
        raise ValueError(one_line(error)) from None


def parse_nodes(text: str) -> Any:
    """Return PyYAML's nodes of a text, which know where they stand; None where it is empty.

    Raises:
        ValueError: not YAML.
    """
    try:
        return yaml.compose(text, Loader=StrictLoader)
    except (RecursionError, ValueError, yaml.YAMLError) as error:
        raise ValueError(one_line(error)) from None
