"""YAML files that people write, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from converters.errors import one_line


class StrictLoader(yaml.SafeLoader):
    """A safe loader, to which a key that comes twice in one mapping is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises a YAML error where a key comes twice."""
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key.value for key, _ in pairs if isinstance(key.value, str)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            problem = f"'{twice[0]}' comes twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping of plain values. Nothing in it is run.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ValueError: no such file, not YAML in UTF-8, a key that comes twice, or no mapping.
    """
    try:
        # A subclass of the safe loader: it builds nothing but plain values.
        record = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except OSError as error:
        raise ValueError(f"{path}: expected {what}, found: {error.strerror}") from None
    # Which of them a value raises that is not what its tag says depends on the tag.
    except (
        *(RecursionError, ValueError, AttributeError, LookupError, TypeError),
        yaml.YAMLError,
    ) as error:
        found = one_line(error)
        raise ValueError(f"{path}: expected YAML, found: {found}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected {what}, a mapping of keys, found {record!r:.80}")
    return record
