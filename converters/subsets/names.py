"""Names of folders and files that speak of training, validation, or test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from converters.files.below import is_result
from converters.files.names import is_of_annotations

_PLAIN_TEST = re.compile(r"test\d*", re.IGNORECASE)
_TEST_WORDS = frozenset({"test", "tests", "testing", "testset", "testdata", "testimages"})
# What else the name of a folder of test images says: `test_set`, `stage1_test`, `testA`.
_BESIDE_TEST = frozenset(
    {
        *("set", "data", "dataset", "part", "split", "stage", "phase", "v", "a", "b", "c", "d"),
        *("public", "private", "hidden", "sub", "dev", "final", "official", "internal", "external"),
        *("image", "images", "img", "imgs"),
    }
)
# Words of a name, also where capitals alone divide them.
CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Names of a data set's own parts: to learn from, and to hold out.
TRAIN, VAL = ("train", "training", "trainset"), ("val", "valid", "validation", "valset")
_KNOWN = _TEST_WORDS.union(TRAIN, VAL)


def is_test_name(name: str) -> bool:
    """Tell whether a name says that something is of a test part, and no more than that."""
    words = _words(name)
    return not words.isdisjoint(_TEST_WORDS) and words <= _TEST_WORDS | _BESIDE_TEST


def part_of(path: str) -> str:
    """Return what the words of a path speak of, `train` or `test`; "" for neither, or both.

    What is held out for validation is learned from, too.

    >>> part_of("test/a_2.csv"), part_of("instances_val2017.json"), part_of("train_test.csv")
    ('test', 'train', '')
    """
    words = _words(path)
    is_test = not words.isdisjoint(_TEST_WORDS)
    is_train = not words.isdisjoint((*TRAIN, *VAL))
    return "" if is_test == is_train else "test" if is_test else "train"


def part_name(path: str) -> str:
    """Return `train` or `val` where the words of a path name one of them; "" otherwise.

    >>> part_name("instances_val2017"), part_name("valid/a"), part_name("trainval"), part_name("a")
    ('val', 'val', '', '')
    """
    words = _words(path)
    found = [names[0] for names in (TRAIN, VAL) if not words.isdisjoint(names)]
    return found[0] if len(found) == 1 else ""


def is_test_root(root: Path) -> bool:
    """Tell whether a data set's own folder is called `test`, or as COCO's `test2017`.

    Many a data set to try something with is called `test_data` or `test_set`.
    """
    return bool(_PLAIN_TEST.fullmatch(root.absolute().name))


def test_folders(root: Path) -> list[Path]:
    """Return the folders in a folder that hold test images by their names, sorted."""
    below = sorted(root.iterdir()) if root.is_dir() else []
    return [
        path
        for path in below
        if part_of(path.name) == "test"
        and path.is_dir()
        and not (path.name.startswith(".") or is_of_annotations(path.name))
        and not is_result(path)
    ]


def are_of_one_set(names: Iterable[str]) -> bool:
    """Tell whether folders are called as parts of one data set, not as several of them.

    >>> are_of_one_set(["train", "valid", "test"]), are_of_one_set(["task_1", "task_2"])
    (True, True)
    >>> are_of_one_set(["VOC2012", "VOC2012_test"]), are_of_one_set(["cats", "roads"])
    (True, False)
    """
    own = list(names)
    words = {tuple(word for word in _plain_words(name) if not word.isdigit()) for name in own}
    return len(words) == 1 or all(is_test_name(name) or part_name(name) for name in own)


def tests_beside(names: set[str]) -> set[str]:
    """Return those of folders in one place that are called as others but for `test`."""
    lowered = {name.lower() for name in names}
    learned = {name for name in names if part_of(name) != "test"}
    plain = {_plain_words(name) for name in learned}
    spoken = [_words(name).difference(TRAIN, VAL) for name in learned if part_of(name) == "train"]
    found = {
        name
        for name in names - learned
        if _plain_words(name) in plain
        or any((_words(name) - _TEST_WORDS) & words for words in spoken)
    }
    # CRACK500 has `testcrop` and `traincrop`.
    instead = {n: n.lower().replace("test", "train", 1) for n in names if "test" in n.lower()}
    return found | {name for name, other in instead.items() if other in lowered}


def plain_test(folder: str) -> str:
    """Return `test` for the name of a folder of test images, but for `test2017` and the like."""
    is_test = part_of(folder) == "test"
    return "test" if is_test and not _PLAIN_TEST.fullmatch(folder) else folder


def _plain_words(name: str) -> tuple[str, ...]:
    """Return a name's words and numbers without those that say a part, in their order.

    >>> _plain_words("VOC2012_test") == _plain_words("VOC2012"), _plain_words("testcrop")
    (True, ('crop',))
    """
    parts = re.findall("[a-z]+|[0-9]+", re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
    bare = (re.sub("^(test|train|val)(ing|id|idation|set)?", "", part) for part in parts)
    return tuple(filter(None, bare))


def _words(path: str) -> set[str]:
    """Return the words of a path, in small letters; capitals divide what is no known word.

    >>> sorted(_words("TESTset/testA_3"))
    ['a', 'test', 'testset']
    """
    found: set[str] = set()
    for word in re.findall("[A-Za-z]+", path):
        is_known = word.lower() in _KNOWN
        found |= {word.lower()} if is_known else {part.lower() for part in CAMEL.findall(word)}
    return found
