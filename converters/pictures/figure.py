"""One image with its masks as a small picture for a notebook, with the classes' names beside it.

A picture is at most 512 pixels long and 150 000 bytes as a JPEG; of 2048 x 2048 pixels and 29
classes it takes about a second.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

import configs
from converters.masks import CropMask, class_masks, rasterize_labels
from converters.pictures.colors import Color, class_colors, css
from converters.pictures.drawing import Floats, View, draw_masks, encode_jpeg, read_view
from converters.types import LabelSpace, Sample

LONGEST_PX, MOST_ENLARGED, MOST_BYTES = 512, 4, 150_000
_QUALITIES = (86, 70, 50, 30)
_START = "data:image/jpeg;base64,"
_SUFFIXES = (".jpg", ".jpeg")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows.

    Attributes:
        jpeg: the file's content, at most `MOST_BYTES`.
        title: what it is of.
        legend: the classes in it, with their colours.
        note: what went wrong; "" for nothing.
    """

    jpeg: bytes = field(repr=False)
    title: str
    legend: tuple[tuple[str, Color], ...] = field(repr=False)
    note: str = ""

    def save(self, path: Path | str) -> None:
        """Write the picture without its legend, as a JPEG.

        Raises:
            ValueError: a name of another kind of file.
        """
        place = Path(path)
        if place.suffix.lower() not in _SUFFIXES:
            raise ValueError(f"{path}: expected a name of a JPEG (.jpg), found '{place.suffix}'")
        place.write_bytes(self.jpeg)

    def _repr_html_(self) -> str:
        data = _START + base64.b64encode(self.jpeg).decode("ascii")
        swatch = '<span style="background:{};border-radius:2px">&emsp;</span>&nbsp;{}'
        names = (swatch.format(css(color), html.escape(name)) for name, color in self.legend)
        title, note = html.escape(self.title), html.escape(self.note)
        said = f"<b>{title}</b>" + (f" <i>{note}</i>" if note else "")
        return (
            f'<figure style="margin:0;max-width:{LONGEST_PX}px">'
            f'<img src="{data}" alt="{title}" style="max-width:100%">'
            f'<figcaption style="font-size:smaller;line-height:1.6">{said}<br>'
            f"{' &ensp; '.join(names)}</figcaption></figure>"
        )


def show(sample: Sample, labels: LabelSpace | None = None) -> Picture:
    """Return a sample's image with the annotated objects on it.

    Args:
        sample: what is shown.
        labels: the classes, whose places say their colours, as in the reports. None takes the
            shipped label space that has them, else the sorted names.
    """
    size_hw = sample.size_hw
    if labels is None:
        masks = rasterize_labels(sample.instances, size_hw)
    else:
        masks = class_masks(sample.instances, size_hw, labels, with_background=False)
    return draw_picture(sample.key, size_hw, masks, labels, lambda view: read_view(sample, view))


def draw_picture(
    title: str,
    size_hw: tuple[int, int],
    masks: Mapping[str, CropMask],
    labels: LabelSpace | None,
    read: Callable[[View], Floats] | None,
) -> Picture:
    """Draw masks on an image.

    Args:
        title: what it is of.
        size_hw: the image's height and width.
        masks: class -> mask; empty masks are not drawn.
        labels: as for `show`.
        read: reads the image in a view; None draws on black. An image that cannot be read is
            black too, and the picture says why.
    """
    drawn = {name: mask for name, mask in masks.items() if mask.area}
    colors = class_colors(labels.names) if labels else colors_of(drawn)
    view = whole_view(size_hw)
    ground, note = np.zeros((*view.size_hw, 3), np.float32), ""
    if read is not None:
        try:
            ground = read(view)
        except (OSError, ValueError) as error:
            note = str(error)
    picture = draw_masks(ground, drawn, view, colors)
    order = {name: place for place, name in enumerate(colors)}
    legend = sorted(((n, colors[n]) for n in drawn), key=lambda one: order[one[0]])
    return Picture(small_jpeg(picture), title, tuple(legend), note)


def whole_view(size_hw: tuple[int, int]) -> View:
    """Return a view of a whole image, at most `LONGEST_PX` long; tiny images are enlarged."""
    scale = min(LONGEST_PX / max(size_hw), MOST_ENLARGED)
    height, width = (max(1, round(scale * length)) for length in size_hw)
    return View((0, 0, size_hw[1], size_hw[0]), (height, width))


def small_jpeg(picture: Floats) -> bytes:
    """Encode a picture, float32 (h, w, 3) RGB in 0..1, in at most `MOST_BYTES`."""
    while True:
        for quality in _QUALITIES:
            data = base64.b64decode(encode_jpeg(picture, quality).removeprefix(_START))
            if len(data) <= MOST_BYTES:
                return data
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def colors_of(names: Iterable[str]) -> dict[str, Color]:
    """Return the colours of classes whose label space nobody names.

    Those of the first shipped label space that has all of them; else by their sorted names, with
    numbers in their order.
    """
    wanted = frozenset(names)
    for space in _shipped():
        if wanted and wanted <= set(space.names):
            return class_colors(space.names)
    return class_colors(sorted(wanted, key=_by_number))


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)]


@lru_cache(maxsize=1)
def _shipped() -> tuple[LabelSpace, ...]:
    return tuple(LabelSpace.load(name) for name in configs.names("labels"))
