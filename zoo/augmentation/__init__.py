"""Augmentation of an image together with its mask, by albumentations' names and a few of ours."""

from zoo.augmentation.instances import pack_instances, unpack_instances
from zoo.augmentation.layout import MaskLayout, class_numbers
from zoo.augmentation.pipeline import Augmentation, Others
from zoo.augmentation.steps import OWN, build_steps, has_mixing

__all__ = [
    "OWN",
    "Augmentation",
    "MaskLayout",
    "Others",
    "build_steps",
    "class_numbers",
    "has_mixing",
    "pack_instances",
    "unpack_instances",
]
