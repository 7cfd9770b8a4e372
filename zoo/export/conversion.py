"""From a network in torch to an ONNX file that gives the same probabilities.

The network is exported for batches and images of any size, where it is built so; else for its own
size; else for one image at a time. The first of these counts whose probabilities are torch's, on
images of as many sizes and numbers as it claims to take: a tracer takes down what happened to one
image, and what it took for a constant shows on another. torch has two ways: its tracer, which takes
seconds, and torch.export, which takes minutes where sizes are open, and is to replace it. Networks
that are shown metadata are compared on images of which all, nothing, or some is known.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from converters.errors import import_optional, one_line
from zoo.export.description import FileEntry, NetworkEntry, digest_of
from zoo.export.session import (
    BOXES,
    CHANGE,
    CLASSES,
    DETECTIONS,
    EXTRA,
    INPUT,
    LABELS,
    MASKS,
    METADATA,
    OUTPUT,
    PLANES,
    PROBS,
    PROTOTYPES,
    SCORES,
    OnnxBoxes,
    OnnxDetector,
    OnnxNetwork,
    OnnxQueries,
    OnnxRefiner,
    OnnxSession,
)
from zoo.families.refiner.patches import SCALE
from zoo.inference.arrays import Floats, activate, normalize
from zoo.inference.detections import count_values, decode
from zoo.inference.setting import Activation, activation_of
from zoo.metadata.columns import Columns
from zoo.training.config import STRIDE

OPSET = 18
TOLERANCE = 1e-3
# A file of protobuf holds 2 GiB; some room is left for all but the weights.
_ONE_FILE_BYTES = 2**31 - 2**27
_SEED = 0
# Colours of a terminal, which torch.export puts into its messages.
_ESCAPES = re.compile("\x1b\\[[0-9;]*m")
_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript")
# So many detections are compared: all others are less sure.
_SUREST = 100
# A rounding decides, in torch too, which of two queries takes which of two places that are equally
# good (RF-DETR), and whether one attends to a cell that is half its own. One of so many may differ.
_ONE_MAY_DIFFER = 20
# Cells of the smooth pictures that networks are compared on.
_COARSE = 8
# How far the numbers of metadata that they are compared on are from the mean, in deviations.
_FAR = 2.0


@dataclass(frozen=True)
class Taken:
    """What an exported network is to take.

    Attributes:
        batch: any number of images at a time, or 1.
        sizes: any height and width that the stride divides, or the network's own.
        traced: by torch's tracer, or by torch.export.
    """

    batch: bool
    sizes: bool
    traced: bool

    def __str__(self) -> str:
        sizes = "any size" if self.sizes else "one size"
        return f"{sizes}, {'any number' if self.batch else 'one'} at a time"


_RUNGS = (
    Taken(batch=True, sizes=True, traced=True),
    Taken(batch=True, sizes=False, traced=True),
    Taken(batch=True, sizes=False, traced=False),
    Taken(batch=False, sizes=False, traced=False),
)

_OF_BOXES = Taken(batch=False, sizes=False, traced=True)
_OF_QUERIES = tuple(taken for taken in _RUNGS if not taken.sizes)
_OF_DETECTORS = tuple(Taken(batch=batch, sizes=False, traced=True) for batch in (True, False))


@dataclass(frozen=True)
class NetworkShape:
    """What goes into a network and comes out.

    Attributes:
        channels: of images.
        classes: of logits.
        size_hw: that it learned from.
        stride: that divides the sides of other images.
        activation: of its logits.
        columns: of metadata that it is shown; None: it is shown images alone.
    """

    channels: int
    classes: int
    size_hw: tuple[int, int]
    stride: int
    activation: Activation
    columns: Columns | None = None

    @classmethod
    def of(cls, config: Any, columns: Columns | None = None) -> NetworkShape:
        """Return what goes into the network of a semantic config and comes out."""
        classes, activation = len(config.labels), activation_of(config.labels)
        return cls(config.in_channels, classes, config.input_size, STRIDE, activation, columns)

    @property
    def counts(self) -> tuple[int, int]:
        """On how many images at a time networks are compared: of four, all kinds of rows."""
        return (1, 3) if self.columns is None else (1, 4)

    def samples(self, count: int, size_hw: tuple[int, int]) -> dict[str, Floats]:
        """Return what networks are compared on, an array an input, by its name."""
        images = {INPUT: sample_images(self, count, size_hw)}
        return images | ({METADATA: sample_rows(self.columns, count)} if self.columns else {})


def convert(
    network: nn.Module,
    shape: NetworkShape,
    folder: Path,
    name: str,
    tolerance: float = TOLERANCE,
    weights: str = "",
) -> NetworkEntry:
    """Write a network as ONNX and make sure that it gives torch's probabilities.

    Args:
        network: on the CPU, in evaluation mode: float32 (N, c, h, w), and where the shape has
            columns float32 (N, k) -> logits (N, C, h', w').
        shape: of its input and output.
        folder: exists; the file goes there.
        name: of the file.
        tolerance: largest absolute difference of a probability.
        weights: SHA-256 of the weights' file, for the record.

    Returns:
        What was written, with the largest difference that was seen.

    Raises:
        ValueError: torch cannot export the network, or its probabilities differ by more.
    """
    network = network.eval().float()

    def attempt(taken: Taken) -> tuple[NetworkEntry, float]:
        given = shape.samples(2 if taken.batch else 1, shape.size_hw)
        entry = _write(network, given, folder, name, taken, (OUTPUT,))
        entry = entry.model_copy(update={"metadata": shape.columns})
        return entry, _compare(network, shape, folder, entry, taken)

    rungs = [t for t in _RUNGS if not t.sizes or _takes(network, shape, _larger(shape))]
    return _first_alike(rungs, attempt, tolerance, weights)


@dataclass(frozen=True)
class DetectorShape:
    """What goes into a detector and comes out; see `zoo.export.description.DetectorEntry`.

    Attributes:
        imgsz: side of its input.
        classes: of its detections.
        prototypes: their number.
        end_to_end: which head it has.
    """

    imgsz: int
    classes: int
    prototypes: int
    end_to_end: bool

    @property
    def values(self) -> int:
        """Numbers of a detection."""
        return count_values(self.classes, self.prototypes, self.end_to_end)


def convert_detector(
    network: nn.Module,
    shape: DetectorShape,
    folder: Path,
    name: str,
    tolerance: float = TOLERANCE,
    weights: str = "",
) -> NetworkEntry:
    """Write a detector as ONNX and make sure that it finds what torch finds; as `convert`.

    Args:
        network: on the CPU, in evaluation mode: RGB in 0..1, float32 (N, 3, S, S) -> detections and
            prototypes.
        shape: of its input and output.
        folder: exists; the file goes there.
        name: of the file.
        tolerance: largest absolute difference of a score, of a mask's probability, and of a box's
            edge as a share of the input's side.
        weights: SHA-256 of the weights' file, for the record.

    Raises:
        ValueError: torch cannot export the network, or what it finds differs by more.
    """
    network = network.eval().float()

    def attempt(taken: Taken) -> tuple[NetworkEntry, float]:
        images = sample_squares(2 if taken.batch else 1, shape.imgsz)
        outputs = (DETECTIONS, PROTOTYPES)
        entry = _write(network, {INPUT: images}, folder, name, taken, outputs)
        return entry, _compare_detectors(network, shape, folder, entry)

    # torch.export does not take the heads of these networks.
    return _first_alike(_OF_DETECTORS, attempt, tolerance, weights)


@dataclass(frozen=True)
class QueryShape:
    """What goes into a network of queries and comes out; see `description.QueryEntry`.

    Attributes:
        channels: of images.
        classes: of a query.
        size_hw: of images.
        queries: their number.
    """

    channels: int
    classes: int
    size_hw: tuple[int, int]
    queries: int


def convert_queries(
    network: nn.Module,
    shape: QueryShape,
    folder: Path,
    name: str,
    tolerance: float = TOLERANCE,
    weights: str = "",
) -> NetworkEntry:
    """Write a network of queries as ONNX and make sure that it says what torch says; as `convert`.

    Args:
        network: on the CPU, in evaluation mode: float32 (N, c, h, w) -> scores and masks' logits.
        shape: of its input and output.
        folder: exists; the file goes there.
        name: of the file.
        tolerance: largest absolute difference of a score, and of a mask's probability.
        weights: SHA-256 of the weights' file, for the record.

    Raises:
        ValueError: torch cannot export the network, or what it says differs by more.
    """
    network = network.eval().float()

    def attempt(taken: Taken) -> tuple[NetworkEntry, float]:
        images = sample_images(shape, 2 if taken.batch else 1, shape.size_hw)
        entry = _write(network, {INPUT: images}, folder, name, taken, (SCORES, MASKS))
        return entry, _compare_queries(network, shape, folder, entry)

    return _first_alike(_OF_QUERIES, attempt, tolerance, weights)


@dataclass(frozen=True)
class BoxShape:
    """What goes into a network of boxes and comes out; see `description.BoxEntry`.

    Attributes:
        channels: of images.
        classes: of a box.
        size_hw: of images.
        boxes: their number.
        cells: rows and columns of a mask.
    """

    channels: int
    classes: int
    size_hw: tuple[int, int]
    boxes: int
    cells: int


def convert_boxes(
    network: nn.Module,
    shape: BoxShape,
    folder: Path,
    name: str,
    tolerance: float = TOLERANCE,
    weights: str = "",
) -> NetworkEntry:
    """Write a network of boxes as ONNX and make sure that it finds what torch finds.

    Args:
        network: on the CPU, in evaluation mode: float32 (1, c, h, w) -> boxes, scores, labels and
            masks' probabilities.
        shape: of its input and output.
        folder: exists; the file goes there.
        name: of the file.
        tolerance: largest absolute difference of a score, of a mask's probability, and of a box's
            edge as a share of the input's longer side.
        weights: SHA-256 of the weights' file, for the record.

    Raises:
        ValueError: torch cannot export the network, or what it finds differs by more.
    """
    network = network.eval().float()

    def attempt(taken: Taken) -> tuple[NetworkEntry, float]:
        images = sample_images(shape, 1, shape.size_hw)
        outputs = (BOXES, SCORES, LABELS, PROBS)
        entry = _write(network, {INPUT: images}, folder, name, taken, outputs)
        return entry, _compare_boxes(network, shape, folder, entry)

    return _first_alike((_OF_BOXES,), attempt, tolerance, weights)


@dataclass(frozen=True)
class RefinerShape:
    """What goes into a refiner and comes out; see `description.RefinerEntry`.

    Attributes:
        channels: planes that it is given.
        classes: that it is told apart; 0: it is not told.
        size_hw: of a patch.
    """

    channels: int
    classes: int
    size_hw: tuple[int, int]

    def samples(self, count: int) -> dict[str, Floats]:
        """Return what refiners are compared on, an array an input, by its name."""
        rows = np.eye(self.classes, dtype=np.float32)
        # About 0 and as far from it as log odds and images are: 2 to each side.
        pictures = _pictures(count, self.channels, self.size_hw).astype(np.float32)
        planes = {PLANES: pictures / np.float32(64) - 2}
        which = np.arange(count) * self.classes // count
        return planes | ({CLASSES: rows[which]} if self.classes else {})


def convert_refiner(
    network: nn.Module,
    shape: RefinerShape,
    folder: Path,
    name: str,
    tolerance: float = TOLERANCE,
    weights: str = "",
) -> NetworkEntry:
    """Write a refiner as ONNX and make sure that what it mends is what torch mends; as `convert`.

    Args:
        network: on the CPU, in evaluation mode: planes, float32 (N, P, h, w), and float32 (N, C)
            where it is told classes -> log odds to add, (N, 1, h, w).
        shape: of its input and output.
        folder: exists; the file goes there.
        name: of the file.
        tolerance: largest absolute difference of a mended probability.
        weights: SHA-256 of the weights' file, for the record.

    Raises:
        ValueError: torch cannot export the network, or what it mends differs by more.
    """
    network = network.eval().float()

    def attempt(taken: Taken) -> tuple[NetworkEntry, float]:
        given = shape.samples(2 if taken.batch else 1)
        entry = _write(network, given, folder, name, taken, (CHANGE,))
        return entry, _compare_refiners(network, shape, folder, entry)

    return _first_alike(_OF_QUERIES, attempt, tolerance, weights)


def _first_alike(
    rungs: Sequence[Taken],
    attempt: Callable[[Taken], tuple[NetworkEntry, float]],
    tolerance: float,
    weights: str,
) -> NetworkEntry:
    """Return the first network that gives torch's probabilities; says why no other one does."""
    refusals: list[str] = []
    for taken in rungs:
        try:
            entry, difference = attempt(taken)
        # What torch's exporter raises depends on what it stumbles over.
        except Exception as error:
            refusals.append(f"{taken}: {_ESCAPES.sub('', one_line(error)):.160}")
            continue
        if difference <= tolerance:
            return entry.model_copy(update={"difference": difference, "weights": weights})
        refusals.append(
            f"{taken}: probabilities that differ from torch's by up to {difference:.2g}"
        )
    raise ValueError(
        f"expected a network that ONNX holds with probabilities within {tolerance:g} of torch's, "
        f"found for images of {'; '.join(refusals)}"
    )


