"""CVAT's own XML, "CVAT for images 1.1" or "CVAT for video 1.1", of a task, job or project (read).

    DATA/annotations.xml            or other names; several files are read together; also in
                                    DATA/annotations
    DATA/images/NAME.png            a task's, as CVAT exports them; also beside the XML
    DATA/images/SUBSET/NAME.png     a project's
    DATA/images/frame_000012.png    a film's

Read are polygons, boxes and ellipses, turned ones too, and masks. Polylines, points and skeletons
enclose nothing and are left out, and said; labels of whole images (tags) are passed over; all other
shapes are refused. CVAT's manual leaves open what a group means; here shapes of one label and one
`group_id` are the parts of an object, as they are in the format `datumaro`, and as a group is one
instance where Datumaro writes COCO's files for CVAT. `z_order` decides nothing: a pixel may be part
of several objects here. Classes are those of `<meta>`, in its order.

An image's key is its name, below its subset where a project has some. Those below `test` are test
images, `train`, `val` and all others are not. An image without shapes has no objects; CVAT does not
tell whether anybody has looked at it, so that they are counted and said.

A film's tracks have a shape for each frame, also where CVAT has drawn it between others; a frame in
which it is `outside` has none. Frames without any shape are left out, as others without annotations
are.

CVAT's coordinates run from corner to corner: the image's first pixel is the square from 0 to 1. A
shape holds the pixels that pycocotools gives it, as CVAT's exports of masks do, and as the same
task has that is exported as "Datumaro 1.0". A mask's runs are row-major inside its box, beginning
with one outside the object; all of its pixels are kept.

Source: `dump_as_cvat_annotation` and `load_anno` in CVAT's
cvat/apps/dataset_manager/formats/cvat.py; https://docs.cvat.ai/docs/other/xml_format
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from converters.errors import Problems
from converters.files.images import SUFFIXES, read_size_hw, turn_remedy
from converters.files.xml_files import read_xml
from converters.formats.coco.shapes import ShapePart, joined
from converters.formats.cvat.shapes import (
    NO_SHAPES,
    OUTLINED,
    WITHOUT_AREA,
    corners,
    shape_parts,
)
from converters.formats.label_spaces import folder_space, natural
from converters.formats.named_images import NamedImages, annotation_folders
from converters.formats.plausible import are_normalised, normalised_message
from converters.subsets.keys import samples_of
from converters.types import SUBSET, Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_HEAD_BYTES = 1 << 12
_ROOT = b"<annotations"
# Types of labels whose shapes have no pixels.
_NO_CLASS = frozenset({"tag", "points", "polyline", "skeleton"})
_NO_SUBSET = "default"
_MOST_DIGITS = 10
# What CVAT calls the images of a film, before their numbers.
_FRAME = "frame_"


def matches(root: Path) -> bool:
    """Tell whether a folder holds CVAT's XML."""
    return any(annotation_files(root))


def annotation_files(root: Path) -> Iterator[Path]:
    """Yield the XML files in a folder, and in its `annotations`, that are CVAT's, sorted."""
    homes = [root, *annotation_folders(root)]
    return (path for home in homes for path in sorted(home.glob("*.xml")) if _is_cvat(path))


