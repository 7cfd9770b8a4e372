"""A Hugging Face data set for SegFormer and its kin.

Layout `arrow`, which `datasets` maps into memory without a copy:

    OUT/dataset_dict.json
    OUT/{train,validation}/data-00000-of-0000N.arrow, dataset_info.json, state.json

Layout `parquet`, as the Hub wants it:

    OUT/data/{train,validation}-00000-of-0000N.parquet

and in both:

    OUT/id2label.json                    {"0": "finger-1", ...}
    OUT/README.md                        the card by which `load_dataset(OUT)` finds the files

`datasets.load_dataset(OUT)` reads both; `datasets.load_from_disk(OUT)` reads Arrow files only, and
without a copy of its own. A row holds `image` (the file's own bytes), `mask` (bit-packed, as a PNG
of four channels, and so at most 32 classes), `key`, `group`, `height`, `width`, and as JSON
`attributes` and `frame`: where a crop lies in its original; null where the image is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.errors import Problems
from converters.files.images import Enlarge, decode_image, image_bytes, image_suffix, stored_size_hw
from converters.files.json_files import dump_json, load_json, parse_json
from converters.files.provenance import atomic_write_text
from converters.formats.hf import rows as hf_rows
from converters.formats.hf.card import card
from converters.formats.hf.rows import FEATURES, RowImage, Rows, scan_rows, write_rows
from converters.formats.mask_layouts import decode_mask, encode_mask
from converters.formats.writing import WriteTarget, check_labels, record_fields, sample_record
from converters.loss import ConversionLoss, lossless
from converters.masks import Mask, outline, pack, rasterize_labels, unpack, unpack_labels
from converters.types import Instance, LabelSpace, Sample

LOSES = {"arrow": frozenset({"subpixels"}), "parquet": frozenset({"subpixels"})}
SPLITS = ("train", "validation", "test")
MOST_CLASSES = 32
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def matches(root: Path) -> bool:
    """Tell whether a folder is a data set of this kind."""
    return (root / "id2label.json").is_file() and any(_files(root, split) for split in SPLITS)


def _files(root: Path, split: str) -> list[Path]:
    """The files of a split, in either layout."""
    arrow = sorted((root / split).glob("data-*-of-*.arrow"))
    return arrow or sorted((root / "data").glob(f"{split}-*-of-*.parquet"))


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as a Hugging Face data set.

    Raises:
        ValueError: an unknown label, or more than 32 classes.
    """
    _check_classes(len(target.labels))
    parts = {"train": [s for s in samples if s.key not in target.held_out]}
    if target.is_split:
        parts["validation"] = [s for s in samples if s.key in target.held_out]
    encode = partial(_row, target.labels, target.enlarge)
    rows = target.each(encode, [sample for members in parts.values() for sample in members])
    for split, members in parts.items():
        files = _new_files(target, split, len(members))
        files[0].parent.mkdir(exist_ok=True)
        write_rows(files, islice(rows, len(members)))
        if target.layout == "arrow":
            _write_info(files, split)
    # The last sample is counted when somebody asks for one more.
    next(rows, None)
    if target.layout == "arrow":
        _write_json(target.folder / "dataset_dict.json", {"splits": list(parts)})
    _write_json(target.folder / "id2label.json", dict(enumerate(target.labels.names)))
    atomic_write_text(target.folder / "README.md", card(target.layout, target.labels, list(parts)))
    return sum(map(lossless, samples), ConversionLoss())


def _check_classes(classes: int) -> None:
    if classes > MOST_CLASSES:
        raise ValueError(
            f"format 'segformer': expected at most {MOST_CLASSES} classes, because a mask is one "
            f"image of four 8-bit channels; found {classes}: write format 'masks', or leave "
            "classes out of the label space"
        )


