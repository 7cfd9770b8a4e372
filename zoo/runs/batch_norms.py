"""Statistics of batch norms for weights that no training has seen, such as a mean of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from converters.types import LabelSpace
from zoo.contract import PredictOptions
from zoo.data.batches import normalize
from zoo.data.items import SampleItems
from zoo.data.training_set import EpochSampler, TrainingSet, training_loader
from zoo.families.settings import plan_prediction
from zoo.machine.devices import autocast, place
from zoo.metadata.reading import rows_of_run
from zoo.run_files.checkpoints import BEST, load_weights, save_weights
from zoo.runs.run import Run, subset_samples
from zoo.source import DataSource
from zoo.training.averaging import settle_batch_norms
from zoo.training.semantic_config import SemanticConfig

Norms = Literal["mean", "recompute", "again"]
"""Where statistics come from: a mean of others, or computed anew; `again` is an older word."""


@runtime_checkable
class Rebuilds(Protocol):
    """A family that says what a network without weights is like; one that has none is told so."""

    def rebuild(self, run: Path, config: Any, classes: int) -> nn.Module:
        """Return the network of a run, without its weights."""

    def describe(self, run: Path, network: Any) -> None:
        """Leave in a folder what `rebuild` needs beyond the config."""


def has_statistics(network: nn.Module) -> bool:
    """Tell whether a network has batch norms that keep statistics of what they have seen."""
    norms = (m for m in network.modules() if isinstance(m, _BatchNorm))
    return any(norm.track_running_stats for norm in norms)


def check_norms(run: Run, wanted: Norms) -> None:
    """Make sure that statistics can be had in a way.

    Raises:
        ValueError: another word, or `recompute` is wanted of a family whose networks need more than
            images to learn.
    """
    if wanted not in get_args(Norms):
        raise ValueError(f"--norms {wanted}: expected one of mean, recompute")
    is_able = isinstance(run.family, Rebuilds) and run.family.kind == "semantic"
    if wanted != "mean" and not is_able:
        raise ValueError(
            f"--norms {wanted}: the family '{run.name}' learns from more than images; expected mean"
        )


def batch_norm_updater(
    run: Run, data: DataSource, labels: LabelSpace, options: PredictOptions
) -> Callable[[Path], None]:
    """Return what computes the statistics in a run's folder anew, on its training images.

    As at the end of SWA: one pass over the augmented training images, as the run sees them. Where
    the network keeps no statistics, nothing changes.
    """
    from zoo.augmentation.pipeline import Augmentation

    config, family = run.config, run.family
    if not isinstance(config, SemanticConfig) or not isinstance(family, Rebuilds):
        raise TypeError(f"{run.path}: expected a semantic run")
    samples = subset_samples(run, data, "train", labels)
    items = SampleItems(samples, labels)
    images = TrainingSet(
        items,
        config.image_size,
        Augmentation(config.augment, labels),
        config.seed,
        in_memory=config.cache == "memory",
        windows=config.windows(labels),
        metadata=rows_of_run(run.path, config.metadata, samples),
    )
    setting = plan_prediction(config, options).setting

    def _moved(rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (part.to(setting.device) for part in rows)

    def update(folder: Path) -> None:
        network = family.rebuild(folder, config, len(labels))
        if not has_statistics(network):
            return
        load_weights(network, folder / BEST)
        place(network, setting.device)
        torch.manual_seed(config.seed)
        sampler = EpochSampler(len(images), config.seed)
        loader = training_loader(images, sampler, config.batch, config.workers, pinned=False)
        batches = ((normalize(b[0].to(setting.device)), *_moved(b[2:])) for b in loader)
        with autocast(setting.device, setting.precision):
            settle_batch_norms(network, batches)
        save_weights(network, folder / BEST)

    return update
