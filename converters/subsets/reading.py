"""Reading a subset, where lists and tables beside a data set's files say what is of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.errors import DataError, Problems
from converters.subsets.assign import told_by_lists, with_parts
from converters.subsets.lists import find_test_lists
from converters.types import Sample

# Formats of others whose images may have a list of test images beside them that no file names.
_LISTED = frozenset({"coco", "labelme", "yolo", "cvat", "via", "label_studio"})
# Those of which tables tell what is to learn from, and what is held out.
_OF_PARTS = _LISTED | {"mask_folders", "voc"}


def read_parts(
    root: Path,
    format: str,
    subset: str,
    read_part: Callable[[str, Problems], list[Sample]],
    problems: Problems,
) -> list[Sample]:
    """Return the samples of a subset, with the parts that lists and tables beside them tell.

    Args:
        root: the data set's folder.
        format: of the data set; "" where one of its files is read alone, of which no list speaks.
        subset: `train`, `test` or `all`.
        read_part: reads a subset as the format itself tells them apart.
        problems: takes down what is wrong, and what has to be said.

    Raises:
        ValueError: as `read_part`.
    """
    lists = find_test_lists(root) if format in _OF_PARTS else []
    if lists and format in _LISTED:
        found = _by_lists(root, lists, subset, read_part, problems)
    else:
        found = read_part(subset, problems)
    return with_parts(root, lists, found)


def _by_lists(
    root: Path,
    lists: Sequence[Path],
    subset: str,
    read_part: Callable[[str, Problems], list[Sample]],
    problems: Problems,
) -> list[Sample]:
    """Return the samples of a subset, where a list beside the files of others may say `test`."""

    def read_told(part: str, told: Problems) -> list[Sample]:
        before = read_part(part, told)
        after = told_by_lists(root, lists, before, problems)
        keys = {old.key: new.key for old, new in zip(before, after, strict=True)}
        told.found[:] = [replace(one, key=keys.get(one.key, one.key)) for one in told.found]
        return after

    if subset != "test":
        found = read_told(subset, problems)
        return [one for one in found if subset == "all" or not one.key.startswith("test/")]
    own = Problems(root)
    others = read_told("train", own)
    tests = [one for one in others if one.key.startswith("test/")]
    learned = {one.key for one in others} - {one.key for one in tests}
    try:
        found = read_part("test", problems)
    except DataError:
        raise
    except ValueError:  # some formats refuse where there are none
        if not tests:
            raise
        found = []
    # What is wrong with images to learn from does not matter here.
    wrong = [one for one in own.found if one.key not in learned] if tests else []
    said = {(one.where, one.what) for one in wrong}
    problems.found[:] = [p for p in problems.found if (p.where, p.what) not in said] + wrong
    return [*found, *tests]
