"""PNG: damage is found before OpenCV sees it, and what we write is read by others."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from converters.files.images import decode_image
from converters.files.png import check_png, encode_grey, pixels_only
from converters.formats.mask_pixels import read_mask_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
_HEAD_END = 33


def chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def png(*further, pixels=PIXELS, **more):
    """A PNG with chunks between its head and its pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **more)
    content = file.getvalue()
    return content[:_HEAD_END] + b"".join(further) + content[_HEAD_END:]


GRUMBLES = {
    "profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    "time": chunk(b"tIME", bytes(7)),
    "palette": chunk(b"hIST", b"\0\1"),
}


@pytest.mark.parametrize("further", GRUMBLES.values(), ids=GRUMBLES)
def test_what_says_nothing_of_pixels_is_not_grumbled_about(further, capfd):
    content = png(further, dpi=(72, 72))
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    assert "libpng warning" in capfd.readouterr().err  # or the test would show nothing
    np.testing.assert_array_equal(decode_image(content, cv2.IMREAD_GRAYSCALE), PIXELS)
    np.testing.assert_array_equal(read_mask_pixels(content).values, PIXELS)
    assert capfd.readouterr() == ("", "")


def broken(content, way):
    at = content.index(b"IDAT") + 40
    return {
        "flipped": content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
        "cut out": content[:at] + content[at + 4 :],
        "cut off": content[: len(content) // 2],
        "zeros": content[:at] + bytes(8) + content[at + 8 :],
        "head": content[:18] + bytes([content[18] ^ 1]) + content[19:],
        "other": png(chunk(b"NEED", b"")),
    }[way]


@pytest.mark.parametrize("way", ["flipped", "cut out", "cut off", "zeros", "head", "other"])
def test_damage_is_told_in_one_line_of_ours(way, capfd):
    content = broken(png(), way)
    with pytest.raises(ValueError, match="expected a whole image, found one that is"):
        decode_image(content, cv2.IMREAD_GRAYSCALE)
    with pytest.raises(ValueError, match=r"expected .*PNG"):
        read_mask_pixels(content)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("flip", range(40))
def test_a_flipped_bit_is_found_or_changes_no_pixel(flip, capfd):
    content = bytearray(png(chunk(b"tEXt", b"Title\0" + b"x" * 40)))
    rng = np.random.default_rng(flip)
    content[rng.integers(8, len(content))] ^= 1 << int(rng.integers(8))
    try:
        found = decode_image(bytes(content), cv2.IMREAD_GRAYSCALE)
    except ValueError:
        found = PIXELS
    np.testing.assert_array_equal(found, PIXELS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_stay_as_they_were(mode):
    image = Image.fromarray(PIXELS)
    image = image.convert(mode) if mode != "I;16" else Image.fromarray(PIXELS.astype(np.uint16))
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif, dpi=(72, 72), **({"transparency": 0} if mode == "P" else {}))
    for way in (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED):
        before = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), way)
        plain = pixels_only(file.getvalue())
        assert len(plain) < len(file.getvalue())
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(plain, np.uint8), way), before)


def test_what_has_nothing_to_leave_out_is_not_copied():
    content = png()
    assert pixels_only(content) is content
    check_png(content)
    with pytest.raises(ValueError, match="found a file that is none"):
        check_png(b"GIF89a")


@pytest.mark.parametrize(
    ("size_hw", "box"),
    [
        ((1, 1), (0, 0, 0, 0)),
        ((1, 1), (0, 0, 1, 1)),
        ((7, 5), (0, 0, 5, 7)),
        ((7, 5), (4, 6, 1, 1)),
        ((300, 1), (0, 17, 1, 100)),
        ((513, 700), (30, 255, 600, 3)),
        ((513, 700), (0, 0, 0, 0)),
        ((1100, 70000), (69000, 1000, 900, 90)),
    ],
)
def test_all_programs_read_an_image_that_is_mostly_zero(size_hw, box):
    x, y, width, height = box
    plane = np.zeros(size_hw, np.uint8)
    own = np.random.default_rng(0).choice([0, 0, 0, 1, 255], (height, width)).astype(np.uint8)
    plane[y : y + height, x : x + width] = own
    content = encode_grey(own, x, y, size_hw)
    check_png(content)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), plane)
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, plane)
