"""The only place where polygons become pixels and back; run-length codes; bit-packed masks.

The pixel rule is OpenCV's `fillPoly` on vertices rounded to whole pixels, halves upwards: boundary
pixels belong to the object, a polygon's rings are filled even-odd, several polygons are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from converters.types import Instance, LabelSpace

# Of a number in COCO's code: 40 bits, and no sum of some millions of them is too large.
_MOST_LETTERS = 8
# Of a code, the first counts are written as they are.
_PLAIN = 3
Mask = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class CropMask:
    """A binary mask that is stored only where it is not empty.

    Attributes:
        x: column of the crop's left edge in the image.
        y: row of the crop's upper edge in the image.
        pixels: uint8 (h, w), 0 or 1; may be (0, 0) for an empty mask.

    Raises:
        ValueError: another dtype or number of dimensions, or a negative position.
    """

    x: int
    y: int
    pixels: Mask

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 2:
            found = f"{self.pixels.dtype} {self.pixels.shape}"
            raise ValueError(f"mask crop: expected uint8 (h, w), found {found}")
        if self.x < 0 or self.y < 0:
            raise ValueError(f"mask crop: expected a position >= 0, found ({self.x}, {self.y})")

    @property
    def area(self) -> int:
        """Number of pixels set."""
        return int(cv2.countNonZero(self.pixels)) if self.pixels.size else 0

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """The crop's place in the image (not the tight box of its pixels)."""
        height, width = self.pixels.shape
        return self.x, self.y, width, height

    def full(self, size_hw: tuple[int, int]) -> Mask:
        """Return the mask of the whole image, uint8 (H, W), 0 or 1."""
        plane = np.zeros(size_hw, np.uint8)
        height, width = self.pixels.shape
        plane[self.y : self.y + height, self.x : self.x + width] = self.pixels
        return plane

    def window(self, box_xywh: tuple[int, int, int, int]) -> Mask:
        """Return the mask's pixels in a box of the image, uint8 (h, w); zero outside the crop."""
        x, y, width, height = box_xywh
        out = np.zeros((height, width), np.uint8)
        crop_h, crop_w = self.pixels.shape
        x0, x1 = max(x, self.x), min(x + width, self.x + crop_w)
        y0, y1 = max(y, self.y), min(y + height, self.y + crop_h)
        if x0 < x1 and y0 < y1:
            inner = self.pixels[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]
            out[y0 - y : y1 - y, x0 - x : x1 - x] = inner
        return out


EMPTY = CropMask(0, 0, np.zeros((0, 0), np.uint8))


def crop(plane: npt.NDArray[Any]) -> CropMask:
    """Cut a whole-image mask, any dtype (H, W), non-zero = set, to the box of its pixels."""
    # OpenCV looks for non-zero bytes; of other types it would take (N, 2) for points.
    is_bytes = plane.dtype in (np.uint8, np.bool_)
    binary = plane.view(np.uint8) if is_bytes else (plane != 0).view(np.uint8)
    x, y, width, height = cv2.boundingRect(binary)
    if width == 0:
        return EMPTY
    inside = binary[y : y + height, x : x + width] != 0
    return CropMask(x, y, inside.view(np.uint8))


def union_box(masks: Iterable[CropMask]) -> Box:
    """Return the smallest x, y, w, h that holds all crops; all zero where none has pixels."""
    return enclose(m.box_xywh for m in masks)


def enclose(boxes_xywh: Iterable[Box]) -> Box:
    """Return the smallest x, y, w, h that holds all boxes with an area; all zero without any."""
    boxes = [b for b in boxes_xywh if b[2] and b[3]]
    if not boxes:
        return 0, 0, 0, 0
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return x0, y0, x1 - x0, y1 - y0


# --- polygons -> pixels -> polygons


