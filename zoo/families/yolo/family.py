"""YOLO instance segmentation through Ultralytics: its trainer, our data, scores and soft masks.

Ultralytics' code and weights are AGPL-3.0. Whoever installs the extra `yolo` and uses this family
takes on that licence for what they build with it; the rest of the project does not import it.

A run's weights are the state of the averaged network, as safetensors. Prediction rebuilds the
network from the config and loads them: nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import converters
from converters.files.images import image_suffix
from converters.files.provenance import read_provenance
from converters.formats.writing import file_names, read_index
from converters.formats.yolo.config import YoloConfig as DataConfig
from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import score_prediction
from fusion.metrics.scores import Scores
from fusion.types import Kind, Prediction
from zoo.contract import PredictOptions, TrainJob, division
from zoo.families.yolo import process_group as group
from zoo.families.yolo.config import YoloConfig, ultralytics_settings
from zoo.families.yolo.network import build_network, load_initial, place_network
from zoo.families.yolo.offline import acting_as
from zoo.families.yolo.trainer import OfflineSegmentation, TrainerPlan, is_finished
from zoo.inference.detections import DetectionSetting, place_images, to_prediction
from zoo.machine.devices import autocast, choose_device, settle_precision
from zoo.run_files.checkpoints import RESUME, find_weights, load_weights

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation

# --- training


def train(config: YoloConfig, job: TrainJob) -> None:
    """Train a network and leave it in `job.out`; a killed run continues, a finished one stays.

    Raises:
        ValueError: settings, weights or data that cannot be used.
    """
    if not job.resume:
        (job.out / RESUME).unlink(missing_ok=True)
        (job.out / "metrics.csv").unlink(missing_ok=True)
    if is_finished(job.out):
        return
    if not job.train:
        raise ValueError(f"{job.data}: expected images to learn from, found none")
    device = group.join_group(config, choose_device(config.device))
    precision = settle_precision(config.precision, device)
    folder = job.out / "ultralytics"
    with group.first_alone():
        images = label_files(job)
    plan = TrainerPlan(
        settings=ultralytics_settings(config, device, folder, group.world_size()),
        classes=job.labels.names,
        images=images,
        build=lambda: _initial_network(config, len(job.labels)),
        score=(lambda network: _score(network, config, job, device)) if job.val else None,
        score_every=config.validate_every,
        precision=precision,
        out=job.out,
        about={"family": "yolo", "model": config.model, "license": "AGPL-3.0"},
        progress=job.progress,
        augment=_augmentation(config, job.labels),
    )
    (job.out / RESUME).parent.mkdir(parents=True, exist_ok=True)
    threads = cv2.getNumThreads()
    try:
        # OpenCV's threads do not survive the fork of the loader's processes.
        cv2.setNumThreads(0)
        with acting_as(group.rank() if group.world_size() > 1 else -1):
            OfflineSegmentation(plan).train()
    finally:
        cv2.setNumThreads(threads)


def _augmentation(config: YoloConfig, labels: LabelSpace) -> Augmentation | None:
    if not config.augment:
        return None
    # Late: prediction needs no albumentations.
    from zoo.augmentation.pipeline import Augmentation

    return Augmentation(config.augment, labels)


def _initial_network(config: YoloConfig, classes: int) -> nn.Module:
    network = build_network(config, classes)
    if config.init:
        load_initial(network, config.init)
    return network


def _score(network: nn.Module, config: YoloConfig, job: TrainJob, device: torch.device) -> Scores:
    predictor = Predictor(network, config, job.labels, device)
    samples = group.share(job.val)
    pairs = zip(predictor.predict(samples, config.batch), samples, strict=True)
    own = [score_prediction(p, sample, job.labels) for p, sample in pairs]
    return Scores(job.labels, group.gather(own))


def label_files(job: TrainJob) -> list[Path]:
    """Return the training images where Ultralytics finds their labels; write those first.

    A data set that was written in Ultralytics' own format is used where it is; another one is
    converted into the run folder, once, and so is one of others: Ultralytics goes by the numbers of
    its classes, not by their names.
    """
    if job.data_format == "yolo" and not job.is_edited and _is_ours(job):
        return [cast("Path", sample.image) for sample in job.train]
    samples = [*job.train, *job.val]
    folder = job.out / "data"
    if not _is_written(folder, samples):
        converters.write(samples, folder, format="yolo", labels=job.labels, split=division(job))
    named = zip(file_names(samples), job.train, strict=False)
    return [folder / "images" / "train" / (name + image_suffix(sample)) for name, sample in named]


def _is_ours(job: TrainJob) -> bool:
    names = DataConfig.load(job.data).names
    is_written = read_provenance(job.data).get("kind") == "yolo"
    return is_written and names == dict(enumerate(job.labels.names))


def _is_written(folder: Path, samples: Sequence[Sample]) -> bool:
    # A result folder appears as a whole or not at all.
    try:
        index = read_index(folder)
    except ValueError:
        return False
    return {entry["key"] for entry in index.values()} == {sample.key for sample in samples}


# --- prediction


class Predictor:
    """A network that gives soft masks in the images' own frame."""

    def __init__(
        self, network: nn.Module, config: YoloConfig, labels: LabelSpace, device: torch.device
    ) -> None:
        self.network, self.labels, self.device = network, labels, device
        self.setting = DetectionSetting(
            imgsz=config.imgsz,
            conf=config.conf,
            raster=config.raster,
            margin_px=config.margin_px,
            end_to_end=bool(network.model[-1].end2end),
        )
        self._precision = settle_precision(config.precision, device, predicts=True)

    def predict(self, samples: Sequence[Sample], batch: int) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order."""
        for start in range(0, len(samples), batch):
            yield from self._predict_batch(samples[start : start + batch])

    def _predict_batch(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        outputs, prototypes = self.forward(place_images(samples, self.setting.imgsz))
        for sample, output, planes in zip(samples, outputs, prototypes, strict=True):
            found = (output.float().cpu().numpy(), planes.float().cpu().numpy())
            yield to_prediction(sample, *found, self.labels, self.setting)

    def forward(self, squares: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return decoded outputs and prototypes of uint8 (N, S, S, 3) BGR images.

        Boxes are decoded in fp32: in fp16 they would be whole pixels beyond 1024.
        """
        images = torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2).flip(1).float() / 255
        hook = self.network.model[-1].dfl.register_forward_hook(lambda *seen: seen[-1].float())
        try:
            with torch.no_grad(), autocast(self.device, self._precision):
                (output, prototypes), _ = self.network(images)
        finally:
            hook.remove()
        return output, prototypes


