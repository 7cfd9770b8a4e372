"""Corrections of annotations, applied when a data set is read; its files stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.types import LabelSpace, Sample


@dataclass(frozen=True)
class Edits:
    """What is wrong in a data set, and what it should be."""

    excluded: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path) -> Edits:
        """Read corrections from a YAML file."""
        raise NotImplementedError(path)

    def apply(self, samples: Sequence[Sample], *, subset: str, labels: LabelSpace) -> list[Sample]:
        """Return the corrected samples."""
        return [s for s in samples if s.key not in self.excluded and s.group not in self.excluded]