def _larger(shape: NetworkShape) -> tuple[int, int]:
    """Another size, of another aspect."""
    return shape.size_hw[0] + shape.stride, shape.size_hw[1] + 2 * shape.stride


def _takes(network: nn.Module, shape: NetworkShape, size_hw: tuple[int, int]) -> bool:
    try:
        _run(network, *shape.samples(1, size_hw).values())
    # Networks say in their own ways that they do not.
    except Exception:
        return False
    return True


def sample_images(
    shape: NetworkShape | QueryShape | BoxShape, count: int, size_hw: tuple[int, int]
) -> Floats:
    """Return smooth pictures with some noise, normalised, float32 (count, c, h, w); always those.

    They are what networks are compared on: of all greys, with slopes and edges.
    """
    return normalize(_pictures(count, shape.channels, size_hw))


def sample_squares(count: int, side: int) -> Floats:
    """Return such pictures in colour as detectors take them, in 0..1, float32 (count, 3, S, S)."""
    return _pictures(count, 3, (side, side)).astype(np.float32) / np.float32(255)


def sample_rows(columns: Columns, count: int) -> Floats:
    """Return what is known of pretended images, float32 (count, k); always those.

    Of the first, and of every fourth after it, all is known; then nothing; then every second column
    is missing, and then the others.
    """
    generator = np.random.default_rng(_SEED)
    rows = []
    for number in range(count):
        known: dict[str, object] = {}
        for place, column in enumerate(columns.columns):
            value = column.mean + column.deviation * generator.normal(0, _FAR)
            if column.categories:
                value = generator.choice(column.categories)
            if (True, False, place % 2 == 1, place % 2 == 0)[number % 4]:
                known[column.name] = str(value)
        rows.append(columns.encode(known))
    return np.stack(rows)


