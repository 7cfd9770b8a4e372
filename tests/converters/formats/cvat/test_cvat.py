"""CVAT's XML as CVAT writes it, against pycocotools and OpenCV; and what is wrong with it."""

from __future__ import annotations

import json
from itertools import groupby
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest
from pycocotools import mask as pycoco

import converters
from converters import DataError
from converters.masks import rasterize, rasterize_labels
from converters.types import LabelSpace

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (40, 60)
LABELS = ("dog", "cat", "fox")
TRIANGLE = "5.25,6.50;33.00,11.75;19.10,37.00"


def element(kind, label="cat", **attributes):
    named = {"label": label, "source": "manual", "occluded": "0", "z_order": "0", **attributes}
    return f"<{kind} {' '.join(f'{k}={quoteattr(str(v))}' for k, v in named.items())}></{kind}>"


def polygon(points=TRIANGLE, label="cat", **more):
    return element("polygon", label, points=points, **more)


def mask_code(pixels):
    """CVAT's `mask2Rle`: lengths of runs in the flattened box, the first is of zeros."""
    runs = [(value, len(list(group))) for value, group in groupby(pixels.ravel().tolist())]
    counts = [length for _, length in runs]
    return ", ".join(map(str, counts if runs[0][0] == 0 else [0, *counts]))


def image(name, *shapes, size_hw=SIZE, **more):
    place = {"id": 0, "name": name, **more, "width": size_hw[1], "height": size_hw[0]}
    attributes = " ".join(f"{k}={quoteattr(str(v))}" for k, v in place.items())
    return f"<image {attributes}>{''.join(shapes)}</image>"


def meta(labels=LABELS, inside="task", kind="any"):
    listed = "".join(
        f"<label><name>{name}</name><color>#fa3253</color><type>{kind}</type>"
        "<attributes></attributes></label>"
        for name in labels
    )
    return f"<meta><{inside}><id>7</id><labels>{listed}</labels></{inside}></meta>"


@pytest.fixture
def put(tmp_path):
    """Write images and annotations.xml; returns the folder."""
    root = tmp_path / "set"

    def write(*images, files=("images/a.png",), head=None, name="annotations.xml"):
        for number, file in enumerate(files):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, SIZE, np.uint8)
            cv2.imwrite(str(root / file), pixels)
        body = f"<version>1.1</version>{meta() if head is None else head}{''.join(images)}"
        text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{body}</annotations>\n'
        root.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
        return root

    return write


