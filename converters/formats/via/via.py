"""The VGG Image Annotator's JSON (VIA 1 and 2): annotations as exported, and saved projects (read).

    DATA/**/via_region_data.json    or other names; several files are read together
    DATA/**/NAME.jpg                beside the file, or anywhere below the folder

Read are polygons, rectangles, circles and ellipses; points and polylines enclose nothing and are
left out, and said. A region's class is its `region_attributes`: of several the one that is called
`label`, `class`, `name`, `category`, `type` or `object`, else the one that most regions have, which
is said; without any attribute all regions are of one class, `object`, as in Mask R-CNN's balloons.

VIA's coordinates are whole pixels of the image. A shape holds the pixels that pycocotools gives it.
An image's key is its path; those in a folder `test` are test images. An image without regions has
no objects.

Source: `_via_img_metadata` in VIA 2's via.js; https://www.robots.ox.ac.uk/~vgg/software/via
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from converters.errors import Problems
from converters.files.images import read_size_hw
from converters.files.json_files import are_numbers, load_json
from converters.formats.coco.shapes import decode_segmentation
from converters.formats.corners import Points, ellipse, read_points, rectangle, turn
from converters.formats.label_spaces import folder_space, natural
from converters.formats.named_images import NamedImages
from converters.masks import outline
from converters.subsets.keys import samples_of
from converters.types import Instance, LabelSpace, Sample

Record = Mapping[str, Any]

LOSES: dict[str, frozenset[str]] = {}
OBJECT = "object"
_HEAD_BYTES = 1 << 16
_SIGNS = (b'"filename"', b'"regions"')
_PROJECT = "_via_img_metadata"
_PLACES = ("*.json", "*/*.json")
_CLASSES = ("label", "class", "name", "category", "type", "object")
_WITHOUT_AREA = frozenset({"point", "polyline", "line"})
_LARGEST_PX = 1e6


def matches(root: Path) -> bool:
    """Tell whether a folder, or one directly below it, holds VIA's JSON."""
    return any(annotation_files(root))


def annotation_files(root: Path) -> Iterator[Path]:
    """Yield the JSON files in a folder, and directly below it, that are VIA's."""
    for place in _PLACES:
        for path in sorted(root.glob(place)):
            is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if not is_hidden and _looks_like_via(path):
                yield path


