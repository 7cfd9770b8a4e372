"""Datumaro's JSON, which CVAT imports and exports ("Datumaro 1.0"): for correcting labels by hand.

    OUT/annotations/{default}.json or {train,val}.json     with a split: one task a subset in CVAT
    OUT/images/{default,train,val}/KEY.png                 copies; hard links where asked for
    OUT/images.json                                        KEY -> group, size, attributes, frame

There and back: zip OUT and import it into a CVAT project as a data set in format "Datumaro 1.0", or
lay the images into a task and import the JSON as annotations. Export in the same format, images or
not, and put the exported `annotations/` in the place of OUT's. CVAT keeps an image's `id`, which is
the key, and its shapes, but not what else an item says; `images.json` has that, and stays in OUT.
An export alone can be read too, if it has its images: keys are ids then, and there are no groups.
An id that lost its folders, because images were uploaded one by one, is found by the end of a key.

Layout `polygons`: a polygon in Datumaro is one ring. An object of several parts is several polygons
of one `group`, numbered in each image; an object of one part has group 0, because CVAT drops groups
of one. A ring cannot have a hole, so objects with holes are masks (run-length codes), and so are
those that leave the image, and those whose boxes are too small for CVAT's editor (9 square pixels).
Layout `masks`: all are masks, to be corrected with the brush. A shape without a pixel in the image
is left out: CVAT cannot import empty masks.

Here the corner of the first pixel is (0, 0), its centre (.5, .5): vertices move by half a pixel,
and back when they are read. Datumaro keeps two digits of a coordinate. A polygon of ours that comes
back is filled by our pixel rule, boundary included; it is ours if `images.json` has its image, or
the item says so, which CVAT's export does not: keep `images.json`. Datumaro fills what lies inside,
which is half a pixel less on all sides: its masks of our polygons have a mean Dice of .963 with
ours at 512 x 512 pixels and .991 at 2048 x 2048; take `masks` where that matters. A mask is the
same pixels everywhere.

What was read from polygons of COCO is written as those polygons, which Datumaro and pycocotools
fill alike, and CVAT shows as they were drawn. `drawn` in `images.json` and in the item says so: the
image's polygons hold those pixels for us, too, when they come back. Where coordinates have more
than two digits, polygons go around the pixels instead.

What is read: all files in `annotations`; polygons and masks, of which those of one label and one
group are one object. Polygons that are not ours hold the pixels that pycocotools, and so Datumaro,
gives them. Labels of a whole image, and captions, have no pixels and are passed over, and so are
boxes and points beside an outline of the same group or id, which Datumaro writes for COCO's
objects. All other shapes are refused.

Sources: CVAT's cvat/apps/dataset_manager/bindings.py (import and export), `checkShapeArea` of its
cvat-core, its documentation of the format; Datumaro 1.13, plugins/data_formats/datumaro.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

from converters.errors import Problems
from converters.files.images import PutImage, image_suffix
from converters.files.json_files import dump_json, read_member
from converters.files.provenance import atomic_write_text
from converters.formats.coco.drawn import DrawnShapes, ring_texts
from converters.formats.coco.filling import Points
from converters.formats.datumaro.reading import COCO, DRAWN, DatumaroReader, label_names
from converters.formats.label_spaces import folder_space
from converters.formats.writing import WriteTarget, check_labels, sample_record
from converters.loss import ConversionLoss, lossless
from converters.masks import CropMask, encode_coco_rle, rasterize, whole_pixels
from converters.subsets.keys import is_test_key, of_test
from converters.subsets.names import is_test_name
from converters.types import LabelSpace, PackedInstances, Sample

LOSES = {"polygons": frozenset({"subpixels"}), "masks": frozenset({"subpixels"})}

_DIGITS = 2
_IMAGE = 2  # Datumaro's number for data sets of images.
_SMALLEST = 9  # Square pixels; CVAT's editor wants more.
_HEAD = 1 << 16
# COCO keeps its files at the same place; there, categories are a list.
_CATEGORIES = re.compile(rb'"categories"\s*:\s*\{')


def matches(root: Path) -> bool:
    """Tell whether a folder is a Datumaro data set."""
    return any(_is_datumaro(path) for path in (root / "annotations").glob("*.json"))


def _is_datumaro(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(_CATEGORIES.search(file.read(_HEAD)))


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as a Datumaro data set; nothing is lost, at the level of pixels."""
    subsets = ("train", "val") if target.is_split else ("default",)
    tasks = [(sample, subsets[sample.key in target.held_out]) for sample in samples]
    encode = partial(_write_sample, target.folder, target.labels, target.layout, target.put_image)
    (target.folder / "annotations").mkdir()
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {}
        for subset in subsets:
            (target.folder / "images" / subset).mkdir(parents=True)
            path = target.folder / "annotations" / f"{subset}.json"
            files[subset] = stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            files[subset].write(_head(target.labels))
        comma = dict.fromkeys(subsets, "")
        for (_, subset), item in zip(tasks, target.each(encode, tasks), strict=True):
            files[subset].write(f"{comma[subset]}\n{item}")
            comma[subset] = ","
        for file in files.values():
            file.write("\n]}\n")
    index = {sample.key: _record(sample, target.layout) for sample in samples}
    atomic_write_text(target.folder / "images.json", dump_json(index))
    return sum(map(lossless, samples), ConversionLoss())


