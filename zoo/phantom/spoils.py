"""What happens to files: cut off, damaged, or copied under another name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Damage = Callable[[Path, Path, np.random.Generator], None]
"""Takes image, annotation and a source of random numbers; changes one of the files."""

_JPEG_QUALITY = 85
_BRIGHTER = (1.06, 5.0)


def cut_image(image: Path, annotation: Path, rng: np.random.Generator) -> None:
    """Lose the end of an image's file."""
    _cut(image, float(rng.uniform(0.3, 0.9)))


def cut_annotation(image: Path, annotation: Path, rng: np.random.Generator) -> None:
    """Lose the end of an annotation's file."""
    _cut(annotation, float(rng.uniform(0.3, 0.9)))


def damage_image(image: Path, annotation: Path, rng: np.random.Generator) -> None:
    """Overwrite some bytes amid an image's file; its header and its end stay whole."""
    content = bytearray(image.read_bytes())
    at = int(rng.uniform(0.3, 0.7) * len(content))
    content[at : at + 64] = rng.bytes(64)
    image.write_bytes(bytes(content))


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])


DAMAGES: dict[tuple[str, str], Damage] = {
    ("unreadable", "image cut off"): cut_image,
    ("unreadable", "image damaged"): damage_image,
    ("unreadable", "annotation cut off"): cut_annotation,
}


# --- copies


def _as_it_is(pixels: Pixels) -> Pixels:
    return pixels


def _re_encoded(pixels: Pixels) -> Pixels:
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), np.uint8)


def _brighter(pixels: Pixels) -> Pixels:
    gain, offset = _BRIGHTER
    return np.asarray(np.clip(np.rint(gain * pixels.astype(np.float32) + offset), 0, 255), np.uint8)


def _mirrored(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": _as_it_is,
    "re-encoded": _re_encoded,
    "brighter": _brighter,
    "mirrored": _mirrored,
}
COPIES: dict[tuple[str, str], str] = {
    (kind, how): how for kind in ("duplicate", "patient") for how in CHANGES
}


def copy_hand(source: tuple[Path, Path], target: tuple[Path, Path], how: str) -> None:
    """Put a changed copy of a hand in another one's place.

    Args:
        source: image and annotation of the original.
        target: those that are replaced.
        how: `as it is`, `re-encoded` (JPEG and back), `brighter` or `mirrored`.
    """
    pixels = np.asarray(cv2.imread(str(source[0]), cv2.IMREAD_GRAYSCALE), np.uint8)
    _, content = cv2.imencode(".png", CHANGES[how](pixels))
    target[0].write_bytes(content.tobytes())
    document = json.loads(source[1].read_text(encoding="utf-8"))
    if how == "mirrored":
        for annotation in document["annotations"]:
            annotation["points"] = [[pixels.shape[1] - 1 - x, y] for x, y in annotation["points"]]
    target[1].write_text(json.dumps(document) + "\n", encoding="utf-8")
