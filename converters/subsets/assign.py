"""Which images are test images, and which are held out: by folders, names, and lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from converters.errors import Problems
from converters.files.lines import TABLE_SUFFIXES
from converters.files.names import normal_name
from converters.subsets.keys import is_test_key, with_test_keys
from converters.subsets.lists import find_test_lists, read_test_lists
from converters.subsets.names import part_of
from converters.types import SUBSET, Sample


def find_test_keys(
    root: Path, images: Mapping[str, Path], files: Iterable[Path]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return key -> key of all images, and what is to be said of lists.

    The keys of test images lie in `test/`, or a folder like it. They are told by the folders that
    they lie in; by their names, where each begins, or ends, with `train` or `test`; and by lists,
    such as `test.txt`.

    Args:
        root: the data set's folder.
        images: key -> image, of those that have masks.
        files: all images, with these.
    """
    found = with_test_keys(images)
    listed = read_test_lists(root, find_test_lists(root), found, images, files)
    tests = _named_so(images) | listed.keys
    # What is to be answered has others beside it that can be learned from.
    if not {key for key, own in found.items() if not is_test_key(own)} <= tests:
        found |= {key: f"test/{key}" for key in tests if not is_test_key(found[key])}
    return _each_its_own(root, images, found), listed.notes


def _each_its_own(
    root: Path, images: Mapping[str, Path], keys: Mapping[str, str]
) -> dict[str, str]:
    """Return keys of which no two are the same: a list may name what lies beside `test`, too."""
    kept = {own for key, own in keys.items() if key == own}
    found = {}
    for key, own in keys.items():
        if key != own and own in kept:
            own = f"test/{images[key].relative_to(root).with_suffix('').as_posix()}"
        found[key] = own
    return found


def _named_so(images: Mapping[str, Path]) -> set[str]:
    """The keys of images whose names say `test`, where each name says that or `train`."""
    words = {key: re.split(r"[\W_]+", path.stem) for key, path in images.items()}
    for at in (0, -1):
        parts = {key: part_of(own[at]) for key, own in words.items()}
        if {*parts.values()} == {"train", "test"}:
            return {key for key, part in parts.items() if part == "test"}
    return set()


def told_by_lists(
    root: Path, lists: Sequence[Path], samples: Sequence[Sample], problems: Problems
) -> list[Sample]:
    """Return samples of which those that lists call test images have keys in `test/`.

    Args:
        root: the data set's folder.
        lists: those of `find_test_lists`.
        samples: as their own format tells them apart.
        problems: is told what has to be said of lists.
    """
    images = {s.key: i for s in samples if isinstance(i := s.image, Path) and root in i.parents}
    listed = read_test_lists(root, lists, {key: key for key in images}, images, images.values())
    learned = {key for key in images if not is_test_key(key)}
    if learned <= listed.keys:
        return list(samples)
    for note in listed.notes:
        problems.note(note)
    renamed = {key: f"test/{key}" for key in learned & listed.keys}
    keys = _each_its_own(root, images, {key: renamed.get(key, key) for key in images})
    return [replace(one, key=keys.get(one.key, one.key)) for one in samples]


def with_parts(root: Path, lists: Sequence[Path], samples: Sequence[Sample]) -> list[Sample]:
    """Return samples with the part, `train` or `val`, that tables say of them.

    What says it already keeps it; test images have none. A table that does not say it of all others
    says it of none.

    Args:
        root: the data set's folder.
        lists: those of `find_test_lists`.
        samples: of it.
    """
    tables = [path for path in lists if path.suffix.lower() in TABLE_SUFFIXES]
    images = {s.key: i for s in samples if isinstance(i := s.image, Path) and root in i.parents}
    if not tables or not images or any(SUBSET in sample.attributes for sample in samples):
        return list(samples)
    keys = {key: key for key in images}
    told = read_test_lists(root, tables, keys, images, images.values(), of_parts=True).parts
    learned = {sample.key for sample in samples if not is_test_key(sample.key)}
    if not learned <= told.keys() or len({told[key] for key in learned}) < 2:
        return list(samples)
    return [
        replace(one, attributes={**one.attributes, SUBSET: told[one.key]})
        if one.key in learned
        else one
        for one in samples
    ]


def find_copies(images: Mapping[str, Path]) -> list[str]:
    """Return the keys of images to learn from that are a test image, too: the same file again.

    None where all are, as those of several folds.

    Args:
        images: key -> image.
    """
    tests = {(normal_name(i.name), _bytes_of(i)): i for k, i in images.items() if is_test_key(k)}
    learned = {} if not tests else {k: i for k, i in images.items() if not is_test_key(k)}
    found = []
    for key, image in learned.items():
        test = tests.get((normal_name(image.name), _bytes_of(image)))
        if test is not None and image.read_bytes() == test.read_bytes():
            found.append(key)
    return found if len(found) < len(learned) else []


def _bytes_of(path: Path) -> int:
    return path.stat().st_size
