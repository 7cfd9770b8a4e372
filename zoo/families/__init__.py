"""Model families: what each vendor's models need to train and predict, behind one interface."""

from __future__ import annotations

from importlib import import_module

from zoo.families.base import Family

FAMILIES = {
    "smp": "zoo.families.smp",
    "segformer": "zoo.families.segformer",
    "yolo": "zoo.families.yolo",
}


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
        hint = f"install it with: pip install 'segzoo[{extra}]'"
        raise ValueError(f"family '{name}' needs the package '{error.name}'; {hint}") from None
    return family
