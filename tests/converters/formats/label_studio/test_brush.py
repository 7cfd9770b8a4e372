"""The bits of Label Studio's brush strokes."""

from __future__ import annotations

import numpy as np
import pytest

from converters.formats.label_studio.brush import decode_brush

SIZES = (3, 4, 8, 16)


# How an annotation of an image of 2527 x 3332 pixels begins that Label Studio has exported.
REAL = [2, 1, 233, 240, 57, 27, 255, 255, 255, 0, 255, 255, 224, 31, 255, 252, 3, 255, 255, 128]


def test_bits_are_packed_as_in_a_real_export(brush_header, bits_to_bytes):
    """Its first strokes are far down: it begins with runs of 65536 values, all 0."""
    run = f"111{65535:016b}{0:08b}"
    assert bits_to_bytes(brush_header(2527 * 3332 * 4) + 5 * run)[: len(REAL)] == REAL


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("singles", [False, True])
@pytest.mark.parametrize(("word", "sizes"), [(8, SIZES), (5, (1, 2, 3, 4)), (16, (2, 2, 2, 9))])
def test_pixels_come_back(seed, singles, word, sizes, encode_brush):
    chance = np.random.default_rng(seed)
    alpha = chance.integers(0, 2**word, (13, 17)) * (chance.random((13, 17)) < 0.4)
    alpha[5:, 3:9] = 1
    code = encode_brush(alpha, word=word, sizes=sizes, singles=singles)
    np.testing.assert_array_equal(decode_brush(code, (13, 17)).full((13, 17)), alpha > 0)


def test_only_the_alpha_channel_counts(brush_header, bits_to_bytes):
    values = [9, 9, 9, 0, 0, 0, 0, 7]
    blocks = "".join(f"100000{value:08b}" for value in values)
    found = decode_brush(bits_to_bytes(brush_header(8) + blocks), (1, 2))
    np.testing.assert_array_equal(found.full((1, 2)), [[0, 1]])


def test_long_runs_and_large_images(encode_brush):
    alpha = np.zeros((700, 900), np.uint8)
    alpha[100:600, 50:800] = 255
    found = decode_brush(encode_brush(alpha), (700, 900))
    np.testing.assert_array_equal(found.full((700, 900)), alpha > 0)


def test_an_empty_and_a_full_image(encode_brush):
    assert decode_brush(encode_brush(np.zeros((4, 6), int)), (4, 6)).area == 0
    assert decode_brush(encode_brush(np.full((4, 6), 255)), (4, 6)).area == 24


BROKEN = {
    "none": (lambda whole: None, "expected a whole 'rle', found one that is cut off"),
    "nothing": (lambda whole: [], "expected a whole 'rle', found one that is cut off"),
    "a text": (lambda whole: "abc", "found one that is cut off"),
    "a huge size": (lambda whole: [255] * 9, "found 4294967295 values"),
    "cut off": (lambda whole: whole[:-3], "found one that is cut off"),
    "only a header": (lambda whole: whole[:7], "found one that is cut off"),
    "beyond a byte": (lambda whole: [*whole[:-1], 256], "expected 'rle' to be bytes, found [0, 0"),
    "words": (lambda whole: [*whole[:-1], "a"], "expected 'rle' to be bytes"),
    "halves": (lambda whole: [*whole[:-1], 0.5], "expected 'rle' to be bytes"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_code_is_one_line(damage, message, encode_brush):
    whole = encode_brush(np.arange(24).reshape(4, 6))
    with pytest.raises(ValueError, match="expected") as error:
        decode_brush(damage(whole), (4, 6))
    assert message in str(error.value)


def test_a_code_of_another_size(encode_brush):
    with pytest.raises(ValueError, match="4 x 6 pixels in 4 channels, found 112 values"):
        decode_brush(encode_brush(np.zeros((4, 7), int)), (4, 6))


def test_a_run_beyond_the_end(brush_header, bits_to_bytes):
    code = bits_to_bytes(brush_header(96) + f"111{200:016b}{1:08b}")
    with pytest.raises(ValueError, match="expected 'rle' of 96 values, found more"):
        decode_brush(code, (4, 6))
