"""SegFormer (Xie et al. 2021) as Hugging Face's transformers have it, on our data set for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import model_validator
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import converters
from converters.formats import hf_dataset as data_format
from zoo.config import StrictModel
from zoo.contract import TrainJob, division
from zoo.data.items import HuggingFaceItems, Items, SampleItems
from zoo.families.hub import load_pretrained
from zoo.families.semantic import NetworkConfig, SemanticFamily
from zoo.run_files.licences import WeightSource, of_hub

Four = tuple[int, int, int, int]
ARCHITECTURE = "network.json"
DATA = "data"


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


class SegFormerConfig(NetworkConfig):
    """A SegFormer, with pretrained weights or from scratch.

    Attributes:
        pretrained: folder, or name on the Hugging Face hub, of a SegFormer or MiT; brings its own
            dimensions. Mind its licence: NVIDIA's weights are for non-commercial use.
        network: dimensions of a network with random weights.
        channels: of the network's input; 3, as pretrained ones have, get the grey image 3 times.
    """

    pretrained: str | None = None
    network: SegFormerDimensions | None = None
    channels: Literal[1, 3] = 1

    @model_validator(mode="after")
    def _one_source(self) -> SegFormerConfig:
        if (self.pretrained is None) == (self.network is None):
            raise ValueError("expected either 'pretrained' or 'network', found both or none")
        return self


class SegFormer(nn.Module):
    """A SegFormer on grey images; its logits have a quarter of the input's height and width."""

    def __init__(self, network: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        """The Mix Transformer."""
        encoder: nn.Module = self.network.segformer
        return encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, h / 4, w / 4) of images, float (N, 1, h, w)."""
        channels = self.network.config.num_channels
        logits: torch.Tensor = self.network(images.expand(-1, channels, -1, -1)).logits
        return logits


class SegFormerFamily(SemanticFamily):
    """SegFormers."""

    name = "segformer"
    streams = "segformer"
    Config = SegFormerConfig

    def build(self, config: SegFormerConfig, classes: int) -> nn.Module:
        """Return a network.

        Raises:
            ValueError: the pretrained weights cannot be had, or the dimensions do not fit.
        """
        if config.network is None:
            return SegFormer(_pretrained(str(config.pretrained), config.channels, classes))
        sizes, heads = config.network.hidden_sizes, config.network.num_attention_heads
        if any(size % n for size, n in zip(sizes, heads, strict=True)):
            raise ValueError(
                f"network: expected hidden_sizes {sizes} that num_attention_heads {heads} divide"
            )
        dimensions = config.network.model_dump()
        architecture = SegformerConfig(
            num_channels=config.channels, num_labels=classes, **dimensions
        )
        return SegFormer(SegformerForSemanticSegmentation(architecture))

    def rebuild(self, run: Path, config: SegFormerConfig, classes: int) -> nn.Module:
        """Return the network of a run, without its weights and without a download.

        Raises:
            ValueError: the run does not say what its network looks like.
        """
        path = run / ARCHITECTURE
        try:
            architecture = SegformerConfig.from_json_file(str(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected the network's dimensions: {error}") from None
        return SegFormer(SegformerForSemanticSegmentation(architecture))

    def without_weights(self, config: SegFormerConfig) -> SegFormerConfig:
        """Return the config of the same network with random weights.

        Raises:
            ValueError: only the pretrained weights say what the network is like.
        """
        if config.network is None:
            raise ValueError(f"pretrained '{config.pretrained}': its dimensions come with weights")
        return config

    def sources(self, config: SegFormerConfig) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return [of_hub(config.pretrained)] if config.pretrained else []

    def describe(self, run: Path, network: nn.Module) -> None:
        """Leave the network's dimensions, which a pretrained one brings along."""
        if isinstance(network, SegFormer):
            network.network.config.to_json_file(str(run / ARCHITECTURE))

    def open_items(self, config: SegFormerConfig, job: TrainJob) -> tuple[Items, Items]:
        """Open the job's data set, or convert it once to one in the run folder."""
        is_direct = job.data_format == self.streams and not job.is_edited
        root = job.data if is_direct else job.out / DATA
        if is_direct:
            _check_labels(root, job)
        elif not (job.resume and data_format.matches(root)):
            _convert(job, root)
        train = HuggingFaceItems(data_format.open_split(root, "train"), job.labels)
        if not is_direct and not job.val:
            return train, SampleItems((), job.labels)
        return train, HuggingFaceItems(data_format.open_split(root, "validation"), job.labels)


def _check_labels(root: Path, job: TrainJob) -> None:
    found = data_format.read_labels(root)
    if found != job.labels.names:
        raise ValueError(
            f"{root}: expected the {len(job.labels)} classes of '{job.labels.name}', found "
            f"{len(found)}: {', '.join(found)[:100]}"
        )


def _convert(job: TrainJob, root: Path) -> None:
    converters.write(
        *([*job.train, *job.val], root),
        format="segformer",
        labels=job.labels,
        split=division(job),
        progress=lambda done, total: job.progress(done, total, "converting"),
    )


def _pretrained(name: str, channels: int, classes: int) -> SegformerForSemanticSegmentation:
    remedy = "pretrained=null and network"
    dimensions = {"num_labels": classes, "num_channels": channels}
    network, _ = load_pretrained(SegformerForSemanticSegmentation, name, remedy, **dimensions)
    return network


FAMILY = SegFormerFamily()
