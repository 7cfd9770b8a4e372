"""Which images of a data set are to be answered: this decides which steps there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.source import DataSource

SPLIT = "split.json"


@dataclass(frozen=True)
class DataFacts:
    """What of a data set decides which steps there are.

    Attributes:
        has_test: whether it has images to be answered.
        is_annotated: whether the truth of those is known.
        format: its format.
        test_subset: which part of a test folder of its own is meant.
        own_folds: how many folds it has itself, where its own are kept.
    """

    has_test: bool
    is_annotated: bool
    format: str = "handbone"
    test_subset: str = "test"
    own_folds: int = 1


def look_at_test(data: DataSource, test: Path | None) -> tuple[DataFacts, int]:
    """Return which images are to be answered, and how many.

    Args:
        data: the data set.
        test: a folder of its own; None takes the data set's test part.
    """
    source = data if test is None else DataSource.open(test)
    part = "test" if test is None or source.format == "images" else "all"
    samples = data.scan_test(data.classes) if test is None else source.scan(data.classes, part)[0]
    is_annotated = any(sample.instances for sample in samples)
    return DataFacts(bool(samples), is_annotated, data.format, part), len(samples)
