"""What corrections of annotations are, whatever they are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from converters.errors import Problem
from converters.types import LabelSpace, Sample


class Corrections(Protocol):
    """Corrects what was read of a data set; `converters.edits.edits.Edits` are such."""

    @property
    def excluded(self) -> frozenset[str]:
        """Keys and groups that are left out; what is wrong with them does not matter."""

    def apply(
        self,
        samples: Sequence[Sample],
        *,
        subset: str,
        labels: LabelSpace,
        problems: Collection[Problem] = (),
    ) -> list[Sample]:
        """Return the corrected samples; see `converters.edits.edits.Edits.apply`."""
