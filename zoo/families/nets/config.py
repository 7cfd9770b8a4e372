"""The settings of a network that no library has."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from converters.types import LabelSpace
from zoo.families.encoders import check_encoder
from zoo.families.nets.network import (
    check_network,
    count_outputs,
    finest_read,
    load_network,
    wrap_objective,
)
from zoo.training.semantic_config import SemanticConfig


class NetsConfig(SemanticConfig):
    """A network from its paper.

    Weights in `deep_supervision` let `unet3plus` give five outputs while it learns, and
    `effisegnet` six.

    Attributes:
        architecture: key of `NETWORKS`, such as `unet3plus`.
        encoder: such as `resnet34`; `tu-...` for those of timm, `tu-NAME.TAG` for a choice of
            their weights; null where the network has its own.
        encoder_weights: null for random ones, `imagenet` (or another name that
            segmentation-models-pytorch knows; downloads), or a file with the encoder's weights
            (.safetensors, .pth): of a run, of smp-hub, or for `tu-...` of timm.
        attention: null, or blocks that the network sees its encoder's features through: `cbam` and
            `se` at every stride, `self` and `nonlocal` at 16 and more.
        options: what else the architecture takes, such as `width`.
        encoder_options: what else timm's encoder takes, such as `drop_path_rate`, `img_size`.
    """

    architecture: str
    encoder: str | None = None
    encoder_weights: str | None = None
    attention: Literal["cbam", "se", "self", "nonlocal"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    encoder_options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options", "encoder_options", mode="before")
    @classmethod
    def _null_is_none(cls, given: Any) -> Any:
        return {} if given is None else given

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        load_network(name)
        return name

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        return count_outputs(self.architecture, self.options)

    @property
    def pools_all(self) -> bool:
        """Whether a norm sees one value an image and channel, so that a batch needs two."""
        return bool(getattr(load_network(self.architecture), "POOLS_ALL", False))

    def objective(self, labels: LabelSpace) -> Any:
        """Return what training lowers.

        Raises:
            ValueError: `class_weights` names neither a class nor a group.
        """
        return wrap_objective(self.architecture, super().objective(labels), self.options)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        check_network(self.architecture, self.encoder, self.options, self.input_size)
        if self.encoder is not None:
            check_encoder(self.encoder, self.encoder_options, self.input_size, self.input_key)
            if self.attention is not None:
                finest_read(self.architecture)
            return self
        for key in ("encoder_weights", "encoder_options", "attention"):
            if getattr(self, key):
                raise ValueError(f"{key}: expected together with 'encoder', found it alone")
        return self
