"""An ONNX network, opened by onnxruntime; the file may be a stranger's.

What an ONNX file can do is what its operators can: they compute. Three ways lead out of it, and all
are closed: weights in other files (only the one that `model.json` names with its digest),
operators of libraries that are loaded beside it (none are), and another file put in its place (its
digest, of the very bytes that are opened). What is left can use up memory and time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import import_optional, one_line
from zoo.export.description import NetworkEntry
from zoo.families.refiner.refining import Numbers
from zoo.inference.arrays import Floats
from zoo.machine.facts import count_cores

INPUT, METADATA, OUTPUT = "image", "metadata", "logits"
DETECTIONS, PROTOTYPES = "detections", "prototypes"
SCORES, MASKS = "scores", "masks"
PLANES, CLASSES, CHANGE = "planes", "classes", "change"
BOXES, LABELS, PROBS = "boxes", "labels", "probs"
EXTRA = "export"
# Of operators; what else a file uses, it has to define by these.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_ERRORS_ONLY = 3
Shape = tuple[int | None, ...]


class OnnxSession:
    """A network of arrays; may be called by several threads.

    Args:
        folder: where its files are.
        entry: which.
        takes: its inputs: name -> its shape, where None is any length; images are the first one.
        outputs: what it gives: name -> its shape, where None is any length.
        device: `auto`, `cpu` or `cuda`.
        threads: that one call may use; 0 takes the machine's cores.

    Raises:
        ValueError: files that are missing, changed, or no such network; says which and why.
        MissingDependency: onnxruntime or onnx is not installed.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        takes: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.path, self.entry, self.outputs = folder / entry.file, entry, dict(outputs)
        content = entry.read(folder)
        if entry.data:
            entry.data.read(folder)
        _check_content(content, self.path, entry)
        self._session = _open(content, self.path, entry, device, threads)
        self.inputs = tuple(takes)
        self._check_shapes(takes, outputs)

    def _check_shapes(self, takes: Mapping[str, Shape], gives: Mapping[str, Shape]) -> None:
        found = [
            (e.name, e.type, list(e.shape))
            for e in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        wanted = [*takes.items(), *gives.items()]
        fits = len(found) == len(wanted) and all(
            (name, kind) == (expected, "tensor(float)") and _is_shape(shape, lengths)
            for (name, kind, shape), (expected, lengths) in zip(found, wanted, strict=True)
        )
        if not fits:
            told = [
                " and ".join(f"{name} {_show(shape)}" for name, shape in side.items())
                for side in (takes, gives)
            ]
            raise ValueError(
                f"{self.path}: expected a network of {' to '.join(told)}, found {found!r:.600}"
            )

    def _check_results(self, found: Sequence[Floats], count: int) -> None:
        for values, (name, (_, *lengths)) in zip(found, self.outputs.items(), strict=True):
            if not _is_shape(values.shape, (count, *lengths)):
                shown = _show((count, *lengths))
                raise ValueError(f"{name} {values.shape}, expected {shown}")

    def run(self, *given: Floats) -> list[Floats]:
        """Return each output for what its inputs are given, such as images, float32 (n, c, h, w).

        Raises:
            ValueError: it does not take images of this size.
        """
        size, count = self.entry.batch, len(given[0])
        if size is None:
            return self._run(given)
        parts: list[list[Floats]] = []
        for start in range(0, count, size):
            kept = min(size, count - start)
            few = [values[start : start + kept] for values in given]
            full = [np.concatenate([v, np.repeat(v[-1:], size - kept, axis=0)]) for v in few]
            parts.append([found[:kept] for found in self._run(full)])
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    def _run(self, given: Sequence[Floats]) -> list[Floats]:
        try:
            pairs = zip(self.inputs, given, strict=True)
            named = {name: np.ascontiguousarray(values) for name, values in pairs}
            found: list[Floats] = self._session.run(list(self.outputs), named)
            self._check_results(found, len(given[0]))
        # Its exceptions have no base of their own.
        except Exception as error:
            height, width = given[0].shape[-2:]
            raise ValueError(
                f"{self.path}: expected a network for images of {height} x {width} pixels, found: "
                f"{one_line(error):.200}"
            ) from error
        return found


def images_of(channels: int) -> dict[str, Shape]:
    """Return the input of a network that is shown images."""
    return {INPUT: (None, channels, None, None)}


class OnnxNetwork(OnnxSession):
    """A network that gives each pixel's logits; arguments as for `OnnxSession`.

    It is shown images, and metadata where the entry has columns.

    Args:
        channels: of images.
        classes: of its output.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        channels: int,
        classes: int,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        takes = images_of(channels)
        if entry.metadata:
            takes[METADATA] = (None, len(entry.metadata.missing))
        gives: dict[str, Shape] = {OUTPUT: (None, classes, None, None)}
        super().__init__(folder, entry, takes, gives, device, threads)

    def __call__(self, values: Floats, *rows: Floats) -> Floats:
        """Return logits, float32 (n, C, h', w'), of normalised images, float32 (n, c, h, w).

        Args:
            values: the images.
            rows: what is known of them, float32 (n, k), where the network is shown that.

        Raises:
            ValueError: it does not take images of this size.
        """
        (logits,) = self.run(values, *rows)
        return logits


class OnnxDetector(OnnxSession):
    """A network that gives detections and prototypes of their masks; see `OnnxSession`.

    Args:
        values: numbers of a detection.
        prototypes: their number.
        end_to_end: whether a detection is a row of the output, else a column.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        values: int,
        prototypes: int,
        end_to_end: bool,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        rows: Shape = (None, None, values) if end_to_end else (None, values, None)
        outputs: dict[str, Shape] = {DETECTIONS: rows, PROTOTYPES: (None, prototypes, None, None)}
        super().__init__(folder, entry, images_of(3), outputs, device, threads)

    def __call__(self, values: Floats) -> tuple[Floats, Floats]:
        """Return detections and prototypes of RGB images in 0..1, float32 (n, 3, S, S).

        Raises:
            ValueError: it does not take images of this size.
        """
        detections, prototypes = self.run(values)
        return detections, prototypes


class OnnxQueries(OnnxSession):
    """A network whose queries are the instances; arguments as for `OnnxSession`.

    Args:
        channels: of images.
        classes: of a query.
        queries: their number.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        channels: int,
        classes: int,
        queries: int,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        outputs: dict[str, Shape] = {
            SCORES: (None, queries, classes),
            MASKS: (None, queries, None, None),
        }
        super().__init__(folder, entry, images_of(channels), outputs, device, threads)

    def __call__(self, values: Floats) -> tuple[Floats, Floats]:
        """Return scores and masks' logits of normalised images, float32 (n, c, h, w).

        Raises:
            ValueError: it does not take images of this size.
        """
        scores, masks = self.run(values)
        return scores, masks


class OnnxBoxes(OnnxSession):
    """A network that finds boxes with masks; arguments as for `OnnxSession`.

    Args:
        channels: of images.
        classes: of a box.
        boxes: their number.
        cells: rows and columns of a mask.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        channels: int,
        classes: int,
        boxes: int,
        cells: int,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        outputs: dict[str, Shape] = {
            BOXES: (None, boxes, 4),
            SCORES: (None, boxes),
            LABELS: (None, boxes),
            PROBS: (None, boxes, cells, cells),
        }
        self.classes = classes
        super().__init__(folder, entry, images_of(channels), outputs, device, threads)

    def __call__(self, values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return boxes, scores, labels and masks' probabilities of normalised images.

        Args:
            values: float32 (n, c, h, w).

        Raises:
            ValueError: it does not take images of this size, or a label is no class.
        """
        boxes, scores, labels, probs = self.run(values)
        is_known = (labels >= 1) & (labels <= self.classes) & np.isfinite(boxes).all(axis=2)
        if not is_known[scores > 0].all() or not np.isfinite(scores).all():
            raise ValueError(
                f"{self.path}: expected boxes in pixels with labels of 1 to {self.classes}, found "
                "others"
            )
        return boxes, scores, labels, probs


class OnnxRefiner(OnnxSession):
    """A network that adds log odds to what others say; arguments as for `OnnxSession`.

    Args:
        planes: that it is given.
        classes: that it is told apart; 0: it is not told.
    """

    def __init__(
        self,
        folder: Path,
        entry: NetworkEntry,
        planes: int,
        classes: int,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        takes: dict[str, Shape] = {PLANES: (None, planes, None, None)}
        if classes:
            takes[CLASSES] = (None, classes)
        self._rows = np.eye(classes, dtype=np.float32)
        gives: dict[str, Shape] = {CHANGE: (None, 1, None, None)}
        super().__init__(folder, entry, takes, gives, device, threads)

    def __call__(self, planes: Floats, numbers: Numbers) -> Floats:
        """Return log odds to add, float32 (n, h, w).

        Args:
            planes: float32 (n, P, h, w).
            numbers: int64 (n,), each patch's class.

        Raises:
            ValueError: it does not take patches of this size.
        """
        rows = [self._rows[numbers]] if len(self._rows) else []
        (change,) = self.run(planes, *rows)
        found: Floats = change[:, 0]
        return found


def _is_shape(found: Sequence[object], wanted: Shape) -> bool:
    # A length that has a name is not known before the network runs.
    return len(found) == len(wanted) and all(
        length is None or own == length or isinstance(own, str)
        for own, length in zip(found, wanted, strict=True)
    )


def _show(shape: Shape) -> str:
    return f"({', '.join('?' if length is None else str(length) for length in shape)})"


def _open(content: bytes, path: Path, entry: NetworkEntry, device: str, threads: int) -> Any:
    runtime: Any = import_optional("onnxruntime", EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or count_cores()
    options.inter_op_num_threads = 1
    try:
        # Weights beside it are looked for where the file lies.
        given = str(path) if entry.data else content
        return runtime.InferenceSession(given, options, providers=_providers(runtime, device))
    except Exception as error:
        raise ValueError(
            f"{path}: expected an ONNX network that onnxruntime {runtime.__version__} can run, "
            f"found: {one_line(error):.200}"
        ) from error


def _providers(runtime: Any, device: str) -> list[str]:
    if device in ("auto", "cpu"):
        return ["CPUExecutionProvider"]
    wanted = "CUDAExecutionProvider"
    if device != "cuda" or wanted not in runtime.get_available_providers():
        raise ValueError(
            f"device '{device}': an exported model computes on the cpu, or on cuda where "
            "onnxruntime-gpu is installed"
        )
    return [wanted, "CPUExecutionProvider"]


def _check_content(content: bytes, path: Path, entry: NetworkEntry) -> None:
    """Make sure that a file is ONNX that opens no other files and calls no other libraries."""
    onnx: Any = import_optional("onnx", EXTRA)
    try:
        model = onnx.load_model_from_string(content)
    # As protobuf's version has it.
    except Exception as error:
        raise ValueError(
            f"{path}: expected an ONNX file, found: {one_line(error) or 'another'}"
        ) from error
    external = onnx.TensorProto.EXTERNAL
    allowed = {entry.data.file} if entry.data else set()
    for tensor in _tensors(model):
        places = [e.value for e in tensor.external_data if e.key == "location"]
        if tensor.data_location == external and (not places or set(places) - allowed):
            raise ValueError(
                f"{path}: expected weights inside the file, or in one that model.json names, found "
                f"some in {places!r:.80}"
            )
    own = {function.domain for function in model.functions}
    if foreign := sorted({node.domain for node in _nodes(model)} - _DOMAINS - own):
        raise ValueError(f"{path}: expected ONNX's own operators, found those of {foreign!r:.80}")


def _graphs(model: Any) -> Iterator[Any]:
    """Yield a model's graphs, those inside of nodes too, and the functions that it defines."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in _attributes(graph.node):
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs


def _attributes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield from node.attribute


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in _attributes(graph.node):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
