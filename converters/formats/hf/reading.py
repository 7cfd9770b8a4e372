"""How a Hugging Face data set's rows become samples; `converters.formats.hf.dataset` says which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import Problems
from converters.files.images import stored_size_hw
from converters.files.json_files import parse_json, read_json
from converters.formats.hf.index_maps import IndexMaps
from converters.formats.hf.rows import (
    CLASSES_PER_MASK,
    RowImage,
    Rows,
    features,
    mask_columns,
    read_columns,
    scan_rows,
)
from converters.formats.hf.splits import (
    find_splits,
    missing_files,
    missing_splits,
    own_row_count,
    row_counts,
)
from converters.formats.mask_layouts import decode_mask
from converters.formats.writing import record_fields
from converters.masks import Mask, outline, unpack_labels
from converters.types import Instance, LabelSpace, Sample

_KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"RIFF": ".webp"}
_OTHER_KIND = ".tif"


def read_labels(root: Path) -> tuple[str, ...]:
    """Read the class names of a data set, in order.

    Raises:
        ValueError: `id2label.json` is missing or not one.
    """
    path = root / "id2label.json"
    names = read_json(path, "numbers with class names")
    try:
        return tuple(str(names[str(i)]) for i in range(len(names)))
    except (KeyError, TypeError):
        raise ValueError(
            f"{path}: expected numbers with class names, from 0 on, found {names!r:.80}"
        ) from None


def has_own_columns(splits: Mapping[str, Sequence[Path]]) -> bool:
    """Tell whether the files of splits have the columns that we write."""
    return set(features(0)) <= set(find_columns(splits))


def find_columns(splits: Mapping[str, Sequence[Path]]) -> dict[str, bool]:
    """Return the columns of the first file that can be read; ours, where none can.

    Args:
        splits: their files.

    Returns:
        Name -> whether it holds images.
    """
    for file in (file for files in splits.values() for file in files):
        try:
            return read_columns(file)
        except (OSError, ValueError):
            continue
    return dict.fromkeys(features(0), True)


def decode_masks(row: Mapping[str, Any], classes: int, size_hw: tuple[int, int]) -> Mask:
    """Return the bit-packed mask of a row of ours, uint8 (H, W, 4 for each 32 classes).

    Raises:
        ValueError: an image of another kind or size, or bits that are no class.
    """
    parts = []
    for number, name in enumerate(mask_columns(classes)):
        png = (row[name] or {}).get("bytes") or b""
        left = min(CLASSES_PER_MASK, classes - number * CLASSES_PER_MASK)
        parts.append(decode_mask(png, name, left, size_hw))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


@dataclass
class HuggingFaceReader:
    """Reads the rows of one data set; goes on after a problem.

    Attributes:
        root: the data set's folder.
        labels: the classes.
        problems: takes down what is wrong.
    """

    root: Path
    labels: LabelSpace
    problems: Problems
    _keys: dict[str, str] = field(default_factory=dict)

    def samples(self, subset: str) -> list[Sample]:
        """Return the samples of a subset.

        Raises:
            ValueError: no files, other classes, or columns that are not understood.
        """
        splits = find_splits(self.root)
        if not splits:
            raise ValueError(
                f"{self.root}: expected SPLIT/data-*.arrow or data/SPLIT-*.parquet, found none"
            )
        for line in (*missing_splits(self.root, splits), *missing_files(self.root, splits)):
            self.problems.add("files", line)
        is_own = has_own_columns(splits)
        if is_own and (names := read_labels(self.root)) != self.labels.names:
            found = f"{names!r:.80}"
            raise ValueError(
                f"{self.root}: expected the classes of '{self.labels.name}', found {found}"
            )
        self._check_counts(splits, is_own)
        columns = find_columns(splits)
        maps = None if is_own else IndexMaps.of_columns(self.root, columns, self.labels)
        found_samples = [
            sample
            for split, files in splits.items()
            for sample in self._split_samples(split, files, subset, maps)
        ]
        return maps.named(found_samples, self.problems) if maps else found_samples

    def _check_counts(self, splits: Mapping[str, list[Path]], is_own: bool) -> None:
        said = list(row_counts(self.root))
        if is_own:
            for split in splits:
                if (rows := own_row_count(self.root, split)) is not None:
                    said.append((split, rows, f"{split}/dataset_info.json"))
        for split, rows, where in said:
            try:
                found = len(Rows.open(splits[split])) if split in splits else 0
            except (OSError, ValueError):
                continue
            if found != rows:
                what = f"expected {rows} rows of split '{split}' as {where} says, found {found}"
                self.problems.add("files", f"{what}: put the missing ones back, or mend {where}")

    def _split_samples(
        self, split: str, files: list[Path], subset: str, maps: IndexMaps | None
    ) -> Iterator[Sample]:
        start = 0
        for file in files:
            number = -1
            try:
                for number, row in enumerate(self._rows(file, maps)):
                    if sample := self._sample(split, file, number, start + number, row, maps):
                        is_test = split == "test" or sample.key.startswith("test/")
                        if subset == "all" or is_test == (subset == "test"):
                            yield sample
            except (OSError, KeyError, TypeError, ValueError) as error:
                what = f"expected rows of this format; after row {number} found: {error}"
                self.problems.add(file, what)
            start += number + 1

    def _rows(self, file: Path, maps: IndexMaps | None) -> Iterator[dict[str, Any]]:
        if maps:
            return scan_rows(file, maps.image, [maps.label])
        others = list(features(len(self.labels)))
        others.remove("image")
        return scan_rows(file, "image", others)

    def _sample(
        self,
        split: str,
        file: Path,
        number: int,
        place: int,
        row: Mapping[str, Any],
        maps: IndexMaps | None,
    ) -> Sample | None:
        key = f"{split}/{place:06d}" if maps else str(row["key"])
        group = "" if maps else str(row["group"] or "")
        try:
            where = f"{file.name}, row {number}"
            if (other := self._keys.setdefault(key, where)) != where:
                raise ValueError(f"expected a key of its own, found '{key}', which {other} has")
            if maps:
                return _read_index_map(file, number, key, row, maps)
            return _read_row(file, number, row, self.labels)
        except ValueError as error:
            self.problems.add(file, f"row {number}: {error}", key=key, group=group)
            return None


def _read_row(file: Path, number: int, row: Mapping[str, Any], labels: LabelSpace) -> Sample:
    texts = {name: _parsed(row[name]) for name in ("attributes", "frame")}
    fields = record_fields({"key": row["key"], "group": row["group"] or "", **texts})
    image = RowImage(file, number, str(row["image"]["path"]))
    size_hw, found = (row["height"], row["width"]), stored_size_hw(image.read_bytes())
    if size_hw != found:
        raise ValueError(f"expected one size, found {size_hw} in the row and {found} of the image")
    packed = decode_masks(row, len(labels), found)
    masks = unpack_labels(np.ascontiguousarray(packed[..., : -(-len(labels) // 8)]), labels)
    instances = tuple(Instance(label, outline(mask)) for label, mask in masks.items())
    return Sample(image=image, size_hw=found, instances=instances, **fields)


def _read_index_map(
    file: Path, number: int, key: str, row: Mapping[str, Any], maps: IndexMaps
) -> Sample:
    stored = RowImage(file, number, "", maps.image)
    content = stored.read_bytes()
    size_hw = stored_size_hw(content)
    kinds = (suffix for head, suffix in _KINDS.items() if content.startswith(head))
    stem = Path(str(row[maps.image]["path"] or "")).stem or key.replace("/", "_")
    image = RowImage(file, number, stem + next(kinds, _OTHER_KIND), maps.image)
    png = (row[maps.label] or {}).get("bytes")
    instances = maps.instances(png, size_hw, key)
    return Sample(key=key, image=image, size_hw=size_hw, instances=instances)


def _parsed(text: Any) -> Any:
    return parse_json(text.encode()) if isinstance(text, str) and text else None
