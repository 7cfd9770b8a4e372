"""The trainer that all semantic families share: a Lightning loop, scores, and a run to continue."""

from __future__ import annotations

import logging
import math
import os
import pickle
import shutil
import signal
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch import nn
from torch.utils.data import DataLoader

from converters.masks import EMPTY
from converters.types import LabelSpace
from fusion.metrics import dice
from zoo import checkpoints
from zoo.augmentation import Augmentation
from zoo.data import (
    Case,
    Cases,
    EpochSampler,
    Items,
    TrainingSet,
    normalize,
    targets_on_device,
    training_loader,
)
from zoo.devices import place
from zoo.families.base import TrainJob
from zoo.inference import Setting, predict_semantic
from zoo.metrics_file import MetricsFile
from zoo.optim import ScoreLR, build_optimizer, build_schedule
from zoo.semantic import SemanticConfig

Batch = tuple[torch.Tensor, torch.Tensor]
# Reading the loss waits for the device, so it is not done at every step.
STEPS_BETWEEN_NOTES = 10


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators; before the network is built."""
    L.seed_everything(seed, workers=False, verbose=False)


def is_finished(config: SemanticConfig, job: TrainJob) -> bool:
    """Tell whether the run has all its epochs; says so on the progress bar."""
    about = checkpoints.read_about(job.out / checkpoints.LAST)
    if not job.resume or int(about.get("epochs", 0)) < config.epochs:
        return False
    job.progress(1, 1, f"{job.out} is trained already, {config.epochs} epochs")
    return True


class SemanticModule(L.LightningModule):
    """A network with its loss and optimizer, as Lightning wants them.

    A network may give logits at several scales, finest first, while it learns; in evaluation mode
    it gives the finest alone.
    """

    def __init__(
        self, network: nn.Module, config: SemanticConfig, labels: LabelSpace, data: TrainingSet
    ) -> None:
        super().__init__()
        self.network, self.config, self.classes = network, config, len(labels)
        self.objective = config.objective(labels)
        self._data = data

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of images, uint8 (N, 1, h, w), and masks as `TrainingSet` has them."""
        images, masks = batch
        outputs = self.network(normalize(images))
        target = targets_on_device(masks, self.classes, self._data.is_soft)
        loss: torch.Tensor = self.objective(outputs, target)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, which moves at every step."""
        optimizer = build_optimizer(self.network, self.config.optim)
        # Not Lightning's estimate: it starts the loader's workers before a checkpoint is read.
        steps = -(-len(self.train_dataloader()) // self.config.accumulate)
        schedule = build_schedule(optimizer, self.config.optim, steps * self.config.epochs)
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
        world = self.trainer.world_size
        sampler = EpochSampler(len(self._data), self.config.seed, self.trainer.global_rank, world)
        # Workers start to read the first epoch before Lightning tells the sampler which it is.
        sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        pinned = self.trainer.strategy.root_device.type == "cuda"
        return training_loader(self._data, sampler, self.config.batch, self.config.workers, pinned)


class Recorder(L.Callback):
    """At the end of epochs: score, write `metrics.csv` and weights, and keep the place."""

    def __init__(self, job: TrainJob, cases: Cases, setting: Setting) -> None:
        self._job, self._cases, self._setting = job, cases, setting
        columns = ("epoch", "step", "seconds", "train_loss", "lr", "val_dice", *job.labels.names)
        self._metrics = MetricsFile(job.out / "metrics.csv", columns)
        self._losses: list[torch.Tensor] = []
        self._note, self._rate = "", 0.0
        self._started, self._before = time.monotonic(), 0.0

    def on_train_start(self, trainer: L.Trainer, module: SemanticModule) -> None:
        """Forget what was written after the checkpoint from which training continues."""
        self._metrics.keep_until(trainer.current_epoch)
        self._started, self._before = time.monotonic(), self._metrics.last("seconds")

    def on_train_epoch_start(self, trainer: L.Trainer, module: SemanticModule) -> None:
        """Seed what is random in the network by the epoch, for a run that is continued."""
        seed = [module.config.seed, trainer.current_epoch, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._losses = []

    def on_train_batch_start(
        self, trainer: L.Trainer, module: SemanticModule, batch: Batch, number: int
    ) -> None:
        """Note the learning rate before the schedule moves on."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, module: SemanticModule, outputs: Any, batch: Batch, number: int
    ) -> None:
        """Move the progress bar."""
        # Lightning has divided it by the number of batches of a step.
        self._losses.append(outputs["loss"].detach() * module.config.accumulate)
        if not trainer.is_global_zero:
            return
        per_epoch = int(trainer.num_training_batches)
        if number % STEPS_BETWEEN_NOTES == 0:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            score = f" dice {self._metrics.last('val_dice'):.4f}" if self._metrics.rows else ""
            self._note = f"{epoch} loss {float(self._losses[-1]):.4f}{score}"
        done = trainer.current_epoch * per_epoch + number + 1
        self._job.progress(done, per_epoch * (trainer.max_epochs or 0), self._note)

    def on_train_epoch_end(self, trainer: L.Trainer, module: SemanticModule) -> None:
        """Score where it is due, then write the checkpoint to continue from."""
        epoch = trainer.current_epoch + 1
        loss = float(trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean"))
        if not math.isfinite(loss):
            raise ValueError(
                f"epoch {epoch}: the loss is {loss}; lower optim.lr, or set clip, "
                "or precision=32-true"
            )
        is_last = epoch == trainer.max_epochs
        if is_last or epoch % module.config.validate_every == 0:
            self._record(trainer, module, epoch, loss)
        if is_last or epoch % module.config.checkpoint_every == 0:
            path = self._job.out / checkpoints.RESUME
            unfinished = path.with_name(path.name + ".partial")
            trainer.save_checkpoint(unfinished)
            if trainer.is_global_zero:
                os.replace(unfinished, path)

    def _record(self, trainer: L.Trainer, module: SemanticModule, epoch: int, loss: float) -> None:
        per_class = self._score(trainer, module)
        mean = float(per_class.mean())
        module.take_score(mean)
        if not trainer.is_global_zero:
            return
        if mean > self._metrics.best("val_dice"):
            about = {"epochs": str(epoch), "val_dice": f"{mean:.6f}"}
            checkpoints.save_weights(module.network, self._job.out / checkpoints.BEST, about)
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "seconds": round(self._before + time.monotonic() - self._started, 1),
            "train_loss": round(loss, 6),
            "lr": f"{self._rate:.4g}",
            "val_dice": round(mean, 6),
        }
        scores = (round(value, 6) for value in per_class.tolist())
        self._metrics.append(row | dict(zip(self._job.labels.names, scores, strict=True)))

    def _score(self, trainer: L.Trainer, module: SemanticModule) -> torch.Tensor:
        """Dice of every class, mean over the images, float64 (C,); each process takes a share."""
        numbers = range(trainer.global_rank, len(self._cases), trainer.world_size)
        module.network.eval()
        cases = self._cases.read(numbers)
        total = score_cases(module.network, cases, self._job.labels, self._setting).sum(0)
        module.network.train()
        if trainer.world_size > 1:
            total = trainer.strategy.reduce(total.to(module.device), reduce_op="sum").cpu()
        return total / len(self._cases)