def _looks_like_via(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    # A project has its settings first.
    return all(sign in head for sign in _SIGNS) or f'"{_PROJECT}"'.encode() in head


def image_names(file: Path) -> list[str]:
    """Return what a file calls its images; nothing where it cannot be read."""
    try:
        return [entry.name for entry in _entries(file)]
    except ValueError:
        return []


@dataclass(frozen=True)
class _Entry:
    """What a file says of one image."""

    file: Path
    name: str
    regions: Sequence[Any]

    def names(self, root: Path) -> tuple[str, ...]:
        beside = self.file.parent.relative_to(root).as_posix()
        return (self.name,) if beside == "." else (f"{beside}/{self.name}", self.name)


def _all_entries(root: Path) -> list[_Entry]:
    """What all files say, once where an export lies beside its project."""
    found: dict[tuple[Path, str], _Entry] = {}
    others: list[_Entry] = []
    for entry in (entry for path in annotation_files(root) for entry in _entries(path)):
        first = found.setdefault((entry.file.parent, entry.name), entry)
        if first.regions != entry.regions:
            others.append(entry)
    return [*found.values(), *others]


def _without_rivals(root: Path, entries: Sequence[_Entry], problems: Problems) -> list[_Entry]:
    """Take down files that say something else of images than another file beside them.

    Returns:
        The entries of all others.
    """
    first: dict[tuple[Path, str], Path] = {}
    rivals: Counter[tuple[Path, Path]] = Counter()
    for entry in entries:
        other = first.setdefault((entry.file.parent, entry.name), entry.file)
        rivals[entry.file, other] += other != entry.file
    for (file, other), times in (+rivals).items():
        name = other.relative_to(root).as_posix()
        what = f"expected images of its own, found {times} of {name}: move one of the two away"
        problems.add(file.relative_to(root).as_posix(), what)
    left_out = {file for file, _ in +rivals}
    return [entry for entry in entries if entry.file not in left_out]


def _entries(path: Path) -> list[_Entry]:
    try:
        content = load_json(path)
        record = content.get(_PROJECT, content) if isinstance(content, dict) else None
        if not isinstance(record, dict):
            raise ValueError("expected VIA's JSON, an object with an entry for each image")
        return [_entry(path, own) for own in record.values()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _entry(path: Path, own: object) -> _Entry:
    name = own.get("filename") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(name, str) or not name:
        raise ValueError(f"expected an image's 'filename' and 'regions', found {own!r:.60}")
    regions = own.get("regions", [])
    # VIA 1 numbers them.
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(regions, list):
        raise ValueError(f"'{name:.80}': expected 'regions' to be a list, found {regions!r:.40}")
    return _Entry(path, name, regions)


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of all regions, sorted; None where there is no region.

    Raises:
        ValueError: a broken file.
    """
    entries = _all_entries(root)
    attribute = _class_attribute(entries)
    names: set[str] = set()
    for entry in entries:
        for region in entry.regions:
            try:
                names |= (
                    {_label(region, attribute)} if _kind(region) not in _WITHOUT_AREA else set()
                )
            except ValueError:
                continue  # `read` says so
    return folder_space(root, natural(names)) if names else None


def _class_attribute(entries: Sequence[_Entry]) -> str:
    """The name of the attribute that says a region's class; "" where no region has one."""
    uses: Counter[str] = Counter()
    for entry in entries:
        for region in entry.regions:
            found = region.get("region_attributes") if isinstance(region, dict) else None
            pairs = found.items() if isinstance(found, dict) else ()
            uses.update(str(name) for name, value in pairs if value not in ("", None, {}))
    usual = [name for own in _CLASSES for name in uses if name.casefold() == own]
    return next(iter(usual or [name for name, _ in uses.most_common(1)]), "")


def _label(region: object, attribute: str) -> str:
    if not attribute:
        return OBJECT
    found = region.get("region_attributes") if isinstance(region, dict) else None
    value = found.get(attribute) if isinstance(found, dict) else None
    if isinstance(value, dict):
        # Of a checkbox: what is ticked.
        ticked = [str(name) for name, is_set in value.items() if is_set]
        value = ticked[0] if len(ticked) == 1 else value
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(
            f"expected one class in the attribute '{attribute:.40}', found {value!r:.40}"
        )
    return str(value).strip()


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read VIA's JSON.

    Args:
        root: folder with JSON files and images, also in folders below.
        subset: `test` is what lies in a folder of that name, `train` everything else.
        labels: those of `label_space`.
        problems: takes down images and regions that are broken.

    Returns:
        Samples without groups.

    Raises:
        ValueError: a broken file.
    """
    entries = _without_rivals(root, _all_entries(root), problems)
    reader = _Reader(root, labels, problems, _class_attribute(entries), entries)
    samples = [sample for entry in entries for sample in reader.sample(entry)]
    samples += reader.finish(subset)
    return samples_of(root, samples, subset)


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    attribute: str
    entries: Sequence[_Entry]
    _lines: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._images = NamedImages(self.root, [entry.names(self.root) for entry in self.entries])
        stems = (self._stem(image) for image in self._images.paths)
        self._times = Counter(stems)

    def _stem(self, image: Path) -> str:
        return image.relative_to(self.root).with_suffix("").as_posix()

    def sample(self, entry: _Entry) -> Iterator[Sample]:
        where = f"{entry.file.relative_to(self.root).as_posix()}, image '{entry.name:.80}'"
        try:
            image = self._images.find(entry.names(self.root))
            stem = self._stem(image)
            # Two images that differ only in their suffix keep it.
            key = stem if self._times[stem] == 1 else image.relative_to(self.root).as_posix()
            size_hw = read_size_hw(image)
        except ValueError as error:
            self.problems.add(where, error, key=Path(entry.name).stem)
            return
        report = partial(self.problems.add, where, key=key)
        found: list[Instance] = []
        for number, region in enumerate(entry.regions):
            try:
                found += self._instances(region, size_hw)
            except ValueError as error:
                report(f"region {number}: {error}")
        yield Sample(key, image, size_hw, tuple(found))

    def _instances(self, region: object, size_hw: tuple[int, int]) -> Iterator[Instance]:
        if (kind := _kind(region)) in _WITHOUT_AREA:
            self._lines[kind] += 1
            return
        label = _label(region, self.attribute)
        if label not in self.labels.index:
            raise ValueError(f"expected a class of '{self.labels.name}', found '{label:.80}'")
        points = _corners(_shape(region), kind)
        mask = decode_segmentation([points.ravel().tolist()], size_hw).mask
        yield Instance(label, outline(mask))

    def finish(self, subset: str) -> list[Sample]:
        """Say what was assumed and left out, when all images are read; return test images."""
        if not self.attribute:
            self.problems.note(f"{self.root}: regions without a class are of one, '{OBJECT}'")
        elif others := self._other_attributes():
            self.problems.note(
                f"{self.root}: the attribute '{self.attribute}' is taken for the class, not "
                f"{', '.join(others):.120}"
            )
        for kind, times in sorted(self._lines.items()):
            what = f"left out {times} shapes that enclose nothing ({kind})"
            self.problems.note(f"{self.root}: {what}")
        return self._images.unanswered(subset, self.problems)

    def _other_attributes(self) -> list[str]:
        names = {
            f"'{name}'"
            for entry in self.entries
            for region in entry.regions
            if isinstance(region, dict) and isinstance(region.get("region_attributes"), dict)
            for name in region["region_attributes"]
        }
        return sorted(names - {f"'{self.attribute}'"})


def _shape(region: object) -> Record:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        raise ValueError(f"expected 'shape_attributes', found {shape!r:.40}")
    return shape


def _kind(region: object) -> str:
    return str(_shape(region).get("name"))


def _corners(shape: Record, kind: str) -> Points:
    """The corners of a shape in VIA's pixels, float64 (N, 2)."""
    if kind in ("polygon", "polygons"):
        return _polygon(shape)
    if kind == "rect":
        x, y, width, height = (_number(shape, name) for name in ("x", "y", "width", "height"))
        return rectangle(x, y, x + width, y + height)
    if kind in ("circle", "ellipse"):
        names = ("r", "r") if kind == "circle" else ("rx", "ry")
        centre = _number(shape, "cx"), _number(shape, "cy")
        radii = _number(shape, names[0]), _number(shape, names[1])
        points = ellipse(centre, *radii)
        angle = _number(shape, "theta") if "theta" in shape else 0.0
        return turn(points, centre, math.degrees(angle)) if angle else points
    raise ValueError(f"expected a polygon, rect, circle or ellipse, found {kind!r:.40}")


def _polygon(shape: Record) -> Points:
    xs: Any = shape.get("all_points_x")
    ys: Any = shape.get("all_points_y")
    are_lists = isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)
    points = read_points([list(pair) for pair in zip(xs, ys, strict=True)]) if are_lists else None
    if points is None:
        raise ValueError(
            "expected 'all_points_x' and 'all_points_y', as many numbers in both, found "
            f"{xs!r:.30} and {ys!r:.30}"
        )
    return points


def _number(shape: Record, name: str) -> float:
    value: Any = shape.get(name)
    if not are_numbers([value]) or not abs(value) < _LARGEST_PX:
        raise ValueError(f"expected '{name}' to be a number, found {value!r:.40}")
    return float(value)
