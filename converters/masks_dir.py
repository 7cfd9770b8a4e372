"""Bit-packed masks as PNG files: one file a sample holds all classes, overlaps included.

    OUT/images/KEY.png                   hard links where possible
    OUT/masks/KEY.png                    RGBA: bit c % 8 of channel c // 8 is class c
    OUT/labels.yaml                      the label space
    OUT/images.json                      KEY -> group
    OUT/split.json                       where a split was given

Up to 32 classes; channels that are not needed are zero. All four channels are data: a program that
premultiplies the alpha channel or drops it destroys the masks. OpenCV and Pillow do neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from converters.loss import ConversionLoss, lossless
from converters.errors import DataError
from converters.files import atomic_write_text, link_or_copy
from converters.images import read_size_hw
from converters.masks import Mask, outline, pack, rasterize_labels, unpack_labels
from converters.splits import Split, data_set_folder, held_out_keys
from converters.types import Instance, LabelSpace, Sample

LOSES: frozenset[str] = frozenset({"subpixels"})
MOST_CLASSES = 32


def matches(root: Path) -> bool:
    """Tell whether a folder holds bit-packed masks."""
    return (root / "labels.yaml").is_file() and (root / "masks").is_dir()


# --- one mask


def encode_mask(packed: Mask) -> bytes:
    """Return the PNG of a bit-packed mask, uint8 (H, W, B) with B at most 4.

    Raises:
        ValueError: more than 32 classes.
    """
    height, width, channels = packed.shape
    if channels * 8 > MOST_CLASSES:
        raise ValueError(f"masks: expected at most {MOST_CLASSES} classes, found more")
    bgra = np.zeros((height, width, 4), np.uint8)
    for channel in range(channels):
        bgra[..., (2, 1, 0, 3)[channel]] = packed[..., channel]
    return bytes(cv2.imencode(".png", bgra)[1])


def decode_mask(png: bytes, name: str) -> Mask:
    """Return the bit-packed mask of a PNG, uint8 (H, W, 4).

    Args:
        png: the file's content.
        name: what errors call it.

    Raises:
        ValueError: not a PNG of four 8-bit channels.
    """
    bgra = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4 or bgra.dtype != np.uint8:
        found = "none" if bgra is None else f"{bgra.dtype} {bgra.shape}"
        raise ValueError(f"{name}: expected an RGBA image of 8 bits, found {found}")
    return np.ascontiguousarray(bgra[..., [2, 1, 0, 3]], dtype=np.uint8)


def read_mask(path: Path, labels: LabelSpace) -> Mask:
    """Read a bit-packed mask, uint8 (H, W, ceil(C / 8)).

    Raises:
        ValueError: no such file, or not such a mask.
    """
    try:
        png = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a mask: {error.strerror}") from None
    return np.ascontiguousarray(decode_mask(png, str(path))[..., : (len(labels) + 7) // 8])


# --- a data set


def write(
    samples: Sequence[Sample],
    out: Path,
    labels: LabelSpace,
    *,
    split: Split | None = None,
    fold: int = 0,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionLoss:
    """Write samples as bit-packed masks.

    Args:
        samples: what to write.
        out: the result's folder; a previous result of this format is replaced.
        labels: the classes, at most 32.
        split: is laid beside the masks; it moves no file.
        fold: must be one of the split's.
        provenance: command, config and seed for `provenance.json`.
        progress: called with (done, total).

    Returns:
        What was lost: nothing, at the level of pixels.

    Raises:
        ValueError: an unknown label, too many classes, a split of other images, or `out` is not
            ours to replace.
    """
    held_out_keys(samples, split, fold)
    loss = ConversionLoss()
    with data_set_folder(out, "masks", provenance, split, fold) as folder:
        (folder / "masks").mkdir()
        for sample in samples:
            _write_sample(folder, sample, labels)
            loss += lossless(sample)
            if progress:
                progress(loss.samples, len(samples))
        atomic_write_text(folder / "labels.yaml", _labels_yaml(labels))
        index = {sample.key: {"group": sample.group} for sample in samples}
        atomic_write_text(folder / "images.json", json.dumps(index, indent=1, ensure_ascii=False))
    return loss


def _write_sample(folder: Path, sample: Sample, labels: LabelSpace) -> None:
    png = encode_mask(
        pack(rasterize_labels(sample.instances, sample.size_hw), labels, sample.size_hw)
    )
    # Keys may hold dots: the suffix is added, never replaced.
    link_or_copy(sample.image, folder / "images" / (sample.key + sample.image.suffix))
    mask = folder / "masks" / (sample.key + ".png")
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(png)


def _labels_yaml(labels: LabelSpace) -> str:
    groups = {group: list(members) for group, members in labels.groups.items()}
    record = {"name": labels.name, "names": list(labels.names), "groups": groups}
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def read(root: Path, *, subset: str, labels: LabelSpace) -> list[Sample]:
    """Read bit-packed masks; outlines follow the pixels exactly.

    Args:
        root: folder that `write` made.
        subset: `test` are the keys below `test/`, `train` all others, `all` both.
        labels: the classes; must be those of `labels.yaml`.

    Returns:
        Samples, one instance for each class that has pixels.

    Raises:
        DataError: masks or images that are missing or broken, all in one error.
        ValueError: other classes.
    """
    names = LabelSpace.load(str(root / "labels.yaml")).names
    if names != labels.names:
        raise ValueError(f"{root}: expected the classes of '{labels.name}', found {names!r:.80}")
    problems: list[str] = []
    samples: list[Sample] = []
    for key, entry in _read_index(root).items():
        if subset != "all" and (subset == "test") != key.startswith("test/"):
            continue
        try:
            samples.append(_read_sample(root, key, str(entry.get("group", "")), labels))
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise DataError(root, problems)
    return samples


def _read_index(root: Path) -> dict[str, dict[str, Any]]:
    path = root / "images.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): dict(entry) for key, entry in index.items()}
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected keys with their groups, found: {error!r}") from None


def _read_sample(root: Path, key: str, group: str, labels: LabelSpace) -> Sample:
    place = root / "images" / key
    images = [p for p in sorted(place.parent.glob("*")) if p.name == place.name + p.suffix]
    if len(images) != 1:
        raise ValueError(f"expected one image of this name, found {len(images)}")
    packed = read_mask(root / "masks" / (key + ".png"), labels)
    size_hw = read_size_hw(images[0])
    if packed.shape[:2] != size_hw:
        raise ValueError(f"expected a mask of {size_hw}, found {packed.shape[:2]}")
    masks = unpack_labels(packed, labels)
    instances = tuple(Instance(label, outline(mask)) for label, mask in masks.items())
    return Sample(key, images[0], size_hw, instances, group)
