"""What files draw as polygons is audited as it is drawn, whatever becomes pixels on reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import converters
from converters.audit.geometry import check_outlines
from converters.edits.edits import Edits
from converters.formats.coco.drawn import DrawnShapes
from converters.masks import crop, encode_coco_rle
from converters.types import LabelSpace, PackedInstances, Sample

SIZE_HW = (60, 80)
LABELS = LabelSpace("pets", ("cat", "dog"))
# In pixels from the image's upper left corner. The first goes around 36 of them the wrong way.
CROSSING = [(5, 5), (45, 5), (45, 20), (57, 32), (57, 20), (45, 32), (45, 45), (5, 45)]
LEAVING = [(50, 10), (88, 10), (88, 40), (50, 40)]
SOUND = [(20, 48), (40, 48), (40, 58), (20, 58)]
Ring = list[tuple[float, float]]


def flat(ring: Ring) -> list[float]:
    return [float(value) for point in ring for value in point]


def coco(root: Path, rings: list[Ring], code: bool = False) -> None:
    shapes: list[object] = [[flat(ring)] for ring in rings]
    if code:
        square = np.zeros(SIZE_HW, np.uint8)
        square[2:5, 60:64] = 1
        shapes.append(encode_coco_rle(crop(square), SIZE_HW))
    record = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE_HW[0], "width": SIZE_HW[1]}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS.names)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 0, "segmentation": shape, "iscrowd": 0}
            for i, shape in enumerate(shapes)
        ],
    }
    (root / "annotations.json").write_text(json.dumps(record))


def coco_beside_a_code(root: Path, rings: list[Ring]) -> None:
    coco(root, rings, code=True)


def datumaro(root: Path, rings: list[Ring]) -> None:
    names = [{"name": name, "parent": "", "attributes": []} for name in LABELS.names]
    shapes = [
        {"id": i, "type": "polygon", "label_id": 0, "group": 0, "points": flat(ring)}
        for i, ring in enumerate(rings)
    ]
    item = {"id": "a", "annotations": shapes, "image": {"path": "a.png", "size": list(SIZE_HW)}}
    record = {"info": {}, "categories": {"label": {"labels": names}}, "items": [item]}
    (root / "annotations").mkdir()
    (root / "annotations" / "default.json").write_text(json.dumps(record))
    (root / "images" / "default").mkdir(parents=True)
    (root / "a.png").rename(root / "images" / "default" / "a.png")


def cvat(root: Path, rings: list[Ring]) -> None:
    listed = "".join(f"<label><name>{n}</name><type>any</type></label>" for n in LABELS.names)
    shapes = "".join(
        f'<polygon label="cat" points="{";".join(f"{x},{y}" for x, y in ring)}"></polygon>'
        for ring in rings
    )
    height, width = SIZE_HW
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><id>7</id><labels>{listed}</labels></task>"
        f'</meta><image id="0" name="a.png" width="{width}" height="{height}">{shapes}</image>'
        "</annotations>"
    )


def label_studio(root: Path, rings: list[Ring]) -> None:
    height, width = SIZE_HW
    results = [
        {
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "points": [[100 * x / width, 100 * y / height] for x, y in ring],
                "polygonlabels": ["cat"],
            },
            "id": f"r{i}",
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
        }
        for i, ring in enumerate(rings)
    ]
    task = {
        "id": 1,
        "annotations": [{"id": 1, "result": results, "was_cancelled": False, "lead_time": 1.0}],
        "data": {"image": "/data/upload/3/a.png"},
    }
    (root / "tasks.json").write_text(json.dumps([task]))


def labelme(root: Path, rings: list[Ring]) -> None:
    shapes = [{"label": "cat", "points": ring, "shape_type": "polygon"} for ring in rings]
    record = {"imagePath": "a.png", "imageHeight": SIZE_HW[0], "imageWidth": SIZE_HW[1]}
    (root / "a.json").write_text(json.dumps({**record, "shapes": shapes}))


Write = Callable[[Path, list[Ring]], None]
WRITERS: list[Write] = [coco, coco_beside_a_code, datumaro, cvat, label_studio, labelme]


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__)
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[Ring]], Sample]:
    def read_one(rings: list[Ring]) -> Sample:
        cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE_HW, 90, np.uint8))
        request.param(tmp_path, rings)
        (sample,) = converters.read(tmp_path, subset="all", labels=LABELS)
        return sample

    return read_one


@pytest.mark.parametrize(
    ("rings", "kinds"),
    [
        ([CROSSING, SOUND], ["crossing"]),
        ([SOUND, LEAVING], ["outside"]),
        ([LEAVING, CROSSING], ["crossing", "outside"]),
        ([SOUND], []),
        # To the last pixel's edge, and half a pixel farther.
        ([[(0, 0), (80, 0), (80, 60), (0, 60)]], []),
        ([[(40, 0), (80.4, 0), (80.4, 60), (40, 60)]], []),
    ],
)
def test_outlines_are_looked_at_as_they_are_drawn(
    read: Callable[[list[Ring]], Sample], rings: list[Ring], kinds: list[str]
) -> None:
    sample = read(rings)
    found = list(check_outlines(sample))
    assert [finding.kind for finding in found] == kinds
    for finding in found:
        if finding.kind == "crossing":
            assert finding.box_xywh is not None
            x, y, width, height = finding.box_xywh
            assert x <= 50 <= x + width
            assert y <= 26 <= y + height
            assert " 36 px the wrong way" in finding.what
        else:
            assert "found one 8.0 px beyond" in finding.what


def test_what_became_pixels_has_no_edit_of_polygons(tmp_path: Path) -> None:
    small = [(5, 5), (45, 5), (45, 20), (48, 23), (48, 20), (45, 23), (45, 45), (5, 45)]
    edits = []
    for write in (coco, labelme):
        root = tmp_path / write.__name__
        root.mkdir()
        cv2.imwrite(str(root / "a.png"), np.full(SIZE_HW, 90, np.uint8))
        write(root, [small])
        (sample,) = converters.read(root, subset="all", labels=LABELS)
        edits += [finding.edit is not None for finding in check_outlines(sample)]
    assert edits == [False, True]


def test_reading_keeps_what_is_drawn_without_unpacking_it(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE_HW, 90, np.uint8))
    coco(tmp_path, [CROSSING, LEAVING])
    (sample,) = converters.read(tmp_path, labels=LABELS)
    assert isinstance(sample.instances, PackedInstances)
    assert isinstance(sample.instances.outlines, DrawnShapes)
    assert [one.drawn for one in sample.instances] == [(), ()]
    drawn = [one for one, are_pixels in sample.as_drawn() if are_pixels]
    bounds = [one.geometry.bounds for one in drawn]
    assert bounds == [
        (4.5, 4.5, 56.5, 44.5),
        (49.5, 9.5, 87.5, 39.5),
    ]


def test_classes_that_are_left_out_take_no_outline_with_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE_HW, 90, np.uint8))
    coco(tmp_path, [CROSSING, SOUND])
    record = json.loads((tmp_path / "annotations.json").read_text())
    record["annotations"][1]["category_id"] = 1
    (tmp_path / "annotations.json").write_text(json.dumps(record))
    (sample,) = converters.read(tmp_path, labels=LABELS.only(["cat"]))
    assert sample.labels == ("cat",)
    assert [finding.kind for finding in check_outlines(sample)] == ["crossing"]


@pytest.mark.parametrize("change", ["drop", "relabel"])
def test_corrections_leave_other_outlines_as_they_are_drawn(tmp_path: Path, change: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE_HW, 90, np.uint8))
    coco(tmp_path, [CROSSING, SOUND])
    (tmp_path / "edits.yaml").write_text(
        f"version: 1\n{change}:\n- {{key: a, label: cat, part: 1"
        + (", to: dog}\n" if change == "relabel" else "}\n")
    )
    edits = Edits.load(tmp_path / "edits.yaml")
    (sample,) = converters.read(tmp_path, labels=LABELS, edits=edits)
    assert sample.labels == (("cat",) if change == "drop" else ("cat", "dog"))
    assert [finding.kind for finding in check_outlines(sample)] == ["crossing"]


def test_files_about_other_classes_add_what_they_draw(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE_HW, 90, np.uint8))
    (tmp_path / "annotations").mkdir()
    for number, rings in enumerate(([CROSSING], [LEAVING])):
        coco(tmp_path, rings)
        record = json.loads((tmp_path / "annotations.json").read_text())
        record["annotations"][0]["category_id"] = number
        path = tmp_path / "annotations" / f"instances_{number}.json"
        path.write_text(json.dumps(record))
    (tmp_path / "annotations.json").unlink()
    (sample,) = converters.read(tmp_path, labels=LABELS)
    found = [(finding.kind, finding.labels) for finding in check_outlines(sample)]
    assert found == [("crossing", ("cat",)), ("outside", ("dog",))]
