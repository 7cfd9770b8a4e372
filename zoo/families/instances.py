"""What the instance families share whose networks are trained by our own loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction
from zoo.contract import PredictOptions, TrainJob
from zoo.data.batches import as_tensor, normalize
from zoo.data.objects import ObjectBits, ObjectItems
from zoo.data.reading import NetworkInput
from zoo.families.base import NetworkFamily
from zoo.families.training_step import TrainingStep
from zoo.inference.instances import InstancesByClass, to_prediction
from zoo.inference.setting import Setting
from zoo.machine.devices import autocast
from zoo.training.instance_config import InstanceConfig

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation


class InstanceNetwork(nn.Module, ABC):
    """A network that finds instances, each with a mask of its own.

    Attributes:
        floor: score that an instance has to exceed to be found.
        once: each class occurs once in an image, so that only the best instance of it is found.
    """

    def __init__(self, floor: float, once: bool) -> None:
        super().__init__()
        self.floor, self.once = floor, once

    @abstractmethod
    def loss(
        self, images: torch.Tensor, masks: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return what training lowers.

        Args:
            images: float (N, c, h, w), normalised.
            masks: bool (N, P, h, w); an object without pixels is not in the image.
            classes: the objects' classes, int64 (P,).
        """

    @abstractmethod
    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, whatever the tensors hold, for the estimate of memory.

        Args:
            images: float (N, c, h, w).
            masks: bool (N, C, h, w), every one of which counts as an object.
        """

    @abstractmethod
    def find(self, images: torch.Tensor) -> list[InstancesByClass]:
        """Return each image's instances.

        Args:
            images: float (N, c, h, w), normalised; the network is in evaluation mode.
        """


def predict_instances(
    network: InstanceNetwork, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a frame, in order; the network must be in evaluation mode."""
    frames = iter(frames)
    while part := list(islice(frames, setting.batch)):
        images = torch.stack([as_tensor(frame.image) for frame in part])
        # Not inference mode: torchvision keeps anchors from one call to the next, for training too.
        with torch.no_grad(), autocast(setting.device, setting.precision):
            found = network.find(normalize(images.to(setting.device)))
        for frame, instances in zip(part, found, strict=True):
            yield to_prediction(frame, instances, labels)


class InstanceFamily(NetworkFamily):
    """A family whose networks find instances."""

    kind: Kind = "instance"
    Config: type[InstanceConfig]

    def without_weights(self, config: Any) -> Any:
        """Return the config of the same network with random weights, which needs no download."""
        return config.model_copy(update={"pretrained": None})

    def training_step(self, network: Any, config: Any, labels: LabelSpace) -> TrainingStep:
        """Return what the network computes while it learns, one object of each class an image."""
        device = next(network.parameters()).device
        size = (config.batch, len(labels), *config.input_size)
        masks = torch.empty(size, dtype=torch.bool, device=device)
        shape = (config.batch, config.in_channels, *config.input_size)
        return TrainingStep(network, shape, lambda images: network.dummy_loss(images, masks))

    def fit(
        self, network: Any, config: Any, job: TrainJob, augment: Augmentation, setting: Setting
    ) -> None:
        """Train a network and leave it in `job.out`.

        Raises:
            ValueError: samples are mixed, and an image has several objects of a class.
        """
        # Late: prediction needs no Lightning.
        from zoo.training.loop import fit_network
        from zoo.training.module import InstanceModule

        train, val = self.open_items(config, job)
        bits = None
        if not job.labels.once:
            bits = ObjectBits.of(job.train, job.labels)
            _check_augment(augment, bits, job.labels)
            train = ObjectItems(job.train, job.labels, bits, config.in_channels)
        fit_network(
            network,
            config,
            job,
            train,
            val,
            augment,
            setting,
            learner=InstanceModule,
            predict=predict_instances,
            objects=bits.classes if bits else None,
        )

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order; one without instances is there, and empty.

        Raises:
            ValueError: the run has no weights, or an option that this family lacks.
        """
        options.refuse(self.name, "tta", "average", "window", "overlap", "metadata")
        yield from super().predict(run, config, samples, options)

    def predict_frames(
        self, network: Any, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
    ) -> Iterator[Prediction]:
        """Yield one prediction a frame, in order; the network is in evaluation mode."""
        return predict_instances(network, frames, labels, setting)


def _check_augment(augment: Augmentation, bits: ObjectBits, labels: LabelSpace) -> None:
    # What is mixed in would become a part of the objects that have the same bits.
    if augment.mixes and len(bits.classes) > len(labels):
        raise ValueError(
            f"augment: expected neither CopyPaste nor CutMix where an image of '{labels.name}' has "
            "several objects of a class, found one"
        )
