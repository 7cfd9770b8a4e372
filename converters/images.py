"""Image files: which they are and how large, without reading their pixels."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image; hidden files are none.

    File managers leave hidden files such as `._image.png`.

    >>> is_image(Path("image1_R.PNG")), is_image(Path("._image1_R.png"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_size_hw(path: Path) -> tuple[int, int]:
    """Read height and width in pixels from an image's header.

    Raises:
        ValueError: the file is missing or has no header that can be read.
    """
    try:
        with Image.open(path) as header:
            return header.height, header.width
    except FileNotFoundError:
        raise ValueError("expected an image, found nothing there") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("expected an image, found a file without a readable header") from None
