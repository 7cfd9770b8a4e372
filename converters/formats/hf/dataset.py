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
of four channels, which are 32 classes; `mask_1` has the next 32, and so on), `key`, `group`,
`height`, `width`, and as JSON `attributes` and `frame`: where a crop lies in its original; null
where the image is none. Objects of one class are one mask.

What is read: such data sets, and those of others with a column of images and one of class numbers
(`converters.formats.hf.index_maps`). Every file must be there that the names of the others, the
card or `dataset_dict.json` speak of, with as many rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from converters.files.images import Enlarge, decode_image, image_bytes, image_suffix
from converters.files.json_files import dump_json
from converters.files.provenance import atomic_write_text
from converters.formats.hf import rows as hf_rows
from converters.formats.hf.card import card
from converters.formats.hf.class_names import column_names, named_labels, read_names
from converters.formats.hf.index_maps import find_numbers
from converters.formats.hf.reading import (
    HuggingFaceReader,
    decode_masks,
    find_columns,
    has_own_columns,
)
from converters.formats.hf.reading import read_labels as read_labels
from converters.formats.hf.rows import (
    CLASSES_PER_MASK,
    Features,
    Rows,
    features,
    mask_columns,
    write_rows,
)
from converters.formats.hf.splits import find_splits, missing_files
from converters.formats.label_spaces import folder_space
from converters.formats.mask_layouts import encode_mask
from converters.formats.writing import WriteTarget, check_labels, sample_record
from converters.loss import ConversionLoss, joined_objects
from converters.masks import Mask, class_masks, pack, unpack
from converters.types import LabelSpace, Sample

_LOST = frozenset({"objects", "subpixels"})
LOSES = {"arrow": _LOST, "parquet": _LOST}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def matches(root: Path) -> bool:
    """Tell whether a folder is a Hugging Face data set, ours or another one."""
    return bool(find_splits(root))


def is_own(root: Path) -> bool:
    """Tell whether a data set has the columns that `write` gives it, so that rows can be opened."""
    return has_own_columns(find_splits(root))


# --- writing


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as a Hugging Face data set.

    Raises:
        ValueError: an unknown label.
    """
    columns = features(len(target.labels))
    parts = {"train": [s for s in samples if s.key not in target.held_out]}
    if target.is_split:
        parts["validation"] = [s for s in samples if s.key in target.held_out]
    encode = partial(_row, target.labels, target.enlarge)
    rows = target.each(encode, [sample for members in parts.values() for sample in members])
    for split, members in parts.items():
        files = _new_files(target, split, len(members))
        files[0].parent.mkdir(exist_ok=True)
        write_rows(files, islice(rows, len(members)), columns)
        if target.layout == "arrow":
            _write_info(files, split, len(members), columns)
    # The last sample is counted when somebody asks for one more.
    next(rows, None)
    if target.layout == "arrow":
        _write_json(target.folder / "dataset_dict.json", {"splits": list(parts)})
    _write_json(target.folder / "id2label.json", dict(enumerate(target.labels.names)))
    atomic_write_text(target.folder / "README.md", card(target.layout, target.labels, list(parts)))
    joined = partial(joined_objects, labels=target.labels)
    return sum(map(joined, samples), ConversionLoss())


def _new_files(target: WriteTarget, split: str, rows: int) -> list[Path]:
    files = max(1, -(-rows // hf_rows.ROWS_PER_FILE))
    where = {"arrow": (split, "data", "arrow"), "parquet": ("data", split, "parquet")}
    folder, stem, suffix = where[target.layout]
    return [
        target.folder / folder / f"{stem}-{i:05d}-of-{files:05d}.{suffix}" for i in range(files)
    ]


def _row(labels: LabelSpace, enlarge: Enlarge, sample: Sample) -> dict[str, Any]:
    check_labels(sample, labels)
    masks = class_masks(sample.instances, sample.size_hw, labels, with_background=False)
    packed = pack(masks, labels, sample.size_hw)
    names = mask_columns(len(labels))
    pngs = {n: encode_mask(packed[..., 4 * i : 4 * i + 4]) for i, n in enumerate(names)}
    record = sample_record(sample)
    frame = record.get("frame")
    name = sample.image.stem + image_suffix(sample)
    return {
        "image": {"bytes": image_bytes(sample, enlarge), "path": name},
        **{column: {"bytes": png, "path": None} for column, png in pngs.items()},
        "key": sample.key,
        "group": sample.group,
        "height": sample.size_hw[0],
        "width": sample.size_hw[1],
        "attributes": _json(record.get("attributes", {})),
        "frame": frame and _json(frame),
    }


def _json(record: object) -> str:
    return json.dumps(record, ensure_ascii=False, default=str)


def _write_info(files: Sequence[Path], split: str, rows: int, columns: Features) -> None:
    folder = files[0].parent
    blank = dict.fromkeys(("citation", "description", "homepage", "license"), "")
    counted = {"splits": {split: {"name": split, "num_examples": rows}}}
    _write_json(folder / "dataset_info.json", {**blank, "features": columns, **counted})
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


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of `id2label.json`, or those that a column names; None without either.

    What others call background is none; in our own files every name is that of a class.

    Raises:
        ValueError: `id2label.json` is broken.
    """
    names, is_ours = read_names(root), is_own(root)
    if names is None:
        return None if is_ours else named_labels(root, column_names(root))
    listed = [names[number] for number in sorted(names)]
    return folder_space(root, listed) if is_ours else named_labels(root, listed)


