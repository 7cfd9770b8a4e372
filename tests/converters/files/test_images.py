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
from PIL import Image

from converters.files.images import (
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
PNG, JPEG = saved(L, "PNG"), saved(L, "JPEG")
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
    "BMP": saved(L, "BMP"),
    "colour BMP": saved(RGB, "BMP"),
    "1-bit BMP": saved(L.convert("1"), "BMP"),
    "TIFF": saved(L, "TIFF"),
    "compressed TIFF": saved(RGB, "TIFF", compression="tiff_lzw"),
    "colour WebP": saved(RGB, "WEBP", lossless=True),
}

CUT, KIND = "expected a whole image, found one that is cut off", "expected 8 bits of grey or RGB"
HEADER = "without a readable header"
BAD = {
    "empty": (b"", HEADER),
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
    "16-bit grey PNG": (encoded(GREY.astype(np.uint16) * 257, ".png"), f"{KIND}, found mode I;16"),
    "16-bit colour PNG": (
        encoded(COLOUR.astype(np.uint16) * 257, ".png"),
        f"{KIND}, found 16 bits",
    ),
    "16-bit colour TIFF": (encoded(COLOUR.astype(np.uint16), ".tiff"), f"{KIND}, found 16 bits"),
    "float TIFF": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "found mode F"),
    "grey with alpha": (saved(L.convert("LA"), "PNG"), "found mode LA"),
    "colour with alpha": (saved(VEILED, "PNG"), "found mode RGBA"),
    "WebP with alpha": (saved(VEILED, "WEBP", lossless=True), "found mode RGBA"),
    "transparent grey": (saved(L, "PNG", transparency=3), "found transparency"),
    "transparent palette": (saved(RGB.quantize(8), "PNG", transparency=3), "found transparency"),
    "CMYK JPEG": (saved(RGB.convert("CMYK"), "JPEG"), "found mode CMYK"),
    "turned JPEG": (saved(L, "JPEG", exif=turned(6)), "found EXIF orientation 6: save it upright"),
    "turned PNG": (saved(L, "PNG", exif=turned(3)), "found EXIF orientation 3"),
    "PNG turned behind its pixels": (
        with_chunk(PNG, chunk(b"eXIf", turned(8).tobytes()[6:]), b"IEND"),
        "found EXIF orientation 8",
    ),
    "turned TIFF": (saved(L, "TIFF", exif=turned(6)), "found EXIF orientation 6"),
    "GIF": (saved(L, "GIF"), HEADER),
}


@pytest.mark.parametrize("kind", GOOD)
def test_images_that_are_read(kind, tmp_path):
    (tmp_path / "x.png").write_bytes(GOOD[kind])
    assert read_size_hw(tmp_path / "x.png") == stored_size_hw(GOOD[kind]) == SIZE
    assert read_pixels(Sample("x", tmp_path / "x.png", SIZE)).shape == SIZE


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


def test_a_turned_image_keeps_its_pixels_as_they_are_stored(tmp_path):
    (tmp_path / "x.png").write_bytes(saved(L, "PNG", exif=turned(6)))
    np.testing.assert_array_equal(read_pixels(Sample("x", tmp_path / "x.png", SIZE)), GREY)


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
