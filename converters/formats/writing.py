"""Writing data sets: what all formats have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from converters.errors import Problems
from converters.files.below import is_result
from converters.files.images import Enlarge, PutImage, put_image, read_size_hw
from converters.files.json_files import read_json
from converters.files.names import is_of_annotations
from converters.files.provenance import result_folder
from converters.parallel import map_ordered
from converters.splits.split import Split
from converters.types import Frame, LabelSpace, Sample

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
INDEX = "images.json"

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WriteTarget:
    """Where a data set is written, and how.

    Attributes:
        folder: exists and is empty; becomes the result when everything is written.
        labels: the classes.
        held_out: keys of the samples that go to validation.
        folds: keys of all folds that a split has; none without a split.
        test: keys of test samples that are written beside others.
        layout: one of those that the format's `LOSES` names.
        jobs: processes.
        enlarge: how crops come to their size.
        links: images become hard links where possible, instead of copies.
        progress: called with (done, total).
    """

    folder: Path
    labels: LabelSpace
    held_out: frozenset[str]
    folds: tuple[frozenset[str], ...]
    test: frozenset[str]
    layout: str
    jobs: int
    enlarge: Enlarge
    links: bool
    progress: Progress | None

    @property
    def is_split(self) -> bool:
        """Whether there is a validation part at all."""
        return bool(self.folds)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The parts of the result, `train` first."""
        val, test = ("val",) if self.is_split else (), ("test",) if self.test else ()
        return ("train", *val, *test)

    def subset_of(self, sample: Sample) -> str:
        """Return the part that a sample goes to."""
        if sample.key in self.test:
            return "test"
        return "val" if sample.key in self.held_out else "train"

    @property
    def put_image(self) -> PutImage:
        """Puts a sample's image at a path; can be pickled."""
        return partial(put_image, enlarge=self.enlarge, links=self.links)

    def each(self, encode: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `encode` of each task, in order; report how many are done.

        Args:
            encode: runs in other processes where `jobs` is above 1: a module's function, or a
                `functools.partial` of one, whose arguments can be pickled.
            tasks: one a sample; can be pickled.
        """
        for done, result in enumerate(map_ordered(encode, tasks, self.jobs), 1):
            yield result
            if self.progress:
                self.progress(done, len(tasks))


@contextmanager
def data_set_folder(
    out: Path,
    kind: str,
    samples: Sequence[Sample],
    split: Split | None,
    fold: int,
    provenance: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Give a `result_folder` for a data set that carries the split it was written with.

    The split goes to `split.json`; its digest, the fold, and those of its images that are not
    among the samples go to `provenance.json`.

    Raises:
        ValueError: `out` is not ours to replace.
    """
    origin: dict[str, Any] = {}
    if split:
        left_out = sorted(set(split.keys) - {sample.key for sample in samples})
        origin = {"split": split.digest, "fold": fold, "excluded": left_out}
    with result_folder(out, kind, {**(provenance or {}), **origin}) as folder:
        if split:
            split.save(folder / "split.json")
        yield folder


def file_names(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a file stem for each sample: the image's, with a number added where it is taken."""
    taken: set[str] = set()
    for sample in samples:
        yield free_name(sample.image.stem, taken)


def free_name(wanted: str, taken: set[str]) -> str:
    """Return a name, with a number added where it is taken; from now on it is.

    Args:
        wanted: the name.
        taken: those before, case-folded: some file systems do not tell a.png from A.png.
    """
    name, number = wanted, 1
    while name.casefold() in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(name.casefold())
    return name


def is_test_key(key: str) -> bool:
    """Tell whether a key lies in a folder `test`, or one such as `test2017` or `testing`.

    >>> [is_test_key(f"{name}/a") for name in ("testA", "stage1_test", "tensile_test", "latest")]
    [True, True, False, False]
    """
    return any(map(is_test_name, key.split("/")[:-1]))


def is_test_name(name: str) -> bool:
    """Tell whether a name says that something is of a test part, and no more than that."""
    words = _words(name)
    return not words.isdisjoint(_TEST_WORDS) and words <= _TEST_WORDS | _BESIDE_TEST


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
    tests = {home: _tests_beside(names) for home, names in inside.items()}
    for key in found:
        *folders, _ = key.split("/")
        is_test = any(n in tests["/".join(folders[:d])] for d, n in enumerate(folders))
        if is_test and not is_test_key(key):
            found[key] = f"test/{key}"
    return found


def _tests_beside(names: set[str]) -> set[str]:
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


def _plain_words(name: str) -> tuple[str, ...]:
    """Return a name's words and numbers without those that say a part, in their order.

    >>> _plain_words("VOC2012_test") == _plain_words("VOC2012"), _plain_words("testcrop")
    (True, ('crop',))
    """
    parts = re.findall("[a-z]+|[0-9]+", re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
    bare = (re.sub("^(test|train|val)(ing|id|idation|set)?", "", part) for part in parts)
    return tuple(filter(None, bare))


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


def as_test_key(place: str) -> str:
    """Return the key of an image in a folder such as Kaggle's `test_images`, which becomes `test`.

    >>> as_test_key("test_images/a"), as_test_key("test2017/a"), as_test_key("latest/a")
    ('test/a', 'test2017/a', 'latest/a')
    """
    *folders, name = place.split("/")
    return "/".join([*(_plain_test(folder) for folder in folders), name])


def of_test(place: str) -> str:
    """Return the key of a test image, which a list or a file calls so, wherever it lies.

    >>> of_test("images/a"), of_test("test_images/a"), of_test("images/test2017/a")
    ('test/images/a', 'test/a', 'images/test2017/a')
    """
    key = as_test_key(place)
    return key if is_test_key(key) else f"test/{key}"


def _plain_test(folder: str) -> str:
    is_test = part_of(folder) == "test"
    return "test" if is_test and not _PLAIN_TEST.fullmatch(folder) else folder


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


def is_test_root(root: Path) -> bool:
    """Tell whether a data set's own folder is called `test`, or as COCO's `test2017`.

    Many a data set to try something with is called `test_data` or `test_set`.
    """
    return bool(_PLAIN_TEST.fullmatch(root.absolute().name))


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


def test_keys(samples: Sequence[Sample]) -> frozenset[str]:
    """Return the keys of test samples, where there are others too.

    Those that lie in a folder `test`, as readers of all formats have it.
    """
    found = frozenset(sample.key for sample in samples if is_test_key(sample.key))
    return found if len(found) < len(samples) else frozenset()


def check_labels(sample: Sample, labels: LabelSpace) -> None:
    """Make sure that a sample's labels are of a label space.

    Raises:
        ValueError: one is not.
    """
    for label in sample.labels:
        if label not in labels.index:
            raise ValueError(f"{sample.key}: expected a label of '{labels.name}', found '{label}'")


# --- what a format remembers of a sample beside its pixels


def sample_record(sample: Sample) -> dict[str, Any]:
    """Return key, group, size, attributes and frame of a sample as JSON can hold them."""
    record: dict[str, Any] = {
        "key": sample.key,
        "group": sample.group,
        "size_hw": list(sample.size_hw),
    }
    if sample.attributes:
        record["attributes"] = dict(sample.attributes)
    if sample.frame:
        record["frame"] = {
            "box_xywh": list(sample.frame.box_xywh),
            "full_hw": list(sample.frame.full_hw),
        }
    return record


def record_fields(record: Any) -> dict[str, Any]:
    """Return the fields of `Sample` that a record of `sample_record` holds, but for the size.

    Raises:
        ValueError: not such a record.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"expected key, group and frame of an image, found {record!r:.60}")
    fields = {"key": _text(record, "key"), "group": _text(record, "group", "")}
    attributes = record.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise ValueError(f"expected 'attributes' to have names, found {attributes!r:.60}")
    frame = record.get("frame")
    framed = {"frame": _frame(frame)} if frame else {}
    return {**fields, "attributes": dict(attributes), **framed}


def _text(record: Mapping[str, Any], name: str, default: Any = None) -> str:
    value = record.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"expected '{name}' to be a text, found {value!r:.60}")
    return value


def _frame(record: Any) -> Frame:
    try:
        x, y, width, height = (int(value) for value in record["box_xywh"])
        full_h, full_w = (int(value) for value in record["full_hw"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise ValueError(
            f"expected 'frame' with 'box_xywh' and 'full_hw' in pixels, found {record!r:.60}"
        ) from None
    return Frame((x, y, width, height), (full_h, full_w))


def read_index(root: Path) -> dict[str, dict[str, Any]]:
    """Read `images.json`, name -> fields of `Sample` but for the size; empty where there is none.

    Raises:
        ValueError: a file that is no such index.
    """
    fields: dict[str, dict[str, Any]] = {}
    for name, record in (load_index(root) or {}).items():
        try:
            fields[name] = record_fields(record)
        except ValueError as error:
            raise ValueError(f"{root / INDEX}: '{name:.80}': {error}") from None
    return fields


def load_index(root: Path) -> dict[str, dict[str, Any]] | None:
    """Read `images.json`, name -> what it says of that image; None where there is none.

    Raises:
        ValueError: a file that is no such index.
    """
    path = root / INDEX
    if not path.is_file():
        return None
    what = "names with their keys"
    index = read_json(path, what)
    if not isinstance(index, dict):
        raise ValueError(f"{path}: expected {what}, found {index!r:.60}")
    for name, record in index.items():
        if not isinstance(record, dict):
            found = f"'{name:.80}': {record!r:.60}"
            raise ValueError(f"{path}: expected {what}, found {found}")
    return index
