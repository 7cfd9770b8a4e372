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
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
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
from converters.formats.datumaro.reading import DatumaroReader, label_names
from converters.formats.label_spaces import folder_space
from converters.formats.writing import WriteTarget, check_labels, sample_record
from converters.loss import ConversionLoss, lossless
from converters.masks import encode_coco_rle, rasterize, whole_pixels
from converters.types import Instance, LabelSpace, Sample

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
    index = {sample.key: sample_record(sample) for sample in samples}
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
    item = {
        "id": sample.key,
        "annotations": item_annotations(sample, labels, layout),
        "attr": {"sample": sample_record(sample)},
        "image": {"path": name, "size": list(sample.size_hw)},
    }
    put(sample, folder / "images" / subset / name)
    return json.dumps(item, ensure_ascii=False, default=str)


def item_annotations(sample: Sample, labels: LabelSpace, layout: str = "polygons") -> list[Any]:
    """Return a sample's annotations as Datumaro writes them.

    Args:
        sample: whose instances are written.
        labels: the classes.
        layout: `polygons` or `masks`.

    Raises:
        ValueError: a label that the label space does not have.
    """
    check_labels(sample, labels)
    found: list[dict[str, Any]] = []
    groups = 0
    for instance in sample.instances:
        shapes = _shapes(instance, sample.size_hw, layout)
        groups += len(shapes) > 1
        common = {
            "attributes": {},
            "group": groups if len(shapes) > 1 else 0,
            "label_id": labels.index[instance.label],
            "z_order": 0,
        }
        found += [{"id": len(found) + i, **shape, **common} for i, shape in enumerate(shapes, 1)]
    return found


def _shapes(instance: Instance, size_hw: tuple[int, int], layout: str) -> list[dict[str, Any]]:
    mask = rasterize(instance.geometry, size_hw)
    if not mask.area:
        return []
    if layout == "masks" or not all(_is_ring(part, size_hw) for part in instance.parts):
        return [{"type": "mask", "rle": encode_coco_rle(mask, size_hw)}]
    rings = [shapely.get_coordinates(part.exterior)[:-1] for part in instance.parts]
    return [{"type": "polygon", "points": _points(ring).ravel().tolist()} for ring in rings]


def _is_ring(part: Polygon, size_hw: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = part.bounds
    height, width = size_hw
    is_inside = min(x0, y0) >= -0.5 and x1 <= width - 0.5 and y1 <= height - 0.5
    return is_inside and not part.interiors and (x1 - x0) * (y1 - y0) > _SMALLEST


def _points(ring: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Move points (N, 2) to Datumaro's place and digits, each still nearest to the same pixel."""
    pixels = whole_pixels(ring)
    rounded = np.round(ring, _DIGITS)
    # 7.499 would become 7.5 and fall to the next pixel.
    crossed = whole_pixels(rounded) != pixels
    rounded[crossed] = (pixels + np.clip(ring - pixels, -0.49, 0.49))[crossed]
    return np.round(rounded + 0.5, _DIGITS)


# --- reading


def label_space(root: Path) -> LabelSpace | None:
    """Return the labels of all annotation files, in their order; None without any.

    A file that cannot be read has none; `read` says what is wrong with it.
    """
    names: dict[str, None] = {}
    for path in _annotation_files(root):
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
    files = _annotation_files(root)
    if not files:
        raise ValueError(f"{root}: expected annotations/*.json in Datumaro's form, found none")
    reader = DatumaroReader(root, labels, problems)
    samples = [
        sample
        for path in files
        for sample in reader.samples(path)
        if subset == "all" or (subset == "test") == _is_test(path, sample)
    ]
    reader.finish()
    return samples


def _annotation_files(root: Path) -> list[Path]:
    return [p for p in sorted((root / "annotations").glob("*.json")) if p.name[0] != "."]


def _is_test(path: Path, sample: Sample) -> bool:
    return path.stem.lower() == "test" or sample.key.startswith("test/")
