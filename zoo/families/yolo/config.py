"""The keys of a YOLO run, and what Ultralytics' trainer is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from converters.errors import one_line
from zoo.config import RunConfig, read_auto_batch
from zoo.families.yolo import offline  # noqa: F401  (before anything of Ultralytics)
from zoo.machine.devices import Precision

# isort: split
from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

# The coarsest stride of Ultralytics' networks.
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
        model: the network: a YAML file of Ultralytics such as `yolov8x-seg.yaml`, or a path.
        depth: multiplies the numbers of repeated blocks, in place of the scale in the file's name.
        width: multiplies the numbers of channels, likewise.
        max_channels: limit of channels before `width`, where `depth` or `width` is given.
        init: weights to start from: a safetensors file of this network, or a .pt file of
            Ultralytics, from which all that fits is taken.
        imgsz: side of the network's square input in pixels.
        batch: images at a time, on each device; `auto` takes as many as there is memory for.
        nbs: images on each device for which the optimiser steps; None is `batch`, a step at every
            batch. Ultralytics' own keys of these names count those of all devices.
        effective_batch: with `batch: auto`, what `nbs` will be; a change to `batch: auto` keeps the
            config's. null once the batch is chosen.
        scale: augmentation: enlarged by up to this share, or made smaller.
        augment: transforms as the semantic families list them, but for those that mix samples; they
            take the place of the few that Ultralytics has of albumentations. Its own (`hsv_v`,
            `degrees`, `fliplr`, ...) are set by their keys, and stay on beside the list.
        overlap_mask: True would give pixels that two objects share to the smaller one only.
        mask_ratio: the loss compares masks of the input's size divided by this.
        cache: keep images in memory.
        patience: epochs without a better score until training stops; 0 never stops.
        validate_every: epochs from one scoring to the next.
        conf: detections that are less sure are dropped.
        raster: a soft mask's cells for each prototype cell along a side, but never finer than the
            image's pixels; 4 is the network's input. At the image's pixels the masks are
            Ultralytics' own; coarser ones are smaller, and move outlines by less than a cell.
        margin_px: how many of the image's pixels further than its box a mask may go.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        devices: how many devices of that kind, each with a process of its own.
        num_nodes: how many computers, each with so many devices, and the run folder on a disk that
            all see.
        precision: `auto` goes by what the device can do; `32-true` is without mixed precision.
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
    effective_batch: int | None = Field(default=None, ge=1)
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
    augment: tuple[dict[str, Any], ...] = ()
    deterministic: bool = True
    cache: bool = False
    workers: int = Field(default=8, ge=0)
    patience: int = 50
    validate_every: int = Field(default=1, ge=1)
    conf: float = Field(default=0.05, ge=0, lt=1)
    raster: float = Field(default=8.0, gt=0)
    margin_px: float = Field(default=0.0, ge=0)
    device: str = "auto"
    devices: int = Field(default=1, gt=0)
    num_nodes: int = Field(default=1, gt=0)
    precision: Precision | Literal["auto"] = "auto"
    extra: dict[str, Any] = Field(default_factory=dict)

    # An average of the weights is always kept, and always scored.
    has_average: ClassVar[bool] = True
    # Ultralytics' trainer has none.
    gradient_checkpointing: ClassVar[bool] = False
    least_batch: ClassVar[int] = 1

    @classmethod
    def further_key(cls, word: str) -> str:
        """Return the place of Ultralytics' further keys."""
        is_theirs = word in DEFAULT_CFG_DICT and word not in (*_OURS, *_ELSEWHERE)
        return f"extra.{word}" if is_theirs else ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that images are stretched to, in pixels, with a border."""
        return self.imgsz, self.imgsz

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the network is shown."""
        return self.imgsz, self.imgsz

    @property
    def optimizer_states(self) -> int:
        """How many numbers the optimizer keeps for each weight."""
        return 1 if self.optimizer.lower() == "sgd" else 2

    @property
    def images_a_step(self) -> int:
        """How many images the weights move for, on each device."""
        return self.nbs or self.batch

    def with_steps_of(self, batch: int) -> Self:
        """Return the config with a chosen batch, a divisor of the effective one."""
        images = self.effective_batch or self.images_a_step
        changes = {"batch": batch, "nbs": images, "effective_batch": None}
        return self.model_copy(update=changes)

    def with_batch(self, batch: int) -> str:
        """Return the changes that make batches smaller, for steps of as many images."""
        return f"batch={batch} nbs={self.nbs or self.batch}"

    def with_size(self, share: float) -> str:
        """Return the change that leaves a share of the images' sides; "" where there is none."""
        side = int(self.imgsz * share) // STRIDE_PX * STRIDE_PX
        return f"imgsz={side}" if side >= 2 * STRIDE_PX else ""

    def with_checkpointing(self) -> None:
        """Return nothing: there is no such config."""

    @model_validator(mode="before")
    @classmethod
    def _number_for_auto(cls, raw: Any) -> Any:
        return read_auto_batch(raw)

    @field_validator("device")
    @classmethod
    def _one_device(cls, value: str) -> str:
        # Ultralytics would start its own program for each GPU, which knows nothing of our trainer.
        if "," in value:
            count = len([part for part in value.split(",") if part.strip()])
            raise ValueError(
                f"expected auto, cpu, cuda or one device such as cuda:0, found {value!r:.40}: for "
                f"several set devices={count}; CUDA_VISIBLE_DEVICES says which"
            )
        return value

    @field_validator("imgsz")
    @classmethod
    def _whole_strides(cls, value: int) -> int:
        if value % STRIDE_PX:
            raise ValueError(f"expected a multiple of {STRIDE_PX}")
        return value

    @field_validator("augment")
    @classmethod
    def _known_transforms(
        cls, steps: tuple[dict[str, Any], ...], info: ValidationInfo
    ) -> tuple[dict[str, Any], ...]:
        if steps and "labels" in info.data:
            # Late: albumentations takes most of a second.
            from zoo.augmentation.steps import build_steps, has_mixing

            if has_mixing(build_steps(steps, info.data["labels"])):
                raise ValueError(
                    "augment: this family mixes samples by its own keys: mosaic, mixup, copy_paste"
                )
        return steps

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


def ultralytics_settings(
    config: YoloConfig, device: torch.device, folder: Path, ranks: int = 1
) -> dict[str, Any]:
    """Return the keys that Ultralytics' trainer is given.

    Args:
        config: of the run.
        device: of this process.
        folder: where the trainer writes.
        ranks: processes that train together; Ultralytics shares a batch out among them.

    Raises:
        ValueError: Ultralytics refuses a value.
    """
    settings = {
        **{name: getattr(config, name) for name in _PASSED},
        **config.extra,
        **_OURS,
        "batch": config.batch * ranks,
        "nbs": config.images_a_step * ranks,
        "model": config.model,
        "data": "in memory",
        "device": str(device),
        "save_dir": str(folder),
    }
    try:
        get_cfg(overrides=dict(settings))
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"Ultralytics: {one_line(error)}") from None
    return settings
