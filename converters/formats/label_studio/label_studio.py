"""Label Studio's JSON: a list of tasks with the regions that were drawn on their images (read).

    DATA/NAME.json          exported as "JSON"; several files are read together; also in
                            DATA/annotations
    DATA/**/NAME.png        the images, wherever they are

Read are polygons, rectangles, ellipses and brush strokes (masks), with labels of their own tags or
of the tag Labels; a region of several labels is an object of each. Key points and vectors enclose
nothing and are left out, and said; what is said of a whole image or of a region's text (choices,
text areas, relations) is passed over; all other regions are refused. "JSON-MIN" is refused: it does
not say how a region was drawn.

Of several annotations of a task the latest counts that was not cancelled, by the time of its last
change, and their number is said. Predictions are no annotations. A task without an annotation is
left out, and said; one with an empty annotation is an image without objects.

An image is known by its path below DATA, or else by the end of what the task calls it, in
`/data/upload/3/0a1b2c3d-NAME.png` also without the digits before its name, in
`/data/local-files/?d=PATH`, `file://`, `s3://` or `https://`. Nothing is fetched. What else `data`
says of an image, such as a patient, is kept among its attributes. Images below a folder `test` are
test images.

Regions are in percent of the image's sides, from corner to corner: 0 is the left edge of the first
pixel. A file or an image where all are between 0 and 1 is refused, or of a large image it is said.
A rectangle is turned about its upper left corner, an ellipse about its centre, clockwise and in
pixels (https://github.com/HumanSignal/label-studio/issues/5274). A polygon holds the pixels that
pycocotools gives it, as in Label Studio's own export to COCO; a brush stroke all pixels that are
not wholly transparent. Regions that were drawn on a turned image (`image_rotation`) are refused.

Source: https://labelstud.io/guide/task_format, https://labelstud.io/guide/export,
label-studio-converter's converter.py and brush.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from converters.errors import Problems
from converters.files.images import read_size_hw, turn_remedy
from converters.files.provenance import PROVENANCE
from converters.formats.coco.shapes import joined
from converters.formats.label_spaces import folder_space, natural
from converters.formats.label_studio.regions import (
    Region,
    find_regions,
    region_parts,
    written_values,
)
from converters.formats.label_studio.tasks import Task, load_tasks
from converters.formats.named_images import NamedImages, annotation_folders
from converters.formats.plausible import are_normalised
from converters.formats.writing import INDEX
from converters.subsets.keys import samples_of
from converters.types import Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_ENDS_BYTES = 1 << 16
_TASK, _TASK_HAS = b'"annotations"', (b'"data"', b'"result"')
_FRACTIONS = (
    "expected points in percent of the image's sides, found all between 0 and 1: multiply them by "
    "100"
)
_PERCENT_HW = (100, 100)
_FEWEST_PX = 8
_MIN_DRAWN = (b'"polygon', b'"brush', b'"rectangle', b'"ellipse', b'"keypoint', b'"bitmask')
_MIN_HAS = (b'"annotation_id"', b'"lead_time"')


def matches(root: Path) -> bool:
    """Tell whether a folder holds what Label Studio exports as JSON or JSON-MIN."""
    return any(annotation_files(root))


def annotation_files(root: Path) -> Iterator[Path]:
    """Yield Label Studio's JSON files in a folder, and in its `annotations`, sorted."""
    homes = [root, *annotation_folders(root)]
    return (
        path for home in homes for path in sorted(home.glob("*.json")) if _looks_like_tasks(path)
    )


def _looks_like_tasks(path: Path) -> bool:
    if path.name.startswith(".") or path.name in (INDEX, PROVENANCE) or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_ENDS_BYTES)
        file.seek(max(0, path.stat().st_size - _ENDS_BYTES))
        ends = head + file.read(_ENDS_BYTES)
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return False
    if _TASK in ends and any(sign in ends for sign in _TASK_HAS):
        return True
    has_regions = any(kind + b'labels"' in ends for kind in _MIN_DRAWN)
    return has_regions or all(sign in ends for sign in _MIN_HAS)


