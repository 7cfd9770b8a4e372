"""Supervisely's projects of images, as it exports them and DatasetNinja has them (read).

    DATA/meta.json                          `classes`: title, shape
    DATA/**/DATASET/img/NAME.png
    DATA/**/DATASET/ann/NAME.png.json       `size`, `objects`

A polygon holds the pixels that Supervisely's SDK draws: OpenCV's polygon, with its border, without
the polygons inside. A bitmap is a PNG, compressed and in base64, at its `origin`. Rectangles are
boxes, and lines and points enclose nothing: they are left out, and said. An image's key is its path
without `img`; images of datasets such as `test` are test images. Classes are those of meta.json, in
its order; without it, those of the objects.

Source: https://developer.supervisely.com, "Supervisely annotation JSON format", and its SDK,
`geometry/polygon.py` and `geometry/bitmap.py`.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import Problems, boxes_only
from converters.files.images import is_image, read_size_hw, turn_remedy
from converters.files.json_files import load_json
from converters.formats.corners import read_points
from converters.formats.label_spaces import folder_space, natural
from converters.formats.mask_folders.pairing import describe_left_out
from converters.formats.mask_folders.tree import Tree
from converters.formats.mask_pixels import read_mask_pixels
from converters.masks import CropMask, crop, outline
from converters.subsets.keys import as_test_key, samples_of
from converters.types import FARTHEST_PX, Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_META, _IMAGES, _ANNOTATIONS = "meta.json", "img", "ann"
_POLYGON, _BITMAP, _RECTANGLE = "polygon", "bitmap", "rectangle"
# Shapes of classes that have no pixels.
_WITHOUT_AREA = (_RECTANGLE, "line", "point", "graph", "cuboid", "cuboid_2d", "cuboid_3d")
_SIGNS, _HEAD_BYTES, _DEPTH = (b'"objects"', b'"size"'), 1 << 12, 6
# Of what a bitmap's PNG may take beside its pixels.
_MORE_BYTES = 1 << 16
Record = Mapping[str, Any]


def matches(root: Path) -> bool:
    """Tell whether a folder holds Supervisely's files beside images."""
    first = next((path for folder in _homes(Tree(root)) for path in _json_files(folder)), None)
    if first is None:
        return False
    try:
        with first.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return all(sign in head for sign in _SIGNS)


def _homes(tree: Tree, folder: Path | None = None, depth: int = _DEPTH) -> Iterator[Path]:
    """The folders that hold `img` and `ann`, sorted; links are followed."""
    folder = folder or tree.root
    inside = {path.name: path for path in tree.inside(folder)}
    if _IMAGES in inside and _ANNOTATIONS in inside:
        yield folder
    for name, path in inside.items() if depth else ():
        if name not in (_IMAGES, _ANNOTATIONS):
            yield from _homes(tree, path, depth - 1)


def _json_files(home: Path) -> list[Path]:
    return sorted((home / _ANNOTATIONS).glob("[!.]*.json"))


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of meta.json that have pixels, else those of the objects, sorted.

    Raises:
        ValueError: a meta.json that names none.
    """
    path = root / _META
    if path.is_file():
        return folder_space(root, _meta_classes(path))
    names: set[str] = set()
    for file in (file for home in _homes(Tree(root)) for file in _json_files(home)):
        try:
            objects = load_json(file)["objects"]
            names |= {one["classTitle"] for one in objects if _kind(one) not in _WITHOUT_AREA}
        except (KeyError, TypeError, ValueError):
            continue  # `read` says so
    return folder_space(root, natural(filter(None, map(str, names)))) if names else None


def _meta_classes(path: Path) -> tuple[str, ...]:
    content = load_json(path)
    classes = content.get("classes") if isinstance(content, dict) else None
    rows = classes if isinstance(classes, list) else []
    pairs = [(row.get("title"), row.get("shape")) for row in rows if isinstance(row, dict)]
    names = [name for name, shape in pairs if shape not in _WITHOUT_AREA]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            f"{path}: expected 'classes' with a 'title' each, of objects with pixels, found "
            f"{classes!r:.60}"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: expected each class once, found '{twice[0]:.80}' twice")
    return tuple(map(str, names))


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read Supervisely's files.

    Args:
        root: the project's folder, or one of its datasets.
        subset: `test` is what lies in a dataset of that name, `train` everything else.
        labels: those of `label_space`.
        problems: takes down files and objects that are broken, and images that are missing.

    Returns:
        Samples without groups.
    """
    reader = _Reader(root, labels, problems)
    tree = Tree(root)
    homes = list(_homes(tree))
    samples = [sample for home in homes for sample in reader.samples(home)]
    inside = [home / name for home in homes for name in (_IMAGES, _ANNOTATIONS)]
    if others := [
        path
        for path in tree.all_files()
        if not any(path.is_relative_to(folder) for folder in inside)
    ]:
        problems.note(describe_left_out(root, others))
    reader.finish()
    return samples_of(root, samples, subset)


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    _left_out: Counter[str] = field(default_factory=Counter)
    _boxes: list[str] = field(default_factory=list)
    _without: list[Path] = field(default_factory=list)
    _has_objects: bool = False

    def samples(self, home: Path) -> Iterator[Sample]:
        """Yield the samples of a dataset."""
        images = {path.name: path for path in sorted((home / _IMAGES).iterdir()) if is_image(path)}
        stems = Counter(path.stem for path in images.values())
        for file in _json_files(home):
            name = file.name.removesuffix(".json")
            image = images.pop(name, home / _IMAGES / name)
            own = image.stem if stems[image.stem] < 2 else image.name
            place = (home.relative_to(self.root) / own).as_posix()
            yield from self._sample(file, image, as_test_key(place))
        self._without += images.values()

    def _sample(self, file: Path, image: Path, key: str) -> Iterator[Sample]:
        report = partial(self.problems.add, file, key=key)
        try:
            size_hw = read_size_hw(image)
            objects = _objects(load_json(file), image, size_hw)
        except ValueError as error:
            report(error)
            return
        found: list[Instance] = []
        for number, one in enumerate(objects):
            try:
                found += self._instances(one, size_hw)
            except ValueError as error:
                report(f"object {number}: {error}")
        yield Sample(key, image, size_hw, tuple(found))

    def _instances(self, one: object, size_hw: tuple[int, int]) -> Iterator[Instance]:
        kind = _kind(one)
        if not isinstance(one, dict) or kind not in (_POLYGON, _BITMAP, *_WITHOUT_AREA):
            raise ValueError(f"expected a polygon or a bitmap, found {kind!r:.40}")
        label = one.get("classTitle")
        if label in self.labels.ignored:
            return
        if kind in _WITHOUT_AREA:
            self._left_out[kind] += 1
            return
        if label not in self.labels.index:
            raise ValueError(f"expected a class of '{self.labels.name}', found {label!r:.80}")
        mask = _polygon(one, size_hw) if kind == _POLYGON else _bitmap(one, size_hw)
        self._has_objects = True
        if mask.area:
            yield Instance(str(label), outline(mask))

    def finish(self) -> None:
        """Say what was left out, when all datasets are read."""
        boxes = self._left_out[_RECTANGLE]
        if boxes and not self._has_objects and not self.problems.found:
            self.problems.add(self.root, boxes_only(boxes))
            return
        for kind, times in sorted((+self._left_out).items()):
            what = "boxes" if kind == _RECTANGLE else "shapes that enclose nothing"
            self.problems.note(f"{self.root}: left out {times} {what} ({kind})")
        if self._without:
            first = self._without[0].relative_to(self.root).as_posix()
            self.problems.note(
                f"{self.root}: left out {len(self._without)} images without a file in "
                f"{_ANNOTATIONS} ({first})"
            )


