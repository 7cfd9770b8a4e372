"""The hand-bone competition's tree: images and one JSON file of polygons for each.

    DATA/train/DCM/ID001/image1661130828152_R.png
    DATA/train/outputs_json/ID001/image1661130828152_R.json
    DATA/test/DCM/ID040/image1661319116107.png
    DATA/truth/outputs_json/ID040/image1661319116107.json    (where the test's answers are known)
    DATA/meta_data.xlsx                                      (optional)
    DATA/images.json                                         (optional; written by us)

An image and its JSON belong together by folder and stem, however these write accents. What the JSON
says about the image (a name ending in .jpg, a size of 3060) is not true and is not read.

Writing puts a sample where its key says, if that has the form above. Any other key goes to
`train/DCM/GROUP/STEM`, or to `test` if it begins with `test/`: STEM is its last part, with a number
added where the name is taken, GROUP the sample's group, with `_` for what is no letter, digit, dot
or dash. `images.json` has key, group, size, attributes and frame of every image by its place, so
that they come back.

A polygon is one ring, with its coordinates as they are. A ring cannot have a hole: a polygon with
holes becomes the ring, or the rings, around its pixels, each hole joined by a bridge of no width
that runs inside the object and costs no pixel. Parts of an object are several annotations of one
label. Where an image has several objects of a label, `attributes` of an annotation says by a number
`object` to which it belongs; without it, all polygons of a label are one object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from converters.errors import Problems
from converters.files.images import PutImage, image_suffix, is_image, read_size_hw
from converters.files.json_files import are_numbers, dump_json, load_json
from converters.files.names import normal_name
from converters.files.provenance import atomic_write_text
from converters.formats.handbone_patients import read_patients
from converters.formats.label_spaces import folder_space, natural
from converters.formats.plausible import keep_plausible
from converters.formats.single_ring import without_holes
from converters.formats.writing import (
    WriteTarget,
    check_labels,
    free_name,
    record_fields,
    sample_record,
)
from converters.loss import ConversionLoss, lossless, measure
from converters.masks import rasterize_labels
from converters.types import FARTHEST_PX, Instance, LabelSpace, Sample

LOSES = {"polygons": frozenset({"subpixels"})}
INDEX = "images.json"
_BONES = "hand_bones"
_ANNOTATIONS = {"train": ("train", "outputs_json"), "test": ("truth", "outputs_json")}
_PLACE = re.compile(r"(train|test)/DCM/(?!\.)[^/]+/(?!\.)[^/]+")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def matches(root: Path) -> bool:
    """Tell whether a folder is a competition tree."""
    return any((root / subset / "DCM").is_dir() for subset in _ANNOTATIONS)


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as a competition tree.

    A split moves no file: it is laid beside the tree. Test samples without instances have no JSON.
    """
    tasks = list(zip(samples, places(samples), strict=True))
    encode = partial(_write_sample, target.folder, target.labels, target.put_image)
    loss = sum(target.each(encode, tasks), ConversionLoss())
    if not tasks:
        (target.folder / "train" / "DCM").mkdir(parents=True)
    index = {place: sample_record(sample) for sample, place in tasks}
    atomic_write_text(target.folder / INDEX, dump_json(index))
    return loss


def places(samples: Sequence[Sample]) -> list[str]:
    """Return where each sample's image goes, below the tree, without suffix."""
    taken = {sample.key.casefold() for sample in samples if _PLACE.fullmatch(sample.key)}
    return [
        sample.key if _PLACE.fullmatch(sample.key) else _free_place(sample, taken)
        for sample in samples
    ]


def _free_place(sample: Sample, taken: set[str]) -> str:
    subset = "test" if sample.key.startswith("test/") else "train"
    group = _NOT_IN_NAMES.sub("_", sample.group).lstrip(".") or "unknown"
    stem = PurePosixPath(sample.key).name.lstrip(".") or "image"
    return free_name(f"{subset}/DCM/{group}/{stem}", taken)


