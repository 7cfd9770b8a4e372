"""How a sample's masks are spread over PNG files; `formats.masks` says what lies where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.png import encode_grey
from converters.formats.mask_pixels import VOID, MaskPixels, read_mask_pixels
from converters.masks import Box, CropMask, Mask, crop, pack, union_box, unpack_labels
from converters.types import LabelSpace

LAYOUTS = ("packed", "per-class", "groups", "index")
CLASSES_PER_FILE = 32
SET = 255
# Twenty-nine classes need some hundred steps; the bound is for graphs that nobody has met yet.
MOST_STEPS = 50_000
_SHOWN = 5
_FOLDER_BYTES = 200
Pixels = npt.NDArray[Any]
Size = tuple[int, int]

# --- bit-packed masks as PNG


def encode_mask(packed: Mask) -> bytes:
    """Return the PNG of a bit-packed mask, uint8 (H, W, B) with B at most 4.

    Raises:
        ValueError: more than 32 classes.
    """
    height, width, channels = packed.shape
    if channels * 8 > CLASSES_PER_FILE:
        raise ValueError(
            f"masks: expected at most {CLASSES_PER_FILE} classes in an image, found more; "
            "format 'masks' divides them over several files"
        )
    bgra = np.zeros((height, width, 4), np.uint8)
    for channel in range(channels):
        bgra[..., (2, 1, 0, 3)[channel]] = packed[..., channel]
    return bytes(cv2.imencode(".png", bgra)[1])


def decode_mask(
    png: bytes, name: str, classes: int = CLASSES_PER_FILE, size_hw: Size | None = None
) -> Mask:
    """Return the bit-packed mask of a PNG, uint8 (H, W, 4).

    Args:
        png: the file's content.
        name: what errors call it.
        classes: how many bits may be set, the first ones.
        size_hw: the image's height and width; None where they are not known.

    Raises:
        ValueError: not a PNG of four 8-bit channels, one of another size, or other bits are set.
    """
    try:
        return _bits(read_mask_pixels(png, size_hw), classes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_mask(path: Path, labels: LabelSpace) -> Mask:
    """Read a bit-packed mask, uint8 (H, W, ceil(C / 8)).

    Raises:
        ValueError: no such file, or not such a mask.
    """
    try:
        packed = decode_mask(path.read_bytes(), str(path), len(labels))
    except OSError as error:
        raise ValueError(f"{path}: expected a mask: {error.strerror}") from None
    return np.ascontiguousarray(packed[..., : (len(labels) + 7) // 8])


def _bits(pixels: MaskPixels, classes: int) -> Mask:
    packed = pixels.values
    if packed.ndim != 3 or packed.shape[2] != 4 or packed.dtype != np.uint8:
        raise ValueError(
            "expected an RGBA image of 8 bits, a bit for each class (layout 'packed'), found "
            f"{pixels.describe()}: {_remedy(pixels)}"
        )
    used = np.unpackbits(np.bitwise_or.reduce(packed, axis=(0, 1)), bitorder="little")
    if others := np.flatnonzero(used[classes:]).tolist():
        first = classes + others[0]
        raise ValueError(
            f"expected the bits 0 to {classes - 1}, one for each class, found bit {first} "
            f"({['red', 'green', 'blue', 'alpha'][first // 8]}) set, which is no class: "
            "a mask in colours is not read; save one mask for each class, or class numbers"
        )
    return packed


def _remedy(pixels: MaskPixels) -> str:
    if pixels.values.ndim == 2:
        return "for class numbers write 'layout: index' into masks.yaml"
    return "a mask in colours is not read; save one mask for each class, or class numbers"


# --- layouts


@dataclass(frozen=True)
class MaskLayout:
    """How a sample's masks are spread over files.

    Attributes:
        name: `packed`, `per-class`, `groups` or `index`.
        labels: the classes.
        folders: folder below `masks` -> the classes that its files hold.
        void: a value of index maps that means no class, beside 0.
    """

    name: str
    labels: LabelSpace
    folders: Mapping[str, tuple[str, ...]]
    void: int | None = None

    def files(self, masks: Mapping[str, CropMask], size_hw: tuple[int, int]) -> dict[str, bytes]:
        """Return folder -> PNG of a sample's masks; a file that is not there is an empty one."""
        if self.name == "packed":
            return {
                folder: encode_mask(pack(_only(masks, names), LabelSpace("some", names), size_hw))
                for folder, names in self.folders.items()
            }
        return {
            folder: self._png(folder, masks, size_hw)
            for folder, names in self.folders.items()
            if self.name != "per-class" or set(names) & set(masks)
        }

    def _png(self, folder: str, masks: Mapping[str, CropMask], size_hw: Size) -> bytes:
        if self._dtype(folder) != np.uint8:
            return bytes(cv2.imencode(".png", self.paint(folder, masks, whole(size_hw)))[1])
        x, y, *_ = box = union_box(_only(masks, self.folders[folder]).values())
        return encode_grey(self.paint(folder, masks, box), x, y, size_hw)

    def masks(self, folder: str, pixels: MaskPixels) -> dict[str, CropMask]:
        """Return the masks that have pixels in a file; mirrors `files`.

        Args:
            folder: where the file lies.
            pixels: what it holds.

        Raises:
            ValueError: an image of another kind, or with values that mean nothing here.
        """
        names = self.folders[folder]
        if self.name == "packed":
            return unpack_labels(_bits(pixels, len(names)), LabelSpace("some", names))
        grey = pixels.values
        if grey.ndim != 2:
            found = f"{pixels.describe()}: {_remedy(pixels)}"
            raise ValueError(f"expected grey values or a palette's indexes, found {found}")
        values = self._values(folder)
        if self.name == "per-class":
            values = dict.fromkeys(values, pixels.top)
        present = set(np.flatnonzero(np.bincount(grey.ravel())).tolist())
        if unknown := sorted(present - {0, *values.values(), *self.voids(pixels)}):
            raise ValueError(_unknown_values(unknown, values))
        return {n: crop(grey == v) for n, v in values.items() if v in present}

    def voids(self, pixels: MaskPixels) -> set[int]:
        """Return the values that mean no class in an index map, beside 0."""
        if self.name == "per-class" or len(self.labels) >= VOID:
            return set()
        return {VOID} & {self.void, VOID if pixels.has_void else None}

    def _values(self, folder: str) -> dict[str, int]:
        names = self.folders[folder]
        return {n: SET if self.name == "per-class" else self.labels.index[n] + 1 for n in names}

    def _dtype(self, folder: str) -> np.dtype[Any]:
        return np.dtype(np.uint8 if max(self._values(folder).values()) <= SET else np.uint16)

    def paint(self, folder: str, masks: Mapping[str, CropMask], box: Box) -> Pixels:
        """Return a folder's index map (h, w); larger masks first, so that smaller ones lie on top.

        Of masks of one size the class that comes later lies on top.

        Args:
            folder: whose classes are painted.
            masks: label -> mask.
            box: x, y, w, h of the part of the image that is wanted, with all of these masks in it.
        """
        left, top, width, height = box
        plane, values = np.zeros((height, width), self._dtype(folder)), self._values(folder)
        inside = _only(masks, self.folders[folder])
        for name in sorted(inside, key=lambda n: (-masks[n].area, self.labels.index[n])):
            x, y, width, height = masks[name].box_xywh
            part = plane[y - top : y - top + height, x - left : x - left + width]
            part[masks[name].pixels != 0] = values[name]
        return plane