def _head(labels: LabelSpace) -> str:
    """The file up to its first item: version and kind, and the classes by number."""
    named = [{"name": name, "parent": "", "attributes": []} for name in labels.names]
    label = {"label_groups": [], "labels": named, "attributes": []}
    head = {
        "dm_format_version": "1.0",
        "media_type": _IMAGE,
        "infos": {},
        "categories": {"label": label},
    }
    return json.dumps(head, ensure_ascii=False)[:-1] + ', "items": ['


def _write_sample(
    folder: Path, labels: LabelSpace, layout: str, put: PutImage, task: tuple[Sample, str]
) -> str:
    sample, subset = task
    name = sample.key + image_suffix(sample)
    head = json.dumps({"id": sample.key}, ensure_ascii=False)[:-1]
    rest = {
        "attr": {"sample": _record(sample, layout)},
        "image": {"path": name, "size": list(sample.size_hw)},
    }
    texts = ", ".join(annotation_texts(sample, labels, layout))
    put(sample, folder / "images" / subset / name)
    tail = json.dumps(rest, ensure_ascii=False, default=str)[1:]
    return f'{head}, "annotations": [{texts}], {tail}'


def _record(sample: Sample, layout: str) -> dict[str, Any]:
    drawn = {} if layout == "masks" or _drawn(sample) is None else {DRAWN: COCO}
    return sample_record(sample) | drawn


def _drawn(sample: Sample) -> DrawnShapes | None:
    """The polygons that were drawn in COCO's pixels, where Datumaro can have them as they are."""
    instances = sample.instances
    outlines = instances.outlines if isinstance(instances, PackedInstances) else None
    if isinstance(outlines, DrawnShapes) and outlines.size_hw == sample.size_hw:
        return outlines if outlines.has_two_digits else None
    return None


def annotation_texts(sample: Sample, labels: LabelSpace, layout: str = "polygons") -> list[str]:
    """Return the JSON of a sample's annotations as Datumaro writes them.

    Args:
        sample: whose instances are written.
        labels: the classes.
        layout: `polygons` or `masks`.

    Raises:
        ValueError: a label that the label space does not have.
    """
    check_labels(sample, labels)
    texts: list[str] = []
    groups = 0
    shapes_of_each = _shapes(_objects(sample, layout), sample.size_hw, layout)
    for label, shapes in zip(sample.labels, shapes_of_each, strict=True):
        groups += len(shapes) > 1
        common = {
            "attributes": {},
            "group": groups if len(shapes) > 1 else 0,
            "label_id": labels.index[label],
            "z_order": 0,
        }
        end = json.dumps(common)[1:]
        texts += [f'{{"id": {len(texts) + i}, {s}, {end}' for i, s in enumerate(shapes, 1)]
    return texts


@dataclass(frozen=True)
class _Ring:
    """A part of an object.

    Attributes:
        text: the points of its shell in JSON; "" where it is not editable.
        has_pixel: a vertex is in the image.
        is_editable: it has no hole, and CVAT's editor takes it.
    """

    text: str
    has_pixel: bool
    is_editable: bool


_Object = tuple[Sequence[_Ring], Callable[[], CropMask]]
"""Its parts, and what draws its pixels."""


def _shapes(
    objects: Iterable[_Object], size_hw: tuple[int, int], layout: str
) -> Iterator[list[str]]:
    """Yield the JSON members of each object's shapes, as many as it has parts with pixels."""
    for own, draw in objects:
        polygons: list[str] = []
        if layout != "masks" and all(ring.is_editable for ring in own):
            polygons = [f'"type": "polygon", "points": {ring.text}' for ring in own]
        # Where a vertex is in the image, there is a pixel.
        if polygons and any(ring.has_pixel for ring in own):
            yield polygons
            continue
        mask = draw()
        if not mask.area:
            yield []
        elif polygons:
            yield polygons
        else:
            yield [f'"type": "mask", "rle": {json.dumps(encode_coco_rle(mask, size_hw))}']


def _objects(sample: Sample, layout: str) -> Iterator[_Object]:
    """Yield each object of an image, which is faster than one after the other."""
    if drawn := _drawn(sample):
        yield from _drawn_objects(drawn, layout)
        return
    found = _rings([part for one in sample.instances for part in one.parts], sample.size_hw)
    for instance in sample.instances:
        own = list(islice(found, len(instance.parts)))
        yield own, partial(rasterize, instance.geometry, sample.size_hw)