def whole_pixels(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return the pixels in which vertices lie; halves go up, so that a shift of one moves all.

    Rounding halves to even numbers, as `numpy.rint` does, would move every other vertex.

    >>> whole_pixels(np.array([9.5, 10.5, -0.5])).tolist()
    [10, 11, 0]
    """
    return np.floor(points + 0.5).astype(np.int32)


def _rings(polygon: Polygon) -> list[npt.NDArray[np.int32]]:
    # What has no holes has its shell's points alone.
    has_holes = shapely.get_num_interior_rings(polygon)
    rings = [polygon.exterior, *polygon.interiors] if has_holes else [polygon]
    return [whole_pixels(shapely.get_coordinates(ring)[:-1]) for ring in rings]


def rasterize(geometry: Polygon | MultiPolygon, size_hw: tuple[int, int]) -> CropMask:
    """Return the pixels of a geometry, cut to the image.

    Args:
        geometry: outline in pixel coordinates; may leave the image.
        size_hw: the image's height and width.
    """
    parts = geometry.geoms if isinstance(geometry, MultiPolygon) else (geometry,)
    polygons = [_rings(part) for part in parts]
    points = np.concatenate([ring for rings in polygons for ring in rings])
    x0, y0 = np.maximum(points.min(axis=0), 0).tolist()
    x1 = min(int(points[:, 0].max()), size_hw[1] - 1)
    y1 = min(int(points[:, 1].max()), size_hw[0] - 1)
    if x1 < x0 or y1 < y0:
        return EMPTY
    pixels = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    for rings in polygons:
        cv2.fillPoly(pixels, rings, (1,), offset=(-x0, -y0))
    return CropMask(x0, y0, pixels)


def rasterize_labels(
    instances: Iterable[Instance], size_hw: tuple[int, int]
) -> dict[str, CropMask]:
    """Return one mask per label that occurs; instances of the same label are joined."""
    masks: dict[str, CropMask] = {}
    for instance in instances:
        new = rasterize(instance.geometry, size_hw)
        masks[instance.label] = (
            union(masks[instance.label], new) if instance.label in masks else new
        )
    return masks


def class_masks(
    instances: Iterable[Instance],
    size_hw: tuple[int, int],
    labels: LabelSpace,
    with_background: bool = True,
) -> dict[str, CropMask]:
    """Return one mask per class that occurs, as the label space has pixels.

    Where classes may share pixels these are the masks of `rasterize_labels`. Where a pixel has one
    label, objects are painted one over the other, and the class of the background has the pixels
    that are left.

    Args:
        instances: of classes of the label space.
        size_hw: the image's height and width.
        labels: the classes.
        with_background: give the background its pixels, where it is a class; files of annotations
            hold objects only.
    """
    if labels.exclusive is None:
        return rasterize_labels(instances, size_hw)
    drawn = [(labels.index[one.label], rasterize(one.geometry, size_hw)) for one in instances]
    return paint(drawn, size_hw, labels, with_background)


def paint(
    drawn: Iterable[tuple[int, CropMask]],
    size_hw: tuple[int, int],
    labels: LabelSpace,
    with_background: bool = True,
) -> dict[str, CropMask]:
    """Return one mask per class of masks that are painted one over the other.

    Args:
        drawn: class number and mask of each object, as annotated.
        size_hw: the image's height and width.
        labels: the classes, of which a pixel has one.
        with_background: as for `class_masks`.
    """
    ordered = list(drawn)
    if labels.exclusive == "large_first":
        ordered.sort(key=lambda pair: -pair[1].area)
    elif labels.exclusive == "by_class":
        ordered.sort(key=lambda pair: pair[0])
    plane = np.zeros(size_hw, np.uint16)
    for number, mask in ordered:
        height, width = mask.pixels.shape
        part = plane[mask.y : mask.y + height, mask.x : mask.x + width]
        part[mask.pixels > 0] = number + 1
    return split_plane(plane, labels, with_background)


def split_plane(
    plane: npt.NDArray[np.uint16], labels: LabelSpace, with_background: bool = True
) -> dict[str, CropMask]:
    """Return the masks of the classes that a plane of numbers has, in the label space's order.

    Args:
        plane: uint16 (H, W); 0 is none, n + 1 is class n.
        labels: the classes.
        with_background: give pixels of none to the background, where it is a class.
    """
    if with_background and labels.background is not None:
        plane = np.where(plane == 0, np.uint16(labels.index[labels.background] + 1), plane)
    found = np.flatnonzero(np.bincount(plane.ravel(), minlength=1))
    return {labels.names[n - 1]: crop(plane == n) for n in found.tolist() if n}


def union(a: CropMask, b: CropMask) -> CropMask:
    """Return the pixels of either mask."""
    box = union_box((a, b))
    return CropMask(box[0], box[1], a.window(box) | b.window(box))


def common_part(a: CropMask, b: CropMask) -> CropMask:
    """Return the pixels that both masks have."""
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.x + a.pixels.shape[1], b.x + b.pixels.shape[1])
    y1 = min(a.y + a.pixels.shape[0], b.y + b.pixels.shape[0])
    if x1 <= x0 or y1 <= y0:
        return EMPTY
    box = (x0, y0, x1 - x0, y1 - y0)
    return CropMask(x0, y0, a.window(box) & b.window(box))


def share_pixels(a: CropMask, b: CropMask) -> bool:
    """Tell whether two masks have a pixel in common."""
    return bool(common_part(a, b).pixels.any())


def tight_box(mask: CropMask) -> Box:
    """Return the smallest x, y, w, h that holds a mask's pixels; all zero where there are none."""
    x, y, width, height = cv2.boundingRect(mask.pixels) if mask.pixels.size else (0, 0, 0, 0)
    return (mask.x + x, mask.y + y, width, height) if width else (0, 0, 0, 0)


Ring = npt.NDArray[np.int32]
"""Points (N, 2) on whole pixels: x, y. Closed: the last one is followed by the first."""


def rings(mask: CropMask) -> list[tuple[Ring, list[Ring]]]:
    """Return the shell and the holes of each part, in the image's pixels.

    Shells run over the mask's own boundary pixels, holes over those around the hole, so that
    even-odd filling with boundary pixels gives exactly the mask. Steps are straight or diagonal.
    """
    contours, tree = cv2.findContours(
        *(mask.pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE), offset=(mask.x, mask.y)
    )
    parts: dict[int, tuple[Ring, list[Ring]]] = {}
    parents = tree[0, :, 3].tolist() if contours else []
    for i, parent in enumerate(parents):
        if parent < 0:
            parts[i] = (contours[i][:, 0, :], [])
    for i, parent in enumerate(parents):
        if parent >= 0:
            parts[parent][1].append(contours[i][:, 0, :])
    return [parts[i] for i in sorted(parts)]


def outline(mask: CropMask) -> Polygon | MultiPolygon:
    """Return the geometry whose pixels are exactly the mask's; parts and holes are kept.

    Raises:
        ValueError: the mask is empty.
    """
    return outlines([mask])[0]


def outlines(masks: Sequence[CropMask]) -> list[Polygon | MultiPolygon]:
    """Return the geometry of each mask, which is faster than `outline` one after the other.

    Raises:
        ValueError: a mask is empty.
    """
    parts = [rings(mask) for mask in masks]
    if not all(parts):
        raise ValueError("outline: expected a mask with pixels, found an empty one")
    polygons = [(shell, *holes) for own in parts for shell, holes in own]
    points = [at_least_a_triangle(ring) for rings in polygons for ring in rings]
    if not points:
        return []
    made = shapely.linearrings(np.concatenate(points), indices=_numbered(map(len, points)))
    # The first ring of each number is the shell.
    found = iter(shapely.polygons(made, indices=_numbered(map(len, polygons))).tolist())
    return [
        next(found) if len(own) == 1 else MultiPolygon(list(islice(found, len(own))))
        for own in parts
    ]


def _numbered(lengths: Iterable[int]) -> npt.NDArray[np.intp]:
    """0 as often as the first length says, then 1, and so on."""
    counts = list(lengths)
    return np.repeat(np.arange(len(counts)), counts)


def at_least_a_triangle(ring: Ring) -> Ring:
    """Repeat the last point of a ring of one or two pixels: a polygon wants three points."""
    if len(ring) >= 3:
        return ring
    return np.vstack([ring, np.repeat(ring[-1:], 3 - len(ring), axis=0)])


# --- run-length codes


def to_runs(mask: CropMask, row_length: int) -> npt.NDArray[np.int64]:
    """Return starts (from 0, row by row in an image of `row_length` columns) and ends, (n, 2)."""
    height, width = mask.pixels.shape
    if width == row_length:
        padded = np.zeros(height * width + 2, np.int8)
        padded[1:-1] = mask.pixels.ravel()
        return np.flatnonzero(np.diff(padded)).reshape(-1, 2) + mask.y * row_length
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask.pixels
    change = np.flatnonzero(padded.ravel()[1:] != padded.ravel()[:-1])
    rows, columns = np.divmod(change, width + 2)
    edges = ((rows + mask.y) * row_length + columns + mask.x).reshape(-1, 2)
    touching = edges[1:, 0] == edges[:-1, 1]
    if not touching.any():
        return edges
    keep_start = np.concatenate([[True], ~touching])
    return np.stack([edges[keep_start, 0], edges[np.concatenate([~touching, [True]]), 1]], axis=1)


def encode_rle(mask: CropMask, size_hw: tuple[int, int]) -> str:
    """Return the submission's code: `start length ...`, row-major, starts from 1; empty is "".

    >>> encode_rle(CropMask(1, 0, np.ones((2, 2), np.uint8)), (2, 4))
    '2 2 6 2'
    """
    if mask.area == 0:
        return ""
    runs = to_runs(mask, size_hw[1])
    runs[:, 1] -= runs[:, 0]
    runs[:, 0] += 1
    # One format for all numbers takes half the time of a text for each.
    return ("%d " * runs.size)[:-1] % tuple(runs.ravel().tolist())


def decode_rle(rle: str, size_hw: tuple[int, int]) -> CropMask:
    """Return the mask of a row-major, 1-based code; "" is the empty mask.

    Raises:
        ValueError: not pairs of positive whole numbers, runs that overlap or are not sorted, or
            runs that leave the image.
    """
    if not rle.strip():
        return EMPTY
    return from_runs(*_parse_runs(rle, size_hw), size_hw[1])


def from_runs(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], width: int) -> CropMask:
    """Return the mask of at least one run, row by row in an image of `width` columns.

    Args:
        starts: int64 (n), from 0, sorted.
        ends: int64 (n), behind each run; not beyond the next start.
        width: of the image.
    """
    first, last = int(starts[0]) // width, int(ends[-1] - 1) // width
    row, left = np.divmod(starts - first * width, width)
    length = ends - starts
    right = int((left + length).max())
    goes_on = right > width
    # A run that goes on in the next row has both side columns. Where none does, the crop's own
    # columns are enough, and one more, in which the runs end that reach the last.
    x0, x1 = (0, width) if goes_on else (int(left.min()), right)
    stride = width if goes_on else x1 - x0 + 1
    change = np.zeros((last - first + 1) * stride + 1, np.int8)
    place = row * stride + left - x0
    # One after the other: touching runs end where the next one starts, and both marks count.
    change[place] += 1
    change[place + length] -= 1
    pixels = np.cumsum(change[:-1], dtype=np.int8).view(np.uint8).reshape(-1, stride)
    return CropMask(x0, first, np.ascontiguousarray(pixels[:, : x1 - x0]))


