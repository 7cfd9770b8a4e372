"""Which images of folders of masks are test images: by folders, names, and lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from converters.files.lines import read_lines
from converters.files.names import normal_name
from converters.formats.writing import is_test_key, part_of, with_test_keys

_LISTS = (".txt", ".csv", ".lst")
# A list lies beside the images, or in a folder such as `annotations` or `ImageSets`.
_BELOW = ("*", "*/*")
# What ends an image's name in a line; a name may have spaces.
_ENDS = re.compile(r"[,;\t]")


def find_test_keys(root: Path, images: Mapping[str, Path]) -> dict[str, str]:
    """Return key -> key of all images; those of test images lie in `test/`, or a folder like it.

    Test images are told by the folders that they lie in; by their names, where each begins with
    `train` or `test`; and by lists, such as `test.txt`, of names or paths, one a line.

    Args:
        root: the data set's folder.
        images: key -> image.
    """
    found = with_test_keys(images)
    tests = _named_so(images) | _listed(root, images)
    # What is to be answered has others beside it that can be learned from.
    if tests >= images.keys():
        return found
    return {
        k: f"test/{k}" if k in tests and not is_test_key(own) else own for k, own in found.items()
    }


def find_copies(images: Mapping[str, Path]) -> list[str]:
    """Return the keys of images to learn from that are a test image, too: the same file again.

    Args:
        images: key -> image.
    """
    tests = {(normal_name(i.name), _bytes_of(i)): i for k, i in images.items() if is_test_key(k)}
    if not tests:
        return []
    found = []
    for key, image in images.items():
        test = None if is_test_key(key) else tests.get((normal_name(image.name), _bytes_of(image)))
        if test is not None and image.read_bytes() == test.read_bytes():
            found.append(key)
    return found


def _bytes_of(path: Path) -> int:
    return path.stat().st_size


def _named_so(images: Mapping[str, Path]) -> set[str]:
    heads = {key: re.split(r"[\W_]", path.stem, maxsplit=1)[0] for key, path in images.items()}
    parts = {key: part_of(head) for key, head in heads.items()}
    are_all = {*parts.values()} == {"train", "test"}
    return {key for key, part in parts.items() if part == "test"} if are_all else set()


def _listed(root: Path, images: Mapping[str, Path]) -> set[str]:
    lists = [*_test_lists(root)]
    if not lists:
        return set()
    by_tail: dict[str, set[str]] = defaultdict(set)
    for key, path in images.items():
        place = PurePosixPath(normal_name(path.relative_to(root).with_suffix("").as_posix()))
        for first in range(len(place.parts)):
            by_tail["/".join(place.parts[first:])].add(key)
    found: set[str] = set()
    for path in lists:
        try:
            lines = read_lines(path)
        except (OSError, ValueError):
            continue  # not a list
        for line in lines:
            found |= next(filter(None, (by_tail.get(way) for way in _ways(line))), set())
    return found


def _test_lists(root: Path) -> Iterator[Path]:
    for pattern in _BELOW:
        for path in sorted(root.glob(pattern)):
            is_list = path.suffix.lower() in _LISTS and part_of(path.stem) == "test"
            if is_list and not path.name.startswith(".") and path.is_file():
                yield path


def _ways(line: str) -> Iterator[str]:
    """Yield what a line may call an image: paths, from the longest to the bare name."""
    name = _ENDS.split(line.strip())[0].strip(' "')
    for way in dict.fromkeys((name, name.split(" ")[0])):
        place = PurePosixPath(normal_name(way.replace("\\", "/")))
        plain = place.with_suffix("") if re.fullmatch(r"\.[A-Za-z]\w{1,4}", place.suffix) else place
        parts = [part for part in plain.parts if part not in ("/", ".", "..")]
        yield from ("/".join(parts[first:]) for first in range(len(parts)))