def numbered_labels(root: Path) -> LabelSpace | None:
    """Return the numbers in the maps as classes, for who has no names; None without any.

    0 is none, and so is 255 where there are other numbers up to 255. Maps of ours have no numbers.
    """
    splits = find_splits(root)
    return None if has_own_columns(splits) else find_numbers(root, splits, find_columns(splits))


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read a data set of this kind; outlines follow the pixels exactly.

    Args:
        root: folder that `write` made, or one with columns of images and of class numbers.
        subset: `test` are the split `test` and the keys below `test/`, `train` all others.
        labels: the classes; must be those of `id2label.json`, if the data set is ours.
        problems: takes down rows and files that are broken or missing.

    Returns:
        Samples, one instance for each class that has pixels; their images stay in the files.

    Raises:
        ValueError: other classes, other columns, or `id2label.json` is not one.
    """
    return HuggingFaceReader(root, labels, problems).samples(subset)


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
    splits = find_splits(root)
    if not splits:
        raise ValueError(f"{root}: expected a data set in format 'segformer', found none")
    if name not in splits:
        raise ValueError(f"{root}: expected a split '{name}', found only: {', '.join(splits)}")
    if missing := missing_files(root, {name: splits[name]}):
        raise ValueError(f"{root}: {missing[0]}")
    try:
        return Rows.open(splits[name])
    except (OSError, ValueError) as error:
        raise ValueError(f"{root}: expected whole files of rows, found: {error}") from None


def decode_row(
    row: Mapping[str, Any], classes: int = CLASSES_PER_MASK, channels: int = 1
) -> tuple[str, Mask, Mask]:
    """Decode a row of `open_split`.

    Args:
        row: of our own making.
        classes: in its masks.
        channels: of the image: 1 is grey, 3 are red, green and blue.

    Returns:
        The key; the image, uint8 (H, W) or (H, W, 3); the bit-packed mask, uint8
        (H, W, 4) or a multiple of it, of which `converters.masks.unpack` takes the first C bits.

    Raises:
        ValueError: bytes that are not an image, or a mask of another size or with other classes.
    """
    try:
        way = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        image = decode_image(row["image"]["bytes"] or b"", way)
        height, width = image.shape[:2]
        return str(row["key"]), image, decode_masks(row, classes, (height, width))
    except ValueError as error:
        raise ValueError(f"{row['key']}: {error}") from None


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
        ValueError: a size that is not positive.
    """

    size_hw: tuple[int, int]
    classes: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1:
            raise ValueError(f"expected a positive (height, width), found {self.size_hw}")

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[npt.NDArray[Any]]]:
        """Turn columns into arrays.

        Args:
            rows: columns `image` and `mask` (`mask_1`, ... beyond 32 classes) of PIL images, as
                `datasets` decodes them.

        Returns:
            `pixel_values`, float32 (3, H, W), and `labels`, uint8 (C, H, W), 0 or 1, of each row.

        Raises:
            ValueError: a mask that is not RGBA.
        """
        return {
            "pixel_values": [self._pixel_values(image) for image in rows["image"]],
            "labels": [self._labels(masks) for masks in zip(*self._masks(rows), strict=True)],
        }

    def _masks(self, rows: Mapping[str, Sequence[Any]]) -> list[Sequence[Any]]:
        return [rows[name] for name in mask_columns(self.classes)]

    def _pixel_values(self, image: Image.Image) -> npt.NDArray[np.float32]:
        height, width = self.size_hw
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        scaled = np.asarray(resized, np.float32) / 255
        normal = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)

    def _labels(self, masks: Sequence[Image.Image]) -> Mask:
        height, width = self.size_hw
        resized = []
        for mask in masks:
            if mask.mode != "RGBA":
                raise ValueError(f"mask: expected an RGBA image, found {mask.mode}")
            nearest = mask.resize((width, height), Image.Resampling.NEAREST)
            resized.append(np.asarray(nearest, np.uint8))
        return unpack(np.concatenate(resized, axis=-1), self.classes)
