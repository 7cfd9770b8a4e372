"""Super-resolution by a model, in the place of Lanczos' kernel.

A model takes float32 (1, C, h, w) in 0..1 and gives (1, C, s * h, s * w) in the same range, for any
h and w; C is 1 (grey) or 3 (RGB), s a whole number. It is one of

- ONNX (`.onnx`), run by OpenCV on the CPU: a graph of known operations and no program;
- TorchScript (`.pt`, `.ts`), run by torch on the CPU; or
- `swin2sr:` with a folder or a name on the Hugging Face hub, see `zoo.datasets.swin2sr`.

To make one of a network `net` whose `forward` keeps to that contract:

    torch.jit.trace(net.eval(), torch.rand(1, 1, 64, 64)).save("x2.ts")
    torch.onnx.export(
        net.eval(), (torch.rand(1, 1, 64, 64),), "x2.onnx", opset_version=17,
        input_names=["x"], output_names=["y"], dynamo=False,
        dynamic_axes={"x": {2: "h", 3: "w"}, "y": {2: "H", 3: "W"}},
    )

TorchScript is a program. What it may do is restricted, see `zoo.datasets.torchscript`; of
strangers, prefer ONNX. A checkpoint of `torch.save` is Python's pickle, and refused.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import import_optional
from converters.files.images import Pixels, lanczos
from zoo.datasets.swin2sr import PREFIX, open_swin2sr
from zoo.datasets.torchscript import load_torchscript

Values = npt.NDArray[np.float32]
Network = Callable[[Values], Values]
SUFFIXES = (".onnx", ".pt", ".ts")
_PROBE_PX = 64


@dataclass(frozen=True)
class ModelEnlarger:
    """An `Enlarge` (see `converters.files.images`) that asks a model; each process opens it.

    Attributes:
        source: the model's file, or `swin2sr:` and where its weights are.
        channels: 1 or 3.
        factor: s, by which it enlarges.
    """

    source: Path | str
    channels: int
    factor: int

    def __call__(self, pixels: Pixels, size_hw: tuple[int, int]) -> Pixels:
        """Enlarge pixels, uint8 (h, w) or BGR (h, w, 3), to a size.

        A model has one factor. Where another is wanted, its output is brought to the size by
        Lanczos' kernel, which keeps the detail that the model added; where that is smaller, by
        the mean over areas, because OpenCV's Lanczos does not widen its kernel and would alias.

        Grey stays grey: a model of three channels gets it three times, and the mean counts. A
        model of one channel gets colours one after the other.

        Raises:
            ValueError: the model fails on this size, or gives another than it should.
        """
        height, width = pixels.shape[:2]
        planes = pixels[..., None] if pixels.ndim == 2 else pixels[..., ::-1]
        is_grey = bool((planes == planes[..., :1]).all())
        values = np.moveaxis(planes, 2, 0)[:, None].astype(np.float32) / 255  # (C, 1, h, w)
        if is_grey:
            values = values[:1]
        if self.channels == 1:
            large = np.concatenate([self._run(plane[None])[0] for plane in values])
        else:
            stacked = np.broadcast_to(values, (3, *values.shape[1:])).reshape(1, 3, height, width)
            large = self._run(np.ascontiguousarray(stacked))[0]
        if is_grey:
            large = large.mean(axis=0, keepdims=True)
        sized = _resize(_to_bytes(large), size_hw)
        if pixels.ndim == 2:
            return np.ascontiguousarray(sized[..., 0])
        return np.ascontiguousarray(np.broadcast_to(sized, (*size_hw, 3))[..., ::-1])

    def _run(self, values: Values) -> Values:
        try:
            large = _open(self.source)(values)
        except (RuntimeError, cv2.error) as error:
            raise ValueError(
                f"{self.source}: expected a model for images of any size, failed on "
                f"{values.shape}: {_last_line(error)}"
            ) from None
        height, width = values.shape[2:]
        expected = (1, self.channels, self.factor * height, self.factor * width)
        if large.shape != expected:
            raise ValueError(
                f"{self.source}: expected {expected} of {values.shape}, found {large.shape}; "
                "was it exported for one size?"
            )
        if not np.isfinite(large).all():
            raise ValueError(f"{self.source}: expected finite values, found NaN or infinity")
        return large


def load_enlarger(source: Path | str) -> ModelEnlarger:
    """Open a super-resolution model, and find out its channels and factor by a small image.

    Args:
        source: `.onnx`, or TorchScript as `.pt` or `.ts`; or `swin2sr:` and a folder or a name on
            the hub.

    Returns:
        An `Enlarge` that can be pickled: it travels to other processes as the path or name.

    Raises:
        ValueError: no such file, another kind of file, or a model that does not keep to the
            contract.
        MissingDependency: TorchScript or Swin2SR without torch.
    """
    source = _locate(source)
    network = _open(source)
    tried = []
    # Three first: OpenCV reads beyond a grey image when its network wants colours.
    for channels in (3, 1):
        probe = np.zeros((1, channels, _PROBE_PX, _PROBE_PX), np.float32)
        try:
            shape = network(probe).shape
        except (RuntimeError, cv2.error) as error:
            tried.append(f"{probe.shape}: {_last_line(error)}")
            continue
        factor = shape[-1] // _PROBE_PX
        if factor and shape == (1, channels, factor * _PROBE_PX, factor * _PROBE_PX):
            return ModelEnlarger(source, channels, factor)
        tried.append(f"{probe.shape} gives {tuple(shape)}")
    raise ValueError(
        f"{source}: expected a model from (1, 1 or 3, h, w) to (1, the same, s * h, s * w), "
        f"found: {'; '.join(tried)}"
    )


def _locate(source: Path | str) -> Path | str:
    """Return a file's whole path, or `swin2sr:` with a folder's, for other processes to find it."""
    if str(source).startswith(PREFIX):
        name = str(source).removeprefix(PREFIX)
        return PREFIX + (str(Path(name).absolute()) if Path(name).is_dir() else name)
    path = Path(source).absolute()
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: expected an enlarger as {', '.join(SUFFIXES)} or {PREFIX}NAME, found "
            f"'{path.suffix}'"
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected an enlarger's file, found nothing there")
    return path


def _open(source: Path | str) -> Network:
    if isinstance(source, str):
        return _open_once(source, ())
    # A file that was replaced under its name is another network.
    now = source.stat()
    return _open_once(source, (now.st_ino, now.st_size, now.st_mtime_ns))


@lru_cache(maxsize=2)
def _open_once(source: Path | str, state: tuple[int, ...]) -> Network:
    """Open a network; `state` of its file only tells versions of it apart."""
    if isinstance(source, str):
        _take_one_thread()
        return open_swin2sr(source)
    return _open_onnx(source) if source.suffix == ".onnx" else _open_torchscript(source)


def _take_one_thread() -> None:
    if multiprocessing.parent_process() is not None:
        # The processes are the parallelism.
        import_optional("torch", "train").set_num_threads(1)


def _open_onnx(path: Path) -> Network:
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise ValueError(f"{path}: expected an ONNX model, found: {_last_line(error)}") from None

    def run(values: Values) -> Values:
        network.setInput(values)
        # A copy: OpenCV uses its memory again.
        return np.array(network.forward(), np.float32)

    return run


def _open_torchscript(path: Path) -> Network:
    torch = import_optional("torch", "train")
    _take_one_thread()
    network = load_torchscript(path, torch)

    def run(values: Values) -> Values:
        with torch.inference_mode():
            large = network(torch.from_numpy(values))
        if not isinstance(large, torch.Tensor):
            raise RuntimeError(f"expected a tensor, found {type(large).__name__}")
        return cast("Values", large.float().numpy())

    return run


def _to_bytes(values: Values) -> Pixels:
    pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, 2))


def _resize(pixels: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """Bring pixels (h, w, C) to a size; the channels stay an axis."""
    if pixels.shape[:2] == tuple(size_hw):
        return pixels
    if pixels.shape[0] > size_hw[0] or pixels.shape[1] > size_hw[1]:
        sized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_AREA)
    else:
        sized = lanczos(pixels, size_hw)
    return sized.reshape(*size_hw, pixels.shape[2])


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
