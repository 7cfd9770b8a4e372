"""The report's pictures: the image, masks on it, and where masks differ from the truth."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import read_pixels
from converters.masks import EMPTY, Box, CropMask, union_box
from converters.types import LabelSpace, Sample
from fusion.metrics.scores import shared_parts
from zoo.report.colors import FALSE, HIT, MISSED, MUTED, Color

Floats = npt.NDArray[np.float32]

WIDTH, MAX_HEIGHT = 640, 860
MARGIN = 0.10
NARROWEST, WIDEST = 0.78, 1.5  # a crop's width over its height, where the image allows it
STRIPE = 9
LINE = 5
SIDE = 400
# A view is so many times as wide as what it is about, and at least this part of the image.
ROOM, NEAREST = 1.6, 0.22


@dataclass(frozen=True)
class View:
    """The part of an image that all pictures of a case show.

    Attributes:
        box_xywh: whole pixels of the image.
        size_hw: of the pictures, in pixels.
    """

    box_xywh: tuple[int, int, int, int]
    size_hw: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of a picture for one pixel of the image."""
        return self.size_hw[1] / self.box_xywh[2]


def view_of(masks: Sequence[CropMask], size_hw: tuple[int, int]) -> View:
    """Return a view of all masks with a margin; of the whole image where they are empty."""
    box = union_box([mask for mask in masks if mask.area])
    x, y, width, height = box if box[2] else (0, 0, size_hw[1], size_hw[0])
    margin = round(MARGIN * max(width, height)) if box[2] else 0
    wide, high = width + 2 * margin, height + 2 * margin
    wide, high = max(wide, round(high * NARROWEST)), max(high, round(wide / WIDEST))
    wide, high = min(wide, size_hw[1]), min(high, size_hw[0])
    left = min(max(0, x + width // 2 - wide // 2), size_hw[1] - wide)
    top = min(max(0, y + height // 2 - high // 2), size_hw[0] - high)
    scale = min(WIDTH / wide, MAX_HEIGHT / high)
    return View((left, top, wide, high), (max(1, round(high * scale)), max(1, round(wide * scale))))


def focus_group(truth: Mapping[str, CropMask], labels: LabelSpace) -> str | None:
    """Return the group whose classes have the largest part of their pixels in common with others.

    None where nothing overlaps, or where there are no groups.
    """
    shared = shared_parts(truth)
    parts = {}
    for group, names in labels.groups.items():
        area = sum(truth[name].area for name in names if name in truth)
        parts[group] = sum(shared[n].area for n in names if n in truth) / max(1, area)
    best = max(parts, key=lambda group: parts[group], default=None)
    return best if best is not None and parts[best] > 0 else None


def read_view(sample: Sample, view: View) -> Floats:
    """Read a sample's image in a view, float32 (h, w, 3) RGB in 0..1, its contrast stretched.

    What the view shows beyond the image is black.

    Raises:
        ValueError: the file is no image, or has another size than the sample.
    """
    image = read_pixels(sample, grey=False)
    x, y, width, height = view.box_xywh
    left, top = max(0, x), max(0, y)
    part = image[top : max(0, y + height), left : max(0, x + width), ::-1].astype(np.float32)
    low, high = np.percentile(part, (0.5, 99.7)) if part.size else (0.0, 1.0)
    stretched = np.zeros((height, width, 3), np.float32)
    inside = stretched[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]]
    np.clip((part - low) / max(float(high - low), 1.0), 0, 1, out=inside)
    smooth = cv2.INTER_CUBIC if view.scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(stretched, view.size_hw[::-1], interpolation=smooth)
    return np.asarray(np.clip(resized, 0, 1), np.float32)


def coverage(mask: CropMask, view: View) -> Floats:
    """Return how much of each pixel of the view a mask covers, float32 (h, w) in 0..1."""
    window = mask.window(view.box_xywh).astype(np.float32)
    if view.scale <= 1:
        return np.asarray(
            cv2.resize(window, view.size_hw[::-1], interpolation=cv2.INTER_AREA), np.float32
        )
    soft = cv2.resize(window, view.size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    # The slope of the enlarged edge is 1 / scale; make it one pixel wide.
    return np.asarray(np.clip((soft - 0.5) * view.scale + 0.5, 0, 1), np.float32)


def draw_masks(
    image: Floats, masks: Mapping[str, CropMask], view: View, colors: Mapping[str, Color]
) -> Floats:
    """Draw masks as translucent fills with outlines; where several meet, in stripes of all.

    Args:
        image: float32 (h, w, 3) in 0..1.
        masks: label -> mask.
        view: what the image shows.
        colors: label -> colour; other labels are drawn muted.

    Returns:
        float32 (h, w, 3) in 0..1.
    """
    layers = [(label, alpha) for label, alpha in _layers(masks, view)]
    # Muted ones first, so that their outlines lie below.
    layers.sort(key=lambda layer: layer[0] in colors)
    count = np.zeros(view.size_hw, np.uint8)
    for _, alpha in layers:
        count += alpha >= 0.5
    stripe, rank = _stripes(view), np.zeros(view.size_hw, np.uint8)
    out = image.copy()
    for label, alpha in layers:
        turn = (count < 2) | (stripe % np.maximum(count, 1) == rank)
        strength = np.where(count > 1, 0.72, 0.38 if label in colors else 0.16)
        blend(out, colors.get(label, MUTED), alpha * turn * strength)
        rank += alpha >= 0.5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LINE, LINE))
    for label, alpha in layers:
        line = alpha - cv2.erode(alpha, kernel)
        blend(out, colors.get(label, MUTED), line * (0.95 if label in colors else 0.6))
    return out


def draw_difference(
    image: Floats,
    masks: Mapping[str, CropMask],
    truth: Mapping[str, CropMask],
    view: View,
) -> Floats:
    """Colour where any class is hit, missed, or drawn where it is not; both errors in stripes.

    Takes what `draw_masks` takes; the ground is the image in dark grey.
    """
    hit, missed, false = (np.zeros(view.size_hw, bool) for _ in range(3))
    drawn, real = dict(_layers(masks, view)), dict(_layers(truth, view))
    nothing = np.zeros(view.size_hw, np.float32)
    for label in {**drawn, **real}:
        found, true = drawn.get(label, nothing) >= 0.5, real.get(label, nothing) >= 0.5
        hit |= found & true
        missed |= true & ~found
        false |= found & ~true
    first = _stripes(view) % 2 == 0
    out = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) * np.float32(0.6)
    blend(out, HIT, hit * 0.34)
    blend(out, MISSED, (missed & (first | ~false)) * 0.95)
    blend(out, FALSE, (false & (~first | ~missed)) * 0.95)
    return np.asarray(out, np.float32)


def _layers(masks: Mapping[str, CropMask], view: View) -> Iterator[tuple[str, Floats]]:
    for label, mask in masks.items():
        if mask.window(view.box_xywh).any():
            yield label, coverage(mask, view)


def _stripes(view: View) -> npt.NDArray[np.intp]:
    rows, columns = np.indices(view.size_hw, sparse=True)
    return np.asarray((rows + columns) // STRIPE)


def blend(picture: Floats, color: Color, alpha: npt.NDArray[np.floating]) -> None:
    """Lay a colour over a picture, float32 (h, w, 3) in 0..1, in place; alpha (h, w) in 0..1."""
    weight = np.asarray(alpha, np.float32)[..., None]
    picture += weight * (np.array(color, np.float32) / 255 - picture)


def label_points(
    masks: Mapping[str, CropMask], names: Sequence[str], view: View
) -> dict[str, tuple[float, float]]:
    """Return where to write a class's number: left and top in percent of the view.

    The point lies deepest inside the part of the mask that no other one covers, or inside the
    mask where all of it is covered. Classes that the view does not show are absent.
    """
    shared = shared_parts(masks)
    points = {}
    for name in names:
        whole = masks.get(name, EMPTY).window(view.box_xywh)
        alone = whole & (1 - shared[name].window(view.box_xywh)) if name in shared else whole
        place = alone if alone.any() else whole
        if not place.any():
            continue
        depth = cv2.distanceTransform(np.pad(place, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        points[name] = (
            100 * (float(column) + 0.5) / view.box_xywh[2],
            100 * (float(row) + 0.5) / view.box_xywh[3],
        )
    return points


def encode_jpeg(picture: Floats, quality: int = 86) -> str:
    """Return a picture, float32 (h, w, 3) RGB in 0..1, as the data URI of a JPEG."""
    pixels = np.rint(picture[..., ::-1] * 255).astype(np.uint8)
    # Full colour resolution: thin coloured lines are what the pictures are about.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, data = cv2.imencode(".jpg", pixels, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def view_around(box_xywh: Box | None, size_hw: tuple[int, int], nearest: float = NEAREST) -> View:
    """Return a square view around a box, with room; of the whole image where there is none.

    It leaves the image only where the box does, or where the image is narrower than the view, and
    is at least `nearest` of the image's longer side.
    """
    height, width = size_hw
    box = box_xywh or (0, 0, width, height)
    wanted = max(ROOM * max(box[2], box[3]), nearest * max(size_hw))
    beyond = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height, 0)
    side = round(min(wanted, max(size_hw) + 2 * beyond)) if box_xywh else max(size_hw)
    left = _place(box[0], box[2], side, width)
    top = _place(box[1], box[3], side, height)
    return View((left, top, side, side), (SIDE, SIDE))


def _place(start: int, length: int, side: int, limit: int) -> int:
    middle = start + length // 2 - side // 2
    low, high = min(0, start), max(limit, start + length) - side
    return (low + high) // 2 if high < low else min(max(middle, low), high)
