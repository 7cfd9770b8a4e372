"""JSON files of annotations, written as text that is the same every time."""

from __future__ import annotations

import json
from typing import Any


def dump_json(record: Any) -> str:
    """Return a record as JSON for people; what JSON does not know becomes text."""
    return json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
