"""From a network to predictions in the images' own frame; training scores take the same path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2.functional import adjust_contrast, adjust_gamma

from converters.types import LabelSpace, Sample
from fusion.types import Prediction, soft_mask
from zoo.contract import DivergedError
from zoo.data.batches import normalize
from zoo.data.reading import (
    READERS,
    NetworkInput,
    Row,
    channels_first,
    read_ahead,
    read_image,
    resize_image,
)
from zoo.inference.activation import Activation, activate
from zoo.inference.sliding_window import Size, blend, window_corners
from zoo.machine.devices import Precision, autocast
from zoo.tta import PLAIN, Variant, parse_variants

Average = Literal["probabilities", "logits"]
Shown = TypeVar("Shown", bound=NetworkInput)
# Pixels times classes that are worked on at a time: 134 MB as float32.
CHUNK = 2**25


@dataclass(frozen=True)
class Setting:
    """Where and how a network computes.

    Attributes:
        device: where.
        precision: in which number format.
        batch: images at a time, or windows.
        tta: in which forms beside the plain one images are shown: names of `zoo.tta`.
        window: height and width of the windows; None shows the whole image at once.
        overlap: how much of a window's side the next one repeats.
        average: what is averaged over the forms. Windows are blended as logits in any case.
        stride: of which number the sides of a scaled whole image are multiples.
        activation: what makes probabilities of logits.

    Raises:
        ValueError: an unknown test-time augmentation, no images at a time, or a bad overlap.
    """

    device: torch.device
    precision: Precision = "32-true"
    batch: int = 1
    tta: tuple[str, ...] = ()
    window: Size | None = None
    overlap: float = 0.5
    average: Average = "probabilities"
    stride: int = 1
    activation: Activation = "sigmoid"

    def __post_init__(self) -> None:
        parse_variants(self.tta)
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, found {self.batch}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: expected 0 up to below 1, found {self.overlap}")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The forms beside the plain one in which an image is shown."""
        return parse_variants(self.tta)

    def shown_size(self, size_hw: Size, variant: Variant) -> Size:
        """Return height and width of a form of an image of that size."""
        if variant.scale == 1:
            return size_hw
        unit = 1 if self.window else self.stride
        height, width = (max(int(s * variant.scale / unit + 0.5), 1) * unit for s in size_hw)
        return height, width


def enlarge(logits: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
    """Return logits (N, C, h, w) at another size, bilinear; before the sigmoid, which keeps edges.

    Networks may give logits at a fraction of their input's size.
    """
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size=tuple(size_hw), mode="bilinear", align_corners=False)