def _is_cvat(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    with path.open("rb") as file:
        # Of UTF-16 every other byte of these letters is 0.
        return _ROOT in file.read(_HEAD_BYTES).replace(b"\0", b"")


def _parse(path: Path) -> Element:
    try:
        document = read_xml(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected CVAT's XML: {error}") from None
    if document.tag != "annotations":
        raise ValueError(f"{path}: expected CVAT's XML, <annotations>, found <{document.tag:.40}>")
    return document


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes that `<meta>` names, else the labels of shapes; None without any.

    Raises:
        ValueError: a broken file.
    """
    documents = [_parse(path) for path in annotation_files(root)]
    names = dict.fromkeys(
        name
        for document in documents
        for label in document.iterfind("meta/*/labels/label")
        # Parts of skeletons have a parent.
        if not label.findtext("parent") and label.findtext("type") not in _NO_CLASS
        if (name := label.findtext("name"))
    )
    if not any(document.find("meta/*/labels/label") is not None for document in documents):
        labelled = [s for d in documents for s in d.iterfind("image/*") if s.tag in OUTLINED]
        labelled += [track for document in documents for track in document.iterfind("track")]
        names = dict.fromkeys(natural({name for s in labelled if (name := s.get("label"))}))
    return folder_space(root, names) if names else None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read CVAT's XML.

    Args:
        root: folder with XML files and images, also in folders below.
        subset: `test` is what lies in a subset or folder of that name, `train` everything else.
        labels: those of `label_space`.
        problems: takes down images and shapes that are broken.

    Returns:
        Samples without groups; a project's have `subset` and `task` among their attributes.

    Raises:
        ValueError: a broken file.
    """
    documents = {path: _parse(path) for path in annotation_files(root)}
    images = [(path, image) for path, d in documents.items() for image in d.iterfind("image")]
    has_frames = next(root.rglob(f"{_FRAME}*"), None) is not None
    for path, document in documents.items():
        tracks = document.findall("track")
        if tracks and not has_frames:
            what = "expected images with shapes, found tracks of a film: export the task, with its "
            problems.add(path, f'{what}images, as "CVAT for images 1.1"')
        elif tracks:
            images += [(path, image) for image in _frames(tracks)]
    reader = _Reader(root, labels, problems, [image for _, image in images])
    samples = [sample for path, image in images for sample in reader.sample(path, image)]
    samples += reader.finish(subset)
    return samples_of(root, samples, subset)


def _frames(tracks: Iterable[Element]) -> list[Element]:
    """Return the frames of a film as images, each with the shapes of the tracks in it."""
    found: dict[int, Element] = {}
    shapes = ((track, shape) for track in tracks for shape in track)
    for track, shape in shapes:
        frame = shape.get("frame") or ""
        if not frame.isdecimal() or len(frame) > _MOST_DIGITS:
            continue  # an attribute of the track
        name = f"{_FRAME}{int(frame):06d}"
        image = found.setdefault(int(frame), Element("image", name=name))
        if shape.get("outside") != "1":
            shape.set("label", track.get("label") or "")
            image.append(shape)
    return [found[frame] for frame in sorted(found)]


def _names(image: Element) -> list[str]:
    """What an image may be called: with its subset's folder and without."""
    name, subset = image.get("name") or "", image.get("subset") or ""
    return [f"{subset}/{name}", name] if subset else [name]


def _subset(image: Element) -> str:
    subset = image.get("subset") or _NO_SUBSET
    return "" if subset.casefold() == _NO_SUBSET else f"{subset.lower()}/"


def _stem(name: str) -> str:
    path = Path(name)
    return name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else name


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    images: list[Element]
    _empty: int = 0
    _lines: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._files = NamedImages(self.root, map(_names, self.images))
        self._stems = Counter(_subset(i) + _stem(i.get("name") or "") for i in self.images)

    def sample(self, path: Path, image: Element) -> Iterator[Sample]:
        name = image.get("name")
        if not name:
            self.problems.add(path, f"image {image.get('id')}: expected a 'name', found none")
            return
        key = _subset(image) + _stem(name)
        if self._stems[key] > 1:
            # Two images that differ only in their suffix keep it.
            key = _subset(image) + name
        report = partial(self.problems.add, f"{path.name}, image '{name:.80}'", key=key)
        try:
            file = self._files.find(_names(image))
            size_hw = read_size_hw(file)
            _check_size(image, file, size_hw)
            instances = self._instances(image, size_hw, report)
            about = {SUBSET: image.get("subset"), "task": image.get("task_id")}
            attributes = {what: value for what, value in about.items() if value}
            yield Sample(key, file, size_hw, instances, attributes=attributes)
        except ValueError as error:
            report(error)

    def _instances(
        self, image: Element, size_hw: tuple[int, int], report: Any
    ) -> tuple[Instance, ...]:
        shapes = [shape for shape in image if shape.tag not in NO_SHAPES]
        self._empty += not shapes
        if are_normalised(_coordinates(shapes), size_hw):
            raise ValueError(normalised_message(size_hw))
        objects: dict[tuple[str, str], list[ShapePart]] = {}
        for number, shape in enumerate(shapes):
            try:
                if shape.tag in WITHOUT_AREA:
                    self._lines[shape.tag] += 1
                    continue
                label = self._label(shape)
                group = shape.get("group_id") or "0"
                member = f"alone-{number}" if group == "0" else group
                objects.setdefault((label, member), []).extend(shape_parts(shape, size_hw))
            except ValueError as error:
                report(f"shape {number} ({shape.tag:.20}): {error}")
        return tuple(joined(label, parts) for (label, _), parts in objects.items() if parts)

    def _label(self, shape: Element) -> str:
        if shape.tag not in OUTLINED:
            raise ValueError(
                "expected a polygon, box, ellipse or mask: draw it as one of them, or delete it"
            )
        label = shape.get("label")
        if label is None:
            raise ValueError("expected a 'label', found none")
        if label not in self.labels.index:
            raise ValueError(f"expected a class of '{self.labels.name}', found '{label:.80}'")
        return label

    def finish(self, subset: str) -> list[Sample]:
        """Say what was left out, when all images are read; return test images."""
        for kind, times in sorted(self._lines.items()):
            what = f"left out {times} shapes that enclose nothing ({kind})"
            self.problems.note(f"{self.root}: {what}")
        if 0 < self._empty < len(self.images):
            what = f"took {self._empty} images without a shape for images without objects"
            self.problems.note(f"{self.root}: {what}")
        return self._files.unanswered(subset, self.problems)


def _coordinates(shapes: list[Element]) -> Iterator[list[float]]:
    for shape in shapes:
        if shape.tag not in OUTLINED:
            continue
        try:
            points = corners(shape)
        except ValueError:
            continue  # said where the shape is read
        # A mask has whole pixels.
        yield [2.0] if points is None else points.ravel().tolist()


def _check_size(image: Element, file: Path, size_hw: tuple[int, int]) -> None:
    said = image.get("height"), image.get("width")
    if None in said or said == tuple(map(str, size_hw)):
        return
    is_size = all(str(side).isdecimal() and len(str(side)) < _MOST_DIGITS for side in said)
    said_hw = tuple(int(str(side)) for side in said) if is_size else said
    remedy = turn_remedy(file, said_hw, size_hw)
    shown = f"{said_hw!r:.60}"
    raise ValueError(f"expected an image of {shown} (height, width), found {size_hw}{remedy}")
