"""Masks in colours that no table explains: each colour is a class, and black is none."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.errors import one_line
from converters.files.image_headers import BROKEN
from converters.formats.label_spaces import natural
from converters.formats.mask_pixels import (
    VOID,
    VOID_COLOUR,
    Pixels,
    has_voc_palette,
    read_mask_pixels,
    used_values,
)

# More are no classes, but the edges of smoothed drawings.
MOST_COLOURS = 100
BLACK, WHITE = 0, 0xFFFFFF
# PASCAL VOC's classes by their numbers, from 1 on; its images are called by year and number.
PASCAL_VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_VOC_IMAGE = re.compile(r"\d{4}_\d{6}")
_NAME = re.compile(r"color_[0-9a-f]{6}")
_PLACES = np.array([65536, 256, 1], np.uint32)
_VOID = int(np.array(VOID_COLOUR) @ _PLACES)


def colour_name(code: int) -> str:
    """Return what a class is called of which nothing is known but its colour.

    >>> colour_name(0xFF0000)
    'color_ff0000'
    """
    return f"color_{code:06x}"


def are_colour_names(names: Iterable[str]) -> bool:
    """Tell whether classes are called by their colours."""
    return all(map(_NAME.fullmatch, names))


def colour_codes(values: Pixels) -> npt.NDArray[np.uint32]:
    """Return a number for each pixel's colour, red first: uint32 (H, W).

    Args:
        values: of `read_mask_pixels`, uint8 (H, W, 3), or (H, W, 4) if they are opaque.

    Raises:
        ValueError: another kind of image.
    """
    is_opaque = values.ndim == 3 and (values.shape[2] == 3 or bool((values[..., 3] == VOID).all()))
    if not is_opaque or values.dtype != np.uint8:
        raise ValueError("expected opaque colours of 8 bits, found another kind of mask")
    codes: npt.NDArray[np.uint32] = values[..., :3].astype(np.uint32) @ _PLACES
    return codes


def class_codes(values: Pixels) -> list[int]:
    """Return the colours of a mask that are classes, sorted: not black, nor PASCAL VOC's void."""
    return [code for code in used_values(colour_codes(values)) if is_class_code(code)]


def is_class_code(code: int) -> bool:
    """Tell whether a colour is a class: it is neither black nor PASCAL VOC's void."""
    return code not in (BLACK, _VOID)


def read_palette(content: bytes) -> Pixels:
    """Return a PNG's palette, red first, uint8 (n, 3); none where it has none."""
    with Image.open(io.BytesIO(content)) as mask:
        found = (mask.mode == "P" and mask.getpalette()) or []
    return np.array(found, np.uint8).reshape(-1, 3)


def have_own_palettes(masks: Iterable[Path]) -> bool:
    """Tell whether the indexes of palettes are no numbers of classes.

    They are none where a number has one colour in one file and another one in another, or black,
    which is what lies around objects, is used and is not the number 0: programs that save space
    make a palette for each image, of what it has. Where lower numbers are unused, and no colour
    comes in two files, but numbers do, the palettes are anybody's, and say nothing.
    """
    known: dict[int, set[tuple[int, ...]]] = {}
    files: Counter[tuple[int, ...]] = Counter()
    uses: Counter[int] = Counter()
    has_gaps = False
    for path in masks:
        if path.suffix.lower() != ".png":
            continue
        try:
            content = path.read_bytes()
            palette = read_palette(content)
            values = read_mask_pixels(content).values if len(palette) else np.zeros(0, np.uint8)
        except (OSError, ValueError, *BROKEN):
            continue  # whoever reads it says so
        used = [n for n in used_values(values) if n < len(palette)]
        uses.update(number for number in used if number)
        has_gaps |= used != list(range(len(used)))
        own = {number: tuple(palette[number].tolist()) for number in used}
        if any(number not in (0, VOID) and not any(own[number]) for number in used):
            return True
        files.update({colour for colour in own.values() if any(colour)})
        for number, colour in own.items():
            known.setdefault(number, set()).add(colour)
    do_differ = any(len(colours) > 1 for colours in known.values())
    are_alone = max(files.values(), default=0) < 2 <= max(uses.values(), default=0)
    return do_differ and not (has_gaps and are_alone)


def check_palettes(masks: Iterable[Path]) -> None:
    """Make sure that the indexes of palettes can be numbers of classes.

    Raises:
        ValueError: they differ among files, or black has a number of its own.
    """
    files = list(masks)
    if have_own_palettes(files):
        raise ValueError(
            f"{files[0].parent}: expected palettes that give a number one colour in all masks, and "
            "0 black, found others, as programs make that save space: save numbers in grey, or "
            "give a table of colours (labelmap.txt)"
        )


def name_classes(masks: Iterable[Path]) -> tuple[str, ...]:
    """Return the classes of masks without a table: their numbers, or, of colours only, these.

    A mask that cannot be read has none; whoever reads it says so, unless there are no others.

    Args:
        masks: PNG files.

    Raises:
        ValueError: more colours than classes can have, or no mask that can be read.
    """
    broken = ""
    numbers: set[int] = set()
    colours: set[int] = set()
    has_white = False
    for path in masks:
        try:
            pixels = read_mask_pixels(path.read_bytes())
            if pixels.values.ndim == 2:
                numbers |= set(used_values(pixels.values))
                has_white |= VOID in numbers and not pixels.has_void
                continue
            found = class_codes(pixels.values)
        except (OSError, ValueError) as error:
            broken = broken or f"{path}: {one_line(error)}"
            continue
        colours |= set(found)
        if len(colours) > MOST_COLOURS:
            raise ValueError(
                f"{path}: expected a colour for each class, at most {MOST_COLOURS}, found "
                f"{len(found)} in this mask and {len(colours)} so far, as smoothed edges and lossy "
                "files have: save masks with hard edges as PNG"
            )
    numbers -= {BLACK, VOID}
    if broken and not numbers and not colours:
        raise ValueError(broken)
    if numbers:
        return natural(map(str, numbers))
    # A program may save one mask in black and white, and another one of the same in colours.
    colours |= {WHITE} if colours and has_white else set()
    return tuple(map(colour_name, sorted(colours)))


def name_pascal_voc(masks: Iterable[Path], names: Iterable[str]) -> tuple[str, ...]:
    """Return PASCAL VOC's names of class numbers; none where the masks are not its own.

    They are where its images' names are and no other palette, or all have its palette and just its
    20 numbers. Others draw their own classes in that palette.

    Args:
        masks: PNG files.
        names: the classes as `name_classes` calls them.
    """
    known = {str(number): name for number, name in enumerate(PASCAL_VOC, 1)}
    found, files = set(names), list(masks)
    if not found <= known.keys():
        return ()
    are_named = all(_VOC_IMAGE.fullmatch(path.stem) for path in files)
    if not all(has_voc_palette(path, or_none=are_named) for path in files):
        return ()
    if not are_named and len(found) < len(known):
        return ()
    return tuple(name for number, name in known.items() if number in found)


def holds_colours(masks: Iterable[Path]) -> bool:
    """Tell whether one of these files is a mask in colours."""
    for path in masks:
        try:
            colour_codes(read_mask_pixels(path.read_bytes()).values)
        except (OSError, ValueError):
            continue
        return True
    return False
