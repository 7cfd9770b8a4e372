"""Pixels stay where objects lie over each other, or have parts that enclose nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters.formats.yolo.yolo import label_text
from converters.loss import joined_objects
from converters.masks import class_masks
from converters.types import Instance, LabelSpace, Sample

SIZE = (32, 32)
# `b` is drawn below `a` and above it.
SQUARES = (("b", 4, 12), ("a", 8, 12), ("b", 10, 10))
# What keeps the order in which objects were drawn, or has painted them.
WRITERS = [
    *(("handbone", None), ("coco", None), ("datumaro", None), ("labelme", None), ("masks", None)),
    *(("rle_table", "severstal"), ("rle_table", None), ("segformer", None)),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "im.png"
    values = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    assert cv2.imwrite(str(path), values)
    return path


def _areas(sample: Sample, labels: LabelSpace) -> dict[str, int]:
    found = class_masks(sample.instances, SIZE, labels, with_background=False)
    return {label: mask.area for label, mask in found.items()}


@pytest.mark.parametrize(("format", "layout"), WRITERS)
@pytest.mark.parametrize("exclusive", ["as_annotated", "large_first", "by_class"])
def test_a_pixel_keeps_the_label_that_lies_above(
    format: str, layout: str | None, exclusive: Any, image: Path, tmp_path: Path
) -> None:
    labels = LabelSpace("own", ("a", "b"), exclusive=exclusive)
    drawn = tuple(
        Instance(name, box(at, at, at + side - 1, at + side - 1)) for name, at, side in SQUARES
    )
    sample = Sample("ID1/im", image, SIZE, drawn, group="ID1")
    given = {} if layout is None else {"layout": layout}
    converters.write([sample], tmp_path / "out", format=format, labels=labels, **given)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert _areas(back, labels) == _areas(sample, labels)
    assert joined_objects(sample, labels).objects == 2


@pytest.mark.parametrize(
    "parts",
    [
        [[25, 10, 32, 10, 32, 14, 25, 14], [7, 0, 7, 0, 5, 0]],
        [[4, 17, 11, 17, 11, 27, 4, 27], [32, 31, 32, 32, 32, 32]],
        [[4, 17, 11, 17, 11, 27, 4, 27], [0, 0, 31, 31, 0, 0]],
    ],
)
@pytest.mark.parametrize("format", ["datumaro", "coco", "labelme", "yolo"])
def test_a_part_that_encloses_nothing_draws_nothing(
    parts: list[list[float]], format: str, image: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    image.rename(root / "im.png")
    content = {
        "images": [{"id": 1, "file_name": "im.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": parts}],
        "categories": [{"id": 1, "name": "a"}],
    }
    (root / "a.json").write_text(json.dumps(content))
    labels = LabelSpace("own", ("a",))
    (sample,) = converters.read(root, labels=labels)
    converters.write([sample], tmp_path / "out", format=format, labels=labels)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert _areas(back, labels) == _areas(sample, labels)


def test_parts_that_are_joined_below_another_object_are_told() -> None:
    labels = LabelSpace("own", ("a",))
    apart = box(2, 2, 6, 6).union(box(20, 2, 24, 6))
    over = box(0, 0, 30, 10)
    sample = Sample("im", Path("im.png"), SIZE, (Instance("a", apart), Instance("a", over)))
    loss = label_text(sample, labels)[1]
    assert (loss.parts, loss.missing) == (1, {})
    assert "1 parts joined" in loss.describe()
