"""RAM-W600's wrists: BMP images, and the masks of 14 bones as NumPy arrays; only read.

    DATA/BoneSegmentation/images/0172_0003_L.bmp
    DATA/BoneSegmentation/masks/{train,val,test}/0172_0003_L.npy       0 and 1, (14, H, W)

Channels are the classes of the label space `ram_w600`, in its order; see there for the sources. A
name is two numbers and the side. The first number is taken for the patient's: a split keeps what
shares it together, both sides at the least.

Arrays are mapped, never unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.errors import Problems
from converters.files.images import read_size_hw
from converters.masks import crop, outline
from converters.types import Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
# What a damaged header raises depends on where it is damaged.
_BROKEN = (OSError, OverflowError, SyntaxError, TokenError, TypeError, ValueError)
_NAME = re.compile(r"\d+_\d+_[LR]")
_SUBSETS = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}


def matches(root: Path) -> bool:
    """Tell whether a folder holds masks as RAM-W600 has them."""
    return any(_NAME.fullmatch(file.stem) for file in _mask_files(root, "all"))


def label_space(root: Path) -> LabelSpace:
    """Return the bones that RAM-W600 has masks of."""
    return LabelSpace.load("ram_w600")


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read RAM-W600's bone segmentation.

    Args:
        root: the data set's folder, or BoneSegmentation in it.
        subset: `train` (its train and val), `test` or `all`.
        labels: those of `label_space`.
        problems: takes down masks and images that are broken or missing.

    Returns:
        Samples, one instance for each bone that has pixels.

    Raises:
        ValueError: no masks of this subset.
    """
    files = list(_mask_files(root, subset))
    if not files:
        raise ValueError(f"{root}: expected masks/*/*.npy of subset '{subset}', found none")
    names = labels.names
    _note_images_without_masks(root, problems)
    samples: list[Sample] = []
    for file in files:
        image = file.parents[2] / "images" / f"{file.stem}.bmp"
        key = image.relative_to(root).with_suffix("").as_posix()
        group = file.stem.partition("_")[0]
        try:
            size_hw = read_size_hw(image)
            planes = read_planes(file, (len(names), *size_hw))
        except ValueError as error:
            problems.add(file, error, key=key, group=group)
            continue
        instances: list[Instance] = []
        for name, plane in zip(names, planes, strict=True):
            mask = crop(plane)
            if mask.area:
                instances.append(Instance(name, outline(mask)))
        samples.append(Sample(key, image, size_hw, tuple(instances), group))
    return samples


def _note_images_without_masks(root: Path, problems: Problems) -> None:
    masks = {file.stem for file in _mask_files(root, "all")}
    images = [
        path
        for base in (root / "BoneSegmentation", root)
        for path in sorted((base / "images").glob("[!.]*.bmp"))
    ]
    if alone := [path.name for path in images if path.stem not in masks]:
        problems.note(f"images: {len(alone)} left out that have no masks ({alone[0]}, ...)")


def _mask_files(root: Path, subset: str) -> Iterator[Path]:
    for base in (root / "BoneSegmentation", root):
        for folder in _SUBSETS[subset]:
            yield from sorted((base / "masks" / folder).glob("[!.]*.npy"))


def read_planes(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Map an array of masks into memory.

    Args:
        path: a .npy file.
        shape: what it should be: classes, height, width.

    Returns:
        bool or integers of that shape, 0 and 1.

    Raises:
        ValueError: not such an array.
    """
    try:
        planes = np.lib.format.open_memmap(path, mode="r")
    except _BROKEN as error:
        raise ValueError(f"expected a NumPy array, found a broken file ({error})") from None
    if planes.shape != shape or planes.dtype.kind not in "bui":
        raise ValueError(
            f"expected whole numbers of shape {shape} (classes, height, width) as the image has, "
            f"found {planes.dtype} {planes.shape}"
        )
    if planes.min() < 0 or planes.max() > 1:
        raise ValueError(f"expected 0 and 1, found {planes.min()} to {planes.max()}")
    return planes
