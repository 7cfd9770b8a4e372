"""COCO's panoptic annotations: a PNG an image, whose colours are the numbers of its segments.

    DATA/annotations/panoptic_NAME.json         segments_info: id, category_id, iscrowd, area, bbox
    DATA/annotations/panoptic_NAME/IMAGE.png    or DATA/panoptic_NAME/IMAGE.png

The number of a segment is R + 256 G + 256^2 B, 0 is no segment (`rgb2id` in panopticapi/utils.py).
As panopticapi's evaluation has it, the numbers in the PNG and in `segments_info` must be the same.
Every segment becomes an instance: a thing is one object, a stuff class one for all its pixels, and
a crowd (`iscrowd`) one for the crowd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.formats.coco.documents import Record, entry_id
from converters.formats.coco.shapes import Shape
from converters.formats.mask_pixels import read_mask_pixels, used_values
from converters.masks import crop

_SHOWN = 3


def mask_folder(root: Path, path: Path) -> Path | None:
    """Return the folder with the PNGs of a panoptic file; None where there is none.

    Args:
        root: the data set's folder.
        path: the JSON file.
    """
    bases = (path.parent, path.parent.parent) if path.parent != root else (root,)
    places = [base / name for base in bases for name in (path.stem, f"{path.stem}_masks")]
    places += [base / name for base in bases for name in ("panoptic", "masks")]
    return next((place for place in places if place.is_dir()), None)


def mask_path(annotation: Record, folder: Path | None) -> Path:
    """Return the PNG of an image's annotation.

    Raises:
        ValueError: no folder with PNGs, or no such file in it.
    """
    name = annotation.get("file_name")
    place = Path(name) if isinstance(name, str) and name else Path("..")
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"expected 'file_name' of the annotation to be a PNG, found {name!r:.80}")
    if folder is None:
        raise ValueError(
            f"expected its mask {name:.80} in a folder beside the JSON file that is called as it, "
            "found no such folder"
        )
    path = folder / place
    try:
        is_there = path.is_file()
    except OSError:  # a name that is too long
        is_there = False
    if not is_there:
        raise ValueError(f"expected its mask {name:.80} in {folder.name}, found none")
    return path


def read_segments(path: Path, segments: Sequence[Record], size_hw: tuple[int, int]) -> list[Shape]:
    """Return the pixels of each segment of an image.

    Args:
        path: its PNG.
        segments: its `segments_info`.
        size_hw: its height and width.

    Raises:
        ValueError: a PNG of another kind or size, or with other segments than are named.
    """
    try:
        numbers = segment_numbers(path.read_bytes(), size_hw)
    except OSError as error:
        raise ValueError(f"{path.name}: expected a PNG, found: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    named = _named(segments)
    there = set(used_values(numbers)) - {0}
    for found, other, where in ((named.keys(), there, "segments_info"), (there, named, "the PNG")):
        if only := sorted(set(found) - set(other), key=str):
            listed = ", ".join(map(str, only[:_SHOWN])) + (", ..." if only[_SHOWN:] else "")
            raise ValueError(
                f"{path.name}: expected the same segments in the PNG and in segments_info, found "
                f"{listed} only in {where}"
            )
    masks = [crop(numbers == number) for number in named]
    boxes = [mask.box_xywh for mask in masks]
    return [
        Shape(mask, ((x, y, x + width, y + height),))
        for mask, (x, y, width, height) in zip(masks, boxes, strict=True)
    ]


def segment_numbers(content: bytes, size_hw: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return the number of each pixel's segment, uint32 (H, W), of a panoptic PNG's content.

    Raises:
        ValueError: no PNG of 8-bit RGB, or one of another size.
    """
    pixels = read_mask_pixels(content, size_hw)
    if pixels.describe() != "8-bit RGB":
        raise ValueError(f"expected 8-bit RGB, found {pixels.describe()}")
    red, green, blue = (pixels.values[..., i].astype(np.uint32) for i in range(3))
    return red + (green << 8) + (blue << 16)


def _named(segments: Sequence[Record]) -> Mapping[int | str, Record]:
    named: dict[int | str, Record] = {}
    for segment in segments:
        number = entry_id(segment, "a segment")
        if number in named:
            raise ValueError(f"segment {number!r}: expected an id of its own, found it twice")
        named[number] = segment
    return named
