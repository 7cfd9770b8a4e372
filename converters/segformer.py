"""A Hugging Face data set for SegFormer and its kin: Arrow files that `datasets` maps into memory.

    OUT/dataset_dict.json
    OUT/{train,validation}/data-00000-of-0000N.arrow, dataset_info.json, state.json
    OUT/id2label.json                    {"0": "finger-1", ...}
    OUT/README.md                        the card by which `load_dataset(OUT)` finds the files

This is what `DatasetDict.save_to_disk` leaves, written image by image: `load_from_disk(OUT)` reads
it. A row holds `image` (the file's own bytes), `mask` (bit-packed, as a four-channel PNG), `key`,
`group`, `height`, `width`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.loss import ConversionLoss, lossless
from converters.errors import import_optional
from converters.files import atomic_write_text
from converters.masks import Mask, pack, rasterize_labels
from converters.masks_dir import decode_mask, encode_mask
from converters.splits import Split, data_set_folder, held_out_keys
from converters.types import LabelSpace, Sample

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

LOSES: frozenset[str] = frozenset({"subpixels"})
SPLITS = ("train", "validation")
ROWS_PER_FILE = 100
ROWS_PER_BATCH = 8

_FEATURES = {
    "image": {"_type": "Image"},
    "mask": {"_type": "Image"},
    "key": {"dtype": "string", "_type": "Value"},
    "group": {"dtype": "string", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "width": {"dtype": "int32", "_type": "Value"},
}


def matches(root: Path) -> bool:
    """Tell whether a folder is a data set of this kind."""
    return (root / "dataset_dict.json").is_file() and (root / "id2label.json").is_file()


# --- writing


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
    """Write samples as a Hugging Face data set; a few rows are in memory at a time.

    Args:
        samples: what to write.
        out: the result's folder; a previous result of this format is replaced.
        labels: the classes, at most 32.
        split: decides what goes to `validation`; without it there is only `train`.
        fold: the fold of the split that is held out.
        provenance: command, config and seed for `provenance.json`.
        progress: called with (done, total).

    Returns:
        What was lost: nothing, at the level of pixels.

    Raises:
        ValueError: an unknown label, too many classes, a split of other images, or `out` is not
            ours to replace.
    """
    held_out = held_out_keys(samples, split, fold)
    parts = {"train": [s for s in samples if s.key not in held_out]}
    if split:
        parts["validation"] = [s for s in samples if s.key in held_out]
    loss = ConversionLoss()
    with data_set_folder(out, "segformer", provenance, split, fold) as folder:
        for name, members in parts.items():
            for sample in _write_split(folder / name, name, members, labels):
                loss += lossless(sample)
                if progress:
                    progress(loss.samples, len(samples))
        _write_json(folder / "dataset_dict.json", {"splits": list(parts)})
        _write_json(folder / "id2label.json", dict(enumerate(labels.names)))
        atomic_write_text(folder / "README.md", _card(list(parts)))
    return loss


def _write_split(
    folder: Path, name: str, samples: Sequence[Sample], labels: LabelSpace
) -> Iterator[Sample]:
    """Write one split; yields each sample when its row is made."""
    import pyarrow as pa

    folder.mkdir()
    schema = _schema()
    files = max(1, -(-len(samples) // ROWS_PER_FILE))
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    for i, file_name in enumerate(names):
        members = samples[i * ROWS_PER_FILE : (i + 1) * ROWS_PER_FILE]
        with (
            pa.OSFile(str(folder / file_name), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as to,
        ):
            for start in range(0, len(members), ROWS_PER_BATCH):
                rows = []
                for sample in members[start : start + ROWS_PER_BATCH]:
                    rows.append(_row(sample, labels))
                    yield sample
                to.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    _write_info(folder, name, names)


def _schema() -> pa.Schema:
    import pyarrow as pa

    file = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    types = {"Image": file, "string": pa.string(), "int32": pa.int32()}
    fields = [(n, types[f.get("dtype", f["_type"])]) for n, f in _FEATURES.items()]
    info = json.dumps({"info": {"features": _FEATURES}})
    return pa.schema(fields, metadata={"huggingface": info})


def _row(sample: Sample, labels: LabelSpace) -> dict[str, Any]:
    masks = rasterize_labels(sample.instances, sample.size_hw)
    png = encode_mask(pack(masks, labels, sample.size_hw))
    return {
        "image": {"bytes": sample.image.read_bytes(), "path": sample.file_name},
        "mask": {"bytes": png, "path": None},
        "key": sample.key,
        "group": sample.group,
        "height": sample.size_hw[0],
        "width": sample.size_hw[1],
    }


def _write_info(folder: Path, name: str, files: Sequence[str]) -> None:
    blank = dict.fromkeys(("citation", "description", "homepage", "license"), "")
    _write_json(folder / "dataset_info.json", {**blank, "features": _FEATURES})
    state: dict[str, Any] = {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": _fingerprint(folder, files),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": name,
    }
    _write_json(folder / "state.json", state)


def _fingerprint(folder: Path, files: Sequence[str]) -> str:
    """A name of the content, under which `datasets` files what it computes from it."""
    import hashlib

    digest = hashlib.sha256()
    for name in files:
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _write_json(path: Path, record: Mapping[Any, Any]) -> None:
    atomic_write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _card(splits: Sequence[str]) -> str:
    files = "".join(f"  - split: {name}\n    path: {name}/data-*.arrow\n" for name in splits)
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        "Images with bit-packed masks: in `mask`, read as RGBA, bit `c % 8` of channel `c // 8`\n"
        "is class `c` of `id2label.json`. A pixel can have several classes. Do not convert the\n"
        "mask's mode and do not premultiply its alpha channel: all four channels are data.\n"
    )


# --- reading


def open_split(root: Path, name: str) -> Dataset:
    """Open a split without reading its rows; nothing is downloaded, nothing is copied.

    Args:
        root: folder that `write` made.
        name: `train` or `validation`.

    Returns:
        `datasets.Dataset` whose rows `decode_row` understands (images are not decoded).

    Raises:
        ValueError: not such a folder, or no such split.
        MissingDependency: `datasets` is not installed.
    """
    if not matches(root):
        raise ValueError(f"{root}: expected a data set in format 'segformer', found none")
    if name not in SPLITS or not (root / name / "state.json").is_file():
        found = ", ".join(s for s in SPLITS if (root / s).is_dir())
        raise ValueError(f"{root}: expected a split '{name}', found only: {found}")
    datasets = import_optional("datasets", "train")
    rows = datasets.load_from_disk(str(root / name))
    for column in ("image", "mask"):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def read_labels(root: Path) -> tuple[str, ...]:
    """Read the class names of a data set, in order.

    Raises:
        ValueError: `id2label.json` is missing or not one.
    """
    path = root / "id2label.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return tuple(str(names[str(i)]) for i in range(len(names)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected numbers with class names, found: {error!r}") from None


def decode_row(row: Mapping[str, Any]) -> tuple[str, Mask, Mask]:
    """Decode a row of `open_split`.

    Returns:
        The key; the image, uint8 (H, W), grey; the bit-packed mask, uint8 (H, W, 4), of which
        `converters.masks.unpack` takes the first C bits.

    Raises:
        ValueError: bytes that are not an image, or a mask of another size.
    """
    data = np.frombuffer(row["image"]["bytes"], np.uint8)
    image: npt.NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{row['key']}: expected an image, found bytes that are none")
    packed = decode_mask(row["mask"]["bytes"], str(row["key"]))
    if packed.shape[:2] != image.shape:
        raise ValueError(f"{row['key']}: image {image.shape}, but mask {packed.shape[:2]}")
    return str(row["key"]), image.astype(np.uint8, copy=False), packed
