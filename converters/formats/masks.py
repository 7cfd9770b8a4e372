"""Masks as PNG files, in four layouts.

    OUT/images/KEY.png                   copies; hard links where asked for
    OUT/masks/...                        see below
    OUT/masks.yaml                       the layout, and what its folders hold
    OUT/labels.yaml                      the label space
    OUT/images.json                      KEY -> group, size, attributes, place in the original
    OUT/split.json                       where a split was given

`packed`: bit c % 8 of channel c // 8 of an RGBA image is class c; `masks/KEY.png`, or, of more than
32 classes, `masks/0-31/KEY.png` and so on. All four channels are data: a program that premultiplies
the alpha channel or drops it destroys the masks. OpenCV and Pillow do neither.

`per-class`: `masks/CLASS/KEY.png`, 0 and 255, where the class has pixels. Letters that file systems
do not take are replaced; `masks.yaml` maps the folders to the classes.

`groups`: `masks/group-0/KEY.png` and so on: index maps, whose value is the class's number plus 1,
or 0 for none. Classes that share a pixel in any image are in different groups, of which there are
as few as possible.

`index`: `masks/KEY.png`, one such index map for all classes, for programs that know one label a
pixel. Overlaps are lost: of two objects the one that is smaller in the image lies on top (of two of
one size, the class that comes later). `masks.yaml` says what mean Dice is left to reach at most.

Index maps have 8 bits a pixel, and 16 beyond 255 classes.

What is read: PNG files of these layouts, whoever made them. An index map may be a grey image of any
number of bits, or one with a palette, whose indexes count and whose colours do not: but for the
colour that PASCAL VOC gives to "void", which makes 255 no class, as `void: 255` in masks.yaml does.
Any other value that is no class is an error, and so are bits beyond the classes, masks in colours,
and an image or a mask without its partner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import yaml

from converters.errors import Problems
from converters.files.images import PutImage, image_suffix
from converters.files.json_files import dump_json
from converters.files.provenance import atomic_write_text
from converters.formats.mask_layouts import (
    MaskLayout,
    class_folders,
    color_graph,
    packed_folders,
    whole,
)
from converters.formats.mask_pixels import MaskPixels
from converters.formats.masks_reading import MasksReader, mask_file
from converters.formats.writing import WriteTarget, check_labels, sample_record
from converters.loss import ConversionLoss, joined_objects, measure
from converters.masks import CropMask, class_masks, share_pixels
from converters.types import LabelSpace, Sample

_LOST = frozenset({"objects", "subpixels"})
LOSES = {
    "packed": _LOST,
    "per-class": _LOST,
    "groups": _LOST,
    "index": _LOST | {"overlaps"},
}


def matches(root: Path) -> bool:
    """Tell whether a folder holds masks as PNG files."""
    return (root / "labels.yaml").is_file() and (root / "masks").is_dir()


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples with their masks; a split is laid beside them and moves no file.

    Objects of one class become one mask, and the layout `index` loses pixels where objects overlap.
    """
    (target.folder / "masks").mkdir()
    (target.folder / "images").mkdir()
    layout = MaskLayout(target.layout, target.labels, _folders(samples, target))
    encode = partial(_write_sample, target.folder, layout, target.put_image)
    loss = ConversionLoss()
    index = {}
    for sample, (names, lost) in zip(samples, target.each(encode, samples), strict=True):
        loss += lost
        # A class without pixels has no file: the list tells it from a file that was lost.
        drawn = {"drawn": names} if layout.name == "per-class" else {}
        index[sample.key] = {**sample_record(sample), **drawn}
    target.labels.save(target.folder / "labels.yaml")
    atomic_write_text(target.folder / "images.json", dump_json(index))
    atomic_write_text(target.folder / "masks.yaml", _layout_yaml(layout, loss))
    return loss


