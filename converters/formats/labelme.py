"""labelme's files: a JSON beside each image, with the shapes that were drawn on it.

    DATA/**/NAME.png
    DATA/**/NAME.json      version, shapes, imagePath, imageData, imageHeight, imageWidth
    DATA/labels.txt        (optional) the classes, a line each; __ignore__ and _background_ are none
    DATA/images.json       (written by us) NAME -> key, group, size, attributes of an image

Read are polygons, rectangles, circles and masks; of X-AnyLabeling rectangles by their four corners,
also turned ones. Points and lines enclose nothing and are left out.
Images without a JSON are nobody's negatives, but not annotated yet: they are test images, with
`test/` before their key. Shapes of one label and one `group_id` are the parts of an object. An
image that lies only inside its JSON (`imageData`) has to be written out first. Classes whose name
is none for labelme, or no line of labels.txt, are refused when they are written.

labelme counts from the upper left corner of the upper left pixel, and its own `shape_to_mask` gives
a vertex to the pixel that it lies in: x is the pixel floor(x). Here a pixel's centre is at whole
numbers, so that half a pixel is taken off. Written are polygons, with pixels' centres at x.5.
Between the vertices labelme draws by Pillow, whose slanted edges are narrower by up to a pixel.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from converters.errors import Problems
from converters.files.below import is_result
from converters.files.images import PutImage, image_suffix, is_image, read_size_hw
from converters.files.json_files import dump_json, load_json
from converters.files.provenance import PROVENANCE, atomic_write_text, read_provenance
from converters.formats.corners import read_points
from converters.formats.label_spaces import folder_space, natural
from converters.formats.mask_pixels import read_mask_pixels
from converters.formats.plausible import keep_plausible
from converters.formats.single_ring import without_holes
from converters.formats.writing import (
    INDEX,
    WriteTarget,
    check_labels,
    file_names,
    read_index,
    sample_record,
)
from converters.loss import ConversionLoss, lossless, measure
from converters.masks import CropMask, outline, rasterize_labels
from converters.subsets.keys import is_test_key, of_test, with_tests
from converters.types import FARTHEST_PX, Instance, LabelSpace, Sample

LOSES = {"polygons": frozenset({"subpixels"})}
_LABELS = "labels.txt"
_NO_CLASS = ("__ignore__", "_background_")
_ENCLOSE_NOTHING = ("point", "points", "line", "linestrip")
_HEAD_BYTES = 1 << 16
_SHAPES, _IMAGE = b'"shapes"', b'"imagePath"'
# How far a folder is looked into before it is known what it is.
_DEPTH, _MOST_LOOKED_AT = 2, 200
# What X-AnyLabeling writes by its four corners.
_CORNERED = ("rectangle", "rotation")
# Of a circle, as labelme draws it.
_CORNERS = 64


def matches(root: Path) -> bool:
    """Tell whether a folder holds labelme's files."""
    is_ours = read_provenance(root).get("kind") == "labelme"
    return is_ours or any(
        map(_looks_like_labelme, islice(_json_files(root, _DEPTH), _MOST_LOOKED_AT))
    )


def _json_files(root: Path, depth: int = sys.maxsize) -> Iterator[Path]:
    for path in _files(root, depth):
        if path.suffix.lower() == ".json" and path.name not in (INDEX, PROVENANCE):
            yield path


def _files(root: Path, depth: int = sys.maxsize) -> Iterator[Path]:
    """Files below a folder, sorted, but for what we wrote there as something else."""
    try:
        paths = sorted(root.iterdir())
    except OSError:
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            if depth and not is_result(path):
                yield from _files(path, depth - 1)
        else:
            yield path


