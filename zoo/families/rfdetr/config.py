"""The settings of an RF-DETR with masks."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zoo.config import StrictModel
from zoo.families.query_config import check_divides, check_source
from zoo.training.instance_config import InstanceConfig


class DinoDimensions(StrictModel):
    """A DINOv2 that attends in windows; the defaults are those of all RF-DETR-Segs.

    Attributes:
        hidden_size: channels.
        num_hidden_layers: blocks.
        num_attention_heads: heads; divide the channels.
        patch_size: side of a patch, in pixels.
        num_windows: windows along each side of the image; 1 attends everywhere.
        out_indices: blocks, counted from 1, whose output is used; they attend everywhere, as does
            the one after them.
        image_size: side of the images that have a position of their own for each patch; for others
            positions are interpolated.
    """

    hidden_size: int = Field(default=384, gt=0)
    num_hidden_layers: int = Field(default=12, gt=0)
    num_attention_heads: int = Field(default=6, gt=0)
    patch_size: int = Field(default=12, gt=0)
    num_windows: int = Field(default=2, gt=0)
    out_indices: tuple[int, ...] = Field(default=(3, 6, 9, 12), min_length=1)
    image_size: int = Field(default=432, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_divides("hidden_size num_attention_heads", self.hidden_size, self.num_attention_heads)
        wanted, last = list(self.out_indices), self.num_hidden_layers
        if wanted != sorted(set(wanted)) or wanted[0] < 1 or wanted[-1] > last:
            raise ValueError(
                f"out_indices: expected blocks in order, of 1 to {last}, found {wanted}"
            )
        return self


class RfDetrDimensions(StrictModel):
    """An RF-DETR of random weights; the defaults are those of RF-DETR-Seg Medium.

    Attributes:
        backbone: the DINOv2.
        num_queries: how many instances it can find; more than there are classes, and no more than
            the image has patches.
        group_detr: groups of queries that learn side by side; one of them finds instances.
        d_model: channels of the decoder and of the masks' features.
        decoder_layers: of the decoder; each of them learns masks.
        decoder_self_attention_heads: divide the channels.
        decoder_cross_attention_heads: divide the channels.
        decoder_ffn_dim: channels inside of the decoder's layers.
        decoder_n_points: places that a query looks at with each head.
        mask_downsample_ratio: how many times smaller than the input masks are.
        dropout: in the decoder.
    """

    backbone: DinoDimensions = DinoDimensions()
    num_queries: int = Field(default=200, gt=0)
    group_detr: int = Field(default=13, gt=0)
    d_model: int = Field(default=256, gt=0, multiple_of=4)
    decoder_layers: int = Field(default=5, gt=0)
    decoder_self_attention_heads: int = Field(default=8, gt=0)
    decoder_cross_attention_heads: int = Field(default=16, gt=0)
    decoder_ffn_dim: int = Field(default=2048, gt=0)
    decoder_n_points: int = Field(default=2, gt=0)
    mask_downsample_ratio: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for name in ("decoder_self_attention_heads", "decoder_cross_attention_heads"):
            check_divides(f"d_model {name}", self.d_model, getattr(self, name))
        return self


class RfDetrLossWeights(StrictModel):
    """How much each loss counts, in the match too; transformers' names and values.

    Attributes:
        class_loss_coefficient: of which class a query is, and how well its box lies.
        bbox_loss_coefficient: how far the sides of boxes are apart.
        giou_loss_coefficient: generalized IoU of boxes.
        mask_class_loss_coefficient: cross-entropy of a mask's points.
        mask_dice_loss_coefficient: Dice of a mask's points.
        mask_point_sample_ratio: a mask is compared at one point of so many.
        class_cost: as `class_loss_coefficient`, where queries and objects are matched.
        bbox_cost: the same of the boxes' sides.
        giou_cost: the same of the boxes' IoU.
        focal_alpha: how the probability of a class and the IoU of a box are weighed.
    """

    class_loss_coefficient: float = Field(default=1.0, gt=0)
    bbox_loss_coefficient: float = Field(default=5.0, gt=0)
    giou_loss_coefficient: float = Field(default=2.0, gt=0)
    mask_class_loss_coefficient: float = Field(default=5.0, gt=0)
    mask_dice_loss_coefficient: float = Field(default=5.0, gt=0)
    mask_point_sample_ratio: int = Field(default=16, gt=0)
    class_cost: float = Field(default=2.0, gt=0)
    bbox_cost: float = Field(default=5.0, gt=0)
    giou_cost: float = Field(default=2.0, gt=0)
    focal_alpha: float = Field(default=0.25, gt=0, lt=1)


class RfDetrConfig(InstanceConfig):
    """An RF-DETR with masks, with pretrained weights or from scratch.

    The sides of `size` are multiples of the side of a patch times the number of windows.

    Attributes:
        pretrained: folder, or name on the Hugging Face hub, of an RF-DETR-Seg; brings its own
            dimensions.
        network: dimensions of a network with random weights.
        loss_weights: how much each loss counts.
    """

    pretrained: str | None = None
    network: RfDetrDimensions | None = None
    loss_weights: RfDetrLossWeights = RfDetrLossWeights()

    @property
    def stride(self) -> int:
        """What the sides of the input are multiples of; a pretrained network says it itself."""
        if self.network is None:
            return 1
        return self.network.backbone.patch_size * self.network.backbone.num_windows

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_source(self)
        if self.network is not None:
            check_input(self.size, self.network.backbone.patch_size, self.network.num_queries)
        return self


def check_input(size_hw: tuple[int, int], patch: int, queries: int) -> None:
    """Check that each query can start from a patch of its own.

    Raises:
        ValueError: images have fewer patches than there are queries.
    """
    patches = (size_hw[0] // patch) * (size_hw[1] // patch)
    if queries > patches:
        raise ValueError(
            f"size: expected at least {queries} patches of {patch} x {patch} pixels, one a query, "
            f"found {patches} in {list(size_hw)}"
        )
