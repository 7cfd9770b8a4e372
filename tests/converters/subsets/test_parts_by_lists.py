"""Test images that a list or a file names stay test images, wherever they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import converters
from converters.subsets.keys import is_test_key
from converters.subsets.names import is_test_root

SIZE = (20, 30)
PARTS = {"train": ["p", "q"], "test": ["r"]}
BOX = [2.0, 2.0, 12.0, 2.0, 12.0, 10.0, 2.0, 10.0]


def put(path: Path, value: int, size_hw: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(size_hw, value, np.uint8))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def coco(root: Path) -> None:
    for part, names in PARTS.items():
        images = [
            {"id": n, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for n, name in enumerate(names)
        ]
        shapes = [
            {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": [BOX]}
            for n in range(len(names))
        ]
        content = {
            "images": images,
            "annotations": shapes,
            "categories": [{"id": 1, "name": "a"}],
        }
        write_json(root / f"annotations/instances_{part}.json", content)


def datumaro(root: Path) -> None:
    for part, names in PARTS.items():
        shape = {"id": 0, "type": "polygon", "label_id": 0, "points": BOX}
        items = [
            {"id": name, "annotations": [shape], "image": {"path": f"{name}.png", "size": SIZE}}
            for name in names
        ]
        categories = {"label": {"labels": [{"name": "a"}]}}
        content = {"info": {}, "categories": categories, "items": items}
        write_json(root / f"annotations/{part}.json", content)


def yolo(root: Path) -> None:
    (root / "labels").mkdir()
    for part, names in PARTS.items():
        (root / f"{part}.txt").write_text("".join(f"./images/{name}.png\n" for name in names))
        for name in names:
            (root / f"labels/{name}.txt").write_text("0 .1 .1 .4 .1 .4 .5 .1 .5\n")
    lines = ["train: train.txt", "val: train.txt", "test: test.txt", "names: [a]"]
    (root / "data.yaml").write_text("\n".join(lines))


def voc(root: Path) -> None:
    (root / "images").rename(root / "JPEGImages")
    for part, names in PARTS.items():
        listed = root / f"ImageSets/Segmentation/{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names))
        for name in names:
            put(root / f"SegmentationClass/{name}.png", 1)


def rle_table(root: Path) -> None:
    for part, names in PARTS.items():
        rows = "".join(f"{name}.png,a,1 30\n" for name in names)
        (root / f"{part}.csv").write_text(f"ImageId,ClassId,EncodedPixels\n{rows}")


@pytest.mark.parametrize("make", [coco, datumaro, yolo, voc, rle_table])
def test_images_in_one_folder_keep_their_part(make: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    for value, name in enumerate((*PARTS["train"], *PARTS["test"])):
        put(root / f"images/{name}.png", 90 * value)
    make(root)
    read = {part: converters.read(root, subset=part) for part in ("train", "test", "all")}
    assert [sample.image.stem for sample in read["train"]] == PARTS["train"]
    (found,) = read["test"]
    assert found.key.startswith("test/")
    assert found.image.stem == "r"
    assert len(found.instances) == 1
    keys = {part: {sample.key for sample in own} for part, own in read.items()}
    assert keys["all"] == keys["train"] | keys["test"]
    for part, own in keys.items():
        assert {s.key for s in converters.list_images(root, subset=part)} == own
    labels = converters.label_space(root)
    assert labels is not None
    converters.write(read["all"], tmp_path / "out", format="yolo", labels=labels)
    names = {
        part: sorted(p.stem for p in (tmp_path / f"out/images/{part}").iterdir()) for part in PARTS
    }
    assert names == PARTS


def test_a_file_of_test_images_alone_is_of_any_part(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for value, name in enumerate((*PARTS["train"], *PARTS["test"])):
        put(root / f"images/{name}.png", 90 * value)
    coco(root)
    (found,) = converters.read(root / "annotations/instances_test.json", subset="train")
    assert found.key == "images/r"


def test_an_image_in_two_parts_is_told(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for value, name in enumerate(PARTS["train"]):
        put(root / f"images/{name}.png", 90 * value)
    coco(root)
    content = json.loads((root / "annotations/instances_train.json").read_text())
    write_json(root / "annotations/instances_test.json", content)
    with pytest.raises(converters.DataError, match="expected it in one part, found it in another"):
        converters.read(root, subset="all")


def test_files_say_what_is_to_learn_from_and_what_is_held_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for value, name in enumerate((*PARTS["train"], *PARTS["test"])):
        put(root / f"images/{name}.png", 90 * value)
    coco(root)
    (root / "annotations/instances_test.json").rename(root / "annotations/instances_val.json")
    found = {s.image.stem: s.attributes for s in converters.read(root)}
    assert found == {name: {"subset": "train"} for name in "pq"} | {"r": {"subset": "val"}}


@pytest.mark.parametrize(
    ("name", "is_one"), [("test", True), ("test2017", True), ("test_data", False)]
)
def test_a_data_set_to_try_something_with_is_no_test_set(name, is_one, tmp_path):
    assert is_test_root(tmp_path / name) == is_one
    assert is_test_key(f"{name}/a")


def via(root: Path) -> None:
    shape = {"name": "polygon", "all_points_x": BOX[::2], "all_points_y": BOX[1::2]}
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "a"}}]
    entry = {"filename": "p.png", "size": 1, "regions": regions, "file_attributes": {}}
    write_json(root / "train" / "via_region_data.json", {"p.png1": entry})


def cvat(root: Path) -> None:
    points = ";".join(f"{x},{y}" for x, y in zip(BOX[::2], BOX[1::2], strict=True))
    (root / "annotations.xml").write_text(
        f'<annotations><image id="0" name="train/p.png" width="{SIZE[1]}" height="{SIZE[0]}">'
        f'<polygon label="a" points="{points}"/></image></annotations>'
    )


def label_studio(root: Path) -> None:
    corners = [
        [100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in zip(BOX[::2], BOX[1::2], strict=True)
    ]
    result = {
        "type": "polygonlabels",
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "value": {"points": corners, "polygonlabels": ["a"]},
    }
    task = {"data": {"image": "train/p.png"}, "annotations": [{"result": [result]}]}
    write_json(root / "tasks.json", [task])


@pytest.mark.parametrize("make", [via, cvat, label_studio])
@pytest.mark.parametrize("folder", ["test", "testing"])
def test_a_folder_of_images_that_no_file_names_is_to_be_answered(
    make: Callable[[Path], None], folder: str, tmp_path: Path
) -> None:
    for value, place in enumerate(("train/p", f"{folder}/r", "more/s")):
        put(tmp_path / f"{place}.png", 90 * value)
    make(tmp_path)
    notes: list[str] = []
    found = converters.read(tmp_path, subset="all", note=notes.append)
    assert {s.image.stem: len(s.instances) for s in found} == {"p": 1, "r": 0}
    assert [is_test_key(s.key) for s in found] == [s.image.stem == "r" for s in found]
    assert [s.image.stem for s in converters.list_images(tmp_path, subset="test")] == ["r"]
    assert any("left out 1 images without annotations (more/s.png)" in note for note in notes)


def test_what_a_table_calls_test_images_of_one_file_can_be_read(tmp_path: Path) -> None:
    for value, name in enumerate("pqr"):
        put(tmp_path / f"images/{name}.png", 90 * value)
    coco(tmp_path)
    train = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(train.read_text())
    (tmp_path / "annotations" / "instances_test.json").unlink()
    write_json(tmp_path / "annotations" / "instances.json", content)
    train.unlink()
    (tmp_path / "split.csv").write_text("image,split\np.png,train\nq.png,test\n")
    assert [s.image.stem for s in converters.read(tmp_path, subset="test")] == ["q"]
    assert [s.image.stem for s in converters.read(tmp_path)] == ["p"]
    assert len(converters.read(tmp_path, subset="all")) == 2


def test_what_is_drawn_of_test_images_is_none(tmp_path: Path) -> None:
    places = ("train/p", "test/images/r", "test/masks/r", "test_results/p")
    for value, place in enumerate(places):
        put(tmp_path / f"{place}.png", 60 * value)
    via(tmp_path)
    assert [s.key for s in converters.read(tmp_path, subset="test")] == ["test/images/r"]
    (tmp_path / "test/images/r.png").write_bytes(b"")
    assert len(converters.read(tmp_path)) == 1


@pytest.mark.parametrize("name", ["test.txt", "split.csv"])
def test_what_is_wrong_with_a_test_image_of_a_list_is_an_error(name: str, tmp_path: Path) -> None:
    for value, image in enumerate("pqr"):
        put(tmp_path / f"images/{image}.png", 90 * value)
    yolo(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"./images/{n}.png\n" for n in "pqr"))
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: train.txt\nnames: [a]\n")
    (tmp_path / "labels/r.txt").write_text("0 x y\n")
    text = "r\n" if name == "test.txt" else "image,split\np,train\nq,train\nr,test\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(converters.DataError, match=r"labels/r\.txt"):
        converters.read(tmp_path, subset="test")
    found, problems = converters.scan(tmp_path, subset="test")
    assert {one.key for one in problems} == {one.key for one in found}


def test_copies_of_what_is_learned_from_are_no_test_images(tmp_path: Path) -> None:
    for place in ("train/p", "test/p"):
        put(tmp_path / f"{place}.png", 90)
    via(tmp_path)
    assert [s.key for s in converters.read(tmp_path, subset="all")] == ["train/p"]


def test_other_images_of_one_name_and_length_are_no_copies(tmp_path: Path) -> None:
    """As files without compression are."""
    for value, place in enumerate(("train/p", "test/p")):
        put(tmp_path / f"{place}.bmp", 90 * value)
    via(tmp_path)
    listed = tmp_path / "train" / "via_region_data.json"
    listed.write_text(listed.read_text().replace("p.png", "p.bmp"))
    found = converters.read(tmp_path, subset="all")
    assert [s.key for s in found] == ["test/p", "train/p"]


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    for value, place in enumerate(("images/p", "images/r")):
        put(tmp_path / f"{place}.png", 90 * value)
    points = [[1, 1], ["q"]]
    for name, corners in (("p", [[1, 1], [9, 1], [9, 9]]), ("r", points)):
        shape = {"label": "a", "points": corners, "shape_type": "polygon"}
        size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        content = {"imagePath": f"images/{name}.png", "shapes": [shape], **size}
        write_json(tmp_path / f"{name}.json", content)
    (tmp_path / "test.txt").write_text("images/r.png\n")
    _, problems = converters.scan(tmp_path, subset="test")
    assert len(problems) == 1