def label_space(root: Path) -> LabelSpace | None:
    """Return the labels of all regions with pixels, sorted; None without any.

    Raises:
        ValueError: a broken file, one in JSON-MIN, or no task that can be read.
    """
    found: set[str] = set()
    broken: list[str] = []
    for task in (task for path in annotation_files(root) for task in load_tasks(path)):
        try:
            regions = find_regions(task.entries or ())
        except ValueError as error:
            broken.append(f"{task.path}: task {task.number}: {error}")
            continue  # `read` says so, where there are others
        found |= {label for region in regions if region.is_outlined for label in region.labels}
    if broken and not found:
        raise ValueError(broken[0])
    return folder_space(root, natural(found)) if found else None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read Label Studio's JSON.

    Args:
        root: folder with the JSON and the images, also in folders below.
        subset: `test` is what lies in a folder of that name, `train` everything else.
        labels: those of `label_space`.
        problems: takes down tasks and regions that are broken.

    Returns:
        Samples; keys are the images' paths, attributes what else `data` says, and no groups.

    Raises:
        ValueError: a broken file, or one in JSON-MIN.
    """
    tasks: list[Task] = []
    for path in annotation_files(root):
        own = load_tasks(path)
        if _are_fractions(own):
            problems.add(path, _FRACTIONS)
        else:
            tasks += own
    reader = _Reader(root, labels, problems, tasks)
    samples = [sample for task in tasks for sample in reader.sample(task)]
    samples += reader.finish(subset)
    return samples_of(root, samples, subset)


def _are_fractions(tasks: Iterable[Task]) -> bool:
    """Tell whether all that is drawn in a file is in parts of the images' sides, not in percent."""

    def written() -> Iterator[list[float]]:
        for task in tasks:
            with suppress(ValueError):
                for region in find_regions(task.entries or ()):
                    yield written_values(region)

    return are_normalised(written(), _PERCENT_HW)


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    tasks: list[Task]
    _several: int = 0
    _undone: int = 0
    _corners: int = 0
    _lines: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._images = NamedImages(self.root, [task.names for task in self.tasks])
        self._stems = Counter(path.with_suffix("") for path in self._images.paths)

    def sample(self, task: Task) -> Iterator[Sample]:
        key = _guess(task)
        where = f"{task.path.name}, task {task.record.get('id', task.number)!r:.20}"
        try:
            if not task.names:
                raise ValueError("expected 'image' in 'data' to name an image, found none")
            entries = task.entries
            if entries is None:
                self._undone += 1
                return
            self._several += len(task.annotations) > 1
            image = self._images.find(task.names)
            key = self._key(image)
            size_hw = read_size_hw(image)
            regions = find_regions(entries)
            _check_sizes(regions, image, size_hw)
            self._corners += _is_corner(regions, size_hw)
            report = partial(self.problems.add, where, key=key)
            instances = tuple(self._instances(regions, size_hw, report))
            yield Sample(key, image, size_hw, instances, attributes=task.attributes)
        except ValueError as error:
            self.problems.add(where, error, key=key)

    def _key(self, image: Path) -> str:
        stem = image.with_suffix("")
        # Two images that differ only in their suffix keep it.
        place = stem if self._stems[stem] == 1 else image
        return place.relative_to(self.root).as_posix()

    def _instances(
        self, regions: list[Region], size_hw: tuple[int, int], report: Any
    ) -> Iterator[Instance]:
        for region in regions:
            if region.is_without_area:
                self._lines[region.kind] += 1
            if region.is_without_area or not region.kind:
                continue
            try:
                parts = region_parts(region, size_hw)
                if not region.labels:
                    raise ValueError("expected a label, found none: give it one, or delete it")
                for label in region.labels:
                    if label not in self.labels.index:
                        known = self.labels.name
                        raise ValueError(f"expected a class of '{known}', found '{label:.80}'")
                    yield joined(label, parts)
            except ValueError as error:
                report(f"region {region.number} ({region.kind}): {error}")

    def finish(self, subset: str) -> list[Sample]:
        """Say what was left out, when all tasks are read; return test images."""
        if self._several:
            what = f"took the latest annotation of each of {self._several} tasks that have several"
            self.problems.note(f"{self.root}: {what}")
        if self._undone:
            what = f"left out {self._undone} tasks that nobody has annotated"
            self.problems.note(f"{self.root}: {what}")
        if self._corners:
            what = (
                f"all objects of {self._corners} images lie in the upper left hundredth: make sure "
            )
            self.problems.note(f"{self.root}: {what}that their points are in percent, not 0 to 1")
        for kind, times in sorted(self._lines.items()):
            what = f"left out {times} regions that enclose nothing ({kind})"
            self.problems.note(f"{self.root}: {what}")
        return self._images.unanswered(subset, self.problems)


def _guess(task: Task) -> str:
    """A key for a task whose image may not be there."""
    name = task.names[0] if task.names else f"{task.path.stem}-{task.number}"
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _is_corner(regions: Sequence[Region], size_hw: tuple[int, int]) -> bool:
    """Tell whether all that is drawn on an image could be in parts of its sides, not in percent.

    Raises:
        ValueError: it must be, since nobody draws so little.
    """
    written = list(filter(None, map(written_values, regions)))
    if not are_normalised(written, _PERCENT_HW):
        return False
    if max(map(max, written)) * max(size_hw) / 100 < _FEWEST_PX:
        raise ValueError(_FRACTIONS)
    return True


def _check_sizes(regions: list[Region], image: Path, size_hw: tuple[int, int]) -> None:
    for region in regions:
        if None not in region.said_hw and region.said_hw != size_hw:
            remedy = turn_remedy(image, region.said_hw, size_hw)
            raise ValueError(
                f"region {region.number}: expected an image of {region.said_hw!r:.60} (height, "
                f"width), found {size_hw}{remedy}"
            )
