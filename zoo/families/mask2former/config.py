"""The settings of a Mask2Former."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zoo.config import StrictModel
from zoo.training.instance_config import InstanceConfig

Four = tuple[int, int, int, int]


class SwinDimensions(StrictModel):
    """A Swin Transformer, stage by stage; the defaults are Swin-T's.

    Attributes:
        embed_dim: channels of the first stage; they double at each of the others.
        depths: blocks.
        num_heads: heads; divide the channels.
        window_size: side of the windows of attention, in patches of 4 pixels.
        drop_path_rate: chance to skip the last block; it rises in a line from the first one's 0.
    """

    embed_dim: int = Field(default=96, gt=0)
    depths: Four = (2, 2, 6, 2)
    num_heads: Four = (3, 6, 12, 24)
    window_size: int = Field(default=7, gt=0)
    drop_path_rate: float = Field(default=0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if any(self.embed_dim * 2**n % heads for n, heads in enumerate(self.num_heads)):
            raise ValueError(
                f"expected embed_dim {self.embed_dim}, doubled at each stage, that num_heads "
                f"{self.num_heads} divide"
            )
        return self


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
        if self.hidden_dim % self.num_attention_heads:
            raise ValueError(
                f"expected hidden_dim {self.hidden_dim} that num_attention_heads "
                f"{self.num_attention_heads} divides"
            )
        return self


class Mask2FormerLossWeights(StrictModel):
    """How much each loss counts, and where masks are compared; transformers' names and values.

    Attributes:
        class_weight: which class a query is of.
        mask_weight: cross-entropy of a mask's points.
        dice_weight: Dice of a mask's points.
        no_object_weight: how much a query counts that shall be no object.
        train_num_points: points at which masks are compared.
        oversample_ratio: how many times as many are drawn to choose the least sure ones from.
        importance_sample_ratio: share of the points that are chosen so.
    """

    class_weight: float = Field(default=2.0, gt=0)
    mask_weight: float = Field(default=5.0, gt=0)
    dice_weight: float = Field(default=5.0, gt=0)
    no_object_weight: float = Field(default=0.1, gt=0)
    train_num_points: int = Field(default=12544, gt=0)
    oversample_ratio: float = Field(default=3.0, ge=1)
    importance_sample_ratio: float = Field(default=0.75, ge=0, le=1)


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
    loss_weights: Mask2FormerLossWeights = Mask2FormerLossWeights()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretrained is None) == (self.network is None):
            raise ValueError("expected either 'pretrained' or 'network', found both or none")
        return self

    @model_validator(mode="after")
    def _a_query_for_each_class(self) -> Self:
        classes = len(self.labels)
        if self.network is not None and self.network.num_queries < classes:
            raise ValueError(
                f"network.num_queries: expected at least {classes}, one a class, found "
                f"{self.network.num_queries}"
            )
        return self
