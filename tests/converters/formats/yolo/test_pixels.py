"""The pixels of labels that others wrote, and of ours: those that were drawn, to the last one."""

import cv2
import numpy as np
import pytest

import converters
from converters.formats.yolo import yolo
from converters.masks import crop, outline, rasterize
from converters.types import Instance, LabelSpace, Sample

pytestmark = pytest.mark.slow

LABELS = LabelSpace("peer", ("a", "b"))
SIZES_HW = [(48, 64), (97, 61), (640, 427), (1000, 1333), (2048, 2048), (1500, 3060)]


def read_mask(root, size_hw, text):
    """What is read of a label file."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / "i.png"), np.zeros(size_hw, np.uint8))
    (root / "labels" / "i.txt").write_text(text)
    (root / "data.yaml").write_text("names: [a, b]\ntrain: images\n")
    found = np.zeros(size_hw, np.uint8)
    for instance in converters.read(root, labels=LABELS)[0].instances:
        found |= rasterize(instance.geometry, size_hw).full(size_hw)
    return found


def draw(size_hw, seed):
    """A mask of two blobs without a hole, one of them at the border; no part of two pixels."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    plane = np.zeros(size_hw, np.uint8)
    for x, y in ((0.3, 0.4), (0.9, 0.8)):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 25))
        radius = rng.uniform(0.15, 0.25, 25) * min(size_hw)
        points = [x * width + radius * np.cos(angle), y * height + radius * np.sin(angle)]
        cv2.fillPoly(plane, [np.stack(points, axis=1).astype(np.int32)], (1,))
    contours, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = [contour for contour in contours if cv2.contourArea(contour) > 9]
    return cv2.fillPoly(np.zeros(size_hw, np.uint8), whole, (1,))


def outlines(seed):
    """Outlines as they come: whole pixels around an ellipse or a zigzag."""
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(40, 900, 2))
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 30))))
    radius = rng.uniform(0.05, 0.45, len(angle)) * min(width, height)
    x, y = width / 2 + radius * np.cos(angle), height / 2 + radius * np.sin(angle)
    return (height, width), np.stack([x, y], axis=1).astype(np.int32)


@pytest.mark.parametrize("offset", [0, 0.5])
@pytest.mark.parametrize("digits", [6, 17])
def test_labels_are_filled_as_they_were_drawn(offset, digits, tmp_path):
    """`offset` 0: as Ultralytics, supervision and JSON2YOLO write them; .5: as we do."""
    for seed in range(30):
        size_hw, points = outlines(seed)
        values = ((points + offset) / size_hw[::-1]).ravel()
        text = "0 " + " ".join(f"{value:.{digits}f}" for value in values)
        expected = cv2.fillPoly(np.zeros(size_hw, np.uint8), [points], (1,))
        np.testing.assert_array_equal(read_mask(tmp_path, size_hw, text), expected)


def test_every_pixel_is_found_whoever_writes_it(tmp_path):
    """Six significant digits (JSON2YOLO), five behind the point (supervision), all of them."""
    size = 4096
    pixels = np.arange(size)
    spread = np.stack([pixels, np.where(pixels % 2, 2, 5)], axis=1)
    expected = cv2.fillPoly(np.zeros((8, size), np.uint8), [spread.astype(np.int32)], (1,))
    for form in ("%.6g", "%.5f", "%.6f", "%r"):
        text = "0 " + " ".join(form % value for value in (spread / (size, 8)).ravel().tolist())
        np.testing.assert_array_equal(read_mask(tmp_path, (8, size), text), expected, form)


@pytest.mark.parametrize("shift", range(4))
def test_a_shift_of_one_pixel_moves_all_by_one(shift, tmp_path):
    corners = np.array([[10, 10], [20, 10], [20, 20], [10, 20]]) + shift
    text = "0 " + " ".join(f"{value / 64:.6f}" for value in corners.ravel())
    expected = np.zeros((64, 64), np.uint8)
    expected[10 + shift : 21 + shift, 10 + shift : 21 + shift] = 1
    np.testing.assert_array_equal(read_mask(tmp_path, (64, 64), text), expected)


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_what_we_write_comes_back(size_hw, tmp_path):
    plane = draw(size_hw, seed=1)
    _, parts = cv2.connectedComponents(plane)
    objects = [outline(crop(parts == number)) for number in range(1, parts.max() + 1)]
    instances = tuple(Instance("a", geometry) for geometry in objects)
    text, _ = yolo.label_text(Sample("i", tmp_path / "i.png", size_hw, instances), LABELS)
    np.testing.assert_array_equal(read_mask(tmp_path, size_hw, text.decode()), plane)


# --- by those who write and read them


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_labels_of_ultralytics_converter(size_hw, tmp_path):
    pytest.importorskip("ultralytics")
    from ultralytics.data.converter import convert_segment_masks_to_yolo_seg

    (tmp_path / "masks").mkdir()
    (tmp_path / "texts").mkdir()
    plane = draw(size_hw, seed=2)
    cv2.imwrite(str(tmp_path / "masks" / "i.png"), plane)
    convert_segment_masks_to_yolo_seg(str(tmp_path / "masks"), str(tmp_path / "texts"), classes=1)
    text = (tmp_path / "texts" / "i.txt").read_text()
    np.testing.assert_array_equal(read_mask(tmp_path / "data", size_hw, text), plane)


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_labels_of_supervision(size_hw, tmp_path):
    supervision = pytest.importorskip("supervision")
    from supervision.dataset.formats.yolo import detections_to_yolo_annotations

    plane = draw(size_hw, seed=3)
    found = supervision.Detections(
        xyxy=np.array([[0, 0, *size_hw[::-1]]], np.float32),
        mask=plane[None].astype(bool),
        class_id=np.array([0]),
    )
    lines = detections_to_yolo_annotations(found, size_hw, approximation_percentage=0)
    np.testing.assert_array_equal(read_mask(tmp_path, size_hw, "\n".join(lines)), plane)


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_ultralytics_fills_what_we_read(size_hw, tmp_path):
    pytest.importorskip("ultralytics")
    from ultralytics.data.utils import polygon2mask

    rng = np.random.default_rng(4)
    values = rng.uniform(0.1, 0.9, (40, 2))
    scaled = values * size_hw[::-1]
    # Between whole pixels; there the digits that are missing decide, and Ultralytics has fewer.
    values = values[(np.abs(scaled - np.rint(scaled)) > 0.05).all(axis=1)]
    text = "0 " + " ".join(map(repr, values.ravel().tolist()))
    theirs = polygon2mask(size_hw, [(values.astype(np.float32) * size_hw[::-1]).ravel()])
    np.testing.assert_array_equal(read_mask(tmp_path, size_hw, text), theirs)
