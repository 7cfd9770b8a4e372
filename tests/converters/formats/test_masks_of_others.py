"""Masks that other programs made: what can be read of them, and what is refused."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from shapely.geometry import box

import converters
from converters import DataError
from converters.masks import rasterize_labels
from converters.types import Instance, LabelSpace, Sample

pytestmark = pytest.mark.slow

SIZE = (10, 8)
SPACE = LabelSpace("some", ("a", "b", "c"))
INDEXES = np.zeros(SIZE, np.uint8)
INDEXES[1:6, 1:5] = 1
INDEXES[7:9, 2:7] = 2
VOC_VOID = (224, 224, 192)


def png(image: Image.Image | np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        file, "PNG", **options
    )
    return file.getvalue()


def palette(indexes: np.ndarray, void: tuple[int, int, int] = (9, 9, 9)) -> Image.Image:
    image = Image.fromarray(indexes, "L")
    image.putpalette([*(0, 0, 0, 128, 0, 0, 0, 128, 0), *[7] * 3 * 252, *void])
    return image


def with_void(value: int = 255) -> np.ndarray:
    indexes = INDEXES.copy()
    indexes[0] = value
    return indexes


@pytest.fixture
def put(tmp_path):
    """Make a data set of one image with a mask."""

    def make(mask: bytes, layout: str | dict | None = "index", space=SPACE, name="i"):
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        (tmp_path / "images" / f"{name}.png").write_bytes(png(np.zeros(SIZE, np.uint8)))
        (tmp_path / "masks" / f"{name}.png").write_bytes(mask)
        space.save(tmp_path / "labels.yaml")
        if layout:
            record = layout if isinstance(layout, dict) else {"layout": layout}
            (tmp_path / "masks.yaml").write_text(yaml.safe_dump(record))
        return tmp_path

    return make


def areas(folder, space=SPACE, note=None):
    (sample,) = converters.read(folder, format="masks", labels=space, note=note)
    return {n: m.area for n, m in rasterize_labels(sample.instances, SIZE).items()}


INDEX_MAPS = {
    "8-bit grey": png(INDEXES),
    "16-bit grey": png(INDEXES.astype(np.uint16)),
    "palette": png(palette(INDEXES)),
    "2-bit palette": png(palette(INDEXES), bits=2),
    "transparent palette": png(palette(INDEXES), transparency=0),
}


@pytest.mark.parametrize("kind", INDEX_MAPS)
def test_index_maps(kind, put):
    assert areas(put(INDEX_MAPS[kind])) == {"a": 20, "b": 10}


def few_bits(indexes: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, which Pillow and OpenCV cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        code = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + code

    height, width = indexes.shape
    per_row = np.unpackbits(indexes[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in per_row)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [2, 4])
def test_index_maps_of_few_bits_are_not_stretched(bits, put):
    # Stretched to eight bits, 1 of four bits would be 17: another class.
    space = LabelSpace("many", tuple(f"c{i}" for i in range(1, 90)))
    assert areas(put(few_bits(INDEXES, bits), space=space), space) == {"c1": 20, "c2": 10}


def test_a_mask_of_one_bit_for_a_class(put):
    folder = put(few_bits(np.minimum(INDEXES, 1), 1), None, LabelSpace("one", ("a",)))
    (folder / "masks" / "a").mkdir()
    (folder / "masks" / "i.png").rename(folder / "masks" / "a" / "i.png")
    (folder / "masks.yaml").write_text("layout: per-class\nfolders: {a: [a]}")
    assert areas(folder, LabelSpace("one", ("a",))) == {"a": 30}


def test_void_of_pascal_voc_is_no_class_and_is_said(put):
    said = []
    folder = put(png(palette(with_void(), VOC_VOID)))
    assert areas(folder, note=said.append) == {"a": 20, "b": 10}
    assert said == ["masks: value 255 is taken for no class, in 1 images (i, ...)"]


def test_void_that_masks_yaml_names(put):
    assert areas(put(png(with_void()), {"layout": "index", "void": 255})) == {"a": 20, "b": 10}


def test_255_is_a_class_where_there_are_so_many(put):
    space = LabelSpace("many", tuple(f"c{i}" for i in range(1, 256)))
    folder = put(png(palette(with_void(), VOC_VOID)), space=space)
    assert areas(folder, space) == {"c1": 20, "c2": 10, "c255": 8}


COLOURS = np.zeros((*SIZE, 3), np.uint8)
COLOURS[2:5, 2:5] = (200, 0, 0)
BITS = LabelSpace("bits", tuple(f"c{i}" for i in range(29)))
REFUSED = {
    "a value that is no class": (png(with_void(77)), "index", SPACE, "found 77"),
    "many of them": (png(np.arange(80, dtype=np.uint8).reshape(SIZE)), "index", SPACE, "4, 5, 6,"),
    "grey 255": (png(with_void()), "index", SPACE, "found 255: if 255 means no class, write"),
    "palette 255": (png(palette(with_void())), "index", SPACE, "found 255: if 255 means no class"),
    "colours": (png(COLOURS), "index", SPACE, "found 8-bit RGB: a mask in colours is not read"),
    "colours as bits": (png(COLOURS), None, BITS, "found 8-bit RGB: a mask in colours is not"),
    "opaque colours": (
        png(Image.fromarray(COLOURS).convert("RGBA")),
        *(None, BITS, r"found bit 29 \(alpha\) set, which is no class"),
    ),
    "one bit beyond": (
        png(np.full((*SIZE, 4), (8, 0, 0, 0), np.uint8)),
        *("packed", SPACE, r"expected the bits 0 to 2, one for each class, found bit 3 \(red\)"),
    ),
    "indexes as bits": (png(INDEXES), None, SPACE, "for class numbers write 'layout: index'"),
    "no image": (b"mask", "index", SPACE, "expected a PNG, found a file that is none"),
    "nothing": (b"", "index", SPACE, "expected a PNG, found a file that is none"),
    "cut off": (png(INDEXES)[:-20], "index", SPACE, "expected a whole PNG, found a damaged one"),
    "other size": (png(INDEXES.T.copy()), "index", SPACE, r"a mask of \(10, 8\), found \(8, 10\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_that_are_refused(kind, put):
    mask, layout, space, message = REFUSED[kind]
    with pytest.raises(DataError, match=message) as error:
        areas(put(mask, layout, space), space)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("side", [9_000, 50_000])
def test_a_bomb_is_refused_before_it_is_decoded(side, put):
    bomb = bytearray(png(INDEXES))
    bomb[16:24] = struct.pack(">II", side, side)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    folder = put(bytes(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected a mask of"):
            areas(folder)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"layout": "index", "void": 254}, "expected 'void: 255' of an index map, found 254"),
        ({"layout": "packed", "void": 255}, "expected 'void: 255' of an index map"),
        ({"layout": "index", "ignore": 255}, "found 'ignore'"),
        ({"layout": "per-class", "folders": {"a": "a"}}, "expected 'folders', each with a list"),
        ({"layout": ["index"]}, "expected a layout of packed, per-class"),
    ],
)
def test_layouts_that_are_refused(record, message, put):
    with pytest.raises(ValueError, match=message):
        areas(put(png(INDEXES), record))


# --- partners


def test_an_image_without_a_mask_and_a_mask_without_an_image(put):
    folder = put(png(INDEXES))
    (folder / "images" / "alone.png").write_bytes(png(INDEXES))
    (folder / "masks" / "stray.png").write_bytes(png(INDEXES))
    (folder / "masks" / "other.bmp").write_bytes(b"BM")
    with pytest.raises(DataError) as error:
        areas(folder)
    assert error.value.problems == (
        "masks/alone.png: expected a mask: No such file or directory",
        "masks/other.bmp: expected masks as PNG, found another kind of image",
        "masks/stray.png: expected an image of this name in images/, found none",
    )


def test_two_images_of_one_name_are_both_named(put):
    folder = put(png(INDEXES))
    (folder / "images" / "i.jpg").write_bytes((folder / "images" / "i.png").read_bytes())
    with pytest.raises(DataError, match=r"expected one image of this name, found 2 \(i.jpg, i.p"):
        areas(folder)


def two_classes(tmp_path):
    image = tmp_path / "source.png"
    cv2.imwrite(str(image), np.zeros(SIZE, np.uint8))
    shapes = (Instance("a", box(1, 1, 3, 3)), Instance("b", box(2, 2, 5, 5)))
    sample = Sample("x/i", image, SIZE, shapes)
    converters.write([sample], tmp_path / "out", format="masks", layout="per-class", labels=SPACE)
    return tmp_path / "out"


def test_a_mask_that_was_added_by_hand_is_read(tmp_path):
    out = two_classes(tmp_path)
    (out / "masks" / "c" / "x").mkdir(parents=True)
    (out / "masks" / "c" / "x" / "i.png").write_bytes(png(np.minimum(INDEXES, 1) * 255))
    assert areas(out)["c"] == 30


def test_masks_in_folders_of_no_class_are_named(tmp_path):
    out = two_classes(tmp_path)
    (out / "masks" / "a").rename(out / "masks" / "A2")
    with pytest.raises(DataError) as error:
        areas(out)
    assert error.value.problems == (
        "masks/A2/x/i.png: expected it in a folder of masks.yaml (a, b, c)",
        "masks/a/x/i.png: expected a mask: No such file or directory",
    )


def test_an_image_that_the_index_does_not_have_is_named(tmp_path):
    out = two_classes(tmp_path)
    (out / "images" / "new.png").write_bytes(png(INDEXES))
    with pytest.raises(DataError, match=r"images/new.png: expected an entry in images.json"):
        areas(out)


def test_images_without_any_mask_of_a_class_are_said(tmp_path):
    out = two_classes(tmp_path)
    (out / "images.json").unlink()
    (out / "images" / "new.png").write_bytes(png(INDEXES))
    said = []
    assert len(converters.read(out, labels=SPACE, note=said.append)) == 2
    assert said == ["masks: no file is taken for no object, in 1 images (new, ...)"]


def test_names_that_look_the_same_belong_together(put):
    composed = unicodedata.normalize("NFC", "\u00e4\uc190")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    folder = put(png(INDEXES), name=composed)
    (folder / "masks" / f"{composed}.png").rename(folder / "masks" / f"{decomposed}.png")
    assert areas(folder) == {"a": 20, "b": 10}


# --- the index


@pytest.mark.parametrize("layout", ["masks", "yolo", "datumaro", "handbone"])
@pytest.mark.parametrize(
    "broken",
    [
        *(
            "[]",
            "7",
            "null",
            "",
            '{"x": 1}',
            '{"x": []}',
            '{"x": {"key": 5}}',
            '{"x": {"key": {}}}',
        ),
        '{"x": {"key": "k", "group": null}}',
        '{"x": {"key": "k", "attributes": [1]}}',
        '{"x": {"key": "k", "frame": {"box_xywh": [1, 2]}}}',
        '{"x": {"key": "k", "frame": [1, 2]}}',
    ],
)
def test_an_index_of_another_kind_has_one_line(layout, broken, tmp_path):
    image = tmp_path / "source.png"
    cv2.imwrite(str(image), np.zeros(SIZE, np.uint8))
    sample = Sample("train/DCM/G/x", image, SIZE, (Instance("a", box(1, 1, 3, 3)),))
    converters.write([sample], tmp_path / "out", format=layout, labels=SPACE)
    path = tmp_path / "out" / "images.json"
    (place,) = json.loads(path.read_text())
    path.unlink()
    path.write_text(broken.replace('"x"', json.dumps(place)))
    with pytest.raises(ValueError, match=r"images\.json|images/") as error:
        converters.read(tmp_path / "out", format=layout, labels=SPACE)
    assert len(str(error.value).splitlines()) <= 2


def test_palettes_that_were_not_made_for_an_image_say_nothing(tmp_path):
    """As of mmsegmentation's own test data: numbers of classes, and any colours."""
    generator = np.random.default_rng(0)
    for n, number in enumerate((2, 1, 3, 3)):
        image = Image.fromarray(np.where(INDEXES == 1, number, 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, *generator.integers(1, 255, 18).tolist()])
        for folder, content in (("imgs", png(generator.integers(0, 255, SIZE, np.uint8))),):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{n}_img.png").write_bytes(content)
        (tmp_path / "gts").mkdir(exist_ok=True)
        (tmp_path / "gts" / f"{n}_gt.png").write_bytes(png(image))
    found = converters.read(tmp_path)
    assert [[one.label for one in s.instances] for s in found] == [["2"], ["1"], ["3"], ["3"]]


