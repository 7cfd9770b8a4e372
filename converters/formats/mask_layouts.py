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

from converters.masks import CropMask, Mask, crop, pack, unpack_labels
from converters.types import LabelSpace

CLASSES_PER_FILE = 32
SET = 255
# Twenty-nine classes need some hundred steps; the bound is for graphs that nobody has met yet.
MOST_STEPS = 50_000
Pixels = npt.NDArray[Any]

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


def decode_mask(png: bytes, name: str) -> Mask:
    """Return the bit-packed mask of a PNG, uint8 (H, W, 4).

    Args:
        png: the file's content.
        name: what errors call it.

    Raises:
        ValueError: not a PNG of four 8-bit channels.
    """
    return _named_bits(_decode(png), name)


def read_mask(path: Path, labels: LabelSpace) -> Mask:
    """Read a bit-packed mask, uint8 (H, W, ceil(C / 8)).

    Raises:
        ValueError: no such file, or not such a mask.
    """
    try:
        packed = _named_bits(read_png(path), str(path))
    except OSError as error:
        raise ValueError(f"{path}: expected a mask: {error.strerror}") from None
    return np.ascontiguousarray(packed[..., : (len(labels) + 7) // 8])


def read_png(path: Path) -> Pixels | None:
    """Read a file's pixels as they are stored; None where it is no image.

    Raises:
        OSError: no such file.
    """
    return _decode(path.read_bytes())


def _decode(png: bytes) -> Pixels | None:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None


def _named_bits(bgra: Pixels | None, name: str) -> Mask:
    try:
        return _bits(bgra)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _bits(bgra: Pixels | None) -> Mask:
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4 or bgra.dtype != np.uint8:
        found = "none" if bgra is None else f"{bgra.dtype} {bgra.shape}"
        raise ValueError(f"expected an RGBA image of 8 bits, found {found}")
    return np.ascontiguousarray(bgra[..., [2, 1, 0, 3]], dtype=np.uint8)


# --- layouts


@dataclass(frozen=True)
class MaskLayout:
    """How a sample's masks are spread over files.

    Attributes:
        name: `packed`, `per-class`, `groups` or `index`.
        labels: the classes.
        folders: folder below `masks` -> the classes that its files hold.
    """

    name: str
    labels: LabelSpace
    folders: Mapping[str, tuple[str, ...]]

    def files(self, masks: Mapping[str, CropMask], size_hw: tuple[int, int]) -> dict[str, bytes]:
        """Return folder -> PNG of a sample's masks; a file that is not there is an empty one."""
        if self.name == "packed":
            return {
                folder: encode_mask(pack(_only(masks, names), LabelSpace("some", names), size_hw))
                for folder, names in self.folders.items()
            }
        planes = {
            folder: self.paint(folder, masks, size_hw)
            for folder, names in self.folders.items()
            if self.name != "per-class" or set(names) & set(masks)
        }
        return {folder: bytes(cv2.imencode(".png", plane)[1]) for folder, plane in planes.items()}

    def masks(self, folder: str, pixels: Pixels | None) -> dict[str, CropMask]:
        """Return the masks that have pixels in a file; mirrors `files`.

        Args:
            folder: where the file lies.
            pixels: the file's, as they are stored; None where it is no image.

        Raises:
            ValueError: an image of another kind, or with values that mean nothing here.
        """
        if self.name == "packed":
            return unpack_labels(_bits(pixels), LabelSpace("some", self.folders[folder]))
        dtype = self._dtype(folder)
        if pixels is None or pixels.ndim != 2 or pixels.dtype != dtype:
            found = "none" if pixels is None else f"{pixels.dtype} {pixels.shape}"
            raise ValueError(f"expected a grey image of {8 * dtype.itemsize} bits, found {found}")
        values = self._values(folder)
        present = np.flatnonzero(np.bincount(pixels.ravel()))
        if unknown := sorted(set(present.tolist()) - {0, *values.values()}):
            known = ", ".join(f"{value} ({name})" for name, value in values.items())
            raise ValueError(f"expected the values 0 (none), {known:.80}; found {unknown[0]}")
        return {n: crop(pixels == v) for n, v in values.items() if v in present}

    def _values(self, folder: str) -> dict[str, int]:
        names = self.folders[folder]
        return {n: SET if self.name == "per-class" else self.labels.index[n] + 1 for n in names}

    def _dtype(self, folder: str) -> np.dtype[Any]:
        return np.dtype(np.uint8 if max(self._values(folder).values()) <= SET else np.uint16)

    def paint(self, folder: str, masks: Mapping[str, CropMask], size_hw: tuple[int, int]) -> Pixels:
        """Return a folder's index map (H, W); larger masks first, so that smaller ones lie on top.

        Of masks of one size the class that comes later lies on top.
        """
        plane, values = np.zeros(size_hw, self._dtype(folder)), self._values(folder)
        inside = _only(masks, self.folders[folder])
        for name in sorted(inside, key=lambda n: (-masks[n].area, self.labels.index[n])):
            x, y, width, height = masks[name].box_xywh
            plane[y : y + height, x : x + width][masks[name].pixels != 0] = values[name]
        return plane


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
        stem = folder = re.sub(r"[^\w-]+", "_", name).strip("_") or "class"
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
