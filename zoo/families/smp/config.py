"""The settings of a network of segmentation-models-pytorch."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import segmentation_models_pytorch as smp
from pydantic import Field, field_validator, model_validator

from zoo.families.encoders import check_encoder
from zoo.training.semantic_config import SemanticConfig

ARCHITECTURES = smp.MODEL_ARCHITECTURES_MAPPING
# Given by us, or useless here.
_NOT_OPTIONS = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "kwargs"}
_NOT_OPTIONS |= {"activation", "aux_params"}
# They pool over the whole image, and normalise the result over the batch.
_POOLING = {"deeplabv3", "deeplabv3plus", "pan", "upernet"}


class SmpConfig(SemanticConfig):
    """A network of segmentation-models-pytorch.

    Of a grey image, pretrained kernels of the first convolution are summed over colours, which is
    the same as to show the image three times.

    Plain vision transformers of timm's, such as `tu-vit_base_patch16_dinov3`, get a pyramid of
    features, see `zoo.families.vit_pyramid`; `dpt` reads them as they are.

    Four weights in `deep_supervision` let `unetplusplus` give four outputs while it learns.

    Attributes:
        architecture: such as `unet`, `unetplusplus`, `fpn`, `upernet`, `deeplabv3plus`.
        encoder: such as `resnet34`; `tu-...` for those of timm, `tu-NAME.TAG` for a choice of
            their weights.
        encoder_weights: null for random ones, `imagenet` (or another name that the library knows;
            downloads), or a file with the encoder's weights (.safetensors, .pth): of a run, of
            smp-hub, or for `tu-...` of timm.
        attention: null, or blocks that the decoder sees the encoder's features through: `cbam` and
            `se` at every stride, `self` and `nonlocal` at 16 and more, or the coarsest there is.
        options: what else the architecture takes, such as `decoder_channels`.
        encoder_options: what else timm's encoder takes, such as `drop_path_rate`, `img_size`.
    """

    architecture: str = "unet"
    encoder: str = "resnet34"
    encoder_weights: str | None = None
    attention: Literal["cbam", "se", "self", "nonlocal"] | None = None
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
        check_encoder(self.encoder, self.encoder_options, self.input_size, self.input_key)
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
                f"options.{unknown[0]}: {self.architecture} takes {', '.join(known_options)}; "
                "options=null drops all that the config has"
            )
        if self.attention is not None and self.architecture == "dpt":
            raise ValueError("attention: expected null for dpt, whose features are tokens")
        return self