def _drawn_objects(drawn: DrawnShapes, layout: str) -> Iterator[_Object]:
    """Yield objects of polygons, which have pixels each; those that become masks fill them once."""
    height, width = drawn.size_hw
    found: list[list[_Ring]] = []
    filled: list[int] = []
    # As a polygon of its own such a part would be drawn.
    with_empty = drawn.with_empty_parts()
    for place, (texts, (x0, y0, x1, y1)) in enumerate(drawn.write_rings()):
        is_inside = min(x0, y0) >= 0 and x1 <= width and y1 <= height
        is_editable = is_inside and place not in with_empty and (x1 - x0) * (y1 - y0) > _SMALLEST
        found.append([_Ring(text.decode("ascii"), True, is_editable) for text in texts])
        if layout == "masks" or not is_editable:
            filled.append(place)
    # All at once: each time the outlines of all objects are unpacked.
    masks = dict(zip(filled, drawn.masks(filled) if filled else (), strict=True))
    for place, own in enumerate(found):
        yield own, partial(masks.__getitem__, place)


def _rings(parts: Sequence[Polygon], size_hw: tuple[int, int]) -> Iterator[_Ring]:
    """Yield each part of an image's objects."""
    if not parts:
        return
    shells = shapely.get_exterior_ring(parts)
    is_plain = shapely.get_num_interior_rings(parts) == 0
    x0, y0, x1, y1 = shapely.bounds(parts).T
    height, width = size_hw
    is_inside = (np.minimum(x0, y0) >= -0.5) & (x1 <= width - 0.5) & (y1 <= height - 0.5)
    is_editable = is_plain & is_inside & ((x1 - x0) * (y1 - y0) > _SMALLEST)
    points, owners = shapely.get_coordinates(shells, return_index=True)
    pixels = whole_pixels(points)
    lengths = np.bincount(owners, minlength=len(parts))
    ends = np.cumsum(lengths)
    has_pixel = np.logical_or.reduceat(
        ((pixels >= 0) & (pixels < (width, height))).all(1), ends - lengths
    )
    # The last point is the first.
    moved = np.delete(_move(points, pixels), ends - 1, axis=0)
    own = np.repeat(is_editable, lengths - 1)
    texts = ring_texts(moved[own], lengths[is_editable] - 1, max(size_hw))
    for has, is_own in zip(has_pixel.tolist(), is_editable.tolist(), strict=True):
        yield _Ring(next(texts).decode("ascii") if is_own else "", has, is_own)


def _move(points: Points, pixels: npt.NDArray[np.int32]) -> Points:
    """Move points (N, 2) to Datumaro's place and digits, each still nearest to the same pixel."""
    rounded = np.round(points, _DIGITS)
    # 7.499 would become 7.5 and fall to the next pixel.
    crossed = whole_pixels(rounded) != pixels
    rounded[crossed] = (pixels + np.clip(points - pixels, -0.49, 0.49))[crossed]
    return np.round(rounded + 0.5, _DIGITS)


# --- reading


def label_space(root: Path) -> LabelSpace | None:
    """Return the labels of all annotation files, in their order; None without any.

    A file that cannot be read has none; `read` says what is wrong with it.
    """
    names: dict[str, None] = {}
    for path in annotation_files(root):
        with suppress(ValueError, KeyError):
            names |= dict.fromkeys(label_names({"categories": read_member(path, "categories")}))
    return folder_space(root, names) if names else None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read a Datumaro data set, ours or one that CVAT exported.

    Args:
        root: folder with `annotations/` and `images/`.
        subset: `test` are the file `test.json` and the keys below `test/`, `train` all others.
        labels: the classes; labels are found by their names or aliases, in any order.
        problems: takes down files, images and shapes that are broken, and subsets whose file is
            gone.

    Returns:
        Samples; keys, groups, attributes and frames are those of `images.json`, or of the items.

    Raises:
        ValueError: no annotation file, or `images.json` is not one.
    """
    files = annotation_files(root)
    if not files:
        raise ValueError(f"{root}: expected annotations/*.json in Datumaro's form, found none")
    reader = DatumaroReader(root, labels, problems)
    samples = [
        replace(sample, key=of_test(sample.key)) if _is_test(path, sample) else sample
        for path in files
        for sample in reader.samples(path)
        if subset == "all" or (subset == "test") == _is_test(path, sample)
    ]
    reader.finish()
    return samples


def annotation_files(root: Path) -> list[Path]:
    """Return the files that a Datumaro data set's images are annotated in, sorted."""
    return [p for p in sorted((root / "annotations").glob("*.json")) if p.name[0] != "."]


def _is_test(path: Path, sample: Sample) -> bool:
    return is_test_name(path.stem) or is_test_key(sample.key)
