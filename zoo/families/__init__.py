"""Model families: what each vendor's models need to train and predict, behind one interface."""

from __future__ import annotations

import os
import re
from importlib import import_module

import configs
from zoo.contract import Family

# Before any family imports its libraries, which read these once: no usage reports when a name on
# the hub is given, and no request to a service that converts pickles.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

FAMILIES = {
    "smp": "zoo.families.smp.family",
    "segformer": "zoo.families.segformer.family",
    "torchvision": "zoo.families.torchvision.family",
    "huggingface": "zoo.families.huggingface.family",
    "monai": "zoo.families.monai.family",
    "nets": "zoo.families.nets.family",
    "yolo": "zoo.families.yolo.family",
    "maskrcnn": "zoo.families.maskrcnn.family",
    "mask2former": "zoo.families.mask2former.family",
    "oneformer": "zoo.families.oneformer.family",
    "eomt": "zoo.families.eomt.family",
    "rfdetr": "zoo.families.rfdetr.family",
    "refiner": "zoo.families.refiner.family",
}
"""Name -> module with a `FAMILY`, see `zoo.contract.Family`; a line is all that a new one needs."""

# So many configs are named where a family's name is expected.
_SHOWN = 3

USUAL = {
    "yolo": "yolo11x_1024",
    "smp": "unet_resnet34",
    "segformer": "mit_b5_1024",
    "torchvision": "deeplabv3_resnet50_1024",
    "huggingface": "upernet_swin_large",
    "monai": "swinunetr_1024",
    "nets": "unet3plus_resnet50",
    "maskrcnn": "resnet50_fpn_v2_1024",
    "mask2former": "swin_tiny_1024",
    "oneformer": "swin_large_1024",
    "eomt": "large_640",
    "rfdetr": "seg_medium_432",
    "refiner": "laptop",
}
"""Name -> its best-known config, for a GPU; what trains on a processor is called `laptop`."""


def load_family(name: str) -> Family:
    """Import a family by name.

    Raises:
        ValueError: an unknown name, or its libraries are not installed; says what to install.
    """
    check_family(name)
    try:
        family: Family = import_module(FAMILIES[name]).FAMILY
    except ModuleNotFoundError as error:
        extra = "yolo" if name == "yolo" else "train"
        hint = f"install it with: pip install 'maskzoo[{extra}]'"
        raise ValueError(f"family '{name}' needs the package '{error.name}'; {hint}") from None
    return family


def check_family(name: str) -> None:
    """Make sure that there is a family of this name.

    Raises:
        ValueError: there is none; says which, or whose config, may be meant.
    """
    if name not in FAMILIES:
        raise ValueError(
            f"family '{name}': expected one of {', '.join(FAMILIES)}{_describe_meant(name)}"
        )


def _describe_meant(name: str) -> str:
    """Say which family, or which of its configs, a name that is none may mean; "" for none."""
    plain = _plain(name)
    if plain in FAMILIES:
        return f"; '{plain}' is how it is written"
    found = [(family, config) for family in FAMILIES for config in configs.names(family)]
    alike = [pair for pair in found if plain and _plain(pair[1]).startswith(plain)]
    if not alike:
        return "; zoo list models shows all networks"
    shown = ", ".join(f"{family} --config {config}" for family, config in alike[:_SHOWN])
    return f"; networks are configs of a family: {shown}"


def _plain(name: str) -> str:
    """Return a name as networks are looked for: `UNet++` and `unetplusplus` are the same."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("+", "plus"))


def usual_config(family: str, has_gpu: bool | None = None) -> str:
    """Return the best-known config of a family that a computer can train.

    Args:
        family: its name.
        has_gpu: whether the computer has a GPU; None looks for one here.
    """
    if "laptop" not in configs.names(family):
        return USUAL[family]
    if has_gpu is None:
        try:
            import torch

            has_gpu = torch.cuda.is_available()
        except ImportError:
            # What is missing is said when the family is loaded.
            has_gpu = False
    return USUAL[family] if has_gpu else "laptop"
