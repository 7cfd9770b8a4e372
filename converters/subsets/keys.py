"""Keys of test images: they lie in a folder `test`, or in one like it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.errors import Problems
from converters.files.images import read_size_hw
from converters.subsets.names import is_test_name, is_test_root, plain_test, tests_beside
from converters.types import Sample


def is_test_key(key: str) -> bool:
    """Tell whether a key lies in a folder `test`, or one such as `test2017` or `testing`.

    >>> [is_test_key(f"{name}/a") for name in ("testA", "stage1_test", "tensile_test", "latest")]
    [True, True, False, False]
    """
    return any(map(is_test_name, key.split("/")[:-1]))


def with_test_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return key -> key, in `test/` where a folder's name and one beside it say so together.

    One is called as the other but for `test`, or speaks of training by a word that both have.

    >>> keys = ["ISIC_Training_Data/a", "ISIC_Test_v2_Data/b", "train/c", "crash_test/d"]
    >>> [key for key in with_test_keys(keys).values() if is_test_key(key)]
    ['test/ISIC_Test_v2_Data/b']
    """
    found = {key: key for key in keys}
    # A folder -> the names in it.
    inside: dict[str, set[str]] = {}
    for key in found:
        *folders, _ = key.split("/")
        for depth, name in enumerate(folders):
            inside.setdefault("/".join(folders[:depth]), set()).add(name)
    tests = {home: tests_beside(names) for home, names in inside.items()}
    for key in found:
        *folders, _ = key.split("/")
        is_test = any(n in tests["/".join(folders[:d])] for d, n in enumerate(folders))
        if is_test and not is_test_key(key):
            found[key] = f"test/{key}"
    return found


def as_test_key(place: str) -> str:
    """Return the key of an image in a folder such as Kaggle's `test_images`, which becomes `test`.

    >>> as_test_key("test_images/a"), as_test_key("test2017/a"), as_test_key("latest/a")
    ('test/a', 'test2017/a', 'latest/a')
    """
    *folders, name = place.split("/")
    return "/".join([*(plain_test(folder) for folder in folders), name])


def of_test(place: str) -> str:
    """Return the key of a test image, which a list or a file calls so, wherever it lies.

    >>> of_test("images/a"), of_test("test_images/a"), of_test("images/test2017/a")
    ('test/images/a', 'test/a', 'images/test2017/a')
    """
    key = as_test_key(place)
    return key if is_test_key(key) else f"test/{key}"


def test_keys(samples: Sequence[Sample]) -> frozenset[str]:
    """Return the keys of test samples, where there are others too.

    Those that lie in a folder `test`, as readers of all formats have it.
    """
    found = frozenset(sample.key for sample in samples if is_test_key(sample.key))
    return found if len(found) < len(samples) else frozenset()


def with_tests(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples with the keys of `with_test_keys`."""
    keys = with_test_keys(sample.key for sample in samples)
    return [replace(sample, key=keys[sample.key]) for sample in samples]


def samples_of(root: Path, samples: Sequence[Sample], subset: str) -> list[Sample]:
    """Return the samples of a subset, by their keys.

    A data set whose own folder is called `test`, and has none of that name, is all test images to
    who asks for them.

    Args:
        root: the data set's folder.
        samples: all of them.
        subset: `train`, `test` or `all`.
    """
    samples = with_tests(samples)
    tests = [sample for sample in samples if is_test_key(sample.key)]
    if subset == "all" or (subset == "test" and not tests and is_test_root(root)):
        return list(samples)
    return tests if subset == "test" else [s for s in samples if not is_test_key(s.key)]


def test_samples(root: Path, images: Iterable[Path], problems: Problems) -> list[Sample]:
    """Return images in folders of test images, to be answered.

    Args:
        root: the data set's folder.
        images: below it.
        problems: takes down images that are broken.
    """
    found = []
    for image in images:
        key = as_test_key(image.relative_to(root).with_suffix("").as_posix())
        try:
            found.append(Sample(key, image, read_size_hw(image)))
        except ValueError as error:
            problems.add(image, error, key=key)
    return found