def whole_numbers(text: str) -> npt.NDArray[np.int64]:
    """Return the numbers of a code, int64 (n).

    Python takes `1_0` for 10, and the digits of other scripts; no program that writes codes does.

    Raises:
        ValueError: something else is among them, or a number is too large.

    >>> whole_numbers("12 3")
    array([12,  3])
    """
    if "_" in text or not text.isascii():
        raise ValueError("expected whole numbers")
    try:
        return np.array(text.split(), dtype=np.int64)
    except OverflowError:
        raise ValueError("expected whole numbers, found one that is too large") from None


def _parse_runs(
    rle: str, size_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    try:
        numbers = whole_numbers(rle)
    except ValueError:
        raise ValueError(f"RLE: expected whole numbers, found '{rle:.40}'") from None
    if len(numbers) % 2:
        raise ValueError(f"RLE: expected pairs 'start length', found {len(numbers)} numbers")
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    pixels = size_hw[0] * size_hw[1]
    if (starts < 0).any() or (lengths < 1).any():
        raise ValueError("RLE: expected starts and lengths of at least 1, found smaller ones")
    if (starts > pixels - lengths).any():
        height, width = size_hw
        found = max(int(s) + int(n) for s, n in zip(starts, lengths, strict=True))
        raise ValueError(f"RLE: expected pixels up to {pixels} ({height} x {width}), found {found}")
    ends = starts + lengths
    if (starts[1:] < ends[:-1]).any():
        raise ValueError("RLE: expected sorted runs that do not overlap, found others")
    return starts, ends


def encode_coco_rle(mask: CropMask, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return COCO's compressed code `{"size": [h, w], "counts": str}`, column-major.

    The string is the one of pycocotools (`rleToString` in its maskApi.c): run lengths, from the
    third on as the difference to the one before the last, in groups of five bits.
    """
    height = size_hw[0]
    turned = CropMask(mask.y, mask.x, np.ascontiguousarray(mask.pixels.T))
    edges = to_runs(turned, height).ravel() if mask.area else np.zeros(0, np.int64)
    return encode_coco_runs(edges, [len(edges)], size_hw)[0]


def encode_coco_runs(
    edges: npt.NDArray[np.int64], lengths: Sequence[int], size_hw: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return the codes of several masks, as `encode_coco_rle` does, given their runs.

    Args:
        edges: int64, the masks' one behind the other: where each run starts and ends, counted
            column by column; ascending in a mask.
        lengths: how many of them are each mask's.
        size_hw: height and width of the image.
    """
    height, width = size_hw
    count = np.asarray(lengths, np.intp)
    last = np.cumsum(count + 1) - 1
    first = last - count
    is_edge = np.ones(len(edges) + len(count), np.bool_)
    is_edge[last] = False
    places = np.full(len(is_edge), height * width, np.int64)
    places[is_edge] = edges
    counts = np.diff(places, prepend=0)
    counts[first] = places[first]
    values = counts.copy()
    values[2:] -= counts[:-2]
    for place in range(min(_PLAIN, 1 + int(count.max(initial=0)))):
        own = first[count >= place] + place
        values[own] = counts[own]
    # A mask that reaches the end has no run after it.
    has_rest = (counts[last] > 0) | (count == 0)
    if not has_rest.all():
        values = np.delete(values, last[~has_rest])
    letters, used = _compress(values)
    ends = np.cumsum(used)[np.cumsum(count + has_rest) - 1].tolist()
    return [
        {"size": [height, width], "counts": letters[start:end].decode("ascii")}
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _compress(values: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.intp]]:
    """The letters of numbers: five bits each, the lowest first, and whether there are more.

    Beside them how many each number has.
    """
    # Most need one letter, few many: each turn is about those that are left.
    turns: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]] = []
    used = np.ones(len(values), np.intp)
    left = np.arange(len(values))
    while len(left):
        group, values = values & 31, values >> 5
        goes_on = values != -(group >> 4)
        turns.append((left, group + 32 * goes_on + 48))
        left, values = left[goes_on], values[goes_on]
        used[left] += 1
    starts = np.cumsum(used) - used
    letters = np.empty(used.sum(), np.uint8)
    for number, (own, group) in enumerate(turns):
        letters[starts[own] + number] = group
    return letters.tobytes(), used


