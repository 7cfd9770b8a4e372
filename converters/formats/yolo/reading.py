"""How Ultralytics' images and label files become samples; `yolo.py` says which are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon

from converters.errors import Problems, boxes_only
from converters.files.images import read_size_hw
from converters.files.names import normal_name
from converters.formats.writing import INDEX, read_index
from converters.formats.yolo.config import YoloConfig
from converters.formats.yolo.pairing import Pairing
from converters.subsets.keys import of_test
from converters.types import Instance, Sample

# Six digits of x / width miss a whole pixel by so much, at most, in images of 40,000 pixels.
_NEAR = 0.02
# Five digits, as supervision writes them, miss it by more from 4,000 pixels on.
_NEAR_OF_SIDE = 6e-6
# Of the image's side; annotators draw a little beyond its edge.
_BEYOND = 0.1
# Key points of a file that tell it from outlines; they may lie beyond their box a little.
_FEWEST_POINTS, _BEYOND_BOX = 4, 0.01
_VISIBLE = re.compile(r"[012](\.0*)?")
_POSES = (
    "expected labels of segments, found a box and points with 0, 1 or 2 each in every line: these "
    "are key points (pose), which have no outlines"
)


class BoxError(ValueError):
    """A line that is a box of detection."""


class YoloReader:
    """Reads the samples of one data set.

    Args:
        config: what its YAML file says.
        problems: takes down what is wrong.

    """

    def __init__(self, config: YoloConfig, problems: Problems) -> None:
        self._config, self._problems = config, problems
        self._tracked = 0
        self._boxes: list[tuple[Callable[[Path, object], None], Path, str]] = []
        self._root = config.root
        self._index = {normal_name(key): fields for key, fields in read_index(self._root).items()}

    def samples(self, subset: str) -> list[Sample]:
        """Return the samples of a subset.

        Raises:
            ValueError: images that are not there, or label files and images that do not fit.
        """
        self._config.note_place(self._problems)
        self._config.note_others(self._problems)
        images = self._config.images(subset, self._problems)
        if subset != "test":
            self._report_gone(images)
        pairs = self._pairs(images, subset) if images else {}
        read = (self._read(image, file, images[image]) for image, file in pairs.items())
        samples = [sample for sample in read if sample]
        if self._tracked:
            self._problems.note(
                f"{self._root}: left out the numbers of tracks in {self._tracked} label files"
            )
        is_detection = not any(sample.instances for sample in samples) and not self._problems.found
        if self._boxes and is_detection:
            self._problems.add(self._config.path, boxes_only(len(self._boxes)))
            return []
        for report, path, what in self._boxes:
            report(path, what)
        return samples

    def _report_gone(self, images: Collection[Path]) -> None:
        """Take down the images that the index names, and nobody has any more."""
        there = {normal_name(image.stem) for image in images}
        if self._index.keys() - there:
            # Those of other subsets are not read, but there.
            with suppress(ValueError):
                others = self._config.images("all", Problems(self._root))
                there |= {normal_name(image.stem) for image in others}
        for name, fields in self._index.items():
            if name not in there:
                what = f"expected the image that {INDEX} names, found none: put it back"
                group = fields.get("group", "")
                self._problems.add(f"images/{name}", what, key=fields["key"], group=group)

    def _pairs(self, images: Mapping[Path, str], subset: str) -> Mapping[Path, Path | None]:
        everything: Collection[Path] | None = images
        if subset != "all":
            try:
                everything = self._config.images("all", Problems(self._root))
            except ValueError:
                # That another subset is not there is said when that is read.
                everything = None
        return Pairing(self._root, images, everything).pairs(self._problems)

    def _read(self, image: Path, file: Path | None, kind: str) -> Sample | None:
        place = image.relative_to(self._root).with_suffix("").as_posix()
        fields = self._index.get(normal_name(image.stem))
        is_ours = fields is not None
        fields = fields or {"key": of_test(place) if kind == "test" else place}
        report = partial(self._problems.add, key=fields["key"], group=fields.get("group", ""))
        try:
            if file is None and is_ours:
                raise ValueError("expected its label file, which was written, found none")
            size_hw = read_size_hw(image)
            instances = self._instances(file, size_hw, report) if file else ()
            return Sample(image=image, size_hw=size_hw, instances=instances, **fields)
        except ValueError as error:
            report(image, error)
            return None

    def _instances(
        self, path: Path, size_hw: tuple[int, int], report: Callable[[Path, object], None]
    ) -> tuple[Instance, ...]:
        instances: list[Instance] = []
        try:
            lines = read_lines(path)
        except ValueError as error:
            report(path, error)
            return ()
        if _are_poses(lines):
            report(path, _POSES)
            return ()
        if (plain := _without_tracks(lines)) is not None:
            lines = plain
            self._tracked += 1
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    instances.append(self._instance(line, size_hw))
            except BoxError as error:
                self._boxes.append((report, path, f"line {number}: {error}"))
            except ValueError as error:
                report(path, f"line {number}: {error}")
        return tuple(instances)

    def _instance(self, line: str, size_hw: tuple[int, int]) -> Instance:
        number, values = parse_line(line)
        outline = outline_of(values, size_hw)
        if number not in self._config.names:
            known = f"{min(self._config.names)} to {max(self._config.names)}"
            raise ValueError(
                f"expected a class of {self._config.path.name}, {known}, found {number:g}"
            )
        return Instance(self._config.names[int(number)], outline)


def parse_line(line: str) -> tuple[float, list[float]]:
    """Return the number of a line's class, and the numbers behind it.

    Raises:
        ValueError: there is something else.
    """
    try:
        # Python takes `1_0` for 10.
        number, *values = map(float, line.replace("_", "?").split())
    except ValueError:
        raise ValueError(f"expected a class and coordinates, found '{line:.40}'") from None
    return number, values


def outline_of(values: Sequence[float], size_hw: tuple[int, int]) -> Polygon:
    """Return an outline in pixels.

    Args:
        values: x, y, x, y, ..., as shares of the image's width and height.
        size_hw: the image's height and width.

    Raises:
        BoxError: a box.
        ValueError: fewer than three points, or coordinates outside 0..1.
    """
    if len(values) == 4:
        raise BoxError(
            "expected points x y of an outline, found only a box (detection): export the "
            "annotations for segmentation"
        )
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"expected at least 3 points x y, found {len(values)} numbers")
    points = np.array(values).reshape(-1, 2)
    if not (np.abs(points - 0.5) <= 0.5 + _BEYOND).all():  # in pixels, or no numbers
        found = " ".join(f"{value:g}" for value in values)
        raise ValueError(f"expected coordinates from 0 to 1, found '{found:.40}'")
    return Polygon(_pixels(points, size_hw))


def _are_poses(lines: Sequence[str]) -> bool:
    """Tell whether each line is a class, a box and points x, y and 0, 1 or 2 inside it.

    That is how Ultralytics writes key points, whether each can be seen. Outlines may end at the
    image's edge, too, but not with each third number and in a box that their first two points say.
    """
    rows = [line.split()[1:] for line in lines if line.strip()]
    if not rows or len(rows[0]) % 3 != 1 or not all(map(_VISIBLE.fullmatch, rows[0][6::3])):
        return False
    try:
        values = np.array(rows, np.float64)
    except ValueError:  # other words, or lines of different lengths
        return False
    box, points = values[:, None, :4], values[:, 4:].reshape(len(rows), -1, 3)
    seen = points[..., 2]
    if seen.size < _FEWEST_POINTS or not np.isin(seen, (0, 1, 2)).all() or not seen.any():
        return False
    is_inside = np.abs(points[..., :2] - box[..., :2]) <= box[..., 2:] / 2 + _BEYOND_BOX
    return bool((box[..., 2:] > 0).all() and (is_inside.all(axis=2) | (seen == 0)).all())


def _without_tracks(lines: Sequence[str]) -> list[str] | None:
    """Return lines without the number of a track at their end; None where not all have one.

    That is how Ultralytics writes what it has followed through a film. No number comes twice, and
    what is left are pairs.
    """
    rows = [line.split() for line in lines]
    ends = [row[-1] for row in rows if row]
    are_numbers = all(end.isascii() and end.isdecimal() and end != "0" for end in ends)
    if not ends or not are_numbers or len(set(ends)) < len(ends):
        return None
    # A class, pairs, and the number.
    if any(len(row) % 2 or len(row) < 6 for row in rows if row):
        return None
    return [" ".join(row[:-1]) for row in rows]


def read_lines(path: Path) -> list[str]:
    """Read a label file.

    Raises:
        ValueError: one that cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a text of labels, found: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x}"
        raise ValueError(
            f"line {number}: expected a text of labels in UTF-8, found {found}: save it as UTF-8"
        ) from None


def _pixels(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> Any:
    """Return points in pixels such that rounding halves up gives what others and we have meant.

    The pixel is floor(x * width + .02). Ultralytics' and supervision's writers put down
    `pixel / width`, we `(pixel + .5) / width`; Ultralytics multiplies and truncates. What was a
    whole number may be a little less by the digits that were written.
    """
    sides = np.array([size_hw[1], size_hw[0]])
    scaled = points * sides
    whole = np.rint(scaled)
    near = np.maximum(_NEAR, _NEAR_OF_SIDE * sides)
    return np.where(np.abs(scaled - whole) <= near, whole, scaled) - 0.5