def _kind(one: object) -> str:
    return str(one.get("geometryType")) if isinstance(one, dict) else repr(one)


def _objects(content: object, image: Path, size_hw: tuple[int, int]) -> Sequence[Any]:
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(objects, list):
        raise ValueError(f"expected 'objects', a list, found {objects!r:.60}")
    size = content.get("size")
    said = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    if said != size_hw:
        remedy = turn_remedy(image, said, size_hw)
        raise ValueError(f"expected an image of {said!r:.40}, found {size_hw}{remedy}")
    return objects


def _polygon(one: Record, size_hw: tuple[int, int]) -> CropMask:
    """Return a polygon's pixels, as the SDK draws them."""
    points = one.get("points")
    written = points if isinstance(points, dict) else {}
    inside = written.get("interior") or []
    rings = [written.get("exterior"), *(inside if isinstance(inside, list) else [None])]
    found = [read_points(ring) for ring in rings]
    if any(ring is None or len(ring) < 3 or abs(ring).max() > FARTHEST_PX for ring in found):
        raise ValueError(
            "expected 'points' with 'exterior' and 'interior', of three points [x, y] or more, "
            f"found {points!r:.60}"
        )
    whole = [np.rint(ring).astype(np.int32) for ring in found if ring is not None]
    plane = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(plane, whole[:1], 1)
    if whole[1:]:
        cv2.fillPoly(plane, whole[1:], 0)
    return crop(plane)


def _bitmap(one: Record, size_hw: tuple[int, int]) -> CropMask:
    """Return a bitmap's pixels."""
    given = one.get("bitmap")
    written = given if isinstance(given, dict) else {}
    data, origin = written.get("data"), read_points([written.get("origin")])
    if not isinstance(data, str) or origin is None:
        raise ValueError(f"expected 'bitmap' with 'data' and 'origin', found {given!r:.60}")
    try:
        unpacker = zlib.decompressobj()
        png = unpacker.decompress(
            base64.b64decode(data, validate=True), 4 * size_hw[0] * size_hw[1] + _MORE_BYTES
        )
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"expected a compressed PNG in base64 in 'bitmap.data': {error}") from None
    if unpacker.unconsumed_tail:
        raise ValueError("expected a bitmap within its image, found more in 'bitmap.data'")
    values: npt.NDArray[Any] = read_mask_pixels(png).values
    if values.ndim == 3 and values.shape[2] < 4:
        raise ValueError("expected a bitmap of one channel, or of four, found colours")
    plane = (values if values.ndim == 2 else values[..., 3]) > 0
    (x, y) = np.rint(origin[0]).astype(int).tolist()
    height, width = plane.shape
    if x < 0 or y < 0 or y + height > size_hw[0] or x + width > size_hw[1]:
        raise ValueError(
            f"expected a bitmap within its image of {size_hw}, found one of {plane.shape} at "
            f"x {x}, y {y}"
        )
    found = crop(plane.astype(np.uint8))
    return CropMask(found.x + x, found.y + y, found.pixels)