def _pictures(count: int, channels: int, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(_SEED)
    coarse = generator.uniform(-64, 320, (count, channels, _COARSE, _COARSE))
    smooth = F.interpolate(torch.from_numpy(coarse), size=size_hw, mode="bicubic").numpy()
    noisy = smooth + generator.normal(0, 8, smooth.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def _write(
    network: nn.Module,
    given: Mapping[str, Floats],
    folder: Path,
    name: str,
    taken: Taken,
    outputs: Sequence[str],
) -> NetworkEntry:
    tensors = {key: torch.from_numpy(values) for key, values in given.items()}
    height, width = next(iter(given.values())).shape[2:]
    with _quiet(), torch.no_grad():
        (_trace if taken.traced else _export)(network, tensors, folder / name, taken, outputs)
    beside = folder / f"{name}.data"
    return NetworkEntry(
        file=name,
        sha256=_digest(folder / name),
        data=FileEntry(file=beside.name, sha256=_digest(beside)) if beside.is_file() else None,
        batch=None if taken.batch else 1,
        size=None if taken.sizes else (height, width),
        difference=0.0,
    )


def _trace(
    network: nn.Module,
    given: Mapping[str, torch.Tensor],
    path: Path,
    taken: Taken,
    outputs: Sequence[str],
) -> None:
    if _bytes_of(network) > _ONE_FILE_BYTES:
        raise ValueError("more weights than a traced file holds")
    torch.onnx.register_custom_op_symbolic("aten::_upsample_bicubic2d_aa", _enlarge_places, OPSET)
    count: dict[int, str] = {0: "images"}
    sides = {2: "height", 3: "width"} if taken.sizes else {}
    axes = dict.fromkeys((*given, *outputs), count | sides)
    # What is said of an image beside its pixels has no sides.
    axes |= {key: count for key, values in given.items() if values.ndim == 2}
    torch.onnx.export(
        network,
        tuple(given.values()),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=list(given),
        output_names=list(outputs),
        dynamic_axes=axes if taken.batch else None,
    )


def _enlarge_places(graph: Any, plane: Any, size_hw: Any, corners: Any, *scales: Any) -> Any:
    """Write the enlargement of positions by which vision transformers take another size.

    The tracer lacks it (`F.interpolate`, bicubic with antialias); ONNX has it, told to leave out
    what is beyond the border, as torch does. No network aligns the corners.
    """
    int64 = torch.onnx.TensorProtoDataType.INT64
    first = graph.op("Constant", value_t=torch.tensor([0]))
    last = graph.op("Constant", value_t=torch.tensor([2]))
    outer = graph.op("Slice", graph.op("Shape", plane), first, last)
    shape = graph.op("Concat", outer, graph.op("Cast", size_hw, to_i=int64), axis_i=0)
    none = graph.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
    return graph.op(
        "Resize",
        plane,
        none,
        none,
        shape,
        mode_s="cubic",
        antialias_i=1,
        cubic_coeff_a_f=-0.5,
        exclude_outside_i=1,
        coordinate_transformation_mode_s="half_pixel",
    )


def _export(
    network: nn.Module,
    given: Mapping[str, torch.Tensor],
    path: Path,
    taken: Taken,
    outputs: Sequence[str],
) -> None:
    import_optional("onnxscript", EXTRA)
    program: Any = torch.onnx.export(
        network,
        tuple(given.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(given),
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) * len(given) if taken.batch else None,
        verbose=False,
    )
    program.save(str(path), external_data=_bytes_of(network) > _ONE_FILE_BYTES)


def _bytes_of(network: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())


def _digest(path: Path) -> str:
    return digest_of(path.read_bytes())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling how it goes about it; what is wrong it raises."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    # Where one of torch's ways fails, it prints the whole graph, thousands of lines.
    silent = mock.patch("torch._C._jit_onnx_log", create=True)
    try:
        with warnings.catch_warnings(action="ignore"), silent, redirect_stderr(StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _compare(
    network: nn.Module, shape: NetworkShape, folder: Path, entry: NetworkEntry, taken: Taken
) -> float:
    """Return the largest absolute difference of a probability, on all that the network takes."""
    opened = OnnxNetwork(folder, entry, shape.channels, shape.classes)
    shown = [(count, shape.size_hw) for count in shape.counts]
    shown += [(1, _larger(shape))] if taken.sizes else []
    differences = []
    for count, size_hw in shown:
        given = shape.samples(count, size_hw).values()
        pair = [activate(run(*given), shape.activation) for run in (opened, _runner(network))]
        differences.append(float(np.abs(np.subtract(*pair)).max()))
    # NaN is no agreement.
    return float("inf") if np.isnan(differences).any() else max(differences)


def _compare_detectors(
    network: nn.Module, shape: DetectorShape, folder: Path, entry: NetworkEntry
) -> float:
    """Return the largest difference of scores, edges and masks of the surest detections."""
    opened = OnnxDetector(folder, entry, shape.values, shape.prototypes, shape.end_to_end)
    worst = 0.0
    for count in (1, 3):
        images = sample_squares(count, shape.imgsz)
        with torch.inference_mode():
            ours = [part.float().numpy() for part in network(torch.from_numpy(images))]
        theirs = opened(images)
        for number in range(count):
            pair = [(d[number], p[number]) for d, p in (ours, theirs)]
            worst = max(worst, _difference_of(pair, shape))
    return worst


def _difference_of(pair: Sequence[tuple[Floats, Floats]], shape: DetectorShape) -> float:
    read = [decode(detections, shape.classes, shape.end_to_end) for detections, _ in pair]
    surest = np.argsort(-read[0][1].max(axis=0), kind="stable")[:_SUREST]
    seen = []
    for (boxes, scores, weights), (_, prototypes) in zip(read, pair, strict=True):
        masks = weights[surest] @ prototypes.reshape(len(prototypes), -1)
        seen.append((scores, boxes[surest] / shape.imgsz, activate(masks, "sigmoid")))
    differences = [float(np.abs(a - b).max()) for a, b in zip(*seen, strict=True)]
    return float("inf") if np.isnan(differences).any() else max(differences)


def _compare_queries(
    network: nn.Module, shape: QueryShape, folder: Path, entry: NetworkEntry
) -> float:
    """Return the largest absolute difference of a score, and of a mask's probability.

    Of an image's queries the few that differ most are left out, by `_ONE_MAY_DIFFER`.
    """
    opened = OnnxQueries(folder, entry, shape.channels, shape.classes, shape.queries)
    worst = 0.0
    for count in (1, 3):
        images = sample_images(shape, count, shape.size_hw)
        with torch.inference_mode():
            ours = [part.numpy() for part in network(torch.from_numpy(images))]
        pairs = [(s, activate(masks, "sigmoid")) for s, masks in (ours, opened(images))]
        scores, masks = (np.abs(a - b) for a, b in zip(*pairs, strict=True))
        # NaN is no agreement.
        by_query = np.nan_to_num(np.maximum(scores.max(-1), masks.max((-2, -1))), nan=np.inf)
        place = shape.queries - 1 - shape.queries // _ONE_MAY_DIFFER
        worst = max(worst, float(np.sort(by_query, axis=1)[:, place].max()))
    return worst


def _compare_boxes(network: nn.Module, shape: BoxShape, folder: Path, entry: NetworkEntry) -> float:
    """Return the largest absolute difference of a box that torch finds, and its like.

    Of an image's boxes the few that differ most are left out, by `_ONE_MAY_DIFFER`: a rounding
    decides which of two goes that overlap by just as much as they may.
    """
    opened = OnnxBoxes(folder, entry, shape.channels, shape.classes, shape.boxes, shape.cells)
    worst = 0.0
    for image in sample_images(shape, 3, shape.size_hw):
        with torch.inference_mode():
            ours = [part.numpy()[0] for part in network(torch.from_numpy(image[None]))]
        theirs = [part[0] for part in opened(image[None])]
        # Each is compared with the nearest one of the other side, both ways: none may be missing.
        found = np.concatenate(
            [_unlikeness(a, b, max(shape.size_hw)) for a, b in ((ours, theirs), (theirs, ours))]
        )
        if len(found):
            place = len(found) - 1 - len(found) // _ONE_MAY_DIFFER
            worst = max(worst, float(np.sort(found)[place]))
    return worst


def _unlikeness(ours: Sequence[Floats], theirs: Sequence[Floats], side: int) -> Floats:
    """How far each box is from the one of its class that is most like it, float32 (D,)."""
    boxes, scores, labels, probs = (part[ours[1] > 0] for part in ours)
    others, their_scores, their_labels, their_probs = (part[theirs[1] > 0] for part in theirs)
    found = np.full(len(boxes), np.inf, np.float32)
    for number, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
        same = their_labels == label
        if same.any():
            edges = np.abs(others[same] - box).max(axis=1) / side
            apart = np.maximum(edges, np.abs(their_scores[same] - score))
            nearest = int(apart.argmin())
            masks = np.abs(their_probs[same][nearest] - probs[number]).max()
            found[number] = max(apart[nearest], masks)
    # NaN is no agreement.
    return np.nan_to_num(found, nan=np.inf, posinf=np.inf)


def _compare_refiners(
    network: nn.Module, shape: RefinerShape, folder: Path, entry: NetworkEntry
) -> float:
    """Return the largest absolute difference of a mended probability."""
    opened = OnnxRefiner(folder, entry, shape.channels, shape.classes)
    differences = []
    for count in (1, 3):
        given = shape.samples(count)
        fused = given[PLANES][:, 0] * SCALE
        changes = _run(network, *given.values())[:, 0], opened.run(*given.values())[0][:, 0]
        pair = [activate(fused + change, "sigmoid") for change in changes]
        differences.append(float(np.abs(np.subtract(*pair)).max()))
    # NaN is no agreement.
    return float("inf") if np.isnan(differences).any() else max(differences)


def _run(network: nn.Module, *given: Floats) -> Floats:
    with torch.inference_mode():
        found: Floats = network(*map(torch.from_numpy, given)).float().numpy()
    return found


def _runner(network: nn.Module) -> Any:
    return lambda *given: _run(network, *given)


@dataclass(frozen=True)
class Timing:
    """How long one image took on the CPU, in turns, in milliseconds: median, least and most.

    Attributes:
        torch_ms: by torch.
        onnx_ms: by onnxruntime.
        threads: that each of them had.
    """

    torch_ms: tuple[float, float, float]
    onnx_ms: tuple[float, float, float]
    threads: int


def measure(
    network: nn.Module, opened: OnnxSession, given: Sequence[Floats], repetitions: int
) -> Timing:
    """Measure one image of the network's own size, by torch and by onnxruntime, in turns.

    Args:
        network: in evaluation mode, on the CPU.
        opened: the same, exported, with as many threads as torch has.
        given: what each of its inputs is given.
        repetitions: how often each runs; once more before, which does not count.
    """

    def by_torch(*values: Floats) -> None:
        with torch.inference_mode():
            network(*map(torch.from_numpy, values))

    runs: Sequence[Any] = (by_torch, opened.run)
    taken: npt.NDArray[np.float64] = np.zeros((2, repetitions + 1))
    for number in range(repetitions + 1):
        for side, run in enumerate(runs):
            start = time.perf_counter()
            run(*given)
            taken[side, number] = 1000 * (time.perf_counter() - start)
    told = [(float(np.median(r)), float(r.min()), float(r.max())) for r in taken[:, 1:]]
    return Timing(told[0], told[1], torch.get_num_threads())
