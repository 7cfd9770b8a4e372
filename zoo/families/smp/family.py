"""Networks of segmentation-models-pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
from pydantic import Field, model_validator
from torch import nn

from converters.errors import one_line
from zoo.families.semantic import NetworkConfig, SemanticFamily, quiet_hub, reads_colours
from zoo.families.smp.nested import DeepUnetPlusPlus
from zoo.run_files import checkpoints
from zoo.run_files.licences import WeightSource, of_file, of_smp

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
# Given by us, or useless here.
_NOT_OPTIONS = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "kwargs"}
_NOT_OPTIONS |= {"activation", "aux_params"}
# They pool over the whole image, and normalise the result over the batch.
_POOLING = {"deeplabv3", "deeplabv3plus", "pan", "upernet"}
# They divide each of their resolutions into windows of a fixed side, without padding.
_WINDOWED = ("maxvit", "maxxvit", "coatnet")


class SmpConfig(NetworkConfig):
    """A network of segmentation-models-pytorch.

    The grey image is the only channel: pretrained kernels of the first convolution are summed over
    colours, which is the same as to show the image three times.

    Four weights in `deep_supervision` let `unetplusplus` give four outputs while it learns.

    Attributes:
        architecture: such as `unet`, `unetplusplus`, `fpn`, `upernet`, `deeplabv3plus`.
        encoder: such as `resnet34`; `tu-...` for those of timm, `tu-NAME.TAG` for a choice of
            their weights.
        encoder_weights: null for random ones, `imagenet` (or another name that the library knows;
            downloads), or a safetensors file with the encoder's weights: of a run, of smp-hub, or
            for `tu-...` of timm.
        options: what else the architecture takes, such as `decoder_channels`.
        encoder_options: what else timm's encoder takes, such as `drop_path_rate`, `img_size`.
    """

    architecture: str = "unet"
    encoder: str = "resnet34"
    encoder_weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    encoder_options: dict[str, Any] = Field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        depth = int(self.options.get("encoder_depth", 5))
        return depth - 1 if self.architecture == "unetplusplus" else 1

    @property
    def pools_all(self) -> bool:
        """Whether a norm sees one value an image and channel, so that a batch needs two."""
        return self.architecture in _POOLING

    @model_validator(mode="after")
    def _size_of_encoder(self) -> SmpConfig:
        if self.encoder_options and not self.encoder.startswith("tu-"):
            raise ValueError(
                f"encoder_options: expected none for '{self.encoder}'; only timm's encoders, "
                "whose names begin with tu-, take any"
            )
        side = _native_side(self.encoder, self.encoder_options)
        if side is None:
            return self
        key, size = self.input_key, self.input_size
        if any(kind in self.encoder for kind in _WINDOWED):
            if any(length % side for length in size):
                sizes = ", ".join(str(side * n) for n in range(1, 5))
                raise ValueError(
                    f"{key}: {self.encoder} attends in windows that fit multiples of {side}: "
                    f"expected height and width of {sizes}, ..., found {list(size)}; or set "
                    "encoder_options.img_size"
                )
        elif size != (side, side):
            raise ValueError(
                f"{key}: {self.encoder} takes [{side}, {side}] alone, found {list(size)}; or "
                "set one of encoder_options.img_size, strict_img_size=false (Swin), "
                "dynamic_img_size=true (ViT)"
            )
        return self

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
        return _create_from_file(config, classes, Path(weights))

    def without_weights(self, config: SmpConfig) -> SmpConfig:
        """Return the config of the same network with random weights."""
        return config.model_copy(update={"encoder_weights": None})

    def sources(self, config: SmpConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        given = config.encoder_weights
        if given is None:
            return []
        is_file = given.endswith(".safetensors")
        return [of_file(given) if is_file else of_smp(config.encoder, given)]


def _native_side(encoder: str, options: dict[str, Any]) -> int | None:
    """Return the side in pixels that timm's encoder is bound to; None where it takes any."""
    name = encoder.removeprefix("tu-")
    takes_any = options.get("strict_img_size") is False or options.get("dynamic_img_size")
    if name == encoder or takes_any:
        return None
    found = timm.get_pretrained_cfg(name)
    if found is None or not found.fixed_input_size:
        return None
    given = options.get("img_size", found.input_size[-1])
    return given if isinstance(given, int) else None


def _create_from_file(config: SmpConfig, classes: int, path: Path) -> Any:
    """Return a network whose encoder has a file's weights: ours, smp-hub's or timm's."""
    found = checkpoints.read_weights(path)
    if not reads_colours(path):
        network = _create(config, classes, None)
        checkpoints.load_weights(network.encoder, path)
        return network
    if config.encoder.startswith("tu-") and not any(key.startswith("model.") for key in found):
        overlay: dict[str, Any] = {"file": str(path), "hf_hub_id": None}
        return _create(config, classes, str(path), pretrained_cfg_overlay=overlay)
    network = _create(config, classes, None, channels=3)
    checkpoints.load_weights(network.encoder, path)
    network.encoder.set_in_channels(1, pretrained=True)
    return network


def _create(
    config: SmpConfig, classes: int, weights: str | None, channels: int = 1, **further: Any
) -> Any:
    # timm's encoders carry the name of their weights in their own name.
    given = True if weights is not None and config.encoder.startswith("tu-") else weights
    is_deep = config.architecture == "unetplusplus" and len(config.deep_supervision) > 1
    try:
        with quiet_hub():
            return (DeepUnetPlusPlus if is_deep else ARCHITECTURES[config.architecture])(
                encoder_name=config.encoder,
                encoder_weights=given,
                in_channels=channels,
                classes=classes,
                **config.options,
                **config.encoder_options,
                **further,
            )
    except Exception as error:
        reason = one_line(error)
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
