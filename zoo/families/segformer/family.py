"""The family of SegFormer, on our data set for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

import converters
from converters.formats.hf import dataset as data_format
from zoo.contract import TrainJob, division
from zoo.data.items import HuggingFaceItems, Items, SampleItems
from zoo.families.segformer.config import SegFormerConfig
from zoo.families.segformer.network import ARCHITECTURE, SegFormer, build_network, rebuild_network
from zoo.families.semantic import SemanticFamily
from zoo.run_files.licences import WeightSource, of_hub

DATA = "data"


class SegFormerFamily(SemanticFamily):
    """SegFormers."""

    name = "segformer"
    Config = SegFormerConfig

    def build(self, config: SegFormerConfig, classes: int) -> nn.Module:
        """Return a network.

        Raises:
            ValueError: the pretrained weights cannot be had, or the dimensions do not fit.
        """
        return build_network(config, classes)

    def rebuild_plain(self, run: Path, config: SegFormerConfig, classes: int) -> nn.Module:
        """Return the network of a run, without what takes metadata in, its weights or a download.

        Raises:
            ValueError: the run does not say what its network looks like.
        """
        return rebuild_network(run)

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

    def describe_plain(self, run: Path, network: nn.Module) -> None:
        """Leave the network's dimensions, which a pretrained one brings along."""
        if isinstance(network, SegFormer):
            network.network.config.to_json_file(str(run / ARCHITECTURE))

    def open_items(self, config: SegFormerConfig, job: TrainJob) -> tuple[Items, Items]:
        """Open the job's data set, or convert it once to one in the run folder."""
        is_own = job.data_format == config.own_format and data_format.is_own(job.data)
        is_direct = is_own and not job.is_edited
        root = job.data if is_direct else job.out / DATA
        if is_direct:
            _check_labels(root, job)
        elif not (job.resume and data_format.matches(root)):
            _convert(job, root)
        rows = data_format.open_split(root, "train")
        if is_direct:
            _check_division(rows.keys(), job)
        channels = config.in_channels
        train = HuggingFaceItems(rows, job.labels, channels)
        if not is_direct and not job.val:
            return train, SampleItems((), job.labels)
        val = data_format.open_split(root, "validation")
        return train, HuggingFaceItems(val, job.labels, channels)


def _check_labels(root: Path, job: TrainJob) -> None:
    found = data_format.read_labels(root)
    if found != job.labels.names:
        raise ValueError(
            f"{root}: expected the {len(job.labels)} classes of '{job.labels.name}', found "
            f"{len(found)}: {', '.join(found)[:100]}"
        )


def _check_division(keys: Sequence[str], job: TrainJob) -> None:
    """Make sure that the data set's own division keeps from learning what the run holds out."""
    held_out = set(job.split.val(job.fold)) if job.split else set[str]()
    if learned := sorted(held_out.intersection(keys)):
        raise ValueError(
            f"{job.data}: expected to hold out fold {job.fold}, found {len(learned)} of its images "
            f"in the data set's part 'train', such as '{learned[0]}'; convert it again with "
            f"--split and --fold {job.fold}"
        )


def _convert(job: TrainJob, root: Path) -> None:
    converters.write(
        [*job.train, *job.val],
        root,
        format="segformer",
        labels=job.labels,
        split=division(job),
        progress=lambda done, total: job.progress(done, total, "converting"),
    )


FAMILY = SegFormerFamily()
