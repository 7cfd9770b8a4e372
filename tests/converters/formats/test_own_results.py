"""What commands have put into a data set's folder is no part of it: runs, converted copies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import converters
from converters.files.provenance import PROVENANCE
from converters.types import LabelSpace

NAMES = ("p", "q")
LABELS = LabelSpace("own", ("a", "b"))


def _photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (20, 30))
    assert cv2.imwrite(str(path), values.astype(np.uint8))


def masks_with_a_list_of_classes(root: Path) -> None:
    """As Label Studio's YOLO export has one, too."""
    for seed, name in enumerate(NAMES):
        _photograph(root / f"images/{name}.png", seed)
        mask = np.zeros((20, 30), np.uint8)
        mask[2:9, 3:12], mask[12:15, 3:12] = 1, 2
        (root / "masks").mkdir(exist_ok=True)
        assert cv2.imwrite(str(root / f"masks/{name}.png"), mask)
    (root / "classes.txt").write_text("background\na\nb\n")


def coco_with_images_further_down(root: Path) -> None:
    shape = [[2.0, 2.0, 12.0, 2.0, 12.0, 10.0, 2.0, 10.0]]
    images, objects = [], []
    for n, name in enumerate(NAMES):
        _photograph(root / f"upload/batch_1/{name}.png", n)
        entry = {"id": n, "file_name": f"batch_1/{name}.png", "height": 20, "width": 30}
        images.append(entry)
        objects.append({"id": n, "image_id": n, "category_id": 1, "segmentation": shape})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    (root / "result.json").write_text(json.dumps(content))


def written(format: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        source = root.with_name("source")
        source.mkdir()
        coco_with_images_further_down(source)
        converters.write(converters.read(source), root, format=format, labels=LABELS)
        (root / PROVENANCE).unlink()

    make.__name__ = format
    return make


FORMATS = ("yolo", "masks", "datumaro", "coco", "labelme", "nnunet", "rle_table")


@pytest.mark.parametrize(
    "make",
    [
        masks_with_a_list_of_classes,
        coco_with_images_further_down,
        *(written(format) for format in FORMATS),
    ],
)
@pytest.mark.parametrize("inside", ["runs/yolo-laptop/data", "converted"])
def test_a_result_inside_changes_nothing(
    make: Callable[[Path], None], inside: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    if make.__name__ not in FORMATS:
        root.mkdir()
    make(root)
    place = converters.locate(root)
    notes: list[str] = []
    before = converters.read(root, subset="all", note=notes.append)
    assert len(before) == len(NAMES)
    copy = root / inside
    copy.parent.mkdir(parents=True, exist_ok=True)
    converters.write(before, copy, format="yolo", labels=LABELS)
    assert (copy / PROVENANCE).is_file()
    again: list[str] = []
    assert converters.locate(root) == place
    found = converters.read(root, subset="all", note=again.append)
    assert [(s.key, s.image) for s in found] == [(s.key, s.image) for s in before]
    assert again == notes


def test_the_longest_end_of_a_path_says_which_image_is_meant(tmp_path: Path) -> None:
    coco_with_images_further_down(tmp_path)
    for part in ("batch_2", "other/batch_1x"):
        for seed, name in enumerate(NAMES):
            _photograph(tmp_path / f"upload/{part}/{name}.png", 7 + seed)
    found = converters.read(tmp_path)
    assert [s.key for s in found] == [f"upload/batch_1/{name}" for name in NAMES]


def test_annotations_further_down_are_named_with_what_to_do(tmp_path: Path) -> None:
    coco_with_images_further_down(tmp_path)
    file = tmp_path / "exports" / "2024-05-01" / "result.json"
    file.parent.mkdir(parents=True)
    (tmp_path / "result.json").rename(file)
    with pytest.raises(ValueError, match=r"give .*/2024-05-01/result\.json, and --images FOLDER"):
        converters.read(tmp_path)
    assert len(converters.read(file, images=tmp_path / "upload")) == len(NAMES)


def test_what_annotations_name_outright_may_be_a_result(tmp_path: Path) -> None:
    coco_with_images_further_down(tmp_path)
    (tmp_path / "upload" / PROVENANCE).write_text("{}")
    # By its end alone.
    assert len(converters.read(tmp_path)) == len(NAMES)
    polygon = '<polygon label="a" points="2,2;12,2;12,10"/>'
    images = "".join(
        f'<image id="{n}" name="upload/batch_1/{name}.png" width="30" height="20">{polygon}</image>'
        for n, name in enumerate(NAMES)
    )
    (tmp_path / "result.json").unlink()
    (tmp_path / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    assert len(converters.read(tmp_path)) == len(NAMES)


def test_a_yaml_file_may_name_results(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "data"
    source.mkdir()
    coco_with_images_further_down(source)
    samples = converters.read(source)
    for part in ("A", "B"):
        converters.write(samples, root / f"sets/{part}", format="yolo", labels=LABELS)
    (root / "data.yaml").write_text("train: sets\nval: sets\nnames: [a, b]\n")
    assert len(converters.read(root)) == 2 * len(NAMES)
