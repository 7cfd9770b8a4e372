"""The prediction store: what a model said about a data set, as Parquet files in a folder.

One row per (key, label, rank) with kind, score, box in original pixels, rows, cols and the raster's
bytes; one part file per few images, so that a reader streams and a killed writer continues.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.types import Evidence, Kind, Prediction, SoftMask

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.string()),
        ("rank", pa.int16()),
        ("kind", pa.string()),
        ("score", pa.float32()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("w", pa.float64()),
        ("h", pa.float64()),
        ("rows", pa.int32()),
        ("cols", pa.int32()),
        ("prob", pa.binary()),
    ]
)
IMAGES_PER_PART = 16
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a store holds, without its rasters.

    Attributes:
        kind: semantic or instance.
        labels: name of the label space.
        names: its class names, in order.
        images: key -> (height, width, file name), in the order of the parts.
        source: what made the predictions: family, config, run, options.
        split: digest of the split file, "" without one.
        fold: the fold that the model did not see, or None.
        subset: which images: val, train, test or all.
    """

    kind: Kind
    labels: str
    names: tuple[str, ...]
    images: Mapping[str, tuple[int, int, str]]
    source: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    fold: int | None = None
    subset: str = "all"

    def dumps(self) -> str:
        """Return the manifest as JSON text; equal manifests give equal text."""
        images = [[key, *entry] for key, entry in self.images.items()]
        record = {"version": VERSION, **asdict(self), "images": images}
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest file.

        Raises:
            ValueError: the file is missing, cut off, or of another version.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.pop("version") != VERSION:
                raise ValueError(f"expected version {VERSION}")
            raw["images"] = {k: (int(h), int(w), str(f)) for k, h, w, f in raw["images"]}
            return cls(**{**raw, "names": tuple(raw["names"])})
        except FileNotFoundError:
            found = "a folder without manifest.json" if path.parent.is_dir() else "nothing there"
            raise ValueError(f"{path.parent}: expected a prediction store, found {found}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a store's manifest, found: {error}") from None


class StoreWriter:
    """Writes predictions in the manifest's order; continues where a killed one stopped.

    Parts go to `OUT.partial`, which becomes `OUT` when every image has been written.

    """

    def __init__(self, out: Path, manifest: Manifest, images_per_part: int = IMAGES_PER_PART):
        """Open the folder of the unfinished store, or make it.

        Raises:
            ValueError: `out` exists and is not a prediction store.
        """
        if out.exists() and not (out / "manifest.json").is_file():
            raise ValueError(f"{out}: expected a prediction store to replace, found another thing")
        self.out, self.manifest = out, manifest
        self._partial = out.with_name(out.name + ".partial")
        self._step = images_per_part
        self._keys = list(manifest.images)
        self._pending: list[Prediction] = []
        started = self._partial / "manifest.json"
        if started.is_file() and started.read_text(encoding="utf-8") != manifest.dumps():
            shutil.rmtree(self._partial)
        self._partial.mkdir(parents=True, exist_ok=True)
        started.write_text(manifest.dumps(), encoding="utf-8")
        self._done = min(len(list(self._partial.glob("part-*.parquet"))) * self._step, len(self))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def folder(self) -> Path:
        """Where the unfinished store lies, for files that belong beside its parts."""
        return self._partial

    @property
    def remaining(self) -> Sequence[str]:
        """Keys that are still to be written, in order."""
        return self._keys[self._done + len(self._pending) :]

    def append(self, prediction: Prediction) -> None:
        """Take the next image's prediction.

        Raises:
            ValueError: another image than the next one, another kind, or an unknown class.
        """
        expected = self.remaining[0] if self.remaining else "no further image"
        if prediction.key != expected:
            raise ValueError(f"{self.out}: expected {expected}, found {prediction.key}")
        if prediction.kind != self.manifest.kind:
            raise ValueError(f"{prediction.key}: expected {self.manifest.kind} predictions")
        if unknown := sorted(set(prediction.masks) - set(self.manifest.names)):
            raise ValueError(f"{prediction.key}: expected classes of the store, found {unknown}")
        self._pending.append(prediction)
        if len(self._pending) == self._step or not self.remaining:
            self._flush()

    def _flush(self) -> None:
        part = self._partial / f"part-{self._done // self._step:05d}.parquet"
        unfinished = part.with_suffix(".tmp")
        pq.write_table(_table(self._pending), unfinished, compression="zstd")
        os.replace(unfinished, part)
        self._done += len(self._pending)
        self._pending = []

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self.remaining:
            raise ValueError(f"{self.out}: {len(self.remaining)} images were not predicted")
        for leftover in self._partial.glob("*.tmp"):
            leftover.unlink()
        if self.out.exists():
            shutil.rmtree(self.out)
        os.replace(self._partial, self.out)