def masks(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def filled(points):
    """What pycocotools gives a polygon, (H, W)."""
    flat = np.array(points, float).ravel().tolist()
    return pycoco.decode(pycoco.frPyObjects([flat], *SIZE))[..., 0]


def corners(text):
    return [tuple(map(float, pair.split(","))) for pair in text.split(";")]


# --- shapes


def test_classes_have_the_order_of_meta(put):
    root = put(image("a.png", polygon()))
    assert converters.recognise(root) == "cvat"
    assert converters.label_space(root).names == LABELS


@pytest.mark.parametrize(
    "points",
    [
        TRIANGLE,
        "0.00,0.00;60.00,0.00;60.00,40.00;0.00,40.00",
        "5,5;30,30;30,5;5,30",
        "-4,3;9,2;3,9",
    ],
)
def test_a_polygon_has_the_pixels_that_pycocotools_gives_it(points, put):
    found = masks(put(image("a.png", polygon(points))))
    np.testing.assert_array_equal(found["cat"], filled(corners(points)))


def test_a_box_holds_whole_pixels_from_corner_to_corner(put):
    found = masks(put(image("a.png", element("box", xtl=10, ytl=3, xbr=20, ybr=9))))["cat"]
    expected = np.zeros(SIZE, np.uint8)
    expected[3:9, 10:20] = 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("angle", [0.01, 30, 90, 137.5, 359])
def test_a_turned_box_is_that_of_opencv(angle, put):
    box = element("box", xtl=20, ytl=15, xbr=42, ybr=23, rotation=angle)
    turned = cv2.boxPoints(((31, 19), (22, 8), angle))
    np.testing.assert_array_equal(masks(put(image("a.png", box)))["cat"], filled(turned))


@pytest.mark.parametrize("angle", [0, 25, 110])
def test_an_ellipse(angle, put):
    shape = element("ellipse", cx=30.5, cy=20.5, rx=14, ry=6, rotation=angle)
    found = masks(put(image("a.png", shape)))["cat"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] - 20.0
    x -= 10
    turn = np.deg2rad(angle)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    expected = (along / 14) ** 2 + (across / 6) ** 2 <= 1
    # pycocotools counts in fifths of a pixel.
    assert (found != expected).sum() <= 6
    assert found.sum() == pytest.approx(np.pi * 14 * 6, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_is_row_major_in_its_box(seed, put):
    pixels = (np.random.default_rng(seed).random((7, 11)) < 0.5).astype(np.uint8)
    pixels[0, 0] = seed % 2
    shape = element("mask", rle=mask_code(pixels), left=45, top=30, width=11, height=7)
    found = masks(put(image("a.png", shape)))["cat"]
    np.testing.assert_array_equal(found[30:37, 45:56], pixels)
    assert found.sum() == pixels.sum()


def test_a_mask_of_ones_begins_with_a_run_of_nothing(put):
    shape = element("mask", rle="0, 12", left=56, top=37, width=4, height=3)
    assert masks(put(image("a.png", shape)))["cat"][37:, 56:].sum() == 12


def test_what_overlaps_stays_whatever_lies_above(put):
    below, above = polygon(z_order=0), polygon(label="dog", z_order=3)
    found = masks(put(image("a.png", below, above)))
    np.testing.assert_array_equal(found["cat"], found["dog"])


def test_a_group_is_one_object_of_each_label(put):
    far = "40,30;50,30;50,38"
    shapes = [polygon(group_id=2), polygon(far, group_id=2), polygon(far, "dog", group_id=2)]
    shapes += [polygon(group_id=0), polygon()]
    (sample,) = converters.read(put(image("a.png", *shapes)))
    assert [(one.label, len(one.parts)) for one in sample.instances] == [
        ("cat", 2),
        ("dog", 1),
        ("cat", 1),
        ("cat", 1),
    ]


def test_the_same_task_as_datumaro_has_the_same_pixels(put, tmp_path):
    pixels = (np.random.default_rng(5).random((9, 8)) < 0.6).astype(np.uint8)
    shape = element("mask", "fox", rle=mask_code(pixels), left=3, top=4, width=8, height=9)
    ours = converters.read(put(image("a.png", polygon(), shape)))
    whole = np.zeros(SIZE, np.uint8, order="F")
    whole[4:13, 3:11] = pixels
    code = pycoco.encode(whole)
    shapes = [
        {"type": "polygon", "label_id": 1, "group": 0, "points": sum(corners(TRIANGLE), ())},
        {"type": "mask", "label_id": 2, "group": 0}
        | {"rle": {"size": list(SIZE), "counts": code["counts"].decode()}},
    ]
    item = {"id": "a", "annotations": shapes, "image": {"path": "a.png", "size": list(SIZE)}}
    named = {"label": {"labels": [{"name": n} for n in LABELS]}}
    theirs = tmp_path / "datumaro"
    (theirs / "annotations").mkdir(parents=True)
    (theirs / "images" / "default").mkdir(parents=True)
    (theirs / "images" / "default" / "a.png").write_bytes(ours[0].image.read_bytes())
    record = {"categories": named, "items": [item]}
    (theirs / "annotations" / "default.json").write_text(json.dumps(record))
    (other,) = converters.read(theirs)
    assert [one.label for one in other.instances] == [one.label for one in ours[0].instances]
    for mine, their in zip(ours[0].instances, other.instances, strict=True):
        first, second = (rasterize(one.geometry, SIZE).full(SIZE) for one in (mine, their))
        np.testing.assert_array_equal(first, second)


def test_what_encloses_nothing_is_left_out_and_said(put):
    lines = [element("polyline", points="1,1;2,2"), element("points", points="1,1")]
    lines += ["<tag label='dog' source='manual'></tag>", element("skeleton", "hand")]
    notes = []
    (sample,) = converters.read(put(image("a.png", polygon(), *lines)), note=notes.append)
    assert len(sample.instances) == 1
    said = [note.split(": ", 1)[1] for note in notes]
    assert said == [
        f"left out 1 shapes that enclose nothing ({kind})"
        for kind in ("points", "polyline", "skeleton")
    ]


# --- images, subsets, classes


@pytest.mark.parametrize("file", ["images/a.png", "a.png", "elsewhere/a.png", "images/x/a.png"])
def test_where_an_image_may_be(file, put):
    (sample,) = converters.read(put(image("a.png", polygon()), files=[file]))
    assert (sample.key, sample.image.name) == ("a", "a.png")


def test_folders_in_names_are_kept_apart(put):
    images = [image("x/1.png", polygon()), image("y/1.png"), image("1.png")]
    files = ["images/x/1.png", "images/y/1.png", "images/1.png"]
    root = put(*images, files=files)
    found = converters.read(root)
    places = [sample.image.relative_to(root).as_posix() for sample in found]
    assert [sample.key for sample in found] == ["1", "x/1", "y/1"]
    assert places == ["images/1.png", "images/x/1.png", "images/y/1.png"]


def test_an_image_is_not_taken_for_another_of_its_name(put):
    root = put(image("x/1.png", polygon()), image("y/1.png"), files=["images/y/1.png"])
    with pytest.raises(DataError, match=r"image 'x/1\.png': expected one image 'x/1\.png'"):
        converters.read(root)
    left = converters.read(root, skips_broken=True)
    assert [sample.key for sample in left] == ["y/1"]


def test_frames_of_a_film_have_no_suffix_in_the_xml(put):
    root = put(image("frame_000000", polygon()), files=["images/frame_000000.PNG"])
    assert [sample.key for sample in converters.read(root)] == ["frame_000000"]


def test_names_that_differ_in_their_suffix_only(put):
    root = put(image("a.png"), image("a.jpg"), files=["images/a.png", "images/a.jpg"])
    assert [sample.key for sample in converters.read(root)] == ["a.jpg", "a.png"]


def test_subsets_of_a_project(put):
    subsets = ("Train", "val", "test", "default")
    images = [image("1.png", polygon(), subset=s, task_id=i) for i, s in enumerate(subsets)]
    root = put(
        *images,
        files=[f"images/{subset}/1.png" for subset in subsets],
        head=meta(inside="project"),
    )
    assert converters.label_space(root).names == LABELS
    found = converters.read(root)
    assert [sample.key for sample in found] == ["1", "train/1", "val/1"]
    assert dict(found[1].attributes) == {"subset": "Train", "task": "0"}
    places = [sample.image.parent.name for sample in found]
    assert places == ["default", "Train", "val"]
    assert [s.key for s in converters.read(root, subset="test")] == ["test/1"]
    assert len(converters.read(root, subset="all")) == 4


def test_several_files_are_read_together(put):
    put(image("a.png", polygon()), name="first.xml")
    root = put(
        image("b.png", polygon(label="owl")),
        files=["images/b.png"],
        head=meta(["cat", "owl"]),
        name="second.xml",
    )
    assert converters.label_space(root).names == (*LABELS, "owl")
    assert [sample.key for sample in converters.read(root)] == ["a", "b"]


def test_labels_of_points_and_of_parts_of_skeletons_are_no_classes(put):
    more = "<label><name>wrist</name><type>points</type><parent>hand</parent></label>"
    head = meta().replace("</labels>", more + "</labels>")
    assert converters.label_space(put(image("a.png"), head=head)).names == LABELS


def test_without_meta_the_shapes_name_the_classes(put):
    root = put(image("a.png", polygon(label="b10"), polygon(label="b9")), head="<meta></meta>")
    assert converters.label_space(root).names == ("b9", "b10")


def test_labels_are_found_by_alias(put):
    mine = LabelSpace("mine", ("pet",), aliases={"cat": "pet"})
    assert set(masks(put(image("a.png", polygon())), labels=mine)) == {"pet"}


def test_images_without_shapes_and_without_xml_are_said(put):
    notes = []
    files = ["images/a.png", "images/b.png", "images/c.png", ".thumbs/d.png"]
    root = put(image("a.png", polygon()), image("b.png"), files=files)
    found = converters.read(root, note=notes.append)
    assert [len(sample.instances) for sample in found] == [1, 0]
    assert notes == [
        f"{root}: took 1 images without a shape for images without objects",
        f"{root}: left out 1 images without annotations (images/c.png)",
    ]


# --- what is wrong

BROKEN = {
    "no points": (element("polygon"), "expected 'points', found none"),
    "words": (polygon("a,b;c,d;e,f"), "expected points 'x,y;x,y;...', found 'a,b;c,d"),
    "ragged": (polygon("1,2;3;4,5"), "expected points 'x,y;x,y;...'"),
    "NaN": (polygon("nan,2;3,9;14,5"), "found NaN, infinity or huge ones"),
    "huge": (polygon("1e300,2;3,9;14,5"), "found NaN, infinity or huge ones"),
    "two points": (polygon("1,2;3,9"), "expected at least 3 points"),
    "elsewhere": (polygon("500,500;600,500;600,600"), "expected points in an image of 40 x 60"),
    "another label": (polygon(label="wolf"), "expected a class of 'set', found 'wolf'"),
    "no label": (polygon().replace("label=", "lable="), "expected a 'label', found none"),
    "box": (element("box", xtl=1, ytl=2, xbr=9), "expected 'ybr', found none"),
    "box of NaN": (
        element("box", xtl="nan", ytl=2, xbr=9, ybr=9),
        "expected 'xtl' to be a number, found 'nan'",
    ),
    "angle": (
        element("box", xtl=1, ytl=2, xbr=9, ybr=9, rotation="up"),
        "expected 'rotation' to be a number, found 'up'",
    ),
    "radius": (element("ellipse", cx=9, cy=9, rx=0, ry=4), "expected radii above 0"),
    "cuboid": (element("cuboid", xtl1=1), "expected a polygon, box, ellipse or mask: draw it"),
    "runs": (
        element("mask", rle="1, 2", left=0, top=0, width=2, height=2),
        "expected 'rle' to have runs that fill 2 x 2 pixels",
    ),
    "runs below 0": (
        element("mask", rle="-2, 6", left=0, top=0, width=2, height=2),
        "expected 'rle' to have runs that fill 2 x 2 pixels",
    ),
    "runs that overflow": (
        element("mask", rle="9223372036854775807, 9223372036854775807, 6", left=0, top=0).replace(
            "></mask>", " width='2' height='2'></mask>"
        ),
        "expected 'rle' to have runs that fill 2 x 2 pixels",
    ),
    "run of words": (
        element("mask", rle="two", left=0, top=0, width=2, height=2),
        "expected 'rle' to be whole numbers, found 'two'",
    ),
    "empty mask": (
        element("mask", rle="4", left=0, top=0, width=2, height=2),
        "expected a mask with pixels, found an empty one",
    ),
    "mask beyond": (
        element("mask", rle="0, 4", left=59, top=0, width=2, height=2),
        "expected a mask inside the image (40, 60), found left 59",
    ),
    "half a pixel": (
        element("mask", rle="0, 4", left=1.5, top=0, width=2, height=2),
        "expected 'left' to be a whole number, found 1.5",
    ),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_shape_is_one_line_and_can_be_skipped(broken, message, put):
    files = ["images/a.png", "images/b.png"]
    root = put(image("a.png", polygon(), broken), image("b.png", polygon()), files=files)
    with pytest.raises(DataError) as error:
        converters.read(root)
    (line,) = error.value.problems
    assert line.startswith("annotations.xml, image 'a.png': shape 1 (")
    assert message in line
    assert [s.key for s in converters.read(root, skips_broken=True)] == ["b"]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (image("gone.png", polygon()), r"expected its image 'gone\.png' in this folder"),
        (image("a.png", polygon(), size_hw=(60, 40)), r"expected an image of \(60, 40\)"),
        (image("a.png", polygon(), size_hw=("x", 40)), r"expected an image of \('x', '40'\)"),
        (image("a.png", size_hw=("9" * 5000, 60)), r"expected an image of \('99999"),
        (image("a.png", polygon("0.1,0.2;0.5,0.2;0.5,0.9")), "found all between 0 and 1"),
        (image("", polygon()), "image 0: expected a 'name', found none"),
        (image("../a.png", polygon()), "expected a relative path, found '../a'"),
        (image("a.png") + image("a.png"), "expected an image of its own, found that of 'a.png'"),
    ],
)
def test_a_broken_image_is_one_line(one, message, put):
    with pytest.raises(DataError, match=message) as error:
        converters.read(put(one))
    assert len(error.value.problems) == 1


def test_an_image_that_is_none(put):
    root = put(image("a.png", polygon()))
    (root / "images" / "a.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"annotations\.xml, image 'a\.png': expected an image"):
        converters.read(root)


def test_a_film_has_tracks(put):
    root = put("<track id='0' label='cat'></track>", image("a.png"))
    with pytest.raises(DataError, match=r'found tracks of a film: .* as "CVAT for images 1\.1"'):
        converters.read(root)


def test_tracks_are_read_where_the_frames_are_there(put, tmp_path):
    shapes = "".join(
        f"<polygon frame='{frame}' outside='{outside}' points='1,1;9,1;9,9'></polygon>"
        for frame, outside in ((0, 0), (3, 0), (6, 1))
    )
    root = put(f"<track id='0' label='cat'>{shapes}</track>")
    for frame in (0, 3, 6):
        path = root / "images" / f"frame_{frame:06d}.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((20, 30), np.uint8))
    found = {s.key: [one.label for one in s.instances] for s in converters.read(root)}
    assert found == {"frame_000000": ["cat"], "frame_000003": ["cat"], "frame_000006": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><image>", "expected XML, found a broken file"),
        ("<!DOCTYPE x []><annotations/>", "expected XML without a document type"),
        ("<x><annotations/></x>", "expected CVAT's XML, <annotations>, found <x>"),
    ],
)
def test_a_broken_file_is_named(text, message, tmp_path):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        converters.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'annotations.xml'}: expected CVAT's XML")


def test_xml_of_others_is_not_cvats(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><folder>VOC2012</folder></annotation>")
    with pytest.raises(ValueError, match="none that is known"):
        converters.read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_in_utf_16(encoding, put):
    root = put(image("a.png", polygon()))
    path = root / "annotations.xml"
    text = path.read_text(encoding="utf-8").replace("utf-8", "utf-16")
    path.write_text(text, encoding=encoding)
    assert converters.recognise(root) == "cvat"
    (sample,) = converters.read(root)
    assert len(sample.instances) == 1


def test_a_size_of_thousands_of_digits_is_a_size(put):
    root = put(image("a.png", polygon()))
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace('width="60"', f'width="{"9" * 5000}"'))
    with pytest.raises(DataError, match="expected an image of ") as error:
        converters.read(root)
    assert len(str(error.value)) < 500


def test_xml_in_a_folder_annotations_may_be_named(put):
    root = put(image("a.png", polygon()))
    expected = converters.read(root)
    (root / "annotations").mkdir()
    file = (root / "annotations.xml").rename(root / "annotations" / "annotations.xml")
    assert converters.recognise(root) == converters.recognise(file) == "cvat"
    assert converters.read(root) == converters.read(file) == expected
