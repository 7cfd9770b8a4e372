"""A network with its loss and optimizer, as Lightning wants them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from converters.types import LabelSpace
from zoo.data.batches import normalize, targets_on_device, unpack_on_device
from zoo.data.training_set import Batch, EpochSampler, Examples, TrainingSet, training_loader
from zoo.metadata.network import Learned
from zoo.training.averaging import settle_rate
from zoo.training.config import TrainerConfig
from zoo.training.losses.objective import compute_loss
from zoo.training.optim import ScoreLR, build_optimizer, build_schedule
from zoo.training.semantic_config import SemanticConfig


class NetworkModule(L.LightningModule, ABC):
    """A network with its optimizer, and the samples that it learns from."""

    def __init__(
        self, network: nn.Module, config: TrainerConfig, labels: LabelSpace, data: Examples
    ) -> None:
        super().__init__()
        self.network, self.config, self.classes = network, config, len(labels)
        self._data = data

    @abstractmethod
    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of a batch of examples, such as a `TrainingSet` gives."""

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, which moves at every step."""
        config = self.config
        optimizer = build_optimizer(self.network, config.optim)
        # Not Lightning's estimate: it starts the loader's workers before a checkpoint is read.
        steps = -(-len(self.train_dataloader()) // config.accumulate)
        last = config.last_average
        if last is not None and last.lr is not None:
            schedule = settle_rate(optimizer, config.optim, last, config.epochs, steps)
        else:
            schedule = build_schedule(optimizer, config.optim, steps * config.epochs)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def take_score(self, score: float) -> None:
        """Let a schedule that follows the validation score know it; in every process alike."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, ScoreLR):
            schedule.observe(score)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches, from the epoch on at which training stands."""
        return self.loader(self.trainer.fit_loop.epoch_progress.current.processed)

    def loader(self, epoch: int) -> DataLoader[Batch]:
        """Return this process's batches, from an epoch on, counted from 0."""
        world = self.trainer.world_size
        sampler = EpochSampler(len(self._data), self.config.seed, self.trainer.global_rank, world)
        # Workers start to read the first epoch before Lightning tells the sampler which it is.
        sampler.set_epoch(epoch)
        pinned = self.trainer.strategy.root_device.type == "cuda"
        return training_loader(self._data, sampler, self.config.batch, self.config.workers, pinned)


class SemanticModule(NetworkModule):
    """A network that gives logits, with its loss.

    It may give them at several scales, finest first, while it learns; in evaluation mode it gives
    the finest alone.
    """

    _data: TrainingSet

    def __init__(
        self, network: nn.Module, config: SemanticConfig, labels: LabelSpace, data: TrainingSet
    ) -> None:
        super().__init__(network, config, labels, data)
        self.objective = config.objective(labels)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of images, uint8 (N, c, h, w), and masks as `TrainingSet` has them."""
        images, masks, *rows = batch
        given = self.network(normalize(images), *rows)
        outputs, further = given if isinstance(given, Learned) else (given, None)
        target = targets_on_device(masks, self.classes, self._data.is_soft)
        loss = compute_loss(self.objective, outputs, target, images)
        return loss if further is None else loss + further


class LearnsByItself(Protocol):
    """A network that computes its loss by itself."""

    def loss(
        self, images: torch.Tensor, masks: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of images, float (N, c, h, w), with masks, bool (N, P, h, w)."""


class InstanceModule(NetworkModule):
    """A network that computes its loss by itself, with its optimizer."""

    network: LearnsByItself
    _data: TrainingSet

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of images, uint8 (N, c, h, w), and bit-packed masks."""
        images, packed = batch[:2]
        objects = self._data.objects or tuple(range(self.classes))
        masks = unpack_on_device(packed, len(objects), torch.bool)
        classes = torch.tensor(objects, device=masks.device)
        return self.network.loss(normalize(images), masks, classes)