def score_cases(
    network: nn.Module, cases: Iterable[Case], labels: LabelSpace, setting: Setting
) -> torch.Tensor:
    """Return the Dice of images and classes at the images' own size, float64 (n, C).

    Predictions come about as those of `zoo predict` do. The network is in evaluation mode.
    """
    waiting: deque[Case] = deque()

    def frames() -> Iterator[Case]:
        for case in cases:
            waiting.append(case)
            yield case

    rows = []
    for prediction in predict_semantic(network, frames(), labels, setting):
        truth = waiting.popleft().truth
        rows.append([dice(prediction.binary(n), truth.get(n, EMPTY)) for n in labels.names])
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(labels))


def fit_semantic(
    network: nn.Module,
    config: SemanticConfig,
    job: TrainJob,
    train_items: Items,
    val_items: Items,
    augment: Augmentation,
    setting: Setting,
) -> None:
    """Train a network and leave its weights, checkpoint and scores in the run folder.

    A run that was interrupted continues after its last whole checkpoint, with the numbers that it
    would have had without the interruption.

    Args:
        network: gives logits (N, C, h', w') of images, float (N, 1, h, w); of any device.
        config: how to train.
        job: what for.
        train_items: what to learn from.
        val_items: what to score on; may be empty.
        augment: what to do to the images that are learned from.
        setting: device, precision, and how to score.

    Raises:
        ValueError: nothing to learn from, a checkpoint of another network, or the loss diverged.
    """
    if not len(train_items):
        raise ValueError(f"{job.data}: expected images to learn from, found none")
    if config.optim.follows_score and not len(val_items):
        raise ValueError(
            f"{job.data}: schedule plateau: expected images to score on, found none; choose another"
        )
    resume = job.out / checkpoints.RESUME
    if not job.resume:
        shutil.rmtree(resume.parent, ignore_errors=True)
    resume.parent.mkdir(parents=True, exist_ok=True)
    job.progress(0, 1, "reading images")
    in_memory = config.cache == "memory"
    data = TrainingSet(train_items, config.size, augment, config.seed, in_memory)
    cases = Cases(val_items, config.size, job.labels, in_memory)
    recorder = Recorder(job, cases, setting)
    module = SemanticModule(place(network, setting.device), config, job.labels, data)
    with _quiet():
        trainer = _trainer(config, job, setting, recorder)
        _fit(trainer, module, resume)
    if trainer.is_global_zero:
        about = {"epochs": str(config.epochs)}
        checkpoints.save_weights(network, job.out / checkpoints.LAST, about)


def _trainer(
    config: SemanticConfig,
    job: TrainJob,
    setting: Setting,
    recorder: Recorder,
) -> L.Trainer:
    device = setting.device
    return L.Trainer(
        accelerator=device.type,
        devices=config.devices if device.index is None else [device.index],
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=setting.precision,
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        benchmark=device.type == "cuda",
        callbacks=[recorder],
        default_root_dir=job.out,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _fit(trainer: L.Trainer, module: SemanticModule, resume: Path) -> None:
    ready = resume if resume.is_file() else None
    try:
        trainer.fit(module, ckpt_path=ready, weights_only=True)
    except SIGTERMException:
        # Lightning's own exit code would be that of success.
        raise SystemExit(128 + signal.SIGTERM) from None
    except (RuntimeError, pickle.UnpicklingError, KeyError) as error:
        if ready is None or trainer.global_step:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{resume}: expected a checkpoint of this network, remove it to train anew; found: "
            f"{reason:.200}"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints off the screen; errors stay."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning uses what newer PyTorch releases deprecate.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.")
            # In float16 the first steps may be skipped, until the scale of the gradients is found.
            warnings.filterwarnings("ignore", message=r".*`lr_scheduler\.step\(\)` before")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
