"""From a network to predictions in the images' own frame; training scores take the same path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2.functional import adjust_contrast, adjust_gamma

from converters.types import LabelSpace
from fusion.types import Prediction
from zoo.contract import DivergedError
from zoo.data.batches import as_tensor, normalize
from zoo.data.reading import NetworkInput
from zoo.inference.activation import activate
from zoo.inference.frames import to_prediction
from zoo.inference.setting import Setting, class_chunks
from zoo.inference.sliding_window import blend
from zoo.inference.windows import Size, images_at_a_time
from zoo.machine.devices import autocast
from zoo.tta import PLAIN, Variant

Shown = TypeVar("Shown", bound=NetworkInput)


def enlarge(logits: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
    """Return logits (N, C, h, w) at another size, bilinear; before the sigmoid, which keeps edges.

    Networks may give logits at a fraction of their input's size.
    """
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size=tuple(size_hw), mode="bilinear", align_corners=False)


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
        count = images_at_a_time((size[0], size[1]), setting.window, setting.overlap, setting.batch)
        while part := list(islice(run, count)):
            images = torch.stack([as_tensor(frame.image) for frame in part])
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