def open_predictor(run: Path, config: YoloConfig, device: torch.device) -> Predictor:
    """Rebuild a run's network with its best weights.

    Raises:
        ValueError: the run has no weights, or those of another network.
    """
    labels = config.labels
    network = build_network(config, len(labels))
    load_weights(network, find_weights(run))
    fused = place_network(network.eval().fuse(), device)
    return Predictor(fused, config, labels, device)


def predict(
    run: Path, config: YoloConfig, samples: Sequence[Sample], options: PredictOptions
) -> Iterator[Prediction]:
    """Yield one prediction a sample, in order; one without detections is there, and empty.

    Raises:
        ValueError: an option that this family lacks, or a run without weights.
    """
    if options.tta:
        raise ValueError(
            f"tta {','.join(options.tta)}: the family 'yolo' predicts without; "
            "a flipped image's detection cannot be averaged with another's"
        )
    options.refuse("yolo", "average", "size", "window", "overlap", "metadata", "sources")
    predictor = open_predictor(run, config, choose_device(options.device))
    yield from predictor.predict(samples, options.batch or config.batch)


class ExportableNetwork(nn.Module):
    """A network of Ultralytics' with the two outputs that matter, for `zoo export`.

    Attributes:
        prototypes: their number.
        end_to_end: which head it has; see `zoo.inference.detections.best_detections`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        head: Any = network.model[-1]
        self.network = network
        self.prototypes, self.end_to_end = int(head.nm), bool(head.end2end)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return decoded outputs and prototypes of RGB images in 0..1, float (N, 3, S, S)."""
        (output, prototypes), _ = self.network(images)
        return output, prototypes


class YoloFamily:
    """YOLO as a family; see `zoo.contract.Family`."""

    kind: Kind = "instance"
    Config = YoloConfig

    def train(self, config: YoloConfig, job: TrainJob) -> None:
        """Train a model and leave it in `job.out`; a killed run continues."""
        train(config, job)

    def predict(
        self, run: Path, config: YoloConfig, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame."""
        return predict(run, config, samples, options)

    def open_detector(self, run: Path, config: YoloConfig) -> ExportableNetwork:
        """Rebuild a run's network on the CPU, to be exported.

        Raises:
            ValueError: the run has no weights, or those of another network.
        """
        return ExportableNetwork(open_predictor(run, config, torch.device("cpu")).network)


FAMILY = YoloFamily()
