"""The Lightning loop of all our networks, and how an interrupted one continues."""

from __future__ import annotations

import logging
import pickle
import shutil
import signal
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch import nn

from converters.errors import one_line
from converters.types import LabelSpace
from zoo.augmentation.pipeline import Augmentation
from zoo.contract import TrainJob
from zoo.data.cases import CaseReader, Cases
from zoo.data.items import Items
from zoo.data.reading import Row
from zoo.data.training_set import Examples, TrainingSet
from zoo.inference.predict import predict_semantic
from zoo.inference.setting import Setting
from zoo.machine.devices import narrow_strides, place, settle_precision
from zoo.metadata.network import score_names
from zoo.run_files import checkpoints
from zoo.run_files.notes import BY_SPEED, add_note, noted_kernels
from zoo.training.averaging import Averaging
from zoo.training.config import TrainerConfig
from zoo.training.module import NetworkModule
from zoo.training.recorder import Recorder
from zoo.training.validation import Predict

Learner = Callable[[nn.Module, Any, LabelSpace, Any], NetworkModule]
"""Puts a network together with its loss and optimizer: of it, the config, the classes, samples."""


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators; before the network is built."""
    L.seed_everything(seed, workers=False, verbose=False)


def is_finished(config: TrainerConfig, job: TrainJob) -> bool:
    """Tell whether the run has all its epochs; says so on the progress bar."""
    about = checkpoints.read_about(job.out / checkpoints.LAST)
    epochs = int(about.get("epochs", 0))
    if not job.resume or (epochs < config.epochs and "stopped" not in about):
        return False
    job.progress(1, 1, f"{job.out} is trained already, {epochs} epochs")
    return True


def fit_network(
    network: nn.Module,
    config: TrainerConfig,
    job: TrainJob,
    train_items: Items,
    val_items: Items,
    augment: Augmentation,
    setting: Setting,
    *,
    learner: Learner,
    predict: Predict = predict_semantic,
    objects: tuple[int, ...] | None = None,
    metadata: Mapping[str, Row] | None = None,
) -> None:
    """Train a network and leave its weights, checkpoint and scores in the run folder.

    A run that was interrupted continues after its last whole checkpoint, with the numbers that it
    would have had without the interruption.

    Args:
        network: takes images, float (N, 1, h, w); of any device.
        config: how to train.
        job: what for.
        train_items: what to learn from.
        val_items: what to score on; may be empty.
        augment: what to do to the images that are learned from.
        setting: how to score, and on which device to train.
        learner: puts the network together with its loss and optimizer.
        predict: how predictions come about that are scored.
        objects: the class of each bit of a mask, where bits are objects; None: bit c is class c.
        metadata: key of a sample -> what is known of it, where the network is shown that.

    Raises:
        ValueError: nothing to learn from, a checkpoint of another network, or the loss diverged.
    """
    _check_images(config, job, train_items, val_items)
    job.progress(0, 1, "reading images")
    data, cases = _open_data(config, job, train_items, val_items, augment, objects, metadata)
    fit_examples(network, config, job, data, cases, setting, learner=learner, predict=predict)


def fit_examples(
    network: nn.Module,
    config: TrainerConfig,
    job: TrainJob,
    data: Examples,
    cases: CaseReader,
    setting: Setting,
    *,
    learner: Learner,
    predict: Predict,
) -> None:
    """Do what `fit_network` does, with examples that are there already.

    Args:
        network: as there, and so are the others.
        config: how to train.
        job: what for.
        data: what to learn from.
        cases: what to score on; may be empty.
        setting: how to score, and on which device to train.
        learner: puts the network together with its loss and optimizer.
        predict: how predictions come about that are scored.
    """
    resume = job.out / checkpoints.RESUME
    if not job.resume:
        shutil.rmtree(resume.parent, ignore_errors=True)
    resume.parent.mkdir(parents=True, exist_ok=True)
    prepare(network, config, setting.device)
    averaging = Averaging(network, config) if config.has_average else None
    recorder = Recorder(job, cases, setting, averaging, predict, score_names(network))
    module = learner(network, config, job.labels, data)
    unsure: set[str] = set()
    with _quiet(), noted_kernels(unsure):
        callbacks = [averaging, recorder] if averaging is not None else [recorder]
        trainer = _trainer(config, job, setting.device, callbacks)
        if trainer.world_size > 1 and not config.requeue:
            # Lightning's tells the other processes from within, and waits for them for ever.
            trainer._signal_connector.register_signal_handlers = lambda: None
        _fit(trainer, module, resume)
    if trainer.is_global_zero:
        _note(job.out, config, setting.device, unsure)
        about = {"epochs": str(trainer.current_epoch)}
        if recorder.has_waited(module):
            about["stopped"] = f"no better score in {config.patience}"
        checkpoints.save_weights(recorder.network(module), job.out / checkpoints.LAST, about)


def _open_data(
    config: TrainerConfig,
    job: TrainJob,
    train: Items,
    val: Items,
    augment: Augmentation,
    objects: tuple[int, ...] | None,
    metadata: Mapping[str, Row] | None,
) -> tuple[TrainingSet, Cases]:
    in_memory, size = config.cache == "memory", config.image_size
    folder = None
    if config.cache == "disk":
        folder = Path(config.cache_dir) if config.cache_dir else job.out / "cache"
    windows = config.parts.windows(job.labels)
    data = TrainingSet(
        train,
        size,
        augment,
        config.seed,
        in_memory,
        cache_dir=folder,
        windows=windows,
        objects=objects,
        metadata=metadata,
    )
    cases = Cases(val, size, job.labels, in_memory, cache_dir=folder, metadata=metadata)
    return data, cases


def _check_images(config: TrainerConfig, job: TrainJob, train: Items, val: Items) -> None:
    if not len(train):
        raise ValueError(f"{job.data}: expected images to learn from, found none")
    if len(val):
        return
    lacking = f"{job.data}: %s: expected images to score on, found none; %s"
    if config.optim.follows_score:
        raise ValueError(lacking % ("schedule plateau", "choose another"))
    if config.patience:
        raise ValueError(lacking % (f"patience {config.patience}", "set it to 0"))


def prepare(network: nn.Module, config: TrainerConfig, device: torch.device) -> None:
    """Move a network to its device, order its memory, and compile it, as a config says.

    Raises:
        ValueError: an order in which a processor would write beyond its memory.
    """
    place(network, device)
    if config.channels_last != "auto":
        narrow = next(narrow_strides(network), "") if device.type == "cpu" else ""
        if config.channels_last and narrow:
            raise ValueError(
                f"channels_last: expected false or auto for this network on a processor: oneDNN "
                f"breaks on its '{narrow}', a 1x1 convolution of few channels with a stride"
            )
        order = torch.channels_last if config.channels_last else torch.contiguous_format
        network.to(memory_format=order)
    if config.is_compiled:
        # In place: names of weights stay, and a copy, such as an average, is a plain network.
        network.compile()


def _trainer(
    config: TrainerConfig, job: TrainJob, device: torch.device, callbacks: list[L.Callback]
) -> L.Trainer:
    return L.Trainer(
        accelerator=device.type,
        devices=config.devices if device.index is None else [device.index],
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=settle_precision(config.precision, device),
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        # Sizes are fixed: the fastest kernel is worth a search, but is not always the same one.
        benchmark=device.type == "cuda" and not config.deterministic,
        deterministic="warn" if config.deterministic else None,
        plugins=_environment(config),
        callbacks=callbacks,
        default_root_dir=job.out,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _environment(config: TrainerConfig) -> SLURMEnvironment | None:
    # Lightning would requeue jobs on its own; another submission continues the run just as well.
    return SLURMEnvironment(auto_requeue=config.requeue) if SLURMEnvironment.detect() else None


def _note(run: Path, config: TrainerConfig, device: torch.device, unsure: set[str]) -> None:
    if unsure:
        names = ", ".join(sorted(unsure))
        add_note(run, f"not deterministic on {device.type}, no such kernel: {names}")
    elif device.type == "cuda" and not config.deterministic:
        add_note(run, BY_SPEED)


def _fit(trainer: L.Trainer, module: NetworkModule, resume: Path) -> None:
    ready = resume if resume.is_file() else None
    try:
        trainer.fit(module, ckpt_path=ready, weights_only=True)
    except SIGTERMException:
        # Lightning's own exit code would be that of success.
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGTERM:
            raise
        # Ctrl-C: Lightning has ended the training in good order, and would exit with 1.
        raise KeyboardInterrupt from None
    except (RuntimeError, pickle.UnpicklingError, KeyError) as error:
        if ready is None or trainer.global_step:
            raise
        reason = one_line(error)
        raise ValueError(
            f"{resume}: expected a checkpoint of this network, remove it to train anew; found: "
            f"{textwrap.shorten(reason, 200, placeholder=' ...')}"
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
            # Of processes that train together, a hint about a little time.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
