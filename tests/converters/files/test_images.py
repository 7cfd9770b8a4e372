"""Which images are read at all: those that all networks and vendors see in the same way."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from converters.files.images import (
    decode_image,
    image_bytes,
    image_suffix,
    is_image,
    put_image,
    read_pixels,
    read_size_hw,
    stored_size_hw,
)
from converters.types import Frame, Sample

SIZE = (20, 31)
GREY = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
# Of 12 bits in 16, as radiographs are.
DEEP = np.random.default_rng(2).integers(300, 4096, SIZE).astype(np.uint16)
MOST_FIRST = Image.frombytes("I;16B", SIZE[::-1], DEEP.astype(">u2").tobytes())
COLOUR = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, content: bytes) -> bytes:
    code = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + code


def with_chunk(png: bytes, new: bytes, before: bytes) -> bytes:
    at = png.index(before) - 4
    return png[:at] + new + png[at:]


L, RGB = Image.fromarray(GREY), Image.fromarray(COLOUR)
VEILED = RGB.copy()
VEILED.putalpha(L)
BLANK = RGB.copy()
BLANK.putalpha(0)
GAP = np.full(SIZE, 255, np.uint8)
GAP[3, 4] = 254
NEARLY_OPAQUE = RGB.copy()
NEARLY_OPAQUE.putalpha(Image.fromarray(GAP))
PNG, JPEG = saved(L, "PNG"), saved(L, "JPEG")
OPAQUE_PALETTE = saved(RGB.quantize(8), "PNG", transparency=b"\xff" * 8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
RAW_PROFILE = b"\nexif\n%8d\n%b" % (len(turned(6).tobytes()), turned(6).tobytes().hex().encode())
# An APP1 segment as Adobe's XMP specification, part 3, 1.1.3 has it; old Pillows write none.
XMP_BODY = b"http://ns.adobe.com/xap/1.0/\0" + XMP
XMP_SEGMENT = b"\xff\xe1" + (len(XMP_BODY) + 2).to_bytes(2, "big") + XMP_BODY
THUMBNAIL = b"\xff\xe1\x00\x08\xff\xd8\xff\xd9\x00\x00"

GOOD = {
    "grey PNG": PNG,
    "colour PNG": saved(RGB, "PNG"),
    "palette PNG": saved(RGB.quantize(8), "PNG"),
    "1-bit PNG": saved(L.convert("1"), "PNG"),
    "PNG with a comment": with_chunk(PNG, chunk(b"tEXt", b"Comment\0IEND"), b"IDAT"),
    "PNG with bytes behind it": PNG + b"\0" * 100_000,
    "upright PNG": saved(L, "PNG", exif=turned(1)),
    "JPEG": JPEG,
    "colour JPEG": saved(RGB, "JPEG"),
    "progressive JPEG": saved(RGB, "JPEG", progressive=True),
    "JPEG with bytes behind it": JPEG + b"camera's notes" * 10_000,
    "JPEG with a thumbnail": JPEG[:2] + THUMBNAIL + JPEG[2:],
    "upright JPEG": saved(L, "JPEG", exif=turned(1)),
    "JPEG without an orientation": saved(L, "JPEG", exif=turned(0)),
    "JPEG of an unknown orientation": saved(L, "JPEG", exif=turned(9)),
    "opaque grey with alpha": saved(L.convert("LA"), "PNG"),
    "opaque colour with alpha": saved(RGB.convert("RGBA"), "PNG"),
    "blank alpha": saved(BLANK, "PNG"),
    "opaque WebP": saved(RGB.convert("RGBA"), "WEBP", lossless=True),
    "opaque TIFF": saved(RGB.convert("RGBA"), "TIFF"),
    "opaque palette": OPAQUE_PALETTE,
    "grey with alpha": saved(VEILED.convert("LA"), "PNG"),
    "colour with alpha": saved(VEILED, "PNG"),
    "WebP with alpha": saved(VEILED, "WEBP", lossless=True),
    "transparent grey": saved(L, "PNG", transparency=3),
    "transparent palette": saved(RGB.quantize(8), "PNG", transparency=3),
    "one pixel that is not opaque": saved(NEARLY_OPAQUE, "PNG"),
    "BMP": saved(L, "BMP"),
    "colour BMP": saved(RGB, "BMP"),
    "1-bit BMP": saved(L.convert("1"), "BMP"),
    "TIFF": saved(L, "TIFF"),
    "compressed TIFF": saved(RGB, "TIFF", compression="tiff_lzw"),
    "colour WebP": saved(RGB, "WEBP", lossless=True),
    "16-bit grey PNG": encoded(DEEP, ".png"),
    "16-bit TIFF": saved(Image.fromarray(DEEP), "TIFF"),
    "compressed 16-bit TIFF": saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    "16-bit TIFF, most significant byte first": saved(MOST_FIRST, "TIFF"),
}

CUT, KIND = "expected a whole image, found one that is cut off", "or RGB, or 16 of grey"
HEADER = "without a readable header"
BAD = {
    "empty": (b"", "found an empty file"),
    "text": (b"not an image", HEADER),
    "a PNG's name only": (PNG[:8], HEADER),
    "half a PNG": (PNG[: len(PNG) // 2], CUT),
    "PNG without its last byte": (PNG[:-1], CUT),
    "PNG filled up with zeros": (PNG[:-200] + b"\0" * 100_000, CUT),
    "PNG of no pixels": (PNG.replace(PNG[16:20], b"\0\0\0\0", 1), "expected"),
    "half a JPEG": (JPEG[: len(JPEG) * 3 // 4], CUT),
    "half a JPEG with a thumbnail": (JPEG[:2] + THUMBNAIL + JPEG[2:-200], CUT),
    "half a BMP": (saved(L, "BMP")[:-300], CUT),
    "half a TIFF": (saved(L, "TIFF")[:-300], CUT),
    "32-bit TIFF": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "found mode I"),
    "16-bit colour PNG": (
        encoded(COLOUR.astype(np.uint16) * 257, ".png"),
        f"{KIND}, found 16 bits",
    ),
    "16-bit colour TIFF": (encoded(COLOUR.astype(np.uint16), ".tiff"), f"{KIND}, found 16 bits"),
    "float TIFF": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "found mode F"),
    "TIFF with a blank alpha": (saved(BLANK, "TIFF"), "found mode RGBA with pixels"),
    "CMYK JPEG": (saved(RGB.convert("CMYK"), "JPEG"), "found mode CMYK"),
    "turned by XMP only": (
        JPEG[:2] + XMP_SEGMENT + JPEG[2:],
        "found orientation 6 in notes that only",
    ),
    "turned by a text only": (
        with_chunk(PNG, chunk(b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE), b"IDAT"),
        "found orientation 6 in notes that only some programs read: save it upright",
    ),
    "GIF": (saved(L, "GIF"), "found GIF: save it as PNG"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_images_that_are_read(kind, tmp_path):
    (tmp_path / "x.png").write_bytes(GOOD[kind])
    assert read_size_hw(tmp_path / "x.png") == stored_size_hw(GOOD[kind]) == SIZE
    assert read_pixels(Sample("x", tmp_path / "x.png", SIZE)).shape == SIZE


@pytest.mark.parametrize("kind", ["grey with alpha", "colour with alpha", "transparent palette"])
def test_alpha_is_dropped_as_pillow_drops_it(kind, tmp_path):
    (tmp_path / "x.png").write_bytes(GOOD[kind])
    expected = np.array(Image.open(tmp_path / "x.png").convert("RGB"))[..., ::-1]
    found = read_pixels(Sample("x", tmp_path / "x.png", SIZE), grey=False)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", BAD)
def test_images_that_are_refused(kind, tmp_path):
    content, message = BAD[kind]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_size_hw(tmp_path / "x.png")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        stored_size_hw(content)


def test_decompression_bombs_are_refused_by_their_header():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = PNG[:8] + chunk(b"IHDR", header) + PNG[33:]
    with pytest.raises(ValueError, match="expected at most 178956970 pixels, found more"):
        stored_size_hw(bomb)


def test_large_images_are_read_without_a_warning():
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    assert stored_size_hw(PNG[:8] + chunk(b"IHDR", header) + PNG[33:]) == (10_000, 10_000)


def test_pixels_stay_unread(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 500), np.uint8)
    (tmp_path / "x.png").write_bytes(encoded(pixels, ".png"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    assert read_size_hw(tmp_path / "x.png") == (600, 500)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone.png"))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (make_folder, "a folder"),
        (make_dangling, "nothing there"),
        (make_loop, "nothing there"),
        (os.mkfifo, "no file"),
    ],
)
def test_paths_that_are_no_files(make, found, tmp_path):
    make(tmp_path / "x.png")
    with pytest.raises(ValueError, match=f"expected an image, found {found}"):
        read_size_hw(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.png", True), ("a.JPG", True), ("a.tiff", True), ("._a.png", False), ("a.json", False)],
)
def test_images_by_their_names(name, expected):
    assert is_image(Path(name)) is expected


# --- grey of 16 bits


def stretched(pixels: np.ndarray) -> np.ndarray:
    low, high = np.percentile(pixels, [0.5, 99.5], method="inverted_cdf").astype(float)
    return 255 * np.clip((pixels - low) / (high - low), 0, 1)


@pytest.mark.parametrize("kind", [kind for kind in GOOD if "16-bit" in kind])
@pytest.mark.parametrize("grey", [True, False])
def test_16_bits_are_stretched_over_what_an_image_holds(kind, grey, tmp_path):
    (tmp_path / "x.png").write_bytes(GOOD[kind])
    found = read_pixels(Sample("x", tmp_path / "x.png", SIZE), grey=grey)
    assert found.shape == (SIZE if grey else (*SIZE, 3))
    for plane in [found] if grey else np.moveaxis(found, -1, 0):
        assert np.abs(plane - stretched(DEEP)).max() <= 0.5
    assert (found.min(), found.max()) == (0, 255)


def test_of_a_tiff_whose_least_value_is_white_the_least_is_white(tmp_path):
    (tmp_path / "x.tif").write_bytes(saved(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}))
    found = read_pixels(Sample("x", tmp_path / "x.tif", SIZE))
    assert np.abs(255 - stretched(DEEP) - found).max() <= 0.5


def test_marks_at_the_ends_do_not_decide(tmp_path):
    pixels = np.full((100, 100), 1000, np.uint16)
    pixels[:50] = 1200
    pixels[0, :20], pixels[99, :20] = 65535, 0
    (tmp_path / "x.png").write_bytes(encoded(pixels, ".png"))
    found = read_pixels(Sample("x", tmp_path / "x.png", (100, 100)))
    assert (found[:50] == 255).all()
    assert (found[50:] == 0).all()


def test_nearly_plain_images_have_their_ends(tmp_path):
    pixels = np.full((100, 100), 1000, np.uint16)
    pixels[3, 4], pixels[5, 6] = 1100, 900
    (tmp_path / "x.png").write_bytes(encoded(pixels, ".png"))
    found = read_pixels(Sample("x", tmp_path / "x.png", (100, 100)))
    assert [found[3, 4], found[5, 6], found[0, 0]] == [255, 0, 128]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_written_as_8(suffix, tmp_path):
    image = tmp_path / f"x{suffix}"
    image.write_bytes(encoded(DEEP, suffix))
    sample = Sample("x", image, SIZE)
    put_image(sample, tmp_path / f"y{image_suffix(sample)}")
    written = cv2.imread(str(tmp_path / f"y{suffix}"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, read_pixels(sample))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_turned_as_8(kind, orientation, tmp_path):
    deep, grey = Image.fromarray(DEEP), Image.fromarray((DEEP >> 4).astype(np.uint8))
    for name, image in (("x", deep), ("y", grey)):
        image.save(tmp_path / name, kind, exif=turned(orientation))
    size_hw = read_size_hw(tmp_path / "x")
    assert size_hw == read_size_hw(tmp_path / "y")
    x, y = (read_pixels(Sample("a", tmp_path / name, size_hw)) for name in "xy")
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.99


# --- the pixels of a sample


@pytest.fixture
def stored(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(COLOUR, ".png"))
    return Sample("x", tmp_path / "x.png", SIZE)


@pytest.fixture
def pending(stored):
    return replace(stored, size_hw=(8, 12), frame=Frame((4, 5, 6, 4), SIZE, is_stored=False))


def test_grey_and_colour(stored):
    np.testing.assert_array_equal(read_pixels(stored, grey=False), COLOUR)
    assert read_pixels(stored).shape == SIZE


BEHIND = with_chunk(saved(RGB, "PNG"), chunk(b"eXIf", turned(8).tobytes()[6:]), b"IEND")
TURNED = {
    f"{kind} {orientation}": (kind, saved(RGB, kind, exif=turned(orientation), **options))
    for kind, options in {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}.items()
    for orientation in range(2, 9)
}
TURNED["PNG 8 behind the pixels"] = ("PNG", BEHIND)


@pytest.mark.parametrize("name", TURNED)
def test_turned_images_are_read_and_written_upright(name, tmp_path):
    kind, content = TURNED[name]
    (tmp_path / f"x.{kind}").write_bytes(content)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    size_hw = upright.shape[:2]
    sample = Sample("x", tmp_path / f"x.{kind}", size_hw)
    assert read_size_hw(sample.image) == stored_size_hw(content) == size_hw
    np.testing.assert_array_equal(read_pixels(sample, grey=False)[..., ::-1], upright)
    put_image(sample, tmp_path / ("y" + image_suffix(sample)))
    with Image.open(tmp_path / ("y" + image_suffix(sample))) as written:
        assert written.getexif().get(0x0112) is None
        np.testing.assert_array_equal(np.asarray(written.convert("RGB")), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_have_the_size_that_opencv_shows(orientation, tmp_path):
    (tmp_path / "x.jpg").write_bytes(saved(RGB, "JPEG", exif=turned(orientation)))
    shown = cv2.imread(str(tmp_path / "x.jpg"))
    assert read_size_hw(tmp_path / "x.jpg") == shown.shape[:2]
    found = read_pixels(Sample("x", tmp_path / "x.jpg", shown.shape[:2]), grey=False)
    np.testing.assert_array_equal(found, shown)


def test_a_turned_jpeg_is_written_upright_without_another_loss(tmp_path):
    (tmp_path / "x.jpg").write_bytes(saved(RGB, "JPEG", exif=turned(6)))
    sample = Sample("x", tmp_path / "x.jpg", SIZE[::-1])
    assert image_suffix(sample) == ".png"
    written = cv2.imdecode(np.frombuffer(image_bytes(sample), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, read_pixels(sample, grey=False))


@pytest.mark.parametrize(
    "kind", ["opaque colour with alpha", "blank alpha", "opaque TIFF", "opaque palette"]
)
def test_opaque_images_are_read_and_written_without_alpha(kind, tmp_path):
    (tmp_path / "x.webp").write_bytes(GOOD[kind])
    sample = Sample("x", tmp_path / "x.webp", SIZE)
    opened = Image.open(io.BytesIO(GOOD[kind]))
    flat = np.asarray(opened.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(read_pixels(sample, grey=False)[..., ::-1], flat)
    assert image_suffix(sample) == ".png"
    put_image(sample, tmp_path / "y.png")
    with Image.open(tmp_path / "y.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(written), flat)


def test_a_crop_of_a_turned_image_is_cut_from_the_upright_one(tmp_path):
    (tmp_path / "x.png").write_bytes(saved(RGB, "PNG", exif=turned(6)))
    frame = Frame((2, 4, 6, 8), SIZE[::-1], is_stored=False)
    pixels = read_pixels(Sample("x", tmp_path / "x.png", (8, 6), frame=frame), grey=False)
    np.testing.assert_array_equal(pixels[..., ::-1], np.rot90(COLOUR, -1)[4:12, 2:8])


@pytest.mark.parametrize("content", [b"", b"none", JPEG[:100]])
def test_pixels_of_a_broken_file(stored, content):
    stored.image.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png: expected an image, found a file that is none"):
        read_pixels(stored)


def test_pixels_of_another_size(stored):
    with pytest.raises(ValueError, match=r"expected \(20, 30\), found \(20, 31\)"):
        read_pixels(replace(stored, size_hw=(20, 30)))


def test_pixels_of_no_file(stored):
    with pytest.raises(ValueError, match="expected an image: No such file"):
        read_pixels(replace(stored, image=stored.image.with_name("gone.png")))


def test_a_crop_is_enlarged_as_asked(pending):
    cut = COLOUR[5:9, 4:10]
    nearest = read_pixels(
        *(pending,),
        grey=False,
        enlarge=lambda pixels, size_hw: np.repeat(pixels, 2, 0).repeat(2, 1),
    )
    np.testing.assert_array_equal(nearest, cut.repeat(2, 0).repeat(2, 1))
    wanted = cv2.resize(cut, (12, 8), interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_array_equal(read_pixels(pending, grey=False), wanted)


def test_a_stored_crop_is_read_as_it_is(stored):
    sample = replace(stored, frame=Frame((4, 5, 31, 20), (90, 90)))
    np.testing.assert_array_equal(read_pixels(sample, grey=False), COLOUR)


def test_put_image_copies_whole_images_and_writes_crops(stored, pending, tmp_path):
    put_image(stored, tmp_path / "out" / "whole.png")
    put_image(pending, tmp_path / "out" / "crop.png")
    whole = tmp_path / "out" / "whole.png"
    assert whole.read_bytes() == stored.image.read_bytes()
    assert not whole.samefile(stored.image)
    put_image(stored, tmp_path / "out" / "link.png", links=True)
    assert (tmp_path / "out" / "link.png").samefile(stored.image)
    written = cv2.imread(str(tmp_path / "out" / "crop.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, read_pixels(pending, grey=False))
    with pytest.raises(FileExistsError):
        put_image(pending, tmp_path / "out" / "crop.png")


def test_grey_crops_are_written_grey(pending):
    pending.image.write_bytes(encoded(GREY, ".png"))
    written = cv2.imdecode(np.frombuffer(image_bytes(pending), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, read_pixels(pending))


def test_a_crop_of_a_lossy_image_becomes_a_png(stored, pending):
    lossy = Path("x.JPG")
    assert image_suffix(replace(stored, image=lossy)) == ".JPG"
    assert image_suffix(replace(pending, image=lossy)) == ".png"
    assert image_suffix(replace(pending, image=Path("x.bmp"))) == ".bmp"


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_tiff_gives_no_pixels(compression, seed):
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (300, 400), np.uint8)).save(
        file, "TIFF", compression=compression
    )
    content = bytearray(file.getvalue())
    assert decode_image(bytes(content), cv2.IMREAD_GRAYSCALE).shape == (300, 400)
    at = int(rng.integers(1000, len(content) - 1000))
    content[at : at + 40] = rng.bytes(40)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    with pytest.raises(ValueError, match="expected a whole image, found a damaged one"):
        decode_image(bytes(content), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
            "a pointer of Git",
        ),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page: fetch the image again"),
        (b"GIF89a" + bytes(40), "GIF: save it as PNG"),
        (b"8BPS" + bytes(40), "a Photoshop file: save it as PNG"),
        (b"\x89PNG", "a file without a readable header"),
    ],
)
def test_what_is_no_image_is_told_what_it_is(content, what, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"expected an image, found {what}"):
        read_size_hw(tmp_path / "a.png")


def tiff_of(*sizes, **tags):
    """Grey pages of sizes (h, w); every page but the first has the tags (`t254=1`)."""
    file = io.BytesIO()
    tiffinfo = {int(key[1:]): value for key, value in tags.items()}
    # Page by page: older Pillows write the same tags into all pages of `append_images`.
    with TiffImagePlugin.AppendingTiffWriter(file) as writer:
        for n, size in enumerate(sizes):
            page = Image.fromarray(np.full(size, 7 * n, np.uint8))
            page.save(writer, "TIFF", tiffinfo=tiffinfo if n else {})
            writer.newFrame()
        return file.getvalue()


def test_pages_of_a_tiff_are_not_passed_over():
    assert stored_size_hw(tiff_of((20, 30))) == (20, 30)
    with pytest.raises(ValueError, match="expected one image, found 3 pages: save each as a file"):
        stored_size_hw(tiff_of((20, 30), (20, 30), (20, 30)))
    # Thumbnails and the smaller copies of a pyramid are no further images.
    assert stored_size_hw(tiff_of((20, 30), (10, 15))) == (20, 30)
    assert stored_size_hw(tiff_of((20, 30), (20, 30), t254=1)) == (20, 30)


def test_a_file_that_takes_the_place_of_another_is_read_anew(tmp_path):
    path = tmp_path / "x.png"
    for side in (30, 40):
        cv2.imwrite(str(path), np.zeros((side, 20), np.uint8))
        assert read_size_hw(path) == read_size_hw(path) == (side, 20)


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({277: 11, 258: (16,) * 11}, "a TIFF of 11 channels of 16 bits"),
        ({277: 4, 258: (32,) * 4, 339: (3,) * 4}, "4 channels of 32 bits, not whole numbers"),
    ],
)
def test_a_tiff_of_many_channels_is_told_what_it_is(tags, what, capfd, tmp_path):
    plain = {256: 4, 257: 3, 259: 1, 262: 1, 273: 8, 278: 3, 279: 4096, 284: 1}
    file = io.BytesIO()
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in (plain | tags).items():
        directory[tag] = value
        directory.tagtype[tag] = 3
    directory.save(file)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + file.getvalue()[8:] + bytes(4096))
    with pytest.raises(ValueError, match=what):
        read_size_hw(path)
    assert capfd.readouterr() == ("", "")
