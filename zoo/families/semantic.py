"""What the semantic families share: how they train and predict."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

import configs
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo import checkpoints
from zoo.data import Items, SampleItems, read_frames
from zoo.devices import choose_device, choose_precision, place
from zoo.families.base import PredictOptions, TrainJob
from zoo.inference import Setting, predict_semantic
from zoo.semantic import SemanticConfig


class SemanticFamily(ABC):
    """A family whose networks give a logit per pixel and class."""

    name: str
    kind: Kind = "semantic"
    streams = ""
    Config: type[SemanticConfig]

    @abstractmethod
    def build(self, config: Any, classes: int) -> nn.Module:
        """Return a network to train: images, float (N, 1, h, w) -> logits (N, C, h', w')."""

    def rebuild(self, run: Path, config: Any, classes: int) -> nn.Module:
        """Return the network of a run, without its weights and without a download."""
        return self.build(config, classes)

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
        setting = _setting(config, config.device, config.batch)
        seed_everything(config.seed)
        network = self.build(config, len(job.labels))
        if config.init:
            checkpoints.load_weights(network, configs.find_weights(self.name, config.init))
        self.describe(job.out, network)
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
        setting = _setting(config, options.device, options.batch or config.batch, options.tta)
        network = self.rebuild(run, config, len(labels))
        checkpoints.load_weights(network, checkpoints.find_weights(run))
        place(network, setting.device).eval()
        yield from predict_semantic(network, read_frames(samples, config.size), labels, setting)


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


def _setting(
    config: SemanticConfig, device_name: str, batch: int, tta: tuple[str, ...] = ()
) -> Setting:
    device = choose_device(device_name)
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    return Setting(device, precision, batch, tta)
