"""Damaged image files are found, and fingerprints tell copies from other images."""

import cv2
import numpy as np
import pytest

from converters.audit.images import (
    COARSE,
    FINE,
    check_content,
    fingerprint,
    mirror_prints,
    unit_prints,
)


def picture(seed=0, size_hw=(90, 130)):
    noise = np.random.default_rng(seed).normal(0, 1, size_hw).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def write(path, pixels, *options):
    assert cv2.imwrite(str(path), pixels, list(options))
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_whole_images_pass(tmp_path, suffix):
    check_content(write(tmp_path / f"a{suffix}", picture()))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_cut_images_are_damaged(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", picture())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="expected a whole image"):
        check_content(path)


def test_any_changed_byte_of_a_png_is_found(tmp_path):
    path = write(tmp_path / "a.png", picture(size_hw=(12, 14)))
    content = path.read_bytes()
    for at in range(8, len(content)):
        changed = bytearray(content)
        changed[at] ^= 0x10
        path.write_bytes(bytes(changed))
        with pytest.raises(ValueError, match="expected a whole image"):
            check_content(path)


def test_a_missing_image_says_so(tmp_path):
    with pytest.raises(ValueError, match="expected an image: No such file"):
        check_content(tmp_path / "none.png")


COPIES = {
    "itself": lambda pixels: pixels,
    "brighter": lambda pixels: np.clip(1.1 * pixels + 5, 0, 255).astype(np.uint8),
    "re-encoded": lambda pixels: cv2.imdecode(cv2.imencode(".jpg", pixels)[1], 0),
    "smaller": lambda pixels: cv2.resize(
        pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA
    ),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("side", [COARSE, FINE])
def test_a_copy_has_the_same_fingerprint(name, side):
    pixels = picture(size_hw=(300, 260))
    one, other = (unit_prints(fingerprint(p, side)) for p in (pixels, COPIES[name](pixels)))
    assert one @ other > 0.95


@pytest.mark.parametrize("side", [COARSE, FINE])
def test_a_mirror_image_has_the_mirrored_fingerprint(side):
    pixels = picture(size_hw=(2 * side, 3 * side))
    flipped = fingerprint(np.ascontiguousarray(pixels[:, ::-1]), side)
    mirrored = mirror_prints(fingerprint(pixels, side).astype(np.float32))
    # Rounding of the resized image may differ by a step.
    assert np.abs(flipped - mirrored).max() <= 2


@pytest.mark.parametrize("side", [COARSE, FINE])
def test_other_images_have_other_fingerprints(side):
    one, other = (unit_prints(fingerprint(picture(seed), side)) for seed in (0, 1))
    assert abs(one @ other) < 0.3


def test_plain_images_are_like_nothing():
    plain = unit_prints(fingerprint(np.full((50, 50), 90, np.uint8), COARSE))
    assert plain @ plain == 0
