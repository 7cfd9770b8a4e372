"""labelme's files as labelme writes them, and what is wrong with them."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

import converters
from converters import DataError
from converters.masks import rasterize_labels

SIZE = (40, 60)


@pytest.fixture
def make(tmp_path):
    """A folder with one image and what is drawn on it; returns the folder."""

    def build(shapes, name="a", **more):
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
        cv2.imwrite(str(root / f"{name}.png"), pixels)
        record = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png"}
        record |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
        (root / f"{name}.json").write_text(json.dumps(record))
        return root

    return build


def shape(points, label="cat", kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


TRIANGLE = [[5.2, 5.9], [30.7, 8.1], [12.3, 25.5]]


def masks(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def test_a_vertex_is_the_pixel_that_it_lies_in(make):
    root = make([shape(TRIANGLE)])
    assert converters.recognise(root) == "labelme"
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.floor(TRIANGLE).astype(np.int32)], (1,))
    np.testing.assert_array_equal(masks(root)["cat"], expected)


@pytest.mark.parametrize("seed", range(8))
def test_pixels_are_nearly_those_of_labelme(seed, make):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radii = rng.uniform(8, 17, 12)
    ring = np.stack([30 + radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=1)
    # labelme.utils.shape_to_mask draws so.
    image = Image.new("L", SIZE[::-1])
    corners = list(map(tuple, ring.tolist()))
    ImageDraw.Draw(image).polygon(xy=corners, outline=1, fill=1)
    theirs, ours = np.array(image), masks(make([shape(ring.tolist())]))["cat"]
    dice = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
    # Pillow and OpenCV draw slanted edges differently by a pixel here and there.
    assert dice > 0.97


def test_rectangles_by_their_corners_are_those_by_two(make):
    corners = [[4.5, 3.5], [10.5, 3.5], [10.5, 12.5], [4.5, 12.5]]
    kinds = {"two": "rectangle", "four": "rectangle", "turned": "rotation"}
    found = masks(
        make(
            [
                shape(corners[::2] if name == "two" else corners, name, kind)
                for name, kind in kinds.items()
            ]
        )
    )
    assert (found["two"] == found["four"]).all()
    assert (found["two"] == found["turned"]).all()


def test_rectangles_circles_and_masks(make):
    stamp = np.zeros((5, 4), np.uint8)
    stamp[1:4, 1:] = 255
    png = base64.b64encode(cv2.imencode(".png", stamp)[1].tobytes()).decode()
    found = masks(
        make(
            [
                shape([[10.5, 12.5], [4.5, 3.5]], "box", "rectangle"),
                shape([[30.5, 20.5], [30.5, 26.5]], "disc", "circle"),
                shape([[50, 30], [54, 35]], "stamp", "mask", mask=png),
            ]
        )
    )
    rows, columns = np.nonzero(found["box"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 12, 4, 10)
    assert found["disc"].sum() == pytest.approx(np.pi * 6.5**2, rel=0.05)
    np.testing.assert_array_equal(found["stamp"][30:35, 50:54], stamp // 255)


def test_a_group_is_one_object(make):
    second = [[40, 30], [50, 30], [50, 38]]
    root = make([shape(TRIANGLE, group_id=1), shape(second, group_id=1), shape(TRIANGLE)])
    (sample,) = converters.read(root)
    assert [len(one.parts) for one in sample.instances] == [2, 1]


def test_lines_and_images_without_json_are_told(make):
    root = make([shape(TRIANGLE), shape([[1, 1], [2, 2]], "axis", "line")])
    cv2.imwrite(str(root / "b.png"), np.zeros(SIZE, np.uint8))
    notes = []
    (sample,) = converters.read(root, note=notes.append)
    assert len(sample.instances) == 1
    assert any("left out 1 shapes that enclose nothing (line)" in line for line in notes)
    assert any("1 images without JSON are test images (b.png)" in line for line in notes)


def test_images_without_json_are_test_images(make):
    root = make([shape(TRIANGLE)])
    for place in ("b.png", "more/c.png", "test/d.png", "e.png"):
        (root / place).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(root / place), np.zeros((9, 8), np.uint8))
    (root / "e.json").write_text('{"answers": []}')
    labels = converters.label_space(root)
    notes = []
    found = converters.read(root, subset="test", labels=labels, note=notes.append)
    assert [(s.key, s.size_hw) for s in found] == [
        ("test/b", (9, 8)),
        ("test/d", (9, 8)),
        ("test/more/c", (9, 8)),
    ]
    assert [s.key for s in converters.read(root)] == ["a"]
    assert len(converters.read(root, subset="all")) == 4
    assert notes == [
        f"{root}: left out 1 images whose JSON is not labelme's (e.png)",
        f"{root}: 3 images without JSON are test images (b.png)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected JSON, found an empty file"),
        (b'{"shap', "expected JSON, found a broken file"),
        ('{"shapes": [], "imagePath": ""}'.encode("utf-16"), "expected UTF-8, found byte 0xff"),
    ],
)
def test_a_broken_json_beside_others_is_no_image_less(content, message, make):
    root = make([shape(TRIANGLE)])
    make([shape(TRIANGLE)], "b")
    (root / "b.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"b\.json: {message}"):
        converters.read(root)
    notes = []
    (left,) = converters.read(root, skips_broken=True, note=notes.append)
    assert left.key == "a"
    assert f"left out 1 broken images: b.json: {message}" in notes[-1]


def test_a_class_that_only_a_broken_json_names_is_not_what_is_told(make):
    root = make([])
    (root / "a.json").write_bytes(
        '{"shapes": [{"label": "Ö"}], "imagePath": "a.png"}'.encode("cp1252")
    )
    with pytest.raises(DataError, match=r"a\.json: expected UTF-8, found byte 0xd6"):
        converters.read(root)


def test_an_image_is_one_files_only(make):
    root = make([shape(TRIANGLE)])
    make([shape(TRIANGLE, "dog")], "b", imagePath="..\\set\\a.png")
    (root / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"b\.json: expected an image of its own, found a\.png, which "
    ):
        converters.read(root)


def test_a_broken_image_without_json(make):
    root = make([shape(TRIANGLE)])
    (root / "b.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"b\.png: expected an image"):
        converters.read(root)


def test_labels_txt_gives_the_order(make):
    root = make([shape(TRIANGLE, "dog"), shape(TRIANGLE, "cat"), shape(TRIANGLE, "__ignore__")])
    assert converters.label_space(root).names == ("cat", "dog")
    (root / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\nfox\n")
    assert converters.label_space(root).names == ("dog", "cat", "fox")
    assert set(masks(root)) == {"dog", "cat"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"imagePath": "C:\\data\\a.png"}, ""),
        ({"imagePath": "../elsewhere/a.png"}, ""),
        ({"imagePath": None}, ""),
        ({"imagePath": "a.json"}, ""),
        ({"imageHeight": 41}, r"expected an image of \(41, 60\), found \(40, 60\)"),
        ({"shapes": {}}, "a.json: expected labelme's JSON with a list 'shapes', found none"),
    ],
)
def test_what_stands_around_the_shapes(more, message, make):
    root = make(**({"shapes": [shape(TRIANGLE)]} | more))
    if not message:
        assert set(masks(root)) == {"cat"}
        return
    with pytest.raises(ValueError, match=message):
        converters.read(root)


def test_an_image_that_is_only_inside_is_named(make):
    root = make([shape(TRIANGLE)], imageData="aGk=")
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"expected its image a\.png beside it, found none \(it is"):
        converters.read(root)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (shape(TRIANGLE[:2]), "expected at least 3 points, found 2"),
        (shape("x"), "expected points [x, y], found 'x'"),
        (shape([[1, 1], [True, 2], [3, 1]]), "expected points [x, y], found [[1, 1], [True, 2]"),
        (shape([[1, 1], ["2", 2], [3, 1]]), "expected points [x, y], found [[1, 1], ['2', 2]"),
        (shape([[1, 1e300], [2, 2], [3, 1]]), "expected points near the image"),
        (shape(TRIANGLE, "c", "rectangle"), "expected 2 points of a rectangle, found 3"),
        (
            shape(TRIANGLE, "c", "star"),
            "expected a polygon, rectangle, circle or mask, found 'star'",
        ),
        (shape([[1, 1], [9, 9]], "c", "mask", mask="?"), "expected a mask in base64"),
        ({"points": TRIANGLE}, "expected a shape with a label"),
        (shape(TRIANGLE, ""), "expected a shape with a label, found {'label': ''"),
        (shape(TRIANGLE, " "), "expected a shape with a label, found {'label': ' '"),
        (7, "expected a shape with a label, found 7"),
    ],
)
def test_a_broken_shape_is_one_line(broken, message, make):
    with pytest.raises(DataError) as error:
        converters.read(make([shape(TRIANGLE), broken]))
    (line,) = error.value.problems
    assert line.startswith("a.json: shape 1: ")
    assert message in line
