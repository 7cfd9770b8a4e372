"""The settings of a network of segmentation-models-pytorch."""

from __future__ import annotations

import inspect
from typing import Any

import segmentation_models_pytorch as smp
import timm
from pydantic import Field, field_validator, model_validator

from zoo.training.semantic_config import SemanticConfig

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
# Given by us, or useless here.
_NOT_OPTIONS = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "kwargs"}
_NOT_OPTIONS |= {"activation", "aux_params"}
# They pool over the whole image, and normalise the result over the batch.
_POOLING = {"deeplabv3", "deeplabv3plus", "pan", "upernet"}
# They divide each of their resolutions into windows of a fixed side, without padding.
_WINDOWED = ("maxvit", "maxxvit", "coatnet")


class SmpConfig(SemanticConfig):
    """A network of segmentation-models-pytorch.

    The grey image is the only channel: pretrained kernels of the first convolution are summed over
    colours, which is the same as to show the image three times.

    Plain vision transformers of timm's, such as `tu-vit_base_patch16_dinov3`, get a pyramid of
    features, see `zoo.families.smp.vit_pyramid`; `dpt` reads them as they are.

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

    @field_validator("options", "encoder_options", mode="before")
    @classmethod
    def _null_is_none(cls, given: Any) -> Any:
        return {} if given is None else given

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
