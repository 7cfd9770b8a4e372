"""What other programs call the keys of a config."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel

# What number formats are called elsewhere -> how Lightning calls them.
_PRECISIONS = {
    **dict.fromkeys(("32", "fp32", "float32"), "32-true"),
    **dict.fromkeys(("16", "fp16", "float16", "half", "amp"), "16-mixed"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16-mixed"),
}
# Endings of files of weights.
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")
# Name in Ultralytics, segmentation-models-pytorch, transformers, Lightning or nnU-Net -> what it
# may be here; the first that a config has is meant.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    # --- size
    "size": ("imgsz",),
    "imgsz": ("size",),
    "img_size": ("size", "imgsz"),
    "image_size": ("size", "imgsz"),
    "input_size": ("size", "imgsz"),
    "resolution": ("size", "imgsz"),
    "crop_size": ("window", "size", "imgsz"),
    "patch_size": ("window", "size", "imgsz"),
    "roi_size": ("window", "size", "imgsz"),
    "stride": ("overlap",),
    # --- optimizer
    "lr": ("optim.lr", "lr0"),
    "lr0": ("optim.lr",),
    "initial_lr": ("optim.lr", "lr0"),
    "learning_rate": ("optim.lr", "lr0", "lr"),
    "encoder_learning_rate": ("optim.encoder_lr",),
    "encoder_lr": ("optim.encoder_lr",),
    "optimizer": ("optim.name",),
    "optim": ("optimizer",),
    "weight_decay": ("optim.weight_decay",),
    "wd": ("optim.weight_decay", "weight_decay"),
    "momentum": ("optim.momentum",),
    "betas": ("optim.betas",),
    "adam_epsilon": ("optim.eps",),
    "scheduler": ("optim.schedule", "cos_lr"),
    "lr_scheduler": ("optim.schedule", "cos_lr"),
    "lr_scheduler_type": ("optim.schedule", "cos_lr"),
    "schedule": ("optim.schedule", "cos_lr"),
    "cos_lr": ("optim.schedule",),
    "lrf": ("optim.schedule",),
    "warmup": ("optim.warmup_steps", "warmup_epochs"),
    "warmup_steps": ("optim.warmup_steps", "warmup_epochs"),
    "warmup_epochs": ("optim.warmup_steps",),
    "warmup_ratio": ("optim.warmup_steps", "warmup_epochs"),
    # --- training
    "batch_size": ("batch",),
    "bs": ("batch",),
    "per_device_train_batch_size": ("batch",),
    "train_batch_size": ("batch",),
    "max_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "n_epochs": ("epochs",),
    "nepochs": ("epochs",),
    "num_iterations_per_epoch": ("epochs",),
    "max_steps": ("epochs",),
    "accumulate_grad_batches": ("accumulate", "nbs"),
    "gradient_accumulation_steps": ("accumulate", "nbs"),
    "accumulate": ("nbs",),
    "nbs": ("accumulate",),
    "gradient_clip_val": ("clip",),
    "max_grad_norm": ("clip",),
    "grad_clip": ("clip",),
    "patience_epochs": ("patience",),
    "early_stopping": ("patience",),
    "early_stopping_patience": ("patience",),
    "check_val_every_n_epoch": ("validate_every",),
    "val_check_interval": ("validate_every",),
    "eval_steps": ("validate_every",),
    "val_period": ("validate_every",),
    "save_period": ("checkpoint_every",),
    "save_steps": ("checkpoint_every",),
    "save_every": ("checkpoint_every",),
    "ema_decay": ("ema",),
    "use_ema": ("ema",),
    "criterion": ("loss", "loss_weights"),
    "loss_fn": ("loss", "loss_weights"),
    "loss_function": ("loss", "loss_weights"),
    "label_smoothing": ("smoothing",),
    "label_smoothing_factor": ("smoothing",),
    "smooth_factor": ("smoothing",),
    "pos_weight": ("class_weights",),
    "enable_deep_supervision": ("deep_supervision",),
    "augmentation": ("augment",),
    "augmentations": ("augment",),
    "augmentation_prob": ("augment",),
    "transforms": ("augment",),
    "train_transforms": ("augment",),
    **dict.fromkeys(("hsv_v", "degrees", "translate", "scale", "shear", "fliplr"), ("augment",)),
    **dict.fromkeys(("flipud", "mosaic", "mixup", "copy_paste"), ("augment",)),
    # --- network
    "model": ("architecture", "pretrained", "network"),
    "model_name": ("architecture", "model", "pretrained"),
    "model_name_or_path": ("pretrained", "architecture", "init", "model"),
    "arch": ("architecture", "model"),
    "decoder": ("architecture",),
    "backbone": ("encoder", "network.backbone", "model"),
    "encoder_name": ("encoder", "backbone", "model"),
    "encoder": ("backbone", "network.backbone", "model"),
    "architecture": ("model", "network"),
    "weights": ("init", "encoder_weights"),
    "checkpoint": ("init",),
    "ckpt_path": ("init",),
    "resume_from_checkpoint": ("init",),
    "pretrained_weights": ("init", "pretrained"),
    "pretrained": ("encoder_weights", "init", "model"),
    "encoder_weights": ("pretrained", "init"),
    "weights_backbone": ("pretrained",),
    "in_channels": ("channels",),
    "num_channels": ("channels",),
    "decoder_channels": ("options.decoder_channels",),
    "decoder_attention_type": ("options.decoder_attention_type",),
    "encoder_depth": ("options.encoder_depth",),
    "dropout": (
        "network.dropout",
        "network.classifier_dropout_prob",
        "options",
        "network",
        "drop_path_rate",
    ),
    "drop_path": ("drop_path_rate", "network.drop_path_rate"),
    "drop_rate": ("encoder_options", "drop_path_rate", "network.drop_path_rate"),
    "drop_path_rate": ("network.drop_path_rate", "encoder_options"),
    "freeze": ("freeze_norms",),
    "classes": ("labels",),
    "names": ("labels",),
    "nc": ("labels",),
    "num_classes": ("labels",),
    "num_labels": ("labels",),
    "id2label": ("labels",),
    # --- computer
    "amp": ("precision",),
    "half": ("precision",),
    "fp16": ("precision",),
    "bf16": ("precision",),
    "mixed_precision": ("precision",),
    "gpus": ("devices", "device"),
    "gpu": ("device",),
    "accelerator": ("device",),
    "devices": ("device",),
    "nodes": ("num_nodes",),
    "num_workers": ("workers",),
    "dataloader_num_workers": ("workers",),
    "num_proc": ("workers",),
    "torch_compile": ("compile",),
    "use_checkpoint": ("gradient_checkpointing",),
    "random_state": ("seed",),
    "random_seed": ("seed",),
    "report_to": ("track",),
    "logger": ("track",),
    "wandb": ("track.wandb",),
    "mlflow": ("track.mlflow",),
    "tensorboard": ("track.tensorboard",),
    "confidence": ("conf",),
    "score_threshold": ("conf",),
    "threshold": ("conf",),
}


def section_of(model: type[BaseModel], place: Iterable[str | int]) -> type[BaseModel] | None:
    """Return the part of a config that lies at a place; None where it has no fixed keys."""
    section: type[BaseModel] | None = model
    for part in place:
        field = section.model_fields.get(str(part)) if section else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        section = next((k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel)), None)
    return section


def meant_precision(word: object) -> object:
    """Return a number format as Lightning calls it; what is none stays as it is.

    >>> meant_precision("fp16"), meant_precision(32), meant_precision("fp8")
    ('16-mixed', '32-true', 'fp8')
    """
    return _PRECISIONS.get(str(word), word)


def meant_key(key: str, section: type[BaseModel], value: object = None) -> str:
    """Return the key of a part of a config that was meant by an unknown one; "" for none.

    Args:
        key: the last word of what was given.
        section: the part of the config.
        value: what was given for it.
    """
    if str(value).endswith(_WEIGHTS) and "init" in section.model_fields:
        return "init"
    known = {name: _existing(names, section) for name, names in _SYNONYMS.items()}
    known = {name: meant for name, meant in known.items() if meant}
    known |= {name: name for name in section.model_fields}
    lower = key.lower().replace("-", "_")
    near = [lower] if lower in known else get_close_matches(lower, known, 1)
    return known[near[0]] if near else ""


def _existing(candidates: Sequence[str], section: type[BaseModel]) -> str:
    return next((name for name in candidates if _has(section, name)), "")


def _has(model: type[BaseModel], name: str) -> bool:
    *above, last = name.split(".")
    if above and above[0] in model.model_fields and section_of(model, above) is None:
        # Any keys, as the options of an architecture.
        return True
    section = section_of(model, above)
    return section is not None and last in section.model_fields
