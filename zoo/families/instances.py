"""What the instance families share whose networks are trained by our own loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import nn

import configs
from converters.types import Frame as Place
from converters.types import LabelSpace, Sample
from fusion.types import Evidence, Kind, Prediction
from zoo import checkpoints
from zoo.data import Frame, Items, SampleItems, normalize
from zoo.devices import autocast, place
from zoo.families.activations import find_blocks
from zoo.families.base import PredictOptions, TrainJob
from zoo.families.lesson import Lesson
from zoo.families.licences import WeightSource, write_licences
from zoo.inference import Setting, read_frames
from zoo.plans import plan_prediction, plan_scoring
from zoo.semantic import SemanticConfig

Found = dict[int, Evidence]
"""Class number -> score and soft mask of its best instance, in pixels of the network's input."""

_OWN_LOSSES = "it has losses of its own, weighted by its other keys"
# Keys of the semantic trainer that mean nothing here, and why.
_OTHERS = {
    "loss": _OWN_LOSSES,
    "class_weights": _OWN_LOSSES,
    "smoothing": _OWN_LOSSES,
    "deep_supervision": _OWN_LOSSES,
    "shared_weight": "every instance has a mask of its own",
    "soft_targets": "instances are learned from binary masks",
    "window": "it sees whole images; a part of a bone is no instance of it",
    "work_size": "it sees whole images",
    "overlap": "it sees whole images",
    "focus": "it sees whole images",
    "windows_per_image": "it sees whole images",
    "window_margin": "it sees whole images",
    "swa": "the mean's batch norms would need targets; use ema",
    "compile": "the number of objects changes from image to image",
}


class InstanceConfig(SemanticConfig):
    """How a network is trained that finds every bone by itself.

    The keys are those of the semantic trainer. The ones that shape its losses and windows are
    refused, and not written down. Every class is one instance an image: the objects of a class
    that has several are learned as one.

    Attributes:
        conf: instances that are less sure are dropped.
    """

    conf: float = Field(default=0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _nothing_of_others(self) -> InstanceConfig:
        for key, reason in _OTHERS.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) != default:
                raise ValueError(f"{key}: expected nothing, this family does without: {reason}")
        return self

    @model_serializer(mode="wrap")
    def _without_others(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in serialize(self).items() if k not in _OTHERS}


class InstanceNetwork(nn.Module, ABC):
    """A network that finds instances, each with a mask of its own.

    Attributes:
        floor: score that an instance has to exceed to be found.
    """

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    @abstractmethod
    def loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return what training lowers.

        Args:
            images: float (N, 1, h, w), normalised.
            masks: bool (N, C, h, w); a class without pixels is not in the image.
        """

    @abstractmethod
    def rehearse(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, whatever the tensors hold, for the estimate of memory.

        Args:
            images: float (N, 1, h, w).
            masks: bool (N, C, h, w), every one of which counts as an object.
        """

    @abstractmethod
    def find(self, images: torch.Tensor) -> list[Found]:
        """Return each image's instances, the best one of each class.

        Args:
            images: float (N, 1, h, w), normalised; the network is in evaluation mode.
        """


def predict_instances(
    network: InstanceNetwork, frames: Iterable[Frame], labels: LabelSpace, setting: Setting
) -> Iterator[Prediction]:
    """Yield one prediction a frame, in order; the network must be in evaluation mode."""
    frames = iter(frames)
    while part := list(islice(frames, setting.batch)):
        images = torch.from_numpy(np.stack([frame.image for frame in part]))[:, None]
        # Not inference mode: torchvision keeps anchors from one call to the next, for training too.
        with torch.no_grad(), autocast(setting.device, setting.precision):
            found = network.find(normalize(images.to(setting.device)))
        for frame, instances in zip(part, found, strict=True):
            yield to_prediction(frame, instances, labels)


def to_prediction(frame: Frame, found: Found, labels: LabelSpace) -> Prediction:
    """Return an image's prediction, in its own pixels."""
    masks = {labels.names[number]: (evidence,) for number, evidence in sorted(found.items())}
    height, width = frame.image.shape
    seen = Prediction(frame.key, (height, width), "instance", masks)
    return seen.placed(Place((0, 0, frame.size_hw[1], frame.size_hw[0]), frame.size_hw))


class InstanceFamily(ABC):
    """A family whose networks find instances."""

    name: str
    kind: Kind = "instance"
    streams = ""
    Config: type[InstanceConfig]

    @abstractmethod
    def build(self, config: Any, classes: int) -> InstanceNetwork:
        """Return a network to train.

        Raises:
            ValueError: dimensions that do not go together, or weights that cannot be had.
        """

    @abstractmethod
    def rebuild(self, run: Path, config: Any, classes: int) -> InstanceNetwork:
        """Return the network of a run, without its weights and without a download."""

    def without_weights(self, config: Any) -> Any:
        """Return the config of the same network with random weights, which needs no download."""
        return config.model_copy(update={"pretrained": None})

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """Return the parts that gradient checkpointing computes anew."""
        return list(find_blocks(network))

    def lesson(self, network: InstanceNetwork, config: Any, labels: LabelSpace) -> Lesson:
        """Return what the network computes while it learns, one object of each class an image."""
        device = next(network.parameters()).device
        size = (config.batch, len(labels), *config.input_size)
        masks = torch.empty(size, dtype=torch.bool, device=device)
        shape = (config.batch, 1, *config.input_size)
        return Lesson(network, shape, lambda images: network.rehearse(images, masks))

    def sources(self, config: Any) -> list[WeightSource]:
        """Return whose pretrained weights the network starts from."""
        return []

    def describe(self, run: Path, network: InstanceNetwork) -> None:  # noqa: B027 (most have nothing)
        """Leave in the run folder what `rebuild` needs beyond the config."""

    def open_items(self, job: TrainJob) -> tuple[Items, Items]:
        """Return what to learn from and what to score on."""
        return SampleItems(job.train, job.labels), SampleItems(job.val, job.labels)

    def train(self, config: Any, job: TrainJob) -> None:
        """Train a network and leave it in `job.out`; a killed run continues, a finished one stays.

        Raises:
            ValueError: what the config or the data ask for is not there.
        """
        # Late: prediction needs no Lightning.
        from zoo.augmentation import Augmentation
        from zoo.families.instance_module import InstanceModule
        from zoo.training import fit_semantic, is_finished, seed_everything

        if is_finished(config, job):
            return
        augment = Augmentation(config.augment, job.labels)
        setting = plan_scoring(config)
        seed_everything(config.seed)
        network = self.build(config, len(job.labels))
        if config.init:
            checkpoints.load_weights(network, configs.find_weights(self.name, config.init))
        self.describe(job.out, network)
        write_licences(job.out, self.sources(config))
        items = self.open_items(job)
        fit_semantic(
            *(network, config, job, *items, augment, setting),
            learner=InstanceModule,
            predict=predict_instances,
        )

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order; one without instances is there, and empty.

        Raises:
            ValueError: the run has no weights, or an option that this family lacks.
        """
        options.refuse(self.name, "tta", "average", "window", "overlap")
        labels = LabelSpace.load(config.labels)
        plan = plan_prediction(config, options)
        network = self.rebuild(run, config, len(labels))
        checkpoints.load_weights(network, checkpoints.find_weights(run))
        place(network, plan.setting.device).eval()
        frames = read_frames(samples, plan.size_hw)
        yield from predict_instances(network, frames, labels, plan.setting)
