"""Writing data sets: what all formats have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from converters.files.images import Enlarge, PutImage, put_image
from converters.files.json_files import read_json
from converters.files.provenance import result_folder
from converters.parallel import map_ordered
from converters.splits.split import Split
from converters.types import Frame, LabelSpace, Sample

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
