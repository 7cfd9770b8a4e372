"""Image files that are damaged, and fingerprints by which copies are found."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.files.dicom import HEAD_BYTES, is_dicom
from converters.files.image_headers import is_jsrt
from converters.files.images import decode_image
from converters.files.png import SIGNATURE, check_png
from converters.masks import Mask
from converters.types import ImageFile

COARSE, FINE = 48, 128
# Deviation of the blur whose result is taken away, for each side in pixels: the slow changes of
# brightness and contrast, which copies do not share and other images do.
_SLOW = {COARSE: 4.0, FINE: 2.0}
# Steps of a fingerprint's values in their standard deviation.
_STEPS = 24.0


def check_content(file: ImageFile) -> None:
    """Read an image to its end.

    A PNG carries checksums: damage anywhere is found. Of other formats what cannot be decoded is
    found; a JPEG may decode to nonsense.

    Args:
        file: the image file.

    Raises:
        ValueError: it is missing, cut off or damaged.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"expected an image: {error.strerror or error}") from None
    if content.startswith(SIGNATURE):
        check_png(content)
        return
    if is_dicom(content[:HEAD_BYTES]) or is_jsrt(content[:HEAD_BYTES], len(content)):
        decode_image(content, cv2.IMREAD_GRAYSCALE)
        return
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata; only pixels matter here.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected a whole image, found a damaged one ({error})") from None


def fingerprint(image: Mask, side: int) -> npt.NDArray[np.int8]:
    """Return what copies of an image share: int8 (side * side,), all zero for a plain image.

    It hardly depends on brightness, contrast, size and compression.

    Args:
        image: grey, uint8 (H, W).
        side: COARSE finds what may be a copy among many, FINE tells what is one.
    """
    # Area averaging leaves what all encoders leave alone.
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), _SLOW[side])
    deviation = float(fine.std())
    if deviation < 1e-3:
        return np.zeros(side * side, np.int8)
    return np.clip(np.rint(_STEPS / deviation * fine), -127, 127).astype(np.int8).ravel()


def unit_prints(prints: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Return fingerprints (..., n) as vectors whose product is their correlation, -1 to 1."""
    values = prints.astype(np.float32)
    values -= values.mean(axis=-1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-6)


def mirror_prints(prints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the fingerprints (..., side * side) of the images seen in a mirror."""
    side = round(prints.shape[-1] ** 0.5)
    return prints.reshape(*prints.shape[:-1], side, side)[..., ::-1].reshape(prints.shape)