def decode_coco_rle(code: Mapping[str, Any]) -> CropMask:
    """Return the mask of a COCO code, compressed (`counts` a string) or not (a list).

    Raises:
        ValueError: the counts do not fill the image, or the string is not a COCO code.
    """
    height, width = code["size"]
    counts = code["counts"]
    lengths = _decompress(counts) if isinstance(counts, str | bytes) else list(counts)
    if sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise ValueError(f"COCO RLE: expected runs that fill {height} x {width} pixels")
    places = np.cumsum(lengths, dtype=np.int64)
    starts, ends = places[: len(places) // 2 * 2].reshape(-1, 2).T
    if not (has_pixels := ends > starts).any():
        return EMPTY
    turned = from_runs(starts[has_pixels], ends[has_pixels], height)
    return CropMask(turned.y, turned.x, np.ascontiguousarray(turned.pixels.T))


def _decompress(text: str | bytes) -> list[int]:
    data = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8)
    groups = data.astype(np.int64) - 48
    if (wrong := (groups < 0) | (groups > 63)).any():
        found = chr(data[wrong][0])
        raise ValueError(f"COCO RLE: expected characters '0' to 'o', found {found!r}")
    if not len(groups):
        return []
    ends = np.flatnonzero(groups < 32)
    if not len(ends) or ends[-1] != len(groups) - 1:
        raise ValueError("COCO RLE: expected a whole code, found one that is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= _MOST_LETTERS:
        raise ValueError("COCO RLE: expected numbers of pixels, found huge ones")
    shift = 5 * (np.arange(len(groups)) - np.repeat(starts, ends - starts + 1))
    lengths = np.add.reduceat((groups & 31) << shift, starts)
    lengths -= np.where(groups[ends] & 16, np.int64(32) << shift[ends], 0)
    # From the fourth on each is the difference to the one before the last.
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    found_lengths: list[int] = lengths.tolist()
    return found_lengths


# --- bit-packed masks


def pack(masks: Mapping[str, CropMask], labels: LabelSpace, size_hw: tuple[int, int]) -> Mask:
    """Return all classes in uint8 (H, W, ceil(C / 8)): bit c % 8 of channel c // 8 is class c.

    Raises:
        ValueError: a label that the label space does not have.
    """
    packed = np.zeros((*size_hw, (len(labels) + 7) // 8), np.uint8)
    for label, mask in masks.items():
        if label not in labels.index:
            raise ValueError(f"expected a label of '{labels.name}', found '{label}'")
        channel, bit = divmod(labels.index[label], 8)
        height, width = mask.pixels.shape
        target = packed[mask.y : mask.y + height, mask.x : mask.x + width, channel]
        target |= mask.pixels << np.uint8(bit)
    return packed


def unpack(packed: Mask, classes: int) -> Mask:
    """Return uint8 (C, H, W), 0 or 1, of a bit-packed mask (H, W, ceil(C / 8))."""
    bits = np.unpackbits(packed, axis=-1, count=classes, bitorder="little")
    return np.ascontiguousarray(np.moveaxis(bits, -1, 0))


def unpack_labels(packed: Mask, labels: LabelSpace) -> dict[str, CropMask]:
    """Return the masks of the classes that have pixels in a bit-packed mask."""
    masks: dict[str, CropMask] = {}
    for c, label in enumerate(labels.names):
        mask = crop(packed[..., c // 8] & np.uint8(1 << (c % 8)))
        if mask.area:
            masks[label] = mask
    return masks