def whole(size_hw: Size) -> Box:
    """Return the box x, y, w, h of all of an image."""
    return 0, 0, size_hw[1], size_hw[0]


def _unknown_values(unknown: Sequence[int], values: Mapping[str, int]) -> str:
    known = ", ".join(f"{value} ({name})" for name, value in values.items())
    remedy = ""
    if VOID in unknown and SET not in values.values():
        remedy = ": if 255 means no class, write 'void: 255' into masks.yaml"
    found = ", ".join(map(str, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
    return f"expected the values 0 (none), {known:.80}; found {found}{remedy}"


def _only(masks: Mapping[str, CropMask], names: Iterable[str]) -> dict[str, CropMask]:
    return {name: masks[name] for name in names if name in masks}


def packed_folders(labels: LabelSpace) -> dict[str, tuple[str, ...]]:
    """Return folder -> classes of the layout `packed`: 32 classes an image."""
    if len(labels) <= CLASSES_PER_FILE:
        return {"": labels.names}
    parts = {}
    for first in range(0, len(labels), CLASSES_PER_FILE):
        names = labels.names[first : first + CLASSES_PER_FILE]
        parts[f"{first}-{first + len(names) - 1}"] = names
    return parts


def class_folders(labels: LabelSpace) -> dict[str, tuple[str, ...]]:
    """Return folder -> class of the layout `per-class`; each folder's name is safe, and its own."""
    folders: dict[str, tuple[str, ...]] = {}
    for name in labels.names:
        safe = re.sub(r"[^\w-]+", "_", name).strip("_")
        # A name of a file has 255 bytes at most.
        stem = folder = safe.encode()[:_FOLDER_BYTES].decode(errors="ignore") or "class"
        number = 1
        # Some file systems do not tell A from a.
        while folder.casefold() in {taken.casefold() for taken in folders}:
            number += 1
            folder = f"{stem}-{number}"
        folders[folder] = (name,)
    return folders


def color_graph(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Divide nodes into as few groups as possible, so that no edge lies inside a group.

    D. Brelaz's DSATUR ("New methods to color the vertices of a graph", CACM 22, 1979): the node
    that sees most colours comes next. Going back over its choices finds the least number; a graph
    on which that takes more than 50,000 steps gets the best division until then, which is never
    worse than plain DSATUR's.

    Args:
        nodes: in the order in which groups list them.
        edges: pairs of nodes.

    Returns:
        The groups; those of a graph without nodes are none.

    >>> color_graph(["a", "b", "c"], [("a", "b"), ("b", "c")])
    [('b',), ('a', 'c')]
    """
    neighbours: dict[str, set[str]] = {node: set() for node in nodes}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    best: dict[str, int] = {}
    fewest, steps = len(nodes) + 1, 0
    # Node -> colour of the nodes so far; the one to go on with is the last.
    begun: list[dict[str, int]] = [{}]
    while begun and (steps < MOST_STEPS or not best):
        colors, steps = begun.pop(), steps + 1
        used = len(set(colors.values()))
        if used >= fewest:
            continue
        if len(colors) == len(nodes):
            best, fewest = colors, used
            continue
        seen = {node: {colors[n] for n in neighbours[node] if n in colors} for node in nodes}
        # Of equals the node that comes first.
        node = max(
            (n for n in nodes if n not in colors), key=lambda n: (len(seen[n]), len(neighbours[n]))
        )
        free = [c for c in range(min(used + 1, fewest - 1)) if c not in seen[node]]
        begun += [{**colors, node: c} for c in reversed(free)]
    return [tuple(n for n in nodes if best[n] == c) for c in range(fewest)]
