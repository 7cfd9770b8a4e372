"""The settings of a SegFormer."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from zoo.config import StrictModel
from zoo.training.semantic_config import SemanticConfig

Four = tuple[int, int, int, int]


class SegFormerDimensions(StrictModel):
    """A Mix Transformer and its head, stage by stage; the defaults are MiT-B0's.

    Attributes:
        hidden_sizes: channels.
        depths: blocks.
        num_attention_heads: heads; divide the channels.
        strides: by how much each stage shrinks; the logits come at the first one's stride, so that
            2 instead of SegFormer's 4 suits small inputs.
        patch_sizes: sides of the patches that overlap by more than a stride.
        sr_ratios: by how much attention shortens its keys and values.
        mlp_ratios: channels of the feed-forward part, over those of the stage.
        decoder_hidden_size: channels of the head.
        drop_path_rate: chance to skip the last block; it rises in a line from the first one's 0.
        classifier_dropout_prob: before the last layer.
    """

    hidden_sizes: Four = (32, 64, 160, 256)
    depths: Four = (2, 2, 2, 2)
    num_attention_heads: Four = (1, 2, 5, 8)
    strides: Four = (4, 2, 2, 2)
    patch_sizes: Four = (7, 3, 3, 3)
    sr_ratios: Four = (8, 4, 2, 1)
    mlp_ratios: Four = (4, 4, 4, 4)
    decoder_hidden_size: int = 256
    drop_path_rate: float = 0.1
    classifier_dropout_prob: float = 0.1


class SegFormerConfig(SemanticConfig):
    """A SegFormer, with pretrained weights or from scratch.

    Attributes:
        pretrained: folder, or name on the Hugging Face hub, of a SegFormer or MiT; brings its own
            dimensions. Mind its licence: NVIDIA's weights are for non-commercial use.
        network: dimensions of a network with random weights.
        channels: of the network's input; 3, as pretrained ones have, get a grey image 3 times.
    """

    own_format: ClassVar[str] = "segformer"

    pretrained: str | None = None
    network: SegFormerDimensions | None = None
    channels: Literal[1, 3] = 1

    @property
    def network_channels(self) -> int:
        """Channels of the network's input: at least the images'."""
        return max(self.channels, self.in_channels)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretrained is None) == (self.network is None):
            raise ValueError("expected either 'pretrained' or 'network', found both or none")
        return self
