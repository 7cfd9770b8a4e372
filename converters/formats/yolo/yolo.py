"""Ultralytics' segmentation labels: one text line `class x1 y1 x2 y2 ...` for each object.

    OUT/data.yaml                       names, train, val; no `path`: the folder can be moved
    OUT/images/{train,val}/NAME.png     copies; hard links where asked for
    OUT/labels/{train,val}/NAME.txt
    OUT/images.json                     NAME -> key, size, group

A line is one ring of points. It follows the object's pixels in straight and diagonal steps, and not
the annotator's longer edges: Ultralytics spreads a thousand points over every ring and truncates
them, which widens slanted edges (mean Dice .994 at 512 x 512 pixels, .998 at 2048) and leaves such
steps as they are (.9999 and above).

Holes and parts are joined into one ring by bridges of no width, walked there and back. A hole costs
no pixel, because its bridge runs inside the object; parts cost the pixels of the bridge between
them.

Coordinates are (x + 0.5) / width: Ultralytics multiplies by the width and truncates, and so finds
the pixel again; at other sizes the point stays at the pixel's centre. Others write x / width. The
pixel that is read is floor(x * width + .02), which is the right one for both.

What is read: `names` as a list or with numbers, in any order, found by name or alias; `train`,
`val` and `test` as a folder, a list of images in a .txt file (as CVAT exports it), or several of
them, also as `validation`, `valid` and with capitals; a path of another machine by its end. Nothing
outside the folder is looked for. Without a YAML file `classes.txt`, as Label Studio writes it, or
`obj.names` names the classes, a line each; all images are read then. An image with an empty label
file, or with none, has no objects, as for Ultralytics; but where no image has a label file, or some
have none while there are label files without an image, the data set is refused. All that has no
partner is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from shapely.geometry import Polygon

from converters.errors import Problems
from converters.files.images import PutImage, image_suffix
from converters.files.json_files import dump_json
from converters.files.provenance import atomic_write_text
from converters.formats.label_spaces import folder_space
from converters.formats.single_ring import joined_ring
from converters.formats.writing import WriteTarget, check_labels, file_names, sample_record
from converters.formats.yolo.config import (
    YoloConfig,
    config_file,
    files_naming_images,
    named_folder,
    names_file,
)
from converters.formats.yolo.reading import YoloReader
from converters.loss import ConversionLoss, lossless, measure
from converters.masks import Ring, rasterize, rasterize_labels, rings
from converters.types import Instance, LabelSpace, Sample

LOSES = {"polygons": frozenset({"parts", "subpixels"})}
WITHOUT_VAL = "data.yaml's val names the training images"


def matches(root: Path) -> bool:
    """Tell whether a folder is an Ultralytics data set, or labels with a list of names."""
    return config_file(root) is not None or names_file(root) is not None


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as an Ultralytics data set.

    Without a split all goes to `train`, and `val` in `data.yaml` names the same images, because
    Ultralytics wants one.
    """
    for subset in target.subsets:
        for kind in ("images", "labels"):
            (target.folder / kind / subset).mkdir(parents=True)
    tasks = [
        (sample, name, target.subset_of(sample))
        for name, sample in zip(file_names(samples), samples, strict=True)
    ]
    encode = partial(_write_sample, target.folder, target.labels, target.put_image)
    loss = sum(target.each(encode, tasks), ConversionLoss())
    index = {name: sample_record(sample) for sample, name, _ in tasks}
    atomic_write_text(target.folder / "images.json", dump_json(index))
    atomic_write_text(target.folder / "data.yaml", _data_yaml(target.labels, target.subsets))
    return loss


def _write_sample(
    folder: Path, labels: LabelSpace, put: PutImage, task: tuple[Sample, str, str]
) -> ConversionLoss:
    sample, name, subset = task
    text, lost = label_text(sample, labels)
    put(sample, folder / "images" / subset / (name + image_suffix(sample)))
    (folder / "labels" / subset / f"{name}.txt").write_bytes(text)
    return lost


def _data_yaml(labels: LabelSpace, subsets: Sequence[str]) -> str:
    record = {
        "train": "images/train",
        "val": "images/val" if "val" in subsets else "images/train",
        **({"test": "images/test"} if "test" in subsets else {}),
        "names": dict(enumerate(labels.names)),
    }
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def label_text(sample: Sample, labels: LabelSpace) -> tuple[bytes, ConversionLoss]:
    """Return a sample's label file, one line an instance, and what it could not hold.

    An instance without a pixel in the image has no line.

    Raises:
        ValueError: a label that the label space does not have.
    """
    check_labels(sample, labels)
    lines: list[bytes] = []
    written: list[tuple[str, Ring]] = []
    joined = 0
    for instance in sample.instances:
        mask = rasterize(instance.geometry, sample.size_hw)
        parts = rings(mask)
        if not parts:
            continue
        ring = joined_ring(parts)
        lines.append(_line(labels.index[instance.label], ring, sample.size_hw))
        written.append((instance.label, ring))
        if len(parts) > 1 and rasterize(Polygon(ring), sample.size_hw).area != mask.area:
            joined += len(parts) - 1
    text = b"".join(lines)
    if not joined:
        return text, lossless(sample)
    back = [Instance(label, Polygon(ring)) for label, ring in written]
    loss = measure(sample, rasterize_labels(back, sample.size_hw))
    # Another object of the class may lie where an object's parts were joined.
    return text, replace(loss, parts=max(loss.parts, joined))


def _line(label: int, ring: Ring, size_hw: tuple[int, int]) -> bytes:
    points = np.stack([_words(size_hw[1])[ring[:, 0]], _words(size_hw[0])[ring[:, 1]]], axis=1)
    return b"%d%b\n" % (label, points.tobytes())


@lru_cache(maxsize=8)
def _words(size: int) -> npt.NDArray[np.bytes_]:
    """What is written for each pixel of a side, all of one length, with the space before it.

    Six digits tell a million pixels apart.
    """
    return np.array([f" {(i + 0.5) / size:.6f}" for i in range(size)], dtype="S9")


# --- reading


def annotation_files(root: Path) -> list[Path]:
    """Return the YAML files in a folder that name classes and images, sorted."""
    return files_naming_images(root)


def main_file(root: Path) -> Path | None:
    """Return the YAML file that counts where its folder is named; None without one."""
    return config_file(root)


def folder_of(file: Path) -> Path | None:
    """Return the folder of the data set that a YAML file describes, where that is elsewhere.

    Raises:
        ValueError: the images lie below several folders.
    """
    return named_folder(file)


def label_space(root: Path, annotations: Path | None = None) -> LabelSpace:
    """Return the classes of `data.yaml`, by their numbers.

    Raises:
        ValueError: no such file, or broken names in it.
    """
    names = YoloConfig.load(root, annotations).names
    return folder_space(root, (names[n] for n in sorted(names)))


def read(
    root: Path,
    *,
    subset: str,
    labels: LabelSpace,
    problems: Problems,
    annotations: Path | None = None,
) -> list[Sample]:
    """Read an Ultralytics segmentation data set.

    Args:
        root: folder with `data.yaml`, or another YAML file of the kind.
        subset: `train` (all that is annotated: Ultralytics' train and val), `test` or `all`.
        labels: those of `label_space`.
        problems: takes down label files and images that are broken.
        annotations: the YAML file that is meant, of several or elsewhere; None finds it.

    Returns:
        Samples; keys and groups are those of `images.json`, else the images' paths.

    Raises:
        ValueError: no such file, other classes, images that are not there, or label files and
            images that do not belong together.
    """
    return YoloReader(YoloConfig.load(root, annotations), problems).samples(subset)
