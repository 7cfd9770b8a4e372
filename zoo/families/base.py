"""What the families share whose networks our own loop trains: semantic ones, and of instances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

import configs
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo.contract import PredictOptions, TrainJob
from zoo.data.items import Items, SampleItems
from zoo.data.reading import NetworkInput, Row
from zoo.families.activation_checkpointing import checkpoint_blocks, find_blocks
from zoo.families.settings import plan_prediction, plan_scoring
from zoo.families.training_step import TrainingStep
from zoo.inference.frames import read_frames
from zoo.inference.setting import Setting
from zoo.machine.devices import place
from zoo.run_files import checkpoints
from zoo.run_files.licences import WeightSource, said_licence, write_licences
from zoo.training.config import TrainerConfig

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation


class NetworkFamily(ABC):
    """A family whose networks our own loop trains."""

    name: str
    kind: Kind
    Config: type[TrainerConfig]

    @abstractmethod
    def build(self, config: Any, classes: int) -> nn.Module:
        """Return a network to train, of images, float (N, c, h, w).

        Their channels c are the config's `in_channels`.

        Raises:
            ValueError: dimensions that do not go together, or weights that cannot be had.
        """

    @abstractmethod
    def training_step(self, network: Any, config: Any, labels: LabelSpace) -> TrainingStep:
        """Return what the network computes while it learns, for the estimate of memory."""

    @abstractmethod
    def fit(
        self,
        network: Any,
        config: Any,
        job: TrainJob,
        augment: Augmentation,
        setting: Setting,
    ) -> None:
        """Train a network and leave it in `job.out`."""

    @abstractmethod
    def predict_frames(
        self, network: Any, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
    ) -> Iterator[Prediction]:
        """Yield one prediction a frame, in order; the network is in evaluation mode."""

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

    def describe(self, run: Path, network: Any) -> None:  # noqa: B027 (most have nothing)
        """Leave in the run folder what `rebuild` needs beyond the config."""

    def extend(self, network: Any, config: Any, job: TrainJob) -> Any:
        """Return a network, before it learns, with what it needs the job's samples for."""
        return network

    def load_init(self, network: Any, path: Path) -> None:
        """Read weights to start from.

        Raises:
            ValueError: they are of another network.
        """
        checkpoints.load_initial(network, path)

    def read_metadata(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Mapping[str, Row] | None:
        """Return what the network is shown of images beside their pixels, by key; None: nothing.

        Raises:
            ValueError: a table that is asked for, of a network that is shown none; or a bad one.
        """
        return None

    def open_items(self, config: Any, job: TrainJob) -> tuple[Items, Items]:
        """Return what to learn from and what to score on."""
        train, val = (SampleItems(s, job.labels, config.in_channels) for s in (job.train, job.val))
        return train, val

    def augmentation(self, config: Any, labels: LabelSpace) -> Augmentation:
        """Return what is done to the images that are learned from."""
        # Late: prediction needs no albumentations.
        from zoo.augmentation.pipeline import Augmentation

        return Augmentation(config.augment, labels)

    def train(self, config: Any, job: TrainJob) -> None:
        """Train a network and leave it in `job.out`; a killed run continues, a finished one stays.

        Raises:
            ValueError: what the config or the data ask for is not there.
        """
        # Late: prediction needs no Lightning.
        from zoo.training.loop import is_finished, seed_everything

        if is_finished(config, job):
            return
        augment = self.augmentation(config, job.labels)
        setting = plan_scoring(config)
        seed_everything(config.seed)
        network = self.build(config, len(job.labels))
        if config.gradient_checkpointing:
            checkpoint_blocks(self.blocks(network))
        network = self.extend(network, config, job)
        if config.init:
            self.load_init(network, configs.find_weights(self.name, config.init))
        self.describe(job.out, network)
        write_licences(job.out, said_licence(self.sources(config), config.weights_licence))
        self.fit(network, config, job, augment, setting)

    def load(self, run: Path, config: Any) -> nn.Module:
        """Return the network of a run with its weights, on the CPU.

        Raises:
            ValueError: the run has no weights, or those of another network.
        """
        network = self.rebuild(run, config, len(config.labels))
        checkpoints.load_weights(network, checkpoints.find_weights(run))
        return network

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: the run has no weights, or an option is unknown.
        """
        options.refuse(self.name, "sources")
        labels = config.labels
        plan = plan_prediction(config, options)
        network = place(self.load(run, config), plan.setting.device).eval()
        known = self.read_metadata(run, config, samples, options)
        frames = read_frames(samples, plan.size_hw, config.in_channels, metadata=known)
        yield from self.predict_frames(network, frames, labels, plan.setting)
