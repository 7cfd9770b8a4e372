"""What a run's config and a user's options come to: how images are shown to a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.inference.activation import activation_of
from zoo.inference.predict import Setting
from zoo.inference.sliding_window import Size
from zoo.machine.devices import Precision, choose_device, choose_precision
from zoo.training.config import STRIDE, TrainerConfig, WindowConfig
from zoo.tta import PLAIN


@dataclass(frozen=True)
class PredictionSettings:
    """How to predict.

    Attributes:
        setting: how the network computes.
        size_hw: what images are stretched to; None leaves each at its own size.
    """

    setting: Setting
    size_hw: Size | None


def plan_scoring(config: TrainerConfig) -> Setting:
    """Return how a run is scored while it is trained, on images of `config.image_size`.

    Raises:
        ValueError: the device is not there.
    """
    device = choose_device(config.device)
    window, overlap = config.parts.window, config.parts.overlap
    return Setting(
        device,
        _precision(config, device),
        config.batch,
        window=window,
        overlap=overlap,
        stride=STRIDE,
        activation=activation_of(config.labels),
    )


def plan_prediction(config: TrainerConfig, options: PredictOptions) -> PredictionSettings:
    """Return how a run predicts; what the options leave open is as in training.

    A run that learned whole images and is to predict in windows does so at each image's own size,
    unless the options name one.

    Raises:
        ValueError: the device is not there, options do not go together, or the network does not
            take inputs of a size that they ask for.
    """
    learned, overlap = config.parts.window, config.parts.overlap
    window = learned if options.window is None else options.window
    if window == "whole":
        window = None
    if window is None and options.overlap is not None:
        raise ValueError("overlap: expected together with 'window'; this run predicts without")
    is_new = window is not None and learned is None
    size = options.size or (None if is_new else config.image_size)
    if size and window and any(w > s for w, s in zip(window, size, strict=True)):
        raise ValueError(f"window: expected at most the images' {list(size)}, found {list(window)}")
    device = choose_device(options.device)
    setting = Setting(
        device,
        _precision(config, device),
        options.batch or config.batch,
        options.tta,
        window,
        overlap if options.overlap is None else options.overlap,
        options.average,
        STRIDE,
        activation_of(config.labels),
    )
    _check_inputs(config, setting, size)
    return PredictionSettings(setting, size)


def _precision(config: TrainerConfig, device: torch.device) -> Precision:
    return choose_precision(device) if config.precision == "auto" else config.precision


def _check_inputs(config: TrainerConfig, setting: Setting, size: Size | None) -> None:
    """Make sure that the network takes what it is going to see, before anything is computed."""
    if setting.window:
        seen = {setting.window}
    else:
        seen = {setting.shown_size(size, v) for v in (PLAIN, *setting.variants)} if size else set()
    whole = WindowConfig().model_dump() if isinstance(config, WindowConfig) else {}
    for height, width in sorted(seen - {config.input_size}):
        # As if it were trained so: the family's config knows which sizes its networks take.
        changed = {"size": [height, width], "augment": ()} | whole
        where = f"images of {height} x {width} pixels for this network"
        check_config(type(config), config.model_dump() | changed, where)
