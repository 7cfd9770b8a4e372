"""Writing data sets: what all formats have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from converters.files.images import Enlarge, PutImage, put_image
from converters.files.provenance import result_folder
from converters.parallel import map_ordered
from converters.splits.split import Split
from converters.types import Frame, LabelSpace, Sample

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
        is_split: whether there is a validation part at all.
        layout: one of those that the format's `LOSES` names.
        jobs: processes.
        enlarge: how crops come to their size.
        links: images become hard links where possible, instead of copies.
        progress: called with (done, total).
    """

    folder: Path
    labels: LabelSpace
    held_out: frozenset[str]
    is_split: bool
    layout: str
    jobs: int
    enlarge: Enlarge
    links: bool
    progress: Progress | None

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


def check_labels(sample: Sample, labels: LabelSpace) -> None:
    """Make sure that a sample's labels are of a label space.

    Raises:
        ValueError: one is not.
    """
    for instance in sample.instances:
        if instance.label not in labels.index:
            raise ValueError(
                f"{sample.key}: expected a label of '{labels.name}', found '{instance.label}'"
            )


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


def record_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Sample` that a record of `sample_record` holds, but for the size.

    Raises:
        ValueError: not such a record.
    """
    try:
        fields: dict[str, Any] = {"key": str(record["key"]), "group": str(record.get("group", ""))}
        fields["attributes"] = dict(record.get("attributes") or {})
        if frame := record.get("frame"):
            x, y, width, height = (int(value) for value in frame["box_xywh"])
            full_h, full_w = (int(value) for value in frame["full_hw"])
            fields["frame"] = Frame((x, y, width, height), (full_h, full_w))
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"expected key, group and frame of an image, found {error!r}") from None
    return fields


def read_index(root: Path) -> dict[str, dict[str, Any]]:
    """Read `images.json`, name -> fields of `Sample` but for the size; empty where there is none.

    Raises:
        ValueError: a file that is no such index.
    """
    path = root / "images.json"
    if not path.is_file():
        return {}
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): record_fields(record) for name, record in index.items()}
    except (AttributeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: expected names with their keys, found: {error}") from None
