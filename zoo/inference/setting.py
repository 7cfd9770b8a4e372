"""How a network is shown images, and how its logits become probabilities. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from converters.types import LabelSpace
from zoo.contract import PredictOptions
from zoo.inference.windows import Size
from zoo.tta import Variant, parse_variants

if TYPE_CHECKING:
    import torch

    from zoo.machine.devices import Precision

# Pixels times classes that are worked on at a time: 134 MB as float32.
CHUNK = 2**25
Average = Literal["probabilities", "logits"]
Activation = Literal["sigmoid", "softmax", "softmax_or_none"]
"""`sigmoid`: classes may share pixels. `softmax`: a pixel has one class. `softmax_or_none`: it has
one or none; the logit of none is 0, which is no restriction: a softmax knows differences alone."""


def activation_of(labels: LabelSpace) -> Activation:
    """Return what the classes of a label space ask for."""
    if labels.exclusive is None:
        return "sigmoid"
    return "softmax_or_none" if labels.background is None else "softmax"


@dataclass(frozen=True)
class Setting:
    """Where and how a network computes.

    Attributes:
        device: where; a network outside of torch finds its own place, and has "cpu" here.
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


def class_chunks(classes: int, size_hw: Sequence[int]) -> list[slice]:
    """Return ranges of classes of which one at a time is worked on, by `CHUNK`."""
    step = max(CHUNK // (size_hw[0] * size_hw[1]), 1)
    return [slice(first, min(first + step, classes)) for first in range(0, classes, step)]


@dataclass(frozen=True)
class View:
    """What a network sees of an image at a time.

    Attributes:
        size_hw: what images are stretched to; None leaves each at its own size.
        window: height and width of the windows; None shows the whole image at once.
        overlap: how much of a window's side the next one repeats.
    """

    size_hw: Size | None
    window: Size | None
    overlap: float


def choose_view(learned: View, options: PredictOptions) -> View:
    """Return what a network is to see; what the options leave open is as it learned.

    One that learned whole images and is to predict in windows does so at each image's own size,
    unless the options name one.

    Raises:
        ValueError: options that do not go together.
    """
    window = learned.window if options.window is None else options.window
    if window == "whole":
        window = None
    if window is None and options.overlap is not None:
        raise ValueError("overlap: expected together with 'window'; this run predicts without")
    is_new = window is not None and learned.window is None
    size = options.size or (None if is_new else learned.size_hw)
    if size and window and any(w > s for w, s in zip(window, size, strict=True)):
        raise ValueError(f"window: expected at most the images' {list(size)}, found {list(window)}")
    return View(size, window, learned.overlap if options.overlap is None else options.overlap)