def _new_files(target: WriteTarget, split: str, rows: int) -> list[Path]:
    files = max(1, -(-rows // hf_rows.ROWS_PER_FILE))
    where = {"arrow": (split, "data", "arrow"), "parquet": ("data", split, "parquet")}
    folder, stem, suffix = where[target.layout]
    return [
        target.folder / folder / f"{stem}-{i:05d}-of-{files:05d}.{suffix}" for i in range(files)
    ]


def _row(labels: LabelSpace, enlarge: Enlarge, sample: Sample) -> dict[str, Any]:
    check_labels(sample, labels)
    masks = rasterize_labels(sample.instances, sample.size_hw)
    png = encode_mask(pack(masks, labels, sample.size_hw))
    record = sample_record(sample)
    frame = record.get("frame")
    name = sample.image.stem + image_suffix(sample)
    return {
        "image": {"bytes": image_bytes(sample, enlarge), "path": name},
        "mask": {"bytes": png, "path": None},
        "key": sample.key,
        "group": sample.group,
        "height": sample.size_hw[0],
        "width": sample.size_hw[1],
        "attributes": _json(record.get("attributes", {})),
        "frame": frame and _json(frame),
    }


def _json(record: object) -> str:
    return json.dumps(record, ensure_ascii=False, default=str)


def _write_info(files: Sequence[Path], split: str) -> None:
    folder = files[0].parent
    blank = dict.fromkeys(("citation", "description", "homepage", "license"), "")
    _write_json(folder / "dataset_info.json", {**blank, "features": FEATURES})
    state: dict[str, Any] = {
        "_data_files": [{"filename": file.name} for file in files],
        "_fingerprint": _fingerprint(files),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    _write_json(folder / "state.json", state)


def _fingerprint(files: Sequence[Path]) -> str:
    """A name of the content, under which `datasets` files what it computes from it."""
    import hashlib

    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _write_json(path: Path, record: Mapping[Any, Any]) -> None:
    atomic_write_text(path, dump_json(record))


# --- reading


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read a data set of this kind; outlines follow the pixels exactly.

    Args:
        root: folder that `write` made.
        subset: `test` are the split `test` and the keys below `test/`, `train` all others.
        labels: the classes; must be those of `id2label.json`.
        problems: takes down rows and files that are broken.

    Returns:
        Samples, one instance for each class that has pixels; their images stay in the files.

    Raises:
        ValueError: other classes, or `id2label.json` is not one.
    """
    if (names := read_labels(root)) != labels.names:
        raise ValueError(f"{root}: expected the classes of '{labels.name}', found {names!r:.80}")
    return [
        sample
        for split in SPLITS
        for file in _files(root, split)
        for sample in _read_file(file, split, subset, labels, problems)
    ]


def _read_file(
    file: Path, split: str, subset: str, labels: LabelSpace, problems: Problems
) -> Iterator[Sample]:
    number = -1
    try:
        for number, row in enumerate(scan_rows(file)):
            key, group = str(row["key"]), str(row["group"] or "")
            is_test = split == "test" or key.startswith("test/")
            if subset != "all" and is_test != (subset == "test"):
                continue
            try:
                yield _read_row(RowImage(file, number, str(row["image"]["path"])), row, labels)
            except ValueError as error:
                problems.add(file, f"row {number}: {error}", key=key, group=group)
    except (OSError, KeyError, TypeError, ValueError) as error:
        problems.add(file, f"expected rows of this format; after row {number} found: {error}")


def _read_row(image: RowImage, row: Mapping[str, Any], labels: LabelSpace) -> Sample:
    size_hw = (row["height"], row["width"])
    found = stored_size_hw(image.read_bytes())
    packed = decode_mask(row["mask"]["bytes"] or b"", "mask")
    if not size_hw == found == packed.shape[:2]:
        raise ValueError(
            f"expected one size, found {size_hw} in the row, {found} of the image and "
            f"{packed.shape[:2]} of the mask"
        )
    masks = unpack_labels(np.ascontiguousarray(packed[..., : -(-len(labels) // 8)]), labels)
    instances = tuple(Instance(label, outline(mask)) for label, mask in masks.items())
    texts = {name: parse_json((row[name] or "null").encode()) for name in ("attributes", "frame")}
    fields = record_fields({"key": row["key"], "group": row["group"] or "", **texts})
    return Sample(image=image, size_hw=size_hw, instances=instances, **fields)


def open_split(root: Path, name: str) -> Rows:
    """Open a split without reading its rows; nothing is downloaded, nothing is copied.

    Args:
        root: folder that `write` made, in either layout.
        name: `train`, `validation` or `test`.

    Returns:
        Rows that `decode_row` understands (images are not decoded), by number.

    Raises:
        ValueError: not such a folder, no such split, or a broken file.
    """
    if not matches(root):
        raise ValueError(f"{root}: expected a data set in format 'segformer', found none")
    if name not in SPLITS or not (files := _files(root, name)):
        found = ", ".join(split for split in SPLITS if _files(root, split))
        raise ValueError(f"{root}: expected a split '{name}', found only: {found}")
    try:
        return Rows.open(files)
    except (OSError, ValueError) as error:
        raise ValueError(f"{root}: expected whole files of rows, found: {error}") from None


def read_labels(root: Path) -> tuple[str, ...]:
    """Read the class names of a data set, in order.

    Raises:
        ValueError: `id2label.json` is missing or not one.
    """
    path = root / "id2label.json"
    try:
        names = load_json(path)
        return tuple(str(names[str(i)]) for i in range(len(names)))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected numbers with class names: {error}") from None


def decode_row(row: Mapping[str, Any]) -> tuple[str, Mask, Mask]:
    """Decode a row of `open_split`.

    Returns:
        The key; the image, uint8 (H, W), grey; the bit-packed mask, uint8 (H, W, 4), of which
        `converters.masks.unpack` takes the first C bits.

    Raises:
        ValueError: bytes that are not an image, or a mask of another size.
    """
    try:
        image = decode_image(row["image"]["bytes"] or b"", cv2.IMREAD_GRAYSCALE)
    except ValueError as error:
        raise ValueError(f"{row['key']}: {error}") from None
    packed = decode_mask(row["mask"]["bytes"], str(row["key"]))
    if packed.shape[:2] != image.shape:
        raise ValueError(f"{row['key']}: image {image.shape}, but mask {packed.shape[:2]}")
    return str(row["key"]), image, packed


# --- what a network takes


@dataclass(frozen=True)
class Transform:
    """Makes a network's inputs of rows; for `Dataset.set_transform` of `datasets`.

    Images are treated as `SegformerImageProcessor` does by default: stretched to the size
    (bilinear, antialiased), divided by 255, normalised by ImageNet's mean and deviation. Of a mask
    the nearest pixel counts.

    Attributes:
        size_hw: height and width that the network takes.
        classes: number of classes in the masks.
        mean: of red, green and blue, in 0 to 1.
        std: their standard deviations.

    Raises:
        ValueError: more than 32 classes, or a size that is not positive.
    """

    size_hw: tuple[int, int]
    classes: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        if min(self.size_hw) < 1:
            raise ValueError(f"expected a positive (height, width), found {self.size_hw}")

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[npt.NDArray[Any]]]:
        """Turn columns into arrays.

        Args:
            rows: columns `image` and `mask` of PIL images, as `datasets` decodes them.

        Returns:
            `pixel_values`, float32 (3, H, W), and `labels`, uint8 (C, H, W), 0 or 1, of each row.

        Raises:
            ValueError: a mask that is not RGBA.
        """
        return {
            "pixel_values": [self._pixel_values(image) for image in rows["image"]],
            "labels": [self._labels(mask) for mask in rows["mask"]],
        }

    def _pixel_values(self, image: Image.Image) -> npt.NDArray[np.float32]:
        height, width = self.size_hw
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        scaled = np.asarray(resized, np.float32) / 255
        normal = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)

    def _labels(self, mask: Image.Image) -> Mask:
        if mask.mode != "RGBA":
            raise ValueError(f"mask: expected an RGBA image, found {mask.mode}")
        height, width = self.size_hw
        resized = mask.resize((width, height), Image.Resampling.NEAREST)
        return unpack(np.asarray(resized, np.uint8), self.classes)