class PredictionStore:
    """A finished store: its manifest, and its predictions one image after the other."""

    def __init__(self, path: Path):
        """Open a store without reading its rasters.

        Raises:
            ValueError: not a store, or a part file is missing.
        """
        self.path = path
        self.manifest = Manifest.load(path / "manifest.json")
        self._parts = sorted(path.glob("part-*.parquet"))
        if self.manifest.images and not self._parts:
            raise ValueError(f"{path}: expected part-*.parquet files, found none")

    @property
    def name(self) -> str:
        """The store's folder name, by which fusion configs speak of the source."""
        return self.path.name

    def __iter__(self) -> Iterator[Prediction]:
        """Yield every image's prediction, in the manifest's order, one part in memory at a time.

        Raises:
            ValueError: a part file is cut off, or holds rows of other images.
        """
        keys = iter(self.manifest.images)
        key = next(keys, None)
        for found, rows in self._groups():
            while key is not None and key != found:
                yield self._prediction(key, [])
                key = next(keys, None)
            if key is None:
                raise ValueError(f"{self.path}: expected images of the manifest, found '{found}'")
            yield self._prediction(key, rows)
            key = next(keys, None)
        while key is not None:
            yield self._prediction(key, [])
            key = next(keys, None)

    def _groups(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        key: str | None = None
        rows: list[dict[str, Any]] = []
        for part in self._parts:
            try:
                table = pq.read_table(part, schema=SCHEMA, memory_map=False)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"{part}: expected a whole Parquet file, found: {reason}"
                ) from None
            for row in table.to_pylist():
                if row["key"] != key:
                    if key is not None:
                        yield key, rows
                    key, rows = row["key"], []
                rows.append(row)
        if key is not None:
            yield key, rows

    def _prediction(self, key: str, rows: list[dict[str, Any]]) -> Prediction:
        height, width, _ = self.manifest.images[key]
        masks: dict[str, list[Evidence]] = {}
        for row in rows:
            prob = np.frombuffer(row["prob"], np.uint8).reshape(row["rows"], row["cols"])
            mask = SoftMask((row["x"], row["y"], row["w"], row["h"]), prob)
            masks.setdefault(row["label"], []).append((row["score"], mask))
        found = {label: tuple(evidence) for label, evidence in masks.items()}
        return Prediction(key, (height, width), self.manifest.kind, found)


def _table(predictions: Iterable[Prediction]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for prediction in predictions:
        for label, rank, score, mask in prediction.rows():
            values = (prediction.key, label, rank, prediction.kind, score, *mask.box_xywh)
            raster = (*mask.prob.shape, mask.prob.tobytes())
            for column, value in zip(columns.values(), (*values, *raster), strict=True):
                column.append(value)
    return pa.table(columns, schema=SCHEMA)


def check_match(stores: Sequence[PredictionStore]) -> None:
    """Make sure that stores speak of the same classes and the same images.

    Raises:
        ValueError: the first difference: which store, which classes or images.
    """
    first = stores[0]
    for other in stores[1:]:
        if other.manifest.names != first.manifest.names:
            differ = sorted(set(other.manifest.names) ^ set(first.manifest.names))
            what = f"classes {differ[:5]}" if differ else "the order of the classes"
            raise ValueError(f"{other.path}: {what} differ from those of {first.path}")
        ours, theirs = first.manifest.images, other.manifest.images
        if differ := sorted(set(ours) ^ set(theirs)):
            where = "missing from" if differ[0] in ours else "only in"
            raise ValueError(f"{len(differ)} images differ: '{differ[0]}' is {where} {other.path}")
        for key, entry in ours.items():
            if theirs[key][:2] != entry[:2]:
                raise ValueError(f"{other.path}: '{key}' is {theirs[key][:2]}, not {entry[:2]}")
        if list(ours) != list(theirs):
            raise ValueError(f"{other.path}: the images' order differs from {first.path}")


def read_together(stores: Sequence[PredictionStore]) -> Iterator[tuple[Prediction, ...]]:
    """Yield each image's predictions from all stores, in one pass over them."""
    check_match(stores)
    yield from zip(*stores, strict=True)
