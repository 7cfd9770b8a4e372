"""YOLO instance segmentation through Ultralytics: its trainer, our data, scores and soft masks.

Ultralytics' code and weights are AGPL-3.0. Whoever installs the extra `yolo` and uses this family
takes on that licence for what they build with it; the rest of the project does not import it.

A run's weights are the state of the averaged network, as safetensors. Prediction rebuilds the
network from the config and loads them: nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import Field, field_validator
from torch import nn

import configs
import converters.yolo
from converters.types import LabelSpace, Sample
from fusion.metrics import Scores
from fusion.types import Evidence, Kind, Prediction
from zoo.checkpoints import RESUME, find_weights, load_weights
from zoo.config import RunConfig
from zoo.devices import Precision, autocast, choose_device, choose_precision
from zoo.evaluate import score_prediction
from zoo.families.base import PredictOptions, TrainJob
from zoo.families.ultralytics_masks import Letterbox, best_detections, soft_masks
from zoo.families.ultralytics_trainer import OfflineSegmentation, Plan, is_finished

# isort: split
from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg
from ultralytics.nn.tasks import SegmentationModel, torch_safe_load, yaml_model_load

# Ultralytics' networks are square-strided by up to 32 pixels.
STRIDE_PX = 32
# Ultralytics' keys that are decided here, and how.
_OURS = {
    "task": "segment",
    "mode": "train",
    "resume": False,
    "pretrained": False,
    "exist_ok": True,
    "plots": False,
    "val": True,
    "save": True,
    "amp": False,
}
_ELSEWHERE = ("data", "device", "project", "name", "save_dir", "save_period", "cfg", "time")


class YoloConfig(RunConfig):
    """The keys of a YOLO run; those of training and augmentation are named as Ultralytics' own.

    Attributes:
        model: the network: a YAML file of Ultralytics such as `yolov8x-seg.yaml`, one that ships
            below `configs/yolo/nets`, or a path.
        depth: multiplies the numbers of repeated blocks, in place of the scale in the file's name.
        width: multiplies the numbers of channels, likewise.
        max_channels: limit of channels, before `width`.
        init: weights to start from: a safetensors file of this network, or a .pt file of
            Ultralytics, from which all that fits is taken.
        imgsz: side of the network's square input in pixels.
        nbs: batch for which the optimiser steps; None is `batch`, a step at every batch.
        scale: augmentation: enlarged by up to this share, or made smaller.
        overlap_mask: True would give pixels that two bones share to the smaller one only.
        mask_ratio: the loss compares masks of the input's size divided by this.
        cache: keep images in memory.
        patience: epochs without a better score until training stops; 0 never stops.
        validate_every: epochs from one scoring to the next.
        conf: detections that are less sure are dropped.
        raster: a soft mask's cells for each prototype cell along a side; 4 is the input's pixels.
        margin_px: how many of the image's pixels further than its box a mask may go.
        device: what trains: `auto`, `cpu`, `cuda`, `cuda:1`.
        precision: `auto` goes by what the device can do.
        extra: any further key of Ultralytics' training.
    """

    model: str = "yolov8n-seg.yaml"
    depth: float | None = Field(default=None, gt=0)
    width: float | None = Field(default=None, gt=0)
    max_channels: int = Field(default=1024, ge=8)
    init: str | None = None
    imgsz: int = Field(default=1024, ge=STRIDE_PX)
    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=8, ge=1)
    nbs: int | None = Field(default=None, ge=1)
    optimizer: str = "AdamW"
    lr0: float = Field(default=1e-3, gt=0)
    lrf: float = Field(default=0.01, gt=0)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    cos_lr: bool = True
    warmup_epochs: float = 3.0
    warmup_bias_lr: float = 0.0
    overlap_mask: bool = False
    mask_ratio: int = Field(default=2, ge=1)
    box: float = 7.5
    cls: float = 0.5
    dfl: float = 1.5
    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.2
    degrees: float = 10.0
    translate: float = 0.1
    scale: float = 0.2
    shear: float = 2.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 0.0
    close_mosaic: int = 0
    mixup: float = 0.0
    copy_paste: float = 0.0
    deterministic: bool = True
    cache: bool = False
    workers: int = Field(default=8, ge=0)
    patience: int = 50
    validate_every: int = Field(default=1, ge=1)
    conf: float = Field(default=0.05, ge=0, lt=1)
    raster: float = Field(default=4.0, gt=0)
    margin_px: float = Field(default=0.0, ge=0)
    device: str = "auto"
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("imgsz")
    @classmethod
    def _whole_strides(cls, value: int) -> int:
        if value % STRIDE_PX:
            raise ValueError(f"expected a multiple of {STRIDE_PX}")
        return value

    @field_validator("extra")
    @classmethod
    def _known_to_ultralytics(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key in YoloConfig.model_fields:
                raise ValueError(f"'{key}' is a key of its own, one level up")
            if key in _OURS or key in _ELSEWHERE:
                raise ValueError(f"'{key}' is decided by this family")
            if key not in DEFAULT_CFG_DICT:
                raise ValueError(f"Ultralytics has no key '{key}'")
        return value


# Keys of ours that Ultralytics has under the same name.
_PASSED = (
    *("imgsz", "epochs", "batch", "optimizer", "lr0", "lrf", "momentum", "weight_decay", "cos_lr"),
    *("warmup_epochs", "warmup_bias_lr", "overlap_mask", "mask_ratio", "box", "cls", "dfl"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "flipud", "fliplr"),
    *("mosaic", "close_mosaic", "mixup", "copy_paste", "deterministic", "workers", "patience"),
    *("seed", "cache"),
)


def ultralytics_settings(config: YoloConfig, device: torch.device, folder: Path) -> dict[str, Any]:
    """Return the keys that Ultralytics' trainer is given.

    Raises:
        ValueError: Ultralytics refuses a value.
    """
    settings = {
        **{name: getattr(config, name) for name in _PASSED},
        **config.extra,
        **_OURS,
        "nbs": config.nbs or config.batch,
        "model": config.model,
        "data": "in memory",
        "device": str(device),
        "save_dir": str(folder),
    }
    try:
        get_cfg(overrides=dict(settings))
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"Ultralytics: {' '.join(str(error).split())}") from None
    return settings


# --- the network


def network_description(config: YoloConfig) -> dict[str, Any]:
    """Read the network's YAML file, with the config's scale put into it.

    Raises:
        ValueError: no such file, or not the description of a segmentation network.
    """
    shipped = configs.ROOT / "yolo" / "nets" / config.model
    path = shipped if shipped.is_file() else Path(config.model)
    if path.suffix not in {".yaml", ".yml"}:
        raise ValueError(f"model '{config.model}': expected a .yaml file, such as yolov8x-seg.yaml")
    try:
        # Its own files are found without the scale's letter: yolov8x-seg.yaml is yolov8-seg.yaml.
        described: dict[str, Any] = yaml_model_load(path)
    except (FileNotFoundError, yaml.YAMLError):
        raise ValueError(f"model '{config.model}': found neither here nor in Ultralytics") from None
    head = described.get("head") or [[None]]
    if "Segment" not in str(head[-1]):
        raise ValueError(f"model '{config.model}': expected a segmentation network (-seg.yaml)")
    if config.depth is not None or config.width is not None:
        scale = (config.depth or 1.0, config.width or 1.0, config.max_channels)
        described.update(scales={"config": list(scale)}, scale="config")
    return described


def build_network(config: YoloConfig, classes: int) -> nn.Module:
    """Return the network with random weights.

    Its input is RGB in 0..1, float (N, 3, imgsz, imgsz).
    """
    network: nn.Module = SegmentationModel(
        network_description(config), ch=3, nc=classes, verbose=False
    )
    return network


def load_initial(network: nn.Module, name: str) -> None:
    """Read weights to start from into a network.

    Raises:
        ValueError: no such file, the weights of another network, or a pickle of more than a
            network of Ultralytics'.
    """
    path = Path(name)
    shipped = configs.ROOT / "yolo" / name
    if not path.is_file() and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise ValueError(
            f"init '{name}': found no such file; nothing is downloaded, so put it there or "
            "give the path of a .safetensors or .pt file"
        )
    if path.suffix == ".safetensors":
        load_weights(network, path)
    else:
        _take_what_fits(network, _read_pickle(path), path)


def _take_what_fits(network: nn.Module, found: dict[str, torch.Tensor], path: Path) -> None:
    # Ultralytics' own `load` would also widen the head after the number of classes that the file
    # has, so that the config no longer describes the network.
    wanted = network.state_dict()
    fits = {k: v for k, v in found.items() if k in wanted and v.shape == wanted[k].shape}
    if 2 * len(fits) < len(wanted):
        raise ValueError(f"{path}: weights of another network: {len(fits)} of {len(wanted)} fit")
    network.load_state_dict(fits, strict=False)


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(f"{path}: reading a .pt file safely needs PyTorch 2.6 or newer")
    try:
        # Only classes of PyTorch's and Ultralytics' networks are built; anything else is refused.
        checkpoint, _ = torch_safe_load(path, safe_only=True)
        found = checkpoint.get("ema") or checkpoint["model"]
        state: dict[str, torch.Tensor] = found.float().state_dict()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected weights of Ultralytics: {reason:.300}") from None
    return state


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
    device = choose_device(config.device)
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    plan = Plan(
        settings=ultralytics_settings(config, device, job.out / "ultralytics"),
        classes=job.labels.names,
        images=label_files(job),
        build=lambda: _initial_network(config, len(job.labels)),
        score=(lambda network: _score(network, config, job, device)) if job.val else None,
        score_every=config.validate_every,
        precision=precision,
        out=job.out,
        about={"family": "yolo", "model": config.model, "license": "AGPL-3.0"},
        progress=job.progress,
    )
    (job.out / RESUME).parent.mkdir(parents=True, exist_ok=True)
    threads = cv2.getNumThreads()
    try:
        # OpenCV's threads do not survive the fork of the loader's processes.
        cv2.setNumThreads(0)
        OfflineSegmentation(plan).train()
    finally:
        cv2.setNumThreads(threads)


def _initial_network(config: YoloConfig, classes: int) -> nn.Module:
    network = build_network(config, classes)
    if config.init:
        load_initial(network, config.init)
    return network


def _score(network: nn.Module, config: YoloConfig, job: TrainJob, device: torch.device) -> Scores:
    predictor = Predictor(network, config, job.labels, device)
    found = predictor.predict(job.val, config.batch)
    pairs = zip(found, job.val, strict=True)
    return Scores(job.labels, [score_prediction(p, sample, job.labels) for p, sample in pairs])


def label_files(job: TrainJob) -> list[Path]:
    """Return the training images where Ultralytics finds their labels; write those first.

    A data set in Ultralytics' own format is used where it is; another one is converted into the
    run folder, once.
    """
    if job.data_format == "yolo":
        return [sample.image for sample in job.train]
    samples = [*job.train, *job.val]
    folder = job.out / "data"
    if not _is_written(folder, samples):
        converters.yolo.write(samples, folder, job.labels, split=job.split, fold=job.fold)
    held_out = converters.yolo.held_out_keys(samples, job.split, job.fold)
    learn = {sample.key for sample in job.train}
    files = []
    for name, sample in zip(converters.yolo.file_names(samples), samples, strict=True):
        if sample.key in learn:
            subset = "val" if sample.key in held_out else "train"
            files.append(folder / "images" / subset / f"{name}{sample.image.suffix}")
    return files


def _is_written(folder: Path, samples: Sequence[Sample]) -> bool:
    # A result folder appears as a whole or not at all.
    try:
        index = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return {entry["key"] for entry in index.values()} == {sample.key for sample in samples}


# --- prediction


def read_image(sample: Sample) -> npt.NDArray[np.uint8]:
    """Read a sample's image as uint8 (H, W, 3), BGR as Ultralytics reads it; grey is repeated.

    Raises:
        ValueError: not an image, or of another size than the sample says.
    """
    image: npt.NDArray[np.uint8] | None = cv2.imread(str(sample.image), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{sample.image}: expected an image, found a file that is none")
    if image.shape[:2] != tuple(sample.size_hw):
        raise ValueError(f"{sample.image}: expected {sample.size_hw}, found {image.shape[:2]}")
    return image


class Predictor:
    """A network that gives soft masks in the images' own frame."""

    def __init__(
        self, network: nn.Module, config: YoloConfig, labels: LabelSpace, device: torch.device
    ) -> None:
        self.network, self.config, self.labels, self.device = network, config, labels, device
        self._precision: Precision = (
            choose_precision(device) if config.precision == "auto" else config.precision
        )

    def predict(self, samples: Sequence[Sample], batch: int) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order."""
        for start in range(0, len(samples), batch):
            yield from self._predict_batch(samples[start : start + batch])

    def _predict_batch(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        frames = [Letterbox(sample.size_hw, self.config.imgsz) for sample in samples]
        squares = [f.apply(read_image(s)) for f, s in zip(frames, samples, strict=True)]
        outputs, prototypes = self.forward(np.stack(squares))
        for sample, frame, output, planes in zip(samples, frames, outputs, prototypes, strict=True):
            yield self._prediction(sample, frame, output, planes)

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

    def _prediction(
        self, sample: Sample, frame: Letterbox, output: torch.Tensor, prototypes: torch.Tensor
    ) -> Prediction:
        config = self.config
        end_to_end = bool(self.network.model[-1].end2end)
        found = best_detections(output, len(self.labels), config.conf, end_to_end)
        masks: dict[str, tuple[Evidence, ...]] = {
            self.labels.names[detection.label]: ((detection.score, mask),)
            for detection, mask in soft_masks(
                found, prototypes, frame, config.raster, config.margin_px
            )
        }
        return Prediction(sample.key, sample.size_hw, "instance", masks)


def open_predictor(run: Path, config: YoloConfig, device: torch.device) -> Predictor:
    """Rebuild a run's network with its best weights.

    Raises:
        ValueError: the run has no weights, or those of another network.
    """
    labels = LabelSpace.load(config.labels)
    network = build_network(config, len(labels))
    load_weights(network, find_weights(run))
    return Predictor(network.to(device).eval().fuse(), config, labels, device)


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
    predictor = open_predictor(run, config, choose_device(options.device))
    yield from predictor.predict(samples, options.batch or config.batch)


class YoloFamily:
    """YOLO as a family; see `zoo.families.base.Family`."""

    name = "yolo"
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


FAMILY = YoloFamily()