def class_chunks(classes: int, size_hw: Sequence[int]) -> list[slice]:
    """Return ranges of classes of which one at a time is worked on, by `CHUNK`."""
    step = max(CHUNK // (size_hw[0] * size_hw[1]), 1)
    return [slice(first, min(first + step, classes)) for first in range(0, classes, step)]


def probabilities(
    network: nn.Module,
    images: torch.Tensor,
    setting: Setting,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return each class's probability, uint8 (N, C, h, w), 255 = 1, rounded.

    Args:
        network: in evaluation mode, on the setting's device; gives logits per class.
        images: uint8 (N, 1 or 3, h, w), on the setting's device.
        setting: how to compute.
        rows: what is known of the images, float (N, k), for networks that are shown that.
    """
    return _with_flag(network, images, setting, rows)[0]


def _with_flag(
    network: nn.Module, images: torch.Tensor, setting: Setting, rows: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `probabilities` does, and whether any was NaN, as a tensor on the device."""
    size = (images.shape[-2], images.shape[-1])

    def logits_of(variant: Variant) -> torch.Tensor:
        shown = _show(images, variant, setting.shown_size(size, variant))
        return _logits(network, shown, setting, rows)

    with torch.inference_mode(), _tuned_kernels(setting.device):
        plain = logits_of(PLAIN)
        total = plain.new_zeros((len(images), plain.shape[1], *size), dtype=torch.float32)
        _add(total, plain, PLAIN, setting)
        del plain
        for variant in setting.variants:
            _add(total, logits_of(variant), variant, setting)
        count = 1 + len(setting.variants)
        if setting.average == "logits":
            total.div_(count)
            is_sigmoid = setting.activation == "sigmoid"
            total = total.sigmoid_() if is_sigmoid else activate(total, setting.activation)
            total.mul_(255)
        else:
            total.mul_(255 / count)
        # NaN stays NaN in a sum, and would become any byte.
        return total.round_().to(torch.uint8), total.sum().isnan()


def _show(images: torch.Tensor, variant: Variant, size_hw: Size) -> torch.Tensor:
    """What the network sees of uint8 images in one form."""
    if variant.gamma != 1 or variant.contrast != 1:
        images = images.float() / 255
        if variant.gamma != 1:
            images = adjust_gamma(images, variant.gamma)
        if variant.contrast != 1:
            images = adjust_contrast(images, variant.contrast)
        images = images * 255
    values = normalize(images)
    if tuple(values.shape[-2:]) != size_hw:
        values = F.interpolate(values, size=size_hw, mode="bilinear", antialias=True)
    return _mirror(values, variant)


def _mirror(values: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Mirror (..., h, w) as a variant does, which also undoes it."""
    axes = [axis for axis, wanted in ((-1, variant.hflip), (-2, variant.vflip)) if wanted]
    return values.flip(axes) if axes else values


def _logits(
    network: nn.Module, values: torch.Tensor, setting: Setting, rows: torch.Tensor | None
) -> torch.Tensor:
    def compute(*given: torch.Tensor) -> torch.Tensor:
        with autocast(setting.device, setting.precision):
            logits: torch.Tensor = network(*given)
        return logits

    if setting.window is None:
        return compute(values) if rows is None else compute(values, rows)
    # Augmentation, too, leaves black where an image ends.
    black = normalize(values.new_zeros(values.shape[1], 1, 1))
    return blend(compute, values, setting.window, setting.overlap, setting.batch, black, rows)


def _add(total: torch.Tensor, logits: torch.Tensor, variant: Variant, setting: Setting) -> None:
    """Add what one form gave, (N, C, h', w'), to the sum, (N, C, h, w), a few classes at a time.

    Where a softmax compares them it is all of them.
    """
    is_logit = setting.average == "logits"
    few = class_chunks(total.shape[1], total.shape[-2:])
    for classes in few if is_logit or setting.activation == "sigmoid" else [slice(None)]:
        part = _mirror(logits[:, classes].float(), variant)
        part = enlarge(part, total.shape[-2:])
        total[:, classes] += part if is_logit else activate(part, setting.activation)


@contextmanager
def _tuned_kernels(device: torch.device) -> Iterator[None]:
    """Let cuDNN try which of its convolutions is fastest: inputs come in a few sizes only."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    fixed = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda" and not fixed:
        cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before


def to_prediction(
    key: str, size_hw: Size, probs: npt.NDArray[np.uint8], labels: LabelSpace
) -> Prediction:
    """Return one image's prediction; a class's score is its highest probability.

    Args:
        key: the sample's key.
        size_hw: the image's own height and width.
        probs: uint8 (C, h, w), 255 = 1, over the whole image, at the network's size.
        labels: the classes.
    """
    box = (0.0, 0.0, float(size_hw[1]), float(size_hw[0]))
    masks = {}
    for name, plane in zip(labels.names, probs, strict=True):
        mask = soft_mask(plane, box)
        if mask is not None:
            masks[name] = ((int(plane.max()) / 255, mask),)
    return Prediction(key, size_hw, "semantic", masks)


def read_frames(
    samples: Iterable[Sample],
    size_hw: Size | None,
    channels: int = 1,
    readers: int = READERS,
    metadata: Mapping[str, Row] | None = None,
) -> Iterator[NetworkInput]:
    """Yield samples' images, in order, read by threads a few ahead of their use.

    Args:
        samples: whose images.
        size_hw: what they are stretched to; None leaves each at its own size.
        channels: 1 shows them in grey, 3 in colour.
        readers: how many threads.
        metadata: key of a sample -> what is known of it, where the network is shown that.
    """

    def read(sample: Sample) -> NetworkInput:
        image = resize_image(read_image(sample, channels), size_hw or sample.size_hw)
        row = None if metadata is None else metadata[sample.key]
        return NetworkInput(sample.key, sample.size_hw, image, metadata=row)

    return read_ahead(read, samples, readers)


def predict_planes(
    network: nn.Module, frames: Iterable[Shown], setting: Setting
) -> Iterator[tuple[list[Shown], torch.Tensor]]:
    """Yield frames, some at a time and in order, with their probabilities.

    These are uint8 (N, C, h, w), 255 = 1, on the setting's device, at the frames' size. The network
    must be in evaluation mode. On a GPU an image's numbers are looked at when the next one has been
    handed to it, or the last has been taken.

    Raises:
        DivergedError: the network gives NaN.
    """
    waiting: tuple[list[Shown], torch.Tensor] | None = None
    for size, run in groupby(frames, lambda frame: frame.image.shape):
        count = _images_at_a_time((size[0], size[1]), setting)
        while part := list(islice(run, count)):
            images = torch.stack([channels_first(frame.image) for frame in part])
            if setting.device.type == "cuda":
                images = images.pin_memory()
            images = images.to(setting.device, non_blocking=True)
            known = [frame.metadata for frame in part if frame.metadata is not None]
            rows = torch.from_numpy(np.stack(known)).to(setting.device) if known else None
            planes, is_bad = _with_flag(network, images, setting, rows)
            if waiting:
                _check_numbers(*waiting)
            waiting = part, is_bad
            if setting.device.type != "cuda":
                _check_numbers(*waiting)
                waiting = None
            yield part, planes
    if waiting:
        _check_numbers(*waiting)


def _check_numbers(frames: Sequence[NetworkInput], is_bad: torch.Tensor) -> None:
    if is_bad:
        raise DivergedError(
            f"'{frames[0].key}': expected probabilities, found NaN: the network's numbers do not "
            "fit the precision; train with precision=32-true or a lower learning rate"
        )


def _images_at_a_time(size_hw: Size, setting: Setting) -> int:
    """How many images fill a batch; of large ones that are many windows only one is held."""
    if setting.window is None:
        return setting.batch
    windows = len(window_corners(size_hw, setting.window, setting.overlap))
    return max(setting.batch // windows, 1)


def predict_semantic(
    network: nn.Module, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a frame, in order; the network must be in evaluation mode."""
    # A GPU is given the next images before what it found in these is looked at.
    ahead = 1 if setting.device.type == "cuda" else 0
    waiting: deque[tuple[list[NetworkInput], Callable[[], npt.NDArray[np.uint8]]]] = deque()
    for part, planes in predict_planes(network, frames, setting):
        waiting.append((part, _copy_back(planes)))
        if len(waiting) > ahead:
            yield from _predictions(*waiting.popleft(), labels)
    while waiting:
        yield from _predictions(*waiting.popleft(), labels)


def _predictions(
    frames: list[NetworkInput], read: Callable[[], npt.NDArray[np.uint8]], labels: LabelSpace
) -> Iterator[Prediction]:
    for frame, planes in zip(frames, read(), strict=True):
        yield to_prediction(frame.key, frame.size_hw, planes, labels)


def _copy_back(planes: torch.Tensor) -> Callable[[], npt.NDArray[np.uint8]]:
    """Start to copy planes to the CPU; return what waits for them."""
    if planes.device.type != "cuda":
        return planes.cpu().numpy
    copied = torch.empty(planes.shape, dtype=planes.dtype, pin_memory=True)
    copied.copy_(planes, non_blocking=True)
    done = torch.cuda.current_stream(planes.device).record_event()

    def wait() -> npt.NDArray[np.uint8]:
        done.synchronize()
        return copied.numpy()

    return wait