def _write_sample(
    folder: Path, labels: LabelSpace, put: PutImage, task: tuple[Sample, str]
) -> ConversionLoss:
    sample, place = task
    annotations, lost = _annotations(sample, labels)
    name = place + image_suffix(sample)
    put(sample, folder / name)
    subset, _, group, stem = place.split("/")
    if annotations or subset == "train":
        path = folder.joinpath(*_ANNOTATIONS[subset], group, stem + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = sample.size_hw
        record = {
            "annotations": annotations,
            "attributes": {},
            "file_id": stem,
            "filename": PurePosixPath(name).name,
            "parent_path": f"/{subset}/DCM/{group}",
            "last_modifier_id": "",
            "metadata": {"height": height, "width": width},
            "last_workers": {},
        }
        path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    return lost


def _annotations(sample: Sample, labels: LabelSpace) -> tuple[list[dict[str, Any]], ConversionLoss]:
    check_labels(sample, labels)
    annotations: list[dict[str, Any]] = []
    written: list[Instance] = []
    counts: dict[str, int] = {}
    occurring = sample.labels
    for instance in sample.instances:
        label = instance.label
        counts[label] = counts.get(label, 0) + 1
        attributes = {"object": counts[label]} if occurring.count(label) > 1 else {}
        for polygon in chain.from_iterable(
            without_holes(p, sample.size_hw) for p in instance.parts
        ):
            written.append(Instance(label, polygon))
            annotation: dict[str, Any] = {"id": str(len(written)), "type": "poly_seg"}
            annotation["attributes"] = attributes
            annotations.append({**annotation, "points": _points(polygon), "label": label})
    has_holes = any(p.interiors for instance in sample.instances for p in instance.parts)
    masks = rasterize_labels(written, sample.size_hw) if has_holes else {}
    return annotations, measure(sample, masks) if has_holes else lossless(sample)


def _points(polygon: Polygon) -> list[list[float]]:
    closed = shapely.get_coordinates(polygon.exterior)
    # Readers take a last point that is the first one for the ring's closing.
    points = closed if (closed[0] == closed[-2]).all() else closed[:-1]
    is_whole = (points == np.rint(points)).all()
    return (points.astype(np.int64) if is_whole else points).tolist()


# --- reading


def label_space(root: Path) -> LabelSpace:
    """Return the competition's bones; of a tree that has none of them, the labels that it has."""
    bones = LabelSpace.load(_BONES)
    # Most trees are known by their first file.
    files = (
        path
        for places in _ANNOTATIONS.values()
        for path in root.joinpath(*places).rglob("*")
        if _is_json(path)
    )
    found: dict[str, None] = {}
    for path in files:
        found |= dict.fromkeys(_labels_in(path))
        if any(map(bones.canonical, found)):
            return bones
    return folder_space(root, natural(found)) if found else bones


def _labels_in(path: Path) -> Iterator[str]:
    try:
        record = load_json(path)
    except ValueError:
        return  # `read` says so
    annotations = record.get("annotations") if isinstance(record, dict) else None
    for annotation in annotations if isinstance(annotations, list) else ():
        label = annotation.get("label") if isinstance(annotation, dict) else None
        if isinstance(label, str):
            yield label


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read the samples of a competition tree.

    Without `images.json`, a sample's key is the image's path below `root` without its suffix and
    with its accents composed, its group the folder `IDxxx`. Attributes are the patient's row of
    `meta_data.xlsx` (age, sex, weight, height, note, as far as it has them) and what `images.json`
    has. Links in the tree are followed, wherever they lead.

    Args:
        root: folder that holds `train` and/or `test`.
        subset: `train`, `test` or `all`.
        labels: the classes that may occur.
        problems: takes down files that are broken or have no counterpart.

    Returns:
        Samples. A test sample has instances only where the truth is there.

    Raises:
        ValueError: the subset is not there.
    """
    subsets = [name for name in _ANNOTATIONS if subset in (name, "all")]
    # Annotations without a folder of images have lost it.
    present = [name for name in subsets if any(place.is_dir() for place in _folders(root, name))]
    if not any((root / name / "DCM").is_dir() for name in present):
        raise ValueError(f"{root}: expected a folder {subset}/DCM with images, found none")
    reader = _Reader(root, labels, problems, _patients(root, problems), _index(root, problems))
    return [sample for name in present for sample in reader.samples(name)]


def _folders(root: Path, subset: str) -> tuple[Path, Path]:
    return root / subset / "DCM", root.joinpath(*_ANNOTATIONS[subset])


def _patients(root: Path, problems: Problems) -> dict[str, dict[str, Any]]:
    path = root / "meta_data.xlsx"
    if not path.is_file():
        return {}
    try:
        return read_patients(path)
    except ValueError as error:
        problems.add(path, error)
        return {}


def _index(root: Path, problems: Problems) -> dict[str, dict[str, Any]]:
    """Place -> fields of the sample and `size_hw`."""
    path = root / INDEX
    if not path.is_file():
        return {}
    try:
        records = load_json(path)
        if not isinstance(records, dict):
            raise ValueError(f"expected places with their keys, found {records!r:.40}")
    except ValueError as error:
        problems.add(path, error)
        return {}
    index: dict[str, dict[str, Any]] = {}
    owners: dict[str, str] = {}
    for place, record in records.items():
        try:
            fields = record_fields(record)
            if owners.setdefault(fields["key"], place) != place:
                raise ValueError(f"expected another key than that of '{owners[fields['key']]}'")
            index[normal_name(place)] = {**fields, "size_hw": record.get("size_hw")}
        except (OverflowError, ValueError) as error:
            problems.add(path, f"'{place:.80}': {error}", key=place)
    return index


@dataclass(frozen=True)
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    patients: Mapping[str, Mapping[str, Any]]
    index: Mapping[str, Mapping[str, Any]]

    def samples(self, subset: str) -> Iterator[Sample]:
        """Go on after a problem, so that all of them can be reported at once."""
        folder = f"{subset}/DCM"
        images = self._by_place(folder, folder, is_image)
        files = self._by_place("/".join(_ANNOTATIONS[subset]), folder, _is_json)
        for place in sorted(set(files) - set(images)):
            self._report(files[place], "expected an image of this name, found none", place)
        for place in sorted(set(self.index) - set(images) - set(files)):
            if place.startswith(f"{folder}/"):
                self._report(self.root / place, f"expected an image as {INDEX} says", place)
        for place, image in images.items():
            if place not in files and subset == "train":
                self._report(image, "expected a JSON file of this name, found none", place)
            instances = self._instances(files[place], place) if place in files else ()
            fields = self._fields(place)
            expected = fields.pop("size_hw", None)
            try:
                size_hw = read_size_hw(image)
                if expected not in (None, list(size_hw)):
                    raise ValueError(f"expected {expected} as in {INDEX}, found {list(size_hw)}")
                # The objects of a crop may go on far beyond it.
                if "frame" not in fields and instances:
                    report = partial(self._report, files[place], place=place)
                    instances = keep_plausible(instances, size_hw, report)
                yield Sample(image=image, size_hw=size_hw, instances=instances, **fields)
            except ValueError as error:
                self._report(image, error, place)

    def _fields(self, place: str) -> dict[str, Any]:
        """Key, group, attributes, frame and expected size of an image."""
        known = dict(
            self.index.get(place) or {"key": place, "group": PurePosixPath(place).parts[2]}
        )
        row = self.patients.get(known["group"], {})
        return {**known, "attributes": {**row, **known.get("attributes", {})}}

    def _report(self, path: Path, what: object, place: str) -> None:
        fields = self._fields(place)
        self.problems.add(path, what, key=fields["key"], group=fields["group"])

    def _by_place(
        self, folder: str, images: str, wanted: Callable[[Path], bool]
    ) -> dict[str, Path]:
        """Files by the place of the image that they belong to."""
        found: dict[str, Path] = {}
        root = self.root / folder
        for path in sorted(filter(wanted, chain(root.glob("*"), root.glob("*/*/*")))):
            key = normal_name(path.relative_to(self.root).with_suffix("").as_posix())
            self.problems.add(path, f"expected it at {folder}/GROUP/{path.name}", key=key)
        for path in sorted(filter(wanted, root.glob("*/*"))):
            place = normal_name(f"{images}/{path.parent.name}/{path.stem}")
            if place in found:
                other = found[place].name
                self._report(path, f"expected one file of this name, found also {other}", place)
            found.setdefault(place, path)
        return found

    def _instances(self, path: Path, place: str) -> tuple[Instance, ...]:
        try:
            record = load_json(path)
            annotations = record.get("annotations") if isinstance(record, dict) else None
            if not isinstance(annotations, list):
                raise ValueError("expected a list 'annotations', found none")
        except ValueError as error:
            self._report(path, error, place)
            return ()
        names: list[tuple[str, object]] = []
        rings: list[np.ndarray[Any, Any]] = []
        for number, annotation in enumerate(annotations):
            if isinstance(annotation, dict) and annotation.get("label") in self.labels.ignored:
                continue
            try:
                label, which, ring = _outline(annotation, self.labels)
            except ValueError as error:
                self._report(path, f"annotation {number}: {error}", place)
                continue
            names.append((label, which))
            rings.append(ring)
        parts: dict[tuple[str, object], list[Polygon]] = {}
        for name, polygon in zip(names, _polygons(rings), strict=True):
            parts.setdefault(name, []).append(polygon)
        # Where a pixel has one label, what was drawn later lies above; else order says nothing.
        ordered = list(parts.items())
        if self.labels.exclusive is None:
            ordered.sort(key=lambda item: self.labels.index[item[0][0]])
        return tuple(Instance(label, _joined(polygons)) for (label, _), polygons in ordered)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and not path.name.startswith(".")


def _joined(polygons: Sequence[Polygon]) -> Polygon | MultiPolygon:
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _polygons(rings: Sequence[np.ndarray[Any, Any]]) -> Sequence[Polygon]:
    """Make all of an image's polygons at once: one by one each takes as long as its checks."""
    if not rings:
        return ()
    places = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    found: Sequence[Polygon] = shapely.polygons(
        shapely.linearrings(np.concatenate(rings), indices=places)
    ).tolist()
    return found


def _outline(
    annotation: object, labels: LabelSpace
) -> tuple[str, int | None, np.ndarray[Any, Any]]:
    """The label, which of its objects it is, and the ring of an annotation."""
    if not isinstance(annotation, dict):
        raise ValueError(f"expected an object, found {annotation!r:.40}")
    name = annotation.get("label")
    label = labels.canonical(name) if isinstance(name, str) else None
    if label is None:
        raise ValueError(f"expected a label of '{labels.name}', found {name!r:.40}")
    kind = annotation.get("type", "poly_seg")
    if kind != "poly_seg":
        raise ValueError(f"'{label}': expected type 'poly_seg', found {kind!r:.40}")
    attributes = annotation.get("attributes")
    which = attributes.get("object") if isinstance(attributes, dict) else None
    return (
        label,
        which if type(which) is int else None,
        _ring(annotation.get("points"), label),
    )


def _ring(points: Any, label: str) -> np.ndarray[Any, Any]:
    try:
        ring = np.array(points)
    except ValueError:  # of different lengths
        ring = np.array(None)
    if not len(ring.shape):
        raise ValueError(f"'{label}': expected points [x, y], found {points!r:.40}")
    if ring.size and (ring.ndim != 2 or ring.shape[1] != 2):
        raise ValueError(f"'{label}': expected points [x, y], found shape {ring.shape}")
    if ring.dtype.kind not in "iuf" or not are_numbers(chain.from_iterable(points)):
        raise ValueError(f"'{label}': expected numbers as points, found others")
    ring = ring.astype(np.float64)
    # NaN is not at most anything.
    if ring.size and not (farthest := np.abs(ring).max()) <= FARTHEST_PX:
        if not np.isfinite(ring).all():
            raise ValueError(f"'{label}': expected finite points, found NaN or infinity")
        raise ValueError(f"'{label}': expected points near the image, found {farthest:g}")
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise ValueError(f"'{label}': expected at least 3 points, found {len(ring)}")
    return ring
