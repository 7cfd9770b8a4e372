"""What the semantic families share: how they train and predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import converters
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo.contract import PredictOptions, TrainJob
from zoo.data.reading import NetworkInput, Row
from zoo.families.base import NetworkFamily
from zoo.families.training_step import TrainingStep
from zoo.inference.predict import predict_semantic
from zoo.inference.setting import Setting
from zoo.metadata.columns import FILE, Columns, check_same
from zoo.metadata.network import MetadataNetwork, add_metadata, plain_of
from zoo.metadata.reading import Metadata, read_to_train, rows_of_run
from zoo.run_files import checkpoints
from zoo.training.losses.objective import compute_loss
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

        def compute(images: torch.Tensor) -> torch.Tensor:
            return compute_loss(objective, network(images), target, images)

        return TrainingStep(network, shape, compute, objective)

    def rebuild(self, run: Path, config: Any, classes: int) -> nn.Module:
        """Return the network of a run, without its weights and without a download."""
        plain = self.rebuild_plain(run, config, classes)
        if config.metadata is None:
            return plain
        return self._with_metadata(plain, Columns.load(run), config)

    def rebuild_plain(self, run: Path, config: Any, classes: int) -> nn.Module:
        """Return what `rebuild` does, without what takes metadata in."""
        return super().rebuild(run, config, classes)

    def describe(self, run: Path, network: Any) -> None:
        """Leave in the run folder what `rebuild` needs beyond the config."""
        if isinstance(network, MetadataNetwork):
            network.columns.save(run)
        self.describe_plain(run, plain_of(network))

    def describe_plain(self, run: Path, network: Any) -> None:
        """Leave what `rebuild_plain` needs; most networks need nothing."""

    def extend(self, network: Any, config: Any, job: TrainJob) -> Any:
        """Return a network with what takes the config's metadata in, on scales of the samples.

        Raises:
            ValueError: metadata that is not there or cannot be used, other than the run began with,
                or a network that cannot take it in.
        """
        if config.metadata is None:
            return network
        found, learned = self._read(config, job)
        columns = found.fit(config.metadata, learned)
        file = job.out / FILE
        if job.resume and (job.out / checkpoints.RESUME).is_file() and file.is_file():
            check_same(Columns.load(job.out).columns, columns.columns, file)
        return self._with_metadata(network, columns, config)

    def _read(self, config: Any, job: TrainJob) -> tuple[Metadata, list[str]]:
        """Read what is known of a job's images; also the keys of those that are learned from."""
        samples, learned = [*job.train, *job.val], [sample.key for sample in job.train]
        if not samples:
            # A data set that the family reads by itself: the division is inside.
            samples = converters.list_images(job.data, format=job.data_format, subset="all")
            items, _ = self.open_items(config, job)
            learned = [items.key(number) for number in range(len(items))]
        return read_to_train(config.metadata, samples, job.data), learned

    def _with_metadata(self, plain: nn.Module, columns: Columns, config: Any) -> MetadataNetwork:
        shape = (1, config.in_channels, *config.input_size)
        return add_metadata(plain, columns, config.metadata, shape)

    def load_init(self, network: Any, path: Path) -> None:
        """Read weights to start from: of this network, or without what takes metadata in.

        Raises:
            ValueError: they are of another network.
        """
        is_plain = not any(name.startswith("plain.") for name in checkpoints.read_weights(path))
        checkpoints.load_initial(plain_of(network) if is_plain else network, path)

    def read_metadata(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Mapping[str, Row] | None:
        """Return what the network is shown of images beside their pixels, by key; None: nothing.

        Raises:
            ValueError: a table that is asked for, of a network that is shown none; or a bad one.
        """
        if options.metadata and not (config.metadata and config.metadata.is_input):
            raise ValueError(
                f"metadata: the network of {run} is shown images alone; found {options.metadata}"
            )
        table = Path(options.metadata) if options.metadata else None
        return rows_of_run(run, config.metadata, samples, table)

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
        rows = None
        if isinstance(network, MetadataNetwork):
            rows = self._read(config, job)[0].rows(network.columns)
        fit_network(
            network,
            config,
            job,
            train,
            val,
            augment,
            setting,
            learner=SemanticModule,
            metadata=rows,
        )

    def predict_frames(
        self, network: Any, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
    ) -> Iterator[Prediction]:
        """Yield one prediction a frame, in order; the network is in evaluation mode."""
        return predict_semantic(network, frames, labels, setting)
