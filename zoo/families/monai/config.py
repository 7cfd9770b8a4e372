"""The settings of a SwinUNETR."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zoo.training.semantic_config import SemanticConfig

Four = tuple[int, int, int, int]


class MonaiConfig(SemanticConfig):
    """A SwinUNETR (Hatamizadeh et al. 2022, arXiv:2201.01266) on images instead of volumes.

    MONAI's pretrained weights are of volumes, so it starts from random ones, or from `init`.

    Attributes:
        architecture: `swinunetr`.
        feature_size: channels of the first stage; a multiple of 12 that `num_heads` divide.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: side of the windows of attention, in tokens; inputs are padded to whole ones.
        use_v2: a residual block of convolutions before each stage (He et al. 2023, SwinUNETR-V2).
        norm: of the convolutions.
        drop_path_rate: chance to skip the last block; it rises in a line from the first one's 0.
    """

    architecture: Literal["swinunetr"] = "swinunetr"
    feature_size: int = Field(default=48, gt=0)
    depths: Four = (2, 2, 2, 2)
    num_heads: Four = (3, 6, 12, 24)
    window_size: int = Field(default=7, gt=1)
    use_v2: bool = False
    norm: Literal["instance", "batch"] = "instance"
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        channels = [self.feature_size * 2**stage for stage in range(4)]
        if self.feature_size % 12:
            raise ValueError(f"feature_size: expected a multiple of 12, found {self.feature_size}")
        if any(c % n for c, n in zip(channels, self.num_heads, strict=True)):
            raise ValueError(
                f"num_heads: expected divisors of the channels {channels}, found "
                f"{list(self.num_heads)}"
            )
        if self.norm == "instance" and min(self.input_size) < 64:
            raise ValueError(
                f"{self.input_key}: expected at least 64 for norm=instance, which has one pixel "
                f"left of 32; found {list(self.input_size)}"
            )
        return self
