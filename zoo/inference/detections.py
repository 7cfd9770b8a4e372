"""From a YOLO segmentation network's output to soft masks in the original image's frame.

A network's masks are prototypes times coefficients: logits on a grid of a quarter of the input's
size (Bolya et al., YOLACT, ICCV 2019, section 3). Ultralytics enlarges the logits and keeps where
they are positive; here they become probabilities that can be fused. At 1/2 the pixels are those of
`ultralytics.utils.ops.process_mask_native`, which `retina_masks=True` gives. Arrays alone: an
exported network has no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import read_pixels
from converters.types import LabelSpace, Sample
from fusion.types import Evidence, Prediction, SoftMask

# A prototype cell's side in pixels of the network's input.
CELL_PX = 4
# What Ultralytics pads with (`LetterBox.padding_value`).
PADDING = 114
# What Ultralytics' prediction takes (`iou`, `max_det`).
SAME_IOU = 0.7
AT_MOST = 300

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Letterbox:
    """How an image is placed in the network's square input.

    Attributes:
        size_hw: the image's height and width in pixels.
        input_px: the side of the square.
    """

    size_hw: tuple[int, int]
    input_px: int

    def inner(self, side: int) -> tuple[int, int, int, int]:
        """Return the image's left, top, width and height in a square of `side` cells.

        The rounding is that of `LetterBox.get_params` and `ops.scale_masks`.
        """
        height, width = self.size_hw
        gain = min(side / height, side / width)
        inner_w, inner_h = max(round(width * gain), 1), max(round(height * gain), 1)
        left, top = round((side - inner_w) / 2 - 0.1), round((side - inner_h) / 2 - 0.1)
        return left, top, inner_w, inner_h

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Place an image, uint8 (H, W, 3), in the square, uint8 (input_px, input_px, 3)."""
        left, top, width, height = self.inner(self.input_px)
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        square = np.full((self.input_px, self.input_px, 3), PADDING, np.uint8)
        square[top : top + height, left : left + width] = image
        return square

    def to_image(self, box_xyxy: Array) -> tuple[float, float, float, float]:
        """Return a box of the square in the image's pixels, cut to it (`ops.scale_boxes`)."""
        left, top, inner_w, inner_h = self.inner(self.input_px)
        height, width = self.size_hw
        x = np.clip((box_xyxy[0::2] - left) / (inner_w / width), 0, width)
        y = np.clip((box_xyxy[1::2] - top) / (inner_h / height), 0, height)
        return float(x[0]), float(y[0]), float(x[1]), float(y[1])


@dataclass(frozen=True)
class Detection:
    """One object that was found.

    Attributes:
        label: the class's number.
        score: confidence in 0..1.
        box_xyxy: float32 (4,), in pixels of the network's input.
        coefficients: float32 (M,), of the prototypes.
    """

    label: int
    score: float
    box_xyxy: Array
    coefficients: Array


def best_detections(output: Array, classes: int, floor: float, end_to_end: bool) -> list[Detection]:
    """Return the best detection of each class that has one above `floor`.

    The best one of a class is never suppressed by another of its class, so this is the top of each
    class after Ultralytics' NMS with several labels a box; NMS itself is not needed.

    Args:
        output: one image's decoded output. Of a one-to-many head (YOLOv8, YOLO11) float32
            (4 + classes + M, A), boxes as centre x, y, width, height; of an end-to-end one (YOLO26)
            float32 (R, 6 + M) with x1, y1, x2, y2, score, class.
        classes: number of classes.
        floor: confidence; what is not above it is dropped.
        end_to_end: which of the two the output is.
    """
    boxes, scores, coefficients = decode(output, classes, end_to_end)
    place = scores.argmax(axis=1)
    best = scores[np.arange(classes), place]
    found = zip(boxes[place], coefficients[place], strict=True)
    return [
        Detection(label, min(score, 1.0), box, weights)
        for label, (score, (box, weights)) in enumerate(zip(best.tolist(), found, strict=True))
        if score > floor
    ]