def test_one_folder_whose_masks_have_several_numbers_each_is_no_class(tmp_path):
    generator = np.random.default_rng(0)
    for n, number in enumerate((1, 1, 1, 3)):
        values = np.where(INDEXES == 1, number, 0).astype(np.uint8)
        values[0, 0] = 2 * (number == 3)
        for folder, pixels in (
            ("images", generator.integers(0, 255, (*SIZE, 3), np.uint8)),
            ("kidney", values),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{n}.png").write_bytes(png(pixels))
    found = converters.read(tmp_path)
    assert [sorted(one.label for one in s.instances) for s in found] == [["1"]] * 3 + [["2", "3"]]


@pytest.mark.parametrize("shared", [True, False])
def test_palettes_that_were_made_for_images_are_read_by_their_colours(shared, tmp_path):
    """Also where one has a number that it does not use."""
    red, green = (200, 0, 0), (0, 200, 0)
    for n, colours in enumerate(((red, green), (green, red if shared else (0, 0, 200)))):
        image = Image.fromarray(INDEXES, "P")
        image.putpalette([0, 0, 0, *colours[0], *colours[1]])
        for folder, content in (
            ("images", png(np.full(SIZE, 90 + n, np.uint8))),
            ("masks", png(image)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{n}.png").write_bytes(content)
    names = {"color_c80000", "color_00c800"} | (
        {"color_0000c8"} - ({"color_0000c8"} if shared else set())
    )
    assert set(converters.label_space(tmp_path).names) == names
