"""What networks learn from: images and masks, decoded once, in a repeatable order."""

from __future__ import annotations

from zoo.data.batches import (
    GREY_DEVIATION,
    GREY_MEAN,
    normalize,
    targets_on_device,
    unpack_on_device,
)
from zoo.data.bits import BitMask
from zoo.data.cases import Case, Cases
from zoo.data.items import HuggingFaceItems, Item, Items, SampleItems
from zoo.data.objects import ObjectBits, ObjectItems
from zoo.data.reading import (
    READERS,
    Frame,
    read_ahead,
    resize_image,
    resize_packed,
)
from zoo.data.stores import Cache, DiskStore, Form, Kept, MemoryStore, Store, open_store
from zoo.data.training_set import EpochSampler, TrainingSet, other_index, training_loader
from zoo.data.windows import Windows

__all__ = [
    "GREY_DEVIATION",
    "GREY_MEAN",
    "READERS",
    "BitMask",
    "Cache",
    "Case",
    "Cases",
    "DiskStore",
    "EpochSampler",
    "Form",
    "Frame",
    "HuggingFaceItems",
    "Item",
    "Items",
    "Kept",
    "MemoryStore",
    "ObjectBits",
    "ObjectItems",
    "SampleItems",
    "Store",
    "TrainingSet",
    "Windows",
    "normalize",
    "open_store",
    "other_index",
    "read_ahead",
    "resize_image",
    "resize_packed",
    "targets_on_device",
    "training_loader",
    "unpack_on_device",
]
