"""The audit's pictures: the place that a finding is about, its outlines as they were drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from converters.masks import rasterize_labels
from converters.pictures import drawing
from converters.pictures.colors import MUTED, Color, css
from converters.pictures.drawing import Floats, View
from converters.types import Instance, Sample

FILL, LINE, MUTED_LINE = 0.20, 2, 1
# OpenCV draws on sixteenths of a pixel.
SHIFT = 4

# Sizes of a name in percent of the picture, as the page sets it.
CHARACTER, PADDING, HEIGHT = 2.3, 5.0, 7.0


@dataclass(frozen=True)
class Tag:
    """A class's name on a picture; `left` and `top` place its middle, in percent."""

    name: str
    color: str
    left: float
    top: float

    @property
    def width(self) -> float:
        """About how wide it is, in percent."""
        return PADDING + CHARACTER * len(self.name)


def draw_outlines(image: Floats, sample: Sample, view: View, colors: Mapping[str, Color]) -> Floats:
    """Draw every outline as it was annotated: those that have a colour filled, others muted.

    Args:
        image: float32 (h, w, 3) in 0..1, what the view shows.
        sample: whose outlines are drawn, crossings and parts beyond the border too.
        view: what the image shows.
        colors: label -> colour.

    Returns:
        float32 (h, w, 3) in 0..1.
    """
    out = image.copy()
    shown = [instance for instance, _ in sample.as_drawn() if _is_in(instance, view)]
    for instance in shown:
        if instance.label not in colors:
            drawing.blend(out, MUTED, _lines(instance, view, MUTED_LINE) * 0.75)
    chosen = [one for one in sample.instances if one.label in colors and _is_in(one, view)]
    for label, mask in rasterize_labels(chosen, sample.size_hw).items():
        drawing.blend(out, colors[label], drawing.coverage(mask, view) * FILL)
    for instance in (one for one in shown if one.label in colors):
        drawing.blend(out, colors[instance.label], _lines(instance, view, LINE))
    return out


def _is_in(instance: Instance, view: View) -> bool:
    x, y, width, height = view.box_xywh
    x0, y0, x1, y1 = instance.geometry.bounds
    return bool(x0 < x + width and x1 > x and y0 < y + height and y1 > y)


def _lines(instance: Instance, view: View, thickness: int) -> Floats:
    """How much of each pixel of the view an instance's rings cover, float32 (h, w) in 0..1."""
    plane = np.zeros(view.size_hw, np.uint8)
    for part in instance.parts:
        for ring in (part.exterior, *part.interiors):
            points = np.asarray(ring.coords)[:, :2] - view.box_xywh[:2]
            scaled = ((points + 0.5) * view.scale - 0.5) * (1 << SHIFT)
            fixed = [np.rint(scaled).astype(np.int32)]
            cv2.polylines(plane, fixed, True, (255,), thickness, cv2.LINE_AA, SHIFT)
    return np.asarray(plane / np.float32(255), np.float32)


def place_tags(sample: Sample, view: View, colors: Mapping[str, Color]) -> tuple[Tag, ...]:
    """Return where to write the names of coloured classes: above each one, none over another."""
    placed: list[Tag] = []
    for tag in sorted(_tags(sample, view, colors), key=lambda tag: tag.top):
        placed.append(_free_place(tag, placed))
    return tuple(placed)


def _tags(sample: Sample, view: View, colors: Mapping[str, Color]) -> Iterator[Tag]:
    x, y, side, _ = view.box_xywh
    for label, color in colors.items():
        found = [i for i in sample.instances if i.label == label and _is_in(i, view)]
        if not found:
            continue
        bounds = np.array([instance.geometry.bounds for instance in found])
        left, top = bounds[:, :2].min(axis=0)
        right, bottom = bounds[:, 2:].max(axis=0)
        middle = 100 * ((max(left, x) + min(right, x + side)) / 2 - x) / side
        above, below = 100 * (top - y) / side - HEIGHT * 0.7, 100 * (bottom - y) / side
        tag = Tag(label, css(color), 0, 0)
        inside = min(max(middle, tag.width / 2 + 1), 99 - tag.width / 2)
        under = below + HEIGHT * 0.7
        level = above if above > HEIGHT / 2 or under > 100 - HEIGHT else under
        yield replace(tag, left=inside, top=_within(level))


def _within(top: float) -> float:
    return min(max(top, 0.7 * HEIGHT), 100 - 0.7 * HEIGHT)


def _free_place(tag: Tag, placed: Sequence[Tag]) -> Tag:
    """The place nearest to a tag's own, above or below it, that no other one covers."""
    steps = sorted(range(-14, 15), key=abs)
    for step in steps:
        moved = replace(tag, top=tag.top + step * HEIGHT)
        if moved.top == _within(moved.top) and not any(_overlap(moved, other) for other in placed):
            return moved
    return tag


def _overlap(a: Tag, b: Tag) -> bool:
    return abs(a.top - b.top) < HEIGHT and abs(a.left - b.left) < (a.width + b.width) / 2
