"""Data sets as other programs write them, of samples of ours, in formats that we only read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from converters.files.images import read_pixels
from converters.masks import class_masks
from converters.types import LabelSpace, Sample

Points = list[list[float]]


def _outlines(sample: Sample) -> Iterator[tuple[str, Points]]:
    for instance in sample.instances:
        for part in instance.parts:
            yield instance.label, [list(point) for point in part.exterior.coords[:-1]]


def _name(sample: Sample) -> str:
    return sample.key.replace("/", "_")


def write_cvat(samples: Sequence[Sample], out: Path, labels: LabelSpace) -> None:
    """Write CVAT for images 1.1: `annotations.xml` and `images/`."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    listed = ElementTree.SubElement(meta, "labels")
    for label in labels.names:
        ElementTree.SubElement(ElementTree.SubElement(listed, "label"), "name").text = label
    for number, sample in enumerate(samples):
        height, width = map(str, sample.size_hw)
        name = f"{_name(sample)}.png"
        about = {"id": str(number), "name": name, "width": width, "height": height}
        image = ElementTree.SubElement(root, "image", about)
        for label, points in _outlines(sample):
            text = ";".join(f"{x + 0.5:.2f},{y + 0.5:.2f}" for x, y in points)
            ElementTree.SubElement(image, "polygon", {"label": label, "points": text})
        _copy(sample, out / "images" / name)
    ElementTree.ElementTree(root).write(out / "annotations.xml", encoding="utf-8")


def write_label_studio(samples: Sequence[Sample], out: Path, labels: LabelSpace) -> None:
    """Write Label Studio's JSON export, `project.json`, and `images/`."""
    tasks = []
    for number, sample in enumerate(samples, 1):
        height, width = sample.size_hw
        name = f"{_name(sample)}.png"
        results = [
            {
                "id": f"{number}-{place}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "points": [[100 * x / width, 100 * y / height] for x, y in points],
                    "polygonlabels": [label],
                },
            }
            for place, (label, points) in enumerate(_outlines(sample))
        ]
        annotation = {"id": number, "was_cancelled": False, "result": results}
        data = {"image": f"/data/upload/1/{name}"}
        tasks.append({"id": number, "data": data, "annotations": [annotation]})
        _copy(sample, out / "images" / name)
    (out / "project.json").write_text(json.dumps(tasks), encoding="utf-8")


def write_voc(samples: Sequence[Sample], out: Path, labels: LabelSpace) -> None:
    """Write Pascal VOC's folders with palette masks, and CVAT's `labelmap.txt`."""
    palette = np.random.default_rng(0).permutation(256**3)[: len(labels)]
    colors = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in palette]
    table = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    rgb = zip(labels.names, colors, strict=True)
    table += [f"{name}:{','.join(map(str, color))}::" for name, color in rgb]
    (out / "labelmap.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    painted = LabelSpace(labels.name, labels.names, exclusive="large_first")
    for sample in samples:
        plane = np.zeros(sample.size_hw, np.uint8)
        for label, mask in class_masks(sample.instances, sample.size_hw, painted).items():
            plane[mask.full(sample.size_hw) > 0] = labels.index[label] + 1
        picture = Image.fromarray(plane, "P")
        picture.putpalette([0, 0, 0, *(value for color in colors for value in color)])
        (out / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(out / "SegmentationClass" / f"{_name(sample)}.png")
        _copy(sample, out / "JPEGImages" / f"{_name(sample)}.png")


def write_grey16(samples: Sequence[Sample], out: Path, labels: LabelSpace) -> None:
    """Write labelme's files beside images of 16 bits."""
    for sample in samples:
        shapes = [
            {"label": label, "points": points, "group_id": None, "shape_type": "polygon"}
            for label, points in _outlines(sample)
        ]
        height, width = sample.size_hw
        record = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{_name(sample)}.png",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        (out / f"{_name(sample)}.json").write_text(json.dumps(record), encoding="utf-8")
        cv2.imwrite(str(out / f"{_name(sample)}.png"), read_pixels(sample).astype(np.uint16) * 16)


def _copy(sample: Sample, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    shutil.copy(Path(str(sample.image)), place)


OTHERS: dict[str, Callable[[Sequence[Sample], Path, LabelSpace], None]] = {
    "cvat": write_cvat,
    "label-studio": write_label_studio,
    "voc": write_voc,
    "grey16": write_grey16,
}