def all_detections(output: Array, classes: int, floor: float, end_to_end: bool) -> list[Detection]:
    """Return the detections above `floor`, the surest first, at most `AT_MOST`.

    Each box counts for its best class. Of two boxes of a class whose IoU is above `SAME_IOU` the
    weaker goes, as in Ultralytics' prediction; an end-to-end head has none such.

    Args:
        output: as in `best_detections`.
        classes: number of classes.
        floor: confidence; what is not above it is dropped.
        end_to_end: which of the two heads the output is of.
    """
    boxes, scores, coefficients = decode(output, classes, end_to_end)
    label, best = scores.argmax(axis=0), scores.max(axis=0)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > floor]
    if not end_to_end and len(order):
        order = order[_apart(boxes[order], best[order], label[order])]
    return [
        Detection(int(label[at]), min(float(best[at]), 1.0), boxes[at], coefficients[at])
        for at in order[:AT_MOST].tolist()
    ]


def _apart(boxes: Array, scores: Array, labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Places of the boxes that stay, the surest first."""
    corners = boxes.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    # OpenCV says that it wants lists; it takes arrays, too.
    nms: Any = cv2.dnn.NMSBoxesBatched
    kept = nms(corners, scores, labels.astype(np.int32), -1.0, SAME_IOU)
    return np.asarray(kept, np.intp).reshape(-1)


def count_values(classes: int, prototypes: int, end_to_end: bool) -> int:
    """Return how many numbers a detection has: a box, scores or one with its class, weights.

    Args:
        classes: number of classes.
        prototypes: their number.
        end_to_end: which of the two heads it is of; see `best_detections`.
    """
    return (6 if end_to_end else 4 + classes) + prototypes


def decode(output: Array, classes: int, end_to_end: bool) -> tuple[Array, Array, Array]:
    """Return boxes (A, 4) as x1, y1, x2, y2, scores (classes, A) and coefficients (A, M).

    Args:
        output: as in `best_detections`.
        classes: number of classes.
        end_to_end: which of the two heads the output is of.
    """
    if end_to_end:
        of_class = output[:, 5:6] == np.arange(classes)
        return output[:, :4], (output[:, 4:5] * of_class).T, output[:, 6:]
    centre, size = output[:2].T, output[2:4].T
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return boxes, output[4 : 4 + classes], output[4 + classes :].T


def soft_mask_of(
    box_xyxy: tuple[float, float, float, float],
    logits: Array,
    letterbox: Letterbox,
    raster: float,
    margin_px: float = 0.0,
) -> SoftMask | None:
    """Return a detection's soft mask; None where its box holds no pixel of the image.

    The logits are read at the centres of cells that tile the box, from the same piecewise linear
    surface as `ops.process_mask_native` reads at pixels. The box is that of the pixels which that
    function keeps (`ops.crop_mask`), so that it ends on whole pixels.

    Args:
        box_xyxy: the detection's box in pixels of the image.
        logits: float32 (side, side), over the network's whole input.
        letterbox: where the image is in that input.
        raster: cells of the soft mask for each prototype cell along a side; more than pixels is
            never needed.
        margin_px: how much further than the box the mask goes.
    """
    height, width = letterbox.size_hw
    x0, y0 = (max(0, math.ceil(v - margin_px)) for v in box_xyxy[:2])
    x1 = min(width, math.ceil(box_xyxy[2] + margin_px))
    y1 = min(height, math.ceil(box_xyxy[3] + margin_px))
    if x1 <= x0 or y1 <= y0:
        return None
    side = len(logits)
    factor = _enlargement(letterbox.inner(CELL_PX * side), CELL_PX * side)
    left, top, inner_w, inner_h = letterbox.inner(factor * side)
    cells_a_pixel = raster * inner_w / width / factor
    cols = _cells(x1 - x0, cells_a_pixel)
    rows = _cells(y1 - y0, cells_a_pixel)
    across = _weights(x0, x1, cols, width, (left, inner_w), factor, side)
    down = _weights(y0, y1, rows, height, (top, inner_h), factor, side)
    used_y, used_x = _used(down), _used(across)
    values = down[:, used_y] @ logits[used_y, used_x] @ across[:, used_x].T
    prob = np.rint(255 / (1 + np.exp(-np.clip(values, -30, 30)))).astype(np.uint8)
    return SoftMask((x0, y0, x1 - x0, y1 - y0), prob)


def _cells(pixels: int, cells_a_pixel: float) -> int:
    return min(pixels, max(1, math.ceil(pixels * cells_a_pixel)))


def _enlargement(inner: tuple[int, int, int, int], input_px: int) -> int:
    """Return how often (1, 2, 4) the logits are doubled until the padding is whole cells.

    `ops.process_mask_native` enlarges twice: by this, then to the image's size.
    """
    padding = (input_px - inner[2], input_px - inner[3])
    lengths = [n for p in padding for n in (p, p // 2)]
    return next(f for f in (1, 2, CELL_PX) if all(n % (CELL_PX // f) == 0 for n in lengths))


def _weights(
    start: int,
    stop: int,
    cells: int,
    pixels: int,
    inner: tuple[int, int],
    factor: int,
    side: int,
) -> Array:
    """Return what each prototype cell of an axis gives to each cell of a raster.

    Args:
        start: the raster's first pixel.
        stop: the pixel after its last one.
        cells: the raster's cells.
        pixels: the image's length.
        inner: where the image starts in the enlarged prototypes, and its length there.
        factor: how far they are enlarged.
        side: the prototypes' length.

    Returns:
        float32 (cells, side); rows sum to 1.
    """
    offset, length = inner
    centre = start + (np.arange(cells) + 0.5) * (stop - start) / cells
    # Half-pixel centres, and constant beyond the outermost (`align_corners=False`).
    low, high, share = _neighbours(centre * length / pixels - 0.5, length)
    weights = np.zeros((cells, side), np.float32)
    for cell, part in ((low, 1 - share), (high, share)):
        left, right, inside = _neighbours((cell + offset + 0.5) / factor - 0.5, side)
        rows = np.arange(cells)
        weights[rows, left] += part * (1 - inside)
        weights[rows, right] += part * inside
    return weights


def _neighbours(
    position: npt.NDArray[np.float64], length: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    position = np.clip(position, 0, length - 1)
    low = np.floor(position).astype(np.intp)
    return low, np.minimum(low + 1, length - 1), position - low


def _used(weights: Array) -> slice:
    columns = np.flatnonzero(weights.any(axis=0))
    return slice(int(columns[0]), int(columns[-1]) + 1)


def soft_masks(
    detections: list[Detection],
    prototypes: Array,
    letterbox: Letterbox,
    raster: float,
    margin_px: float = 0.0,
) -> Iterator[tuple[Detection, SoftMask]]:
    """Yield the detections that have pixels, with their soft masks.

    Args:
        detections: of one image.
        prototypes: float32 (M, side, side).
        letterbox: where the image is in the network's input.
        raster: see `soft_mask_of`.
        margin_px: see `soft_mask_of`.
    """
    if not detections:
        return
    flat = prototypes.reshape(len(prototypes), -1)
    for detection in detections:
        # One at a time: hundreds of planes of a large input are gigabytes.
        plane = (detection.coefficients @ flat).reshape(prototypes.shape[1:])
        box = letterbox.to_image(detection.box_xyxy)
        mask = soft_mask_of(box, plane, letterbox, raster, margin_px)
        if mask is not None:
            yield detection, mask


@dataclass(frozen=True)
class DetectionSetting:
    """How a network's output becomes a prediction; the keys of a YOLO config of these names.

    Attributes:
        imgsz: the side of the network's square input in pixels.
        conf: detections that are less sure are dropped.
        raster: see `soft_mask_of`.
        margin_px: see `soft_mask_of`.
        end_to_end: which head the network has; see `best_detections`.
    """

    imgsz: int
    conf: float
    raster: float
    margin_px: float
    end_to_end: bool


def to_prediction(
    sample: Sample,
    output: Array,
    prototypes: Array,
    labels: LabelSpace,
    setting: DetectionSetting,
) -> Prediction:
    """Return an image's prediction, of kind `instance`, in its own pixels.

    Args:
        sample: the image.
        output: see `best_detections`.
        prototypes: float32 (M, side, side).
        labels: the classes; where each occurs once in an image, the best of each is found.
        setting: how.
    """
    detect = best_detections if labels.once else all_detections
    found = detect(output, len(labels), setting.conf, setting.end_to_end)
    frame = Letterbox(sample.size_hw, setting.imgsz)
    masks: dict[str, tuple[Evidence, ...]] = {}
    for detection, mask in soft_masks(found, prototypes, frame, setting.raster, setting.margin_px):
        label = labels.names[detection.label]
        masks[label] = (*masks.get(label, ()), (detection.score, mask))
    return Prediction(sample.key, sample.size_hw, "instance", masks)


def place_images(samples: Sequence[Sample], input_px: int) -> npt.NDArray[np.uint8]:
    """Read images into the network's square input, uint8 (N, input_px, input_px, 3) BGR."""
    squares = [
        Letterbox(sample.size_hw, input_px).apply(read_pixels(sample, grey=False))
        for sample in samples
    ]
    return np.stack(squares)
