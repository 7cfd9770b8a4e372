"""What the canvas draws: an image, masks as runs and outlines, soft masks to look up."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import image_bytes, image_suffix, read_pixels
from converters.masks import EMPTY, CropMask, rings, union_box
from converters.pictures.colors import FALSE, MISSED, MUTED, class_colors, css
from converters.types import Instance, LabelSpace, Sample
from fusion.metrics.scores import count
from fusion.types import Prediction, SoftMask
from zoo.viewer.collection import TRUTH, Collection, Shown

# What every browser decodes.
_MEDIA = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".bmp": "bmp"}
# Of a PNG that is made for the page: fast, not small.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_FASTEST = 1


# --- masks and objects as numbers and paths


def row_runs(mask: CropMask) -> npt.NDArray[np.int64]:
    """Return a mask's runs, row by row: x, y and length of each, int64 (n, 3).

    >>> row_runs(CropMask(4, 7, np.array([[1, 1, 0, 1]], np.uint8))).tolist()
    [[4, 7, 2], [7, 7, 1]]
    """
    height, width = mask.pixels.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask.pixels
    flat = padded.ravel()
    # Each row ends with a zero, so that no run goes on in the next one.
    rows, edges = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), width + 2)
    starts, ends = edges[0::2], edges[1::2]
    return np.stack([starts + mask.x, rows[0::2] + mask.y, ends - starts], axis=1)


def polygon_paths(instances: Iterable[Instance]) -> list[dict[str, Any]]:
    """Return the polygons of objects as they were annotated, numbered as corrections count them.

    Returns:
        For each its `label`, its `part` (from 0 within the image's polygons of that label), its
        `area` in pixels, and its path `d`.
    """
    counts: dict[str, int] = {}
    found = []
    for instance in instances:
        for polygon in instance.parts:
            number = counts.get(instance.label, 0)
            counts[instance.label] = number + 1
            path = ""
            for line in (polygon.exterior, *polygon.interiors):
                points = (np.asarray(line.coords)[:-1, :2] + 0.5).round(2)
                path += f"M{' '.join(f'{v:g}' for v in points.ravel().tolist())}z"
            area = round(polygon.area, 1)
            found.append({"label": instance.label, "part": number, "area": area, "d": path})
    return found


# --- what the canvas is given


class Blob:
    """Arrays one after the other, as the canvas reads them: little endian, at multiples of 4."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, array: npt.NDArray[Any]) -> list[int]:
        """Append an array; return where it begins, in bytes, and how many values it has."""
        start = self._length
        content = np.ascontiguousarray(array).tobytes()
        content += bytes(-len(content) % 4)
        self._parts.append(content)
        self._length += len(content)
        return [start, int(array.size)]

    def compressed(self) -> bytes:
        """Return all of it by zlib."""
        return zlib.compress(b"".join(self._parts), _FASTEST)


def encode_image(sample: Sample) -> tuple[str, bytes]:
    """Return a sample's image at its own resolution: its media type and a file's content.

    Raises:
        ValueError: not an image, or of another size than the sample says.
    """
    suffix = image_suffix(sample).lower()
    try:
        if suffix in _MEDIA:
            return f"image/{_MEDIA[suffix]}", image_bytes(sample)
    except OSError as error:
        raise ValueError(f"{sample.image}: expected an image: {error.strerror}") from None
    pixels = read_pixels(sample, grey=False)
    return "image/png", cv2.imencode(".png", pixels, _PNG)[1].tobytes()


def layer_of(
    blob: Blob,
    masks: Mapping[str, CropMask],
    prediction: Prediction | None,
    labels: LabelSpace,
    reference: Mapping[str, CropMask] | None = None,
) -> dict[str, Any]:
    """Add masks to a blob, class by class, and say where they are.

    Args:
        blob: gets runs (int32, see `row_runs`), outlines (int32 x, y through the middles of the
            boundary pixels, ring after ring) and soft masks (uint8, row by row).
        masks: class -> mask; a class of which a source does not speak is absent.
        prediction: what the masks were made of; None for the truth.
        labels: the classes.
        reference: what they are held against; None for nothing.

    Returns:
        Class -> its `area`, `runs`, `line` with the points of each of its `rings`, `soft` mask if
        there is one, and `dice` against the reference.
    """
    found: dict[str, Any] = {}
    for name, mask in masks.items():
        evidence = prediction.evidence(name, labels.once) if prediction else None
        true = (reference or {}).get(name, EMPTY)
        if not mask.area and not true.area and evidence is None:
            continue
        contours = [r for shell, holes in rings(mask) for r in (shell, *holes)] if mask.area else []
        one: dict[str, Any] = {
            "area": mask.area,
            "runs": blob.add(row_runs(mask).astype("<i4")),
            "line": blob.add(np.concatenate(contours).astype("<i4") if contours else _NO_POINTS),
            "rings": [len(ring) for ring in contours],
        }
        if evidence is not None:
            one["soft"] = _soft_mask(blob, *evidence)
        if reference is not None:
            one["dice"] = round(count(mask, true).dice, 4)
        found[name] = one
    return found


_NO_POINTS = np.zeros((0, 2), np.int32)


def _soft_mask(blob: Blob, score: float, mask: SoftMask) -> dict[str, Any]:
    rows, cols = mask.prob.shape
    at = {"box": list(mask.box_xywh), "rows": rows, "cols": cols, "score": round(float(score), 4)}
    return {**at, "prob": blob.add(mask.prob)}


def draw_image(
    collection: Collection,
    shown: Shown,
    names: Sequence[str] | None = None,
    against: str = TRUTH,
) -> dict[str, Any]:
    """Return all that the canvas needs of an image: plain values, and two pieces of bytes.

    Args:
        collection: whose image it is.
        shown: the image.
        names: of the layers, `TRUTH` or sources; None is all.
        against: the layer that the others are held against.

    Returns:
        The canvas's arguments: `picture` is an image file's content, `data` a compressed `Blob`.
    """
    drawn = {} if shown.truth is None else {TRUTH: shown.truth}
    drawn |= shown.masks
    if names is not None:
        drawn = {name: drawn[name] for name in names if name in drawn}
    reference = drawn.get(against)
    kinds = {source.name: source.kind for source in collection.sources}
    blob = Blob()
    layers = []
    for name, masks in drawn.items():
        prediction = shown.predictions.get(name)
        held = None if name == against else reference
        classes = layer_of(blob, masks, prediction, collection.labels, held)
        # What is not spoken of is neither right nor wrong.
        layers.append({"name": name, "kind": kinds.get(name, TRUTH), "classes": classes})
    media, picture, problem = "", b"", shown.problem
    if shown.sample is not None:
        try:
            media, picture = encode_image(shown.sample)
        except ValueError as error:
            problem = str(error)
    return {
        "id": shown.key,
        "height": shown.size_hw[0],
        "width": shown.size_hw[1],
        "media": media,
        "picture": picture,
        "data": blob.compressed(),
        "problem": problem,
        "against": against if reference is not None else "",
        "layers": layers,
        "objects": polygon_paths(shown.sample.instances) if shown.sample else [],
    }


def legend(labels: LabelSpace, names: Iterable[str]) -> dict[str, Any]:
    """Return the classes with their colours and groups, and the colours of errors."""
    colors = class_colors(labels.names)
    classes = [
        {"name": name, "group": labels.group_of(name) or "", "color": css(colors[name])}
        for name in names
    ]
    return {
        "classes": classes,
        "false": css(FALSE),
        "missed": css(MISSED),
        "muted": css(MUTED),
    }


def focus_box(masks: Iterable[CropMask]) -> tuple[int, int, int, int] | None:
    """Return x, y, w, h around masks; None where all are empty."""
    box = union_box([mask for mask in masks if mask.area])
    return box if box[2] else None
