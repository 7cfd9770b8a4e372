"""The settings of an EoMT."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zoo.config import StrictModel
from zoo.families.query_config import MaskLossWeights, check_divides, check_source
from zoo.training.instance_config import InstanceConfig


class EomtDimensions(StrictModel):
    """An EoMT of random weights; the defaults are those of EoMT-L.

    Attributes:
        hidden_size: channels; of DINOv3 four times the heads divide them.
        num_hidden_layers: blocks.
        num_attention_heads: heads; divide the channels.
        patch_size: side of a patch, in pixels.
        image_size: of DINOv2, side of the images that have a position of their own for each patch;
            for others positions are interpolated. DINOv3 needs none.
        num_blocks: the last so many blocks see the queries too, and learn masks.
        num_queries: how many instances it can find; more than there are classes.
        num_upscale_blocks: how many times the masks' side is doubled from that of the patches.
        num_register_tokens: further tokens of the whole image.
        layerscale_value: how much each block adds at first.
        drop_path_rate: chance to skip a block.
    """

    hidden_size: int = Field(default=1024, gt=0)
    num_hidden_layers: int = Field(default=24, gt=0)
    num_attention_heads: int = Field(default=16, gt=0)
    patch_size: int = Field(default=16, gt=0)
    image_size: int = Field(default=640, gt=0)
    num_blocks: int = Field(default=4, gt=0)
    num_queries: int = Field(default=200, gt=0)
    num_upscale_blocks: int = Field(default=2, gt=0)
    num_register_tokens: int = Field(default=4, ge=0)
    layerscale_value: float = Field(default=1.0, gt=0)
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_divides("hidden_size num_attention_heads", self.hidden_size, self.num_attention_heads)
        if self.num_blocks > self.num_hidden_layers:
            raise ValueError(
                f"num_blocks: expected at most num_hidden_layers {self.num_hidden_layers}, found "
                f"{self.num_blocks}"
            )
        return self


class EomtConfig(InstanceConfig):
    """An EoMT, with pretrained weights or from scratch.

    Attributes:
        encoder: how patches know where they are, and what pretrained weights must be made for.
        pretrained: folder, or name on the Hugging Face hub, of an EoMT; brings its own dimensions.
        network: dimensions of a network with random weights.
        loss_weights: how much each loss counts.
    """

    encoder: Literal["dinov2", "dinov3"] = "dinov2"
    pretrained: str | None = None
    network: EomtDimensions | None = None
    loss_weights: MaskLossWeights = MaskLossWeights()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_source(self)
        network = self.network
        if network is not None and self.encoder == "dinov3":
            # The first half of a head turns with the row, the other with the column.
            names, heads = "hidden_size 4*num_attention_heads", 4 * network.num_attention_heads
            check_divides(names, network.hidden_size, heads)
        if network is not None:
            check_patches(self.size, network.patch_size)
        return self


def check_patches(size_hw: tuple[int, int], patch: int) -> None:
    """Check that patches fill an image.

    Raises:
        ValueError: they do not.
    """
    if any(side % patch for side in size_hw):
        raise ValueError(
            f"size: expected multiples of patch_size {patch} (and of 32), found {list(size_hw)}"
        )
