"""An ONNX network, opened by onnxruntime; the file may be a stranger's.

What an ONNX file can do is what its operators can: they compute. Three ways lead out of it, and all
are closed: weights in other files (only the one that `model.json` names with its digest),
operators of libraries that are loaded beside it (none are), and another file put in its place (its
digest, of the very bytes that are opened). What is left can use up memory and time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import import_optional, one_line
from zoo.export.description import NetworkEntry
from zoo.inference.arrays import Floats
from zoo.machine.facts import count_cores

INPUT, OUTPUT = "image", "logits"
EXTRA = "export"
# Of operators; what else a file uses, it has to define by these.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_ERRORS_ONLY = 3


class OnnxNetwork:
    """A network of arrays; may be called by several threads.

    Args:
        folder: where its files are.
        entry: which, and what it takes.
        channels: of its input.
        classes: of its output.
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
        channels: int,
        classes: int,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.path, self.entry = folder / entry.file, entry
        content = entry.read(folder)
        if entry.data:
            entry.data.read(folder)
        _check_content(content, self.path, entry)
        self._session = _open(content, self.path, entry, device, threads)
        self._check_shapes(channels, classes)

    def _check_shapes(self, channels: int, classes: int) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [(e.name, e.type, list(e.shape)) for e in (*inputs, *outputs)]
        fits = len(inputs) == len(outputs) == 1 and all(
            name == wanted and kind == "tensor(float)" and len(shape) == 4 and shape[1] == count
            for (name, kind, shape), wanted, count in zip(
                found, (INPUT, OUTPUT), (channels, classes), strict=True
            )
        )
        if not fits:
            raise ValueError(
                f"{self.path}: expected a network of {INPUT}, (N, {channels}, h, w), to {OUTPUT}, "
                f"(N, {classes}, h, w), found {found!r:.200}"
            )

    def __call__(self, values: Floats) -> Floats:
        """Return logits, float32 (n, C, h', w'), of normalised images, float32 (n, c, h, w).

        Raises:
            ValueError: it does not take images of this size.
        """
        size, step = self.entry.batch or len(values), self.entry.batch
        if step is None:
            return self._run(values)
        parts = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            missing = size - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            parts.append(self._run(full)[: len(part)])
        return np.concatenate(parts)

    def _run(self, values: Floats) -> Floats:
        try:
            found: Floats = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(values)})[0]
        # Its exceptions have no base of their own.
        except Exception as error:
            height, width = values.shape[-2:]
            raise ValueError(
                f"{self.path}: expected a network for images of {height} x {width} pixels, found: "
                f"{one_line(error):.200}"
            ) from error
        return found


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