def _folders(samples: Sequence[Sample], target: WriteTarget) -> dict[str, tuple[str, ...]]:
    if target.layout == "packed":
        return packed_folders(target.labels)
    if target.layout == "per-class":
        return class_folders(target.labels)
    if target.layout == "index":
        return {"": target.labels.names}
    pairs = set().union(*target.each(partial(_overlaps, target.labels), samples))
    groups = color_graph(target.labels.names, sorted(pairs))
    return {f"group-{number}": names for number, names in enumerate(groups)}


def _overlaps(labels: LabelSpace, sample: Sample) -> set[tuple[str, str]]:
    check_labels(sample, labels)
    masks = class_masks(sample.instances, sample.size_hw, labels, with_background=False)
    pairs = combinations(sorted(masks), 2)
    return {(a, b) for a, b in pairs if share_pixels(masks[a], masks[b])}


def _write_sample(
    folder: Path, layout: MaskLayout, put: PutImage, sample: Sample
) -> tuple[list[str], ConversionLoss]:
    check_labels(sample, layout.labels)
    drawn = class_masks(sample.instances, sample.size_hw, layout.labels, with_background=False)
    masks = {name: mask for name, mask in drawn.items() if mask.area}
    for place, png in layout.files(masks, sample.size_hw).items():
        path = mask_file(folder, place, sample.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    put(sample, folder / "images" / (sample.key + image_suffix(sample)))
    names = [name for name in layout.labels.names if name in masks]
    return names, _loss(layout, sample, masks)


def _loss(layout: MaskLayout, sample: Sample, masks: Mapping[str, CropMask]) -> ConversionLoss:
    joined = joined_objects(sample, layout.labels)
    if layout.name != "index":
        return joined
    painted = layout.paint("", masks, whole(sample.size_hw))
    if cv2.countNonZero(painted) == sum(mask.area for mask in masks.values()):
        return joined
    measured = measure(sample, layout.masks("", MaskPixels(painted)), layout.labels)
    return replace(measured, objects=joined.objects, masks=joined.masks)


def _layout_yaml(layout: MaskLayout, loss: ConversionLoss) -> str:
    record: dict[str, Any] = {"layout": layout.name}
    if layout.name in ("per-class", "groups"):
        record["folders"] = {folder: list(names) for folder, names in layout.folders.items()}
    if layout.name == "index":
        reach = {name: loss.dice.get(name, 1.0) for name in layout.labels.names}
        mean = sum(reach.values()) / len(reach)
        figures = {"all": mean, **reach}
        record["mean_dice_at_most"] = {name: round(dice, 4) for name, dice in figures.items()}
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


# --- reading


def label_space(root: Path) -> LabelSpace:
    """Return the classes of `labels.yaml`.

    Raises:
        ValueError: no such file, or none of a label space.
    """
    return LabelSpace.load(str(root / "labels.yaml"))


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read masks in any of the layouts; outlines follow the pixels exactly.

    Args:
        root: folder that `write` made, or one like it; without `masks.yaml` the masks are
            `packed`, without `images.json` all that lies in `images` counts.
        subset: `test` are the keys below `test/`, `train` all others, `all` both.
        labels: the classes; must be those of `labels.yaml`.
        problems: takes down masks and images that are missing, broken, or without a partner.

    Returns:
        Samples, one instance for each class that has pixels.

    Raises:
        ValueError: other classes, or a broken `masks.yaml` or `images.json`.
    """
    names = label_space(root).names
    if names != labels.names:
        raise ValueError(f"{root}: expected the classes of '{labels.name}', found {names!r:.80}")
    return MasksReader.open(root, labels, problems).samples(subset)


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads; of masks it is only asked whether they are there.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are missing or broken, and masks without an image.

    Raises:
        ValueError: a broken `labels.yaml`, `masks.yaml` or `images.json`.
    """
    reader = MasksReader.open(root, label_space(root), problems)
    return replace(reader, decodes=False).samples(subset)
