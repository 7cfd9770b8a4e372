"""What a run's config and a user's options come to: how images are shown to a network."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.inference.setting import Setting, View, activation_of, choose_view
from zoo.inference.windows import Size
from zoo.machine.devices import choose_device, settle_precision
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
        # Its scores are those of what it will predict.
        settle_precision(config.precision, device, predicts=True),
        config.batch,
        window=window,
        overlap=overlap,
        stride=STRIDE,
        activation=activation_of(config.labels),
    )


def plan_prediction(config: TrainerConfig, options: PredictOptions) -> PredictionSettings:
    """Return how a run predicts; what the options leave open is as in training.

    Raises:
        ValueError: the device is not there, options do not go together, or the network does not
            take inputs of a size that they ask for.
    """
    view = choose_view(learned_view(config), options)
    device = choose_device(options.device)
    setting = Setting(
        device,
        settle_precision(config.precision, device, predicts=True),
        options.batch or config.batch,
        options.tta,
        view.window,
        view.overlap,
        options.average,
        STRIDE,
        activation_of(config.labels),
    )
    check_inputs(config, setting, view.size_hw)
    return PredictionSettings(setting, view.size_hw)


def learned_view(config: TrainerConfig) -> View:
    """Return what a network of this config sees of an image where no options say otherwise."""
    return View(config.image_size, config.parts.window, config.parts.overlap)


def check_inputs(config: TrainerConfig, setting: Setting, size: Size | None) -> None:
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
