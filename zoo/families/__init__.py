"""Model families: what each vendor's models need to train and predict, behind one interface."""

from __future__ import annotations

import os
from importlib import import_module

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


def load_family(name: str) -> Family:
    """Import a family by name.

    Raises:
        ValueError: an unknown name, or its libraries are not installed; says what to install.
    """
    if name not in FAMILIES:
        raise ValueError(f"family '{name}': expected one of {', '.join(FAMILIES)}")
    try:
        family: Family = import_module(FAMILIES[name]).FAMILY
    except ModuleNotFoundError as error:
        extra = "yolo" if name == "yolo" else "train"
        hint = f"install it with: pip install 'maskzoo[{extra}]'"
        raise ValueError(f"family '{name}' needs the package '{error.name}'; {hint}") from None
    return family
