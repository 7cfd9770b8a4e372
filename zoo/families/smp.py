"""Networks of segmentation-models-pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from pydantic import Field, model_validator
from torch import nn

from zoo import checkpoints
from zoo.families.semantic import SemanticFamily, quiet_hub
from zoo.semantic import SemanticConfig

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
# Given by us, or useless here.
_NOT_OPTIONS = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "kwargs"}
_NOT_OPTIONS |= {"activation", "aux_params"}


class SmpConfig(SemanticConfig):
    """A network of segmentation-models-pytorch.

    Attributes:
        architecture: such as `unet`, `unetplusplus`, `fpn`, `upernet`, `deeplabv3plus`.
        encoder: such as `resnet34`; `tu-...` for those of timm.
        encoder_weights: null for random ones, `imagenet` (or another name that the library knows;
            downloads), or a safetensors file with the encoder's weights.
        options: what else the architecture takes, such as `decoder_channels`.
    """

    architecture: str = "unet"
    encoder: str = "resnet34"
    encoder_weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_architecture(self) -> SmpConfig:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"architecture '{self.architecture}': expected one of {known}")
        signature = inspect.signature(ARCHITECTURES[self.architecture].__init__)
        known_options = [name for name in signature.parameters if name not in _NOT_OPTIONS]
        if unknown := sorted(set(self.options) - set(known_options)):
            raise ValueError(
                f"options.{unknown[0]}: {self.architecture} takes {', '.join(known_options)}"
            )
        return self


class SmpFamily(SemanticFamily):
    """Networks of segmentation-models-pytorch."""

    name = "smp"
    Config = SmpConfig

    def build(self, config: SmpConfig, classes: int) -> nn.Module:
        """Return a network; its encoder may come with pretrained weights.

        Raises:
            ValueError: an unknown encoder, options that do not go together, or weights that
                cannot be had.
        """
        weights = config.encoder_weights
        if weights is None or not weights.endswith(".safetensors"):
            return _create(config, classes, weights)
        network = _create(config, classes, None)
        checkpoints.load_weights(network.encoder, Path(weights))
        return network

    def rebuild(self, run: Path, config: SmpConfig, classes: int) -> nn.Module:
        """Return the network of a run, without its weights and without a download."""
        return _create(config, classes, None)


def _create(config: SmpConfig, classes: int, weights: str | None) -> Any:
    # timm's encoders carry the name of their weights in their own name.
    given = True if weights is not None and config.encoder.startswith("tu-") else weights
    try:
        with quiet_hub():
            return ARCHITECTURES[config.architecture](
                encoder_name=config.encoder,
                encoder_weights=given,
                in_channels=1,
                classes=classes,
                **config.options,
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        if weights is not None and not isinstance(error, KeyError | TypeError):
            raise ValueError(
                f"encoder_weights '{weights}': could not get the weights of '{config.encoder}'; "
                "run once with a network connection, give a safetensors file of the encoder, or "
                f"set encoder_weights=null: {type(error).__name__}: {reason:.160}"
            ) from None
        raise ValueError(
            f"{config.architecture} with encoder '{config.encoder}' and these options cannot be "
            f"built: {type(error).__name__}: {reason:.300}"
        ) from None


FAMILY = SmpFamily()