def _looks_like_labelme(path: Path) -> bool:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, size - _HEAD_BYTES))
            ends = head + file.read(_HEAD_BYTES)
    except OSError:
        return False
    # The image, which is inside, may stand before or behind the shapes.
    return _SHAPES in ends and _IMAGE in ends


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as labelme's files; with a split in folders `train` and `val`.

    Raises:
        ValueError: a class whose name labelme, or a line of its list, cannot hold.
    """
    _check_names(target.labels)
    tasks = []
    for sample, name in zip(samples, file_names(samples), strict=True):
        subset = f"{target.subset_of(sample)}/" if len(target.subsets) > 1 else ""
        tasks.append((sample, subset + name))
    encode = partial(_write_sample, target.folder, target.labels, target.put_image)
    loss = sum(target.each(encode, tasks), ConversionLoss())
    index = {name: sample_record(sample) for sample, name in tasks}
    atomic_write_text(target.folder / INDEX, dump_json(index))
    names = "".join(f"{name}\n" for name in (*_NO_CLASS, *target.labels.names))
    atomic_write_text(target.folder / _LABELS, names)
    return loss


def _check_names(labels: LabelSpace) -> None:
    for name in labels.names:
        if name in _NO_CLASS or _listed(name) != [name]:
            why = "which is no class for labelme" if name in _NO_CLASS else "which no line can hold"
            raise ValueError(
                f"format 'labelme': expected names of classes that are a line of {_LABELS}, found "
                f"{name!r:.60}, {why}: rename it (--labels with 'aliases'), or take another format"
            )


def _listed(text: str) -> list[str]:
    """The names in a list of labels, as labelme reads it, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _write_sample(
    folder: Path, labels: LabelSpace, put: PutImage, task: tuple[Sample, str]
) -> ConversionLoss:
    sample, name = task
    check_labels(sample, labels)
    image = folder / (name + image_suffix(sample))
    put(sample, image)
    shapes, written = [], []
    for number, instance in enumerate(sample.instances, 1):
        rings = [ring for part in instance.parts for ring in without_holes(part, sample.size_hw)]
        for ring in rings:
            written.append(Instance(instance.label, ring))
            shapes.append(
                {
                    "label": instance.label,
                    "points": (shapely.get_coordinates(ring.exterior)[:-1] + 0.5).tolist(),
                    "group_id": number if len(rings) > 1 else None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
            )
    record: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image.name,
        "imageData": None,
        "imageHeight": sample.size_hw[0],
        "imageWidth": sample.size_hw[1],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if not any(part.interiors for one in sample.instances for part in one.parts):
        return lossless(sample)
    return measure(sample, rasterize_labels(written, sample.size_hw))


# --- reading


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of `labels.txt`, else the labels of all files, sorted; None without any.

    A file that cannot be read has none; `read` says what is wrong with it.
    """
    names: Iterable[str] = ()
    if (root / _LABELS).is_file():
        names = _listed((root / _LABELS).read_text(encoding="utf-8-sig", errors="replace"))
    found: dict[str, None] = {}
    for path in filter(_looks_like_labelme, _json_files(root)):
        try:
            shapes = load_json(path)["shapes"]
        except (KeyError, TypeError, ValueError):
            continue
        for shape in shapes if isinstance(shapes, list) else ():
            if isinstance(shape, dict) and isinstance(shape.get("label"), str):
                is_named = not _is_line(shape) and shape["label"].strip()
                found |= {shape["label"]: None} if is_named else {}
    known = [name for name in names if name not in _NO_CLASS]
    others = natural(set(found) - set(known) - set(_NO_CLASS))
    classes = (*known, *others)
    if not classes:
        return None
    return folder_space(root, classes, _NO_CLASS)


def _is_line(shape: Mapping[str, Any]) -> bool:
    return shape.get("shape_type") in _ENCLOSE_NOTHING


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read labelme's files.

    Args:
        root: folder with images and JSON files, also in folders below.
        subset: `test` is what lies in a folder of that name, had such a key when we wrote it, or
            has no JSON; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down files and shapes that are broken.

    Returns:
        Samples; keys and groups are those of `images.json`, else the images' paths, and no group.

    Raises:
        ValueError: `images.json` is not one.
    """
    reader = _Reader(root, labels, problems, read_index(root))
    samples = [s for path in filter(_looks_like_labelme, _json_files(root)) for s in reader(path)]
    samples = with_tests([*samples, *reader.finish()])
    return [s for s in samples if subset == "all" or is_test_key(s.key) == (subset == "test")]


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    index: Mapping[str, Mapping[str, Any]]
    _lines: Counter[str] = field(default_factory=Counter)
    _images: dict[str, Path] = field(default_factory=dict)

    def __call__(self, path: Path) -> Iterator[Sample]:
        place = path.relative_to(self.root).with_suffix("").as_posix()
        fields = dict(self.index.get(place) or {"key": place})
        report = partial(self.problems.add, path, key=fields["key"], group=fields.get("group", ""))
        try:
            record = load_json(path)
            if not isinstance(record, dict) or not isinstance(record.get("shapes"), list):
                raise ValueError("expected labelme's JSON with a list 'shapes', found none")
            image = self._image(path, record)
            size_hw = read_size_hw(image)
            said = record.get("imageHeight"), record.get("imageWidth")
            if None not in said and said != size_hw:
                raise ValueError(f"expected an image of {said!r:.40}, found {size_hw}")
        except ValueError as error:
            report(error)
            return
        instances = self._instances(record["shapes"], size_hw, report)
        if "frame" not in fields:
            instances = keep_plausible(instances, size_hw, report)
        yield Sample(image=image, size_hw=size_hw, instances=instances, **fields)

    def _image(self, path: Path, record: Mapping[str, Any]) -> Path:
        said = record.get("imagePath")
        # Windows' paths too; often of the machine on which it was drawn.
        name = PureWindowsPath(said).name if isinstance(said, str) else ""
        places = [path.parent / str(said), path.parent / name] if name else []
        places += [path.parent / PureWindowsPath(str(said)).as_posix()] if name else []
        places += [p for p in sorted(path.parent.glob(f"{_escaped(path.stem)}.*")) if is_image(p)]
        home = self.root.resolve()
        for place in places:
            if place.suffix.lower() == ".json":
                continue
            if place.is_file() and place.resolve().is_relative_to(home):
                other = self._images.setdefault(os.path.realpath(place), path)
                if other != path:
                    raise ValueError(
                        f"expected an image of its own, found {place.name}, which "
                        f"{other.relative_to(self.root).as_posix()} is about: correct one's "
                        "imagePath, or delete it"
                    )
                return place
        inside = " (it is inside the JSON: labelme_export_json writes it out)"
        raise ValueError(
            f"expected its image {name or path.stem} beside it, found none"
            f"{inside if record.get('imageData') else ''}"
        )

    def _instances(
        self, shapes: Sequence[Any], size_hw: tuple[int, int], report: Any
    ) -> tuple[Instance, ...]:
        parts: dict[tuple[str, object], list[Polygon]] = {}
        for number, shape in enumerate(shapes):
            try:
                label = shape.get("label") if isinstance(shape, dict) else None
                if not isinstance(label, str) or not label.strip():
                    raise ValueError(f"expected a shape with a label, found {shape!r:.40}")
                if label in self.labels.ignored:
                    continue
                if _is_line(shape):
                    self._lines[shape["shape_type"]] += 1
                    continue
                if label not in self.labels.index:
                    raise ValueError(f"expected a class of '{self.labels.name}', found '{label}'")
                group = shape.get("group_id")
                key = (label, ("shape", number) if group is None else ("group", str(group)))
                parts.setdefault(key, []).extend(_polygons(shape, size_hw))
            except ValueError as error:
                report(f"shape {number}: {error}")
        return tuple(
            Instance(label, found[0] if len(found) == 1 else MultiPolygon(found))
            for (label, _), found in parts.items()
            if found
        )

    def finish(self) -> list[Sample]:
        """Say what was left out, when all files are read; return the images without a JSON."""
        for kind, times in sorted((+self._lines).items()):
            what = f"left out {times} shapes that enclose nothing ({kind})"
            self.problems.note(f"{self.root}: {what}")
        images = list(filter(is_image, _files(self.root)))
        others = [path for path in images if os.path.realpath(path) not in self._images]
        # One of a broken JSON, or of one that is not labelme's, is no test image.
        named = {path.with_suffix(""): path for path in _json_files(self.root)}
        found = [path for path in others if path.with_suffix("") not in named]
        unlike = [path for path in others if path.with_suffix("") in named]
        strange = [path for path in unlike if not self._is_broken(named[path.with_suffix("")])]
        self._note("left out {} images whose JSON is not labelme's", strange)
        self._note("{} images without JSON are test images", found)
        return [sample for path in found for sample in self._unannotated(path)]

    def _is_broken(self, path: Path) -> bool:
        """Tell whether a file beside an image is no JSON at all, so that objects may be lost."""
        if _looks_like_labelme(path):
            # What is wrong was said when it was read.
            return True
        try:
            load_json(path)
        except ValueError as error:
            place = path.relative_to(self.root).with_suffix("").as_posix()
            self.problems.add(path, error, key=place)
            return True
        return False

    def _note(self, what: str, images: Sequence[Path]) -> None:
        if images:
            first = images[0].relative_to(self.root).as_posix()
            self.problems.note(f"{self.root}: {what.format(len(images))} ({first})")

    def _unannotated(self, image: Path) -> Iterator[Sample]:
        key = of_test(image.relative_to(self.root).with_suffix("").as_posix())
        try:
            yield Sample(key, image, read_size_hw(image))
        except ValueError as error:
            self.problems.add(image, error, key=key)


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in stem)


