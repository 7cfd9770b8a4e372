"""The settings of a Mask2Former."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zoo.config import StrictModel
from zoo.families.query_config import MaskLossWeights, check_divides, check_source
from zoo.families.swin import SwinDimensions
from zoo.training.instance_config import InstanceConfig


class Mask2FormerDimensions(StrictModel):
    """A Mask2Former of random weights; the defaults are its authors' for Swin-T.

    Attributes:
        backbone: the Swin Transformer.
        num_queries: how many instances it can find; more than there are classes.
        hidden_dim: channels of both decoders and of the masks' features.
        encoder_layers: of the pixel decoder.
        decoder_layers: of the decoder of queries; each but the last one learns masks as well.
        num_attention_heads: of both; divide the channels.
        encoder_feedforward_dim: channels inside of the pixel decoder's layers.
        dim_feedforward: channels inside of the decoder's layers.
        dropout: in both.
    """

    backbone: SwinDimensions = SwinDimensions()
    num_queries: int = Field(default=100, gt=0)
    hidden_dim: int = Field(default=256, gt=0, multiple_of=32)
    encoder_layers: int = Field(default=6, gt=0)
    decoder_layers: int = Field(default=10, gt=1)
    num_attention_heads: int = Field(default=8, gt=0)
    encoder_feedforward_dim: int = Field(default=1024, gt=0)
    dim_feedforward: int = Field(default=2048, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_divides("hidden_dim num_attention_heads", self.hidden_dim, self.num_attention_heads)
        return self


class Mask2FormerConfig(InstanceConfig):
    """A Mask2Former, with pretrained weights or from scratch.

    Attributes:
        pretrained: folder, or name on the Hugging Face hub, of a Mask2Former; brings its own
            dimensions. Mind its licence: its authors' weights are for non-commercial use.
        network: dimensions of a network with random weights.
        loss_weights: how much each loss counts.
    """

    pretrained: str | None = None
    network: Mask2FormerDimensions | None = None
    loss_weights: MaskLossWeights = MaskLossWeights()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_source(self)
        return self
