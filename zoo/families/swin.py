"""The Swin Transformer (Liu et al. 2021, arXiv:2103.14030) that transformers' networks stand on."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from zoo.config import StrictModel

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

    def describe(self) -> Any:
        """Return transformers' config of it, all of whose stages are used."""
        # Late: configs are read without transformers.
        from transformers import SwinConfig

        stages = [f"stage{n}" for n in range(1, 5)]
        return SwinConfig(num_channels=3, out_features=stages, **self.model_dump())
