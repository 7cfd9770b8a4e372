"""What the semantic families share: how they train and predict."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from converters.types import LabelSpace
from fusion.types import Kind, Prediction
from zoo.contract import TrainJob
from zoo.data.reading import NetworkInput
from zoo.families.base import NetworkFamily
from zoo.families.training_step import TrainingStep
from zoo.inference.predict import Setting, predict_semantic
from zoo.run_files import checkpoints
from zoo.training.semantic_config import SemanticConfig

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation


def reads_colours(path: Path) -> bool:
    """Tell whether a safetensors file has a first convolution that reads three channels."""
    kernels = (v for v in checkpoints.read_weights(path).values() if v.ndim == 4)
    return any(v.shape[1] == 3 and v.shape[-1] > 1 for v in kernels)


class SemanticFamily(NetworkFamily):
    """A family whose networks give a logit per pixel and class: (N, C, h', w').

    While they learn they may give several, finest first.
    """

    kind: Kind = "semantic"
    Config: type[SemanticConfig]

    def training_step(self, network: Any, config: Any, labels: LabelSpace) -> TrainingStep:
        """Return what the network computes while it learns, for the estimate of memory."""
        device = next(network.parameters()).device
        objective = config.objective(labels).to(device)
        target = torch.empty(config.batch, len(labels), *config.input_size, device=device)
        shape = (config.batch, config.in_channels, *config.input_size)
        return TrainingStep(
            network, shape, lambda images: objective(network(images), target), objective
        )

    def augmentation(self, config: Any, labels: LabelSpace) -> Augmentation:
        """Return what is done to the images that are learned from."""
        # Late: prediction needs no albumentations.
        from zoo.augmentation.pipeline import Augmentation

        return Augmentation(config.augment, labels, config.soft_targets)

    def fit(
        self, network: Any, config: Any, job: TrainJob, augment: Augmentation, setting: Setting
    ) -> None:
        """Train a network and leave it in `job.out`."""
        from zoo.training.loop import fit_network
        from zoo.training.module import SemanticModule

        train, val = self.open_items(config, job)
        fit_network(network, config, job, train, val, augment, setting, learner=SemanticModule)

    def predict_frames(
        self, network: Any, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
    ) -> Iterator[Prediction]:
        """Yield one prediction a frame, in order; the network is in evaluation mode."""
        return predict_semantic(network, frames, labels, setting)


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
