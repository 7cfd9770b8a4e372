"""What the semantic families share: how they train and predict."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import nn

import configs
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo import checkpoints
from zoo.data import Items, SampleItems
from zoo.devices import place
from zoo.families.activations import checkpoint_blocks, find_blocks
from zoo.families.base import PredictOptions, TrainJob
from zoo.families.lesson import Lesson
from zoo.families.licences import WeightSource, write_licences
from zoo.inference import predict_semantic, read_frames
from zoo.plans import plan_prediction, plan_scoring
from zoo.semantic import SemanticConfig


class NetworkConfig(SemanticConfig):
    """A config that says, beside how to train, which network.

    Attributes:
        gradient_checkpointing: compute blocks of the network anew for the gradient instead of
            keeping what they computed: about a third more time, a fraction of the memory.
    """

    gradient_checkpointing: bool = False

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        return 1

    @property
    def pools_all(self) -> bool:
        """Whether a batch norm sees one value an image and channel, so that a batch needs two."""
        return False

    @model_validator(mode="after")
    def _fits_network(self) -> NetworkConfig:
        found, known = len(self.deep_supervision), self.outputs
        if found > 1 and found != known:
            expected = f"{known} weights, finest first, or none" if known > 1 else "none"
            raise ValueError(
                f"deep_supervision: this network gives {known} output{'s' * (known > 1)} while it "
                f"learns: expected {expected}, found {found}"
            )
        if self.pools_all and self.batch < 2:
            raise ValueError(
                "batch: expected at least 2, found 1: this network normalises what it pools over "
                "the whole image, one value an image"
            )
        return self


def reads_colours(path: Path) -> bool:
    """Tell whether a safetensors file has a first convolution that reads three channels."""
    kernels = (v for v in checkpoints.read_weights(path).values() if v.ndim == 4)
    return any(v.shape[1] == 3 and v.shape[-1] > 1 for v in kernels)


class SemanticFamily(ABC):
    """A family whose networks give a logit per pixel and class."""

    name: str
    kind: Kind = "semantic"
    streams = ""
    Config: type[NetworkConfig]

    @abstractmethod
    def build(self, config: Any, classes: int) -> nn.Module:
        """Return a network to train: images, float (N, 1, h, w) -> logits (N, C, h', w').

        While it learns it may give several, finest first.
        """

    def without_weights(self, config: Any) -> Any:
        """Return the config of the same network with random weights, which needs no download."""
        return config

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return the parts that gradient checkpointing computes anew."""
        return list(find_blocks(network))

    def sources(self, config: Any) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return []

    def rebuild(self, run: Path, config: Any, classes: int) -> nn.Module:
        """Return the network of a run, without its weights and without a download."""
        return self.build(self.without_weights(config), classes)

    def lesson(self, network: nn.Module, config: Any, labels: LabelSpace) -> Lesson:
        """Return what the network computes while it learns, for the estimate of memory."""
        device = next(network.parameters()).device
        objective = config.objective(labels).to(device)
        target = torch.empty(config.batch, len(labels), *config.input_size, device=device)
        shape = (config.batch, 1, *config.input_size)
        return Lesson(network, shape, lambda images: objective(network(images), target), objective)

    def describe(self, run: Path, network: nn.Module) -> None:  # noqa: B027 (most have nothing)
        """Leave in the run folder what `rebuild` needs beyond the config."""

    def open_items(self, config: Any, job: TrainJob) -> tuple[Items, Items]:
        """Return what to learn from and what to score on."""
        return SampleItems(job.train, job.labels), SampleItems(job.val, job.labels)

    def train(self, config: Any, job: TrainJob) -> None:
        """Train a network and leave it in `job.out`; a killed run continues, a finished one stays.

        Raises:
            ValueError: what the config or the data ask for is not there.
        """
        # Late: prediction needs no Lightning.
        from zoo.augmentation import Augmentation
        from zoo.training import fit_semantic, is_finished, seed_everything

        if is_finished(config, job):
            return
        augment = Augmentation(config.augment, job.labels, config.soft_targets)
        setting = plan_scoring(config)
        seed_everything(config.seed)
        network = self.build(config, len(job.labels))
        if config.init:
            checkpoints.load_weights(network, configs.find_weights(self.name, config.init))
        if config.gradient_checkpointing:
            checkpoint_blocks(self.blocks(network))
        self.describe(job.out, network)
        write_licences(job.out, self.sources(config))
        train_items, val_items = self.open_items(config, job)
        fit_semantic(network, config, job, train_items, val_items, augment, setting)

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: the run has no weights, or an option is unknown.
        """
        labels = LabelSpace.load(config.labels)
        plan = plan_prediction(config, options)
        network = self.rebuild(run, config, len(labels))
        checkpoints.load_weights(network, checkpoints.find_weights(run))
        place(network, plan.setting.device).eval()
        frames = read_frames(samples, plan.size_hw)
        yield from predict_semantic(network, frames, labels, plan.setting)


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub's client from announcing every retry; the error it ends in says it all."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