def _polygons(shape: Mapping[str, Any], size_hw: tuple[int, int]) -> list[Polygon]:
    """A shape's outlines, with pixels' centres at whole numbers."""
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape)
    if kind == "mask":
        return _of_mask(shape, points, size_hw)
    if kind in _CORNERED and len(points) == 4:
        kind = "polygon"
    if kind == "rectangle":
        points = _expect(points, 2, kind)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "circle":
        centre, edge = _expect(points, 2, kind)
        angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = centre + math.dist(centre, edge) * ring
    elif kind != "polygon":
        raise ValueError(f"expected a polygon, rectangle, circle or mask, found {kind!r:.40}")
    if len(points) < 3:
        raise ValueError(f"expected at least 3 points, found {len(points)}")
    return [Polygon(points - 0.5)]


def _expect(points: np.ndarray[Any, Any], count: int, kind: str) -> np.ndarray[Any, Any]:
    if len(points) != count:
        raise ValueError(f"expected {count} points of a {kind}, found {len(points)}")
    return points


def _points(shape: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    points = read_points(shape.get("points"))
    if points is None:
        raise ValueError(f"expected points [x, y], found {shape.get('points')!r:.40}")
    if not (np.abs(points) <= FARTHEST_PX).all():
        raise ValueError("expected points near the image, found others")
    return points


def _of_mask(
    shape: Mapping[str, Any], points: np.ndarray[Any, Any], size_hw: tuple[int, int]
) -> list[Polygon]:
    """The outlines of a PNG inside the JSON, whose upper left pixel is the first point."""
    left, top = np.floor(_expect(points, 2, "mask")[0]).astype(int).tolist()
    try:
        png = base64.b64decode(str(shape.get("mask")), validate=True)
    except binascii.Error:
        raise ValueError("expected a mask in base64, found another text") from None
    values = read_mask_pixels(png, None).values
    if values.ndim != 2:
        raise ValueError("expected a mask of grey pixels, found colours")
    height, width = values.shape
    if left < 0 or top < 0 or left + width > size_hw[1] or top + height > size_hw[0]:
        raise ValueError(f"expected a mask inside the image {size_hw}, found one beyond it")
    mask = CropMask(left, top, (values > 0).astype(np.uint8))
    geometry = outline(mask) if mask.area else None
    if geometry is None:
        return []
    return [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
