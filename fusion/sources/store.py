"""The prediction store: what a model said about a data set, as Parquet files in a folder.

One row per (key, label, rank) with kind, score, box in original pixels, rows, cols and the raster's
bytes; one part file per few images, so that a reader streams and a killed writer continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from converters.files.atomic import MARK, SUFFIX, claim, clear_leftovers, swap
from converters.files.json_files import load_json
from converters.files.outputs import real_place
from converters.types import LabelSpace
from fusion.types import Evidence, Kind, Prediction, SoftMask, Window

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
ImageEntry = tuple[int, int, str]
"""An image's height, width and file name."""
VERSION = 1
# By these a manifest of any version is recognised, and the files that lie beside it.
_MANIFEST_KEYS = {"version", "kind", "labels", "names", "images", "images_per_part"}
_OWN_FILE = re.compile(
    rf"manifest\.json|provenance\.json|part-\d{{5,}}\.(parquet|tmp)|{re.escape(MARK)}"
)


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
        images_per_part: so many images, in order, are in one part file; the last may hold fewer.
        classes: the classes that the source speaks of; empty means all.
        domains: key -> x, y, w, h of the part of the image that the source has looked at, in whole
            pixels; a key that is absent means all of it.
    """

    kind: Kind
    labels: str
    names: tuple[str, ...]
    images: Mapping[str, ImageEntry]
    source: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    fold: int | None = None
    subset: str = "all"
    images_per_part: int = IMAGES_PER_PART
    classes: tuple[str, ...] = ()
    domains: Mapping[str, Window] = field(default_factory=dict)

    def part_names(self) -> list[str]:
        """Return the names of the part files, in order."""
        count = -(-len(self.images) // self.images_per_part)
        return [f"part-{number:05d}.parquet" for number in range(count)]

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
            if not isinstance(raw, dict) or raw.pop("version", None) != VERSION:
                raise ValueError(f"no manifest of version {VERSION}")
            raw["images"] = {k: (int(h), int(w), str(f)) for k, h, w, f in raw["images"]}
            raw["domains"] = {k: _window(box) for k, box in raw.get("domains", {}).items()}
            named = {key: tuple(raw.get(key, ())) for key in ("names", "classes")}
            return cls(**{**raw, **named})
        except (FileNotFoundError, NotADirectoryError):
            found = "nothing there"
            if path.parent.exists():
                found = "a folder without manifest.json" if path.parent.is_dir() else "a file"
            raise ValueError(f"{path.parent}: expected a prediction store, found {found}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a store's manifest, found: {error}") from None


class StoreWriter:
    """Writes predictions in the manifest's order; continues where a killed one stopped.

    Parts go to `OUT.partial`, which becomes `OUT` when every image has been written.
    """

    def __init__(self, out: Path, manifest: Manifest) -> None:
        """Open the folder of the unfinished store, or make it.

        Raises:
            ValueError: `out` exists and is not a prediction store, `OUT.partial` is somebody
                else's, or another process is writing there.
        """
        check_replaceable(out)
        out = real_place(out)
        if out.parent.is_dir():
            clear_leftovers(out.parent, out.name)
        self.out, self.manifest = out, manifest
        self._parts = manifest.part_names()
        self._keys = list(manifest.images)
        self._pending: list[Prediction] = []
        self._place = claim(out.with_name(out.name + SUFFIX), "a prediction store to continue")
        self._partial = self._place.folder
        started = self._partial / "manifest.json"
        if not started.is_file() or started.read_text(encoding="utf-8") != manifest.dumps():
            self._place.clear()
            started.write_text(manifest.dumps(), encoding="utf-8")
        # Parts are written in order: what lies behind a gap is written again.
        whole = takewhile(lambda name: (self._partial / name).is_file(), self._parts)
        self._done = min(sum(1 for _ in whole) * manifest.images_per_part, len(self))

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

    def discard(self) -> None:
        """Throw away what has been written."""
        self._place.remove()

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
        if len(self._pending) == self.manifest.images_per_part or not self.remaining:
            self._flush()

    def _flush(self) -> None:
        part = self._partial / self._parts[self._done // self.manifest.images_per_part]
        unfinished = part.with_suffix(".tmp")
        pq.write_table(_table(self._pending), unfinished, compression="zstd")
        os.replace(unfinished, part)
        self._done += len(self._pending)
        self._pending = []

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
            elif not self._done:
                # Without a part there is nothing to continue, and nothing to leave behind.
                self.discard()
        finally:
            self._place.release()

    def _finish(self) -> None:
        if self.remaining:
            raise ValueError(f"{self.out}: {len(self.remaining)} images were not predicted")
        for leftover in self._partial.glob("*.tmp"):
            leftover.unlink()
        # The work may have taken hours, in which somebody put something there.
        check_replaceable(self.out)
        swap(self._partial, self.out)
        self._place.unmark(self.out)


class PredictionStore:
    """A finished store: its manifest, and its predictions one image after the other."""

    def __init__(self, path: Path) -> None:
        """Open a store without reading its rasters.

        Raises:
            ValueError: not a store, or a part file is missing or one too many.
        """
        self.path = path
        self.manifest = Manifest.load(path / "manifest.json")
        self._keys = tuple(self.manifest.images)
        expected = set(self.manifest.part_names())
        found = {part.name for part in path.glob("part-*.parquet")}
        if differ := sorted(expected ^ found):
            what = "is missing" if differ[0] in expected else "does not belong here"
            raise ValueError(f"{path}: expected {len(expected)} part files: {differ[0]} {what}")

    @property
    def name(self) -> str:
        """The store's folder name, by which fusion configs speak of the source."""
        return self.path.name

    @property
    def classes(self) -> frozenset[str]:
        """The classes that the source speaks of."""
        return frozenset(self.manifest.classes or self.manifest.names)

    def label_space(self) -> LabelSpace:
        """Return the store's label space.

        Raises:
            ValueError: the label space of that name has other classes now.
        """
        labels = LabelSpace.load(self.manifest.labels)
        if labels.names != self.manifest.names:
            raise ValueError(f"{self.path}: its classes are not those of '{labels.name}' any more")
        return labels

    @property
    def digest(self) -> str:
        """Changes when the store is written again; the rasters are not read for it."""
        marks = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self._files()]
        return hashlib.sha256(repr((self.manifest.dumps(), marks)).encode()).hexdigest()

    def __iter__(self) -> Iterator[Prediction]:
        """Yield every image's prediction, in the manifest's order, one part in memory at a time.

        Raises:
            ValueError: a part file is cut off, or holds rows of other images or classes.
        """
        step = self.manifest.images_per_part
        for start in range(0, len(self.manifest.images), step):
            yield from self.part(start, start + step)

    def part(self, start: int, stop: int) -> StorePart:
        """Return the images from `start` up to `stop`, counted in the manifest's order."""
        step, keys = self.manifest.images_per_part, self._keys
        stop = max(start, min(stop, len(keys)))
        first, last = start // step, -(-stop // step) if stop > start else start // step
        around = keys[first * step : last * step]
        manifest = replace(
            self.manifest,
            images={key: self.manifest.images[key] for key in around},
            domains={k: self.manifest.domains[k] for k in around if k in self.manifest.domains},
        )
        files = tuple(self._files()[first:last])
        return StorePart(files, manifest, frozenset(keys[start:stop]))

    def _files(self) -> list[Path]:
        return [self.path / name for name in self.manifest.part_names()]


@dataclass(frozen=True)
class StorePart:
    """A few of a store's images, which can be read without the others; light until it is.

    Attributes:
        files: the part files in which they are.
        manifest: the store's, of all images in these files.
        keys: the images that are wanted.
    """

    files: tuple[Path, ...]
    manifest: Manifest
    keys: frozenset[str]

    def __iter__(self) -> Iterator[Prediction]:
        """Yield the wanted images' predictions, in the manifest's order; one file in memory.

        Raises:
            ValueError: a part file is cut off, or holds rows of other images or classes.
        """
        keys, step = list(self.manifest.images), self.manifest.images_per_part
        for number, file in enumerate(self.files):
            expected = keys[number * step : (number + 1) * step]
            wanted = [key for key in expected if key in self.keys]
            rows = _read_part(file, expected, wanted)
            for key in wanted:
                try:
                    prediction = self._prediction(key, rows.pop(key, []))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{file}: '{key}': {error}") from None
                yield prediction

    def _prediction(self, key: str, rows: Sequence[Mapping[str, Any]]) -> Prediction:
        height, width, _ = self.manifest.images[key]
        masks: dict[str, list[Evidence]] = {}
        for row in rows:
            if row["label"] not in self.manifest.names:
                raise ValueError(f"expected classes of the manifest, found '{row['label']}'")
            prob = np.frombuffer(row["prob"], np.uint8).reshape(row["rows"], row["cols"])
            mask = SoftMask((row["x"], row["y"], row["w"], row["h"]), prob)
            masks.setdefault(row["label"], []).append((row["score"], mask))
        found = {label: tuple(evidence) for label, evidence in masks.items()}
        classes = frozenset(self.manifest.classes) or None
        domain = self.manifest.domains.get(key)
        return Prediction(key, (height, width), self.manifest.kind, found, classes, domain)


def _window(box: Sequence[int]) -> Window:
    x, y, width, height = map(int, box)
    return x, y, width, height


def check_replaceable(out: Path) -> None:
    """Make sure that a store may be written: to a free place, or in the place of another store.

    Raises:
        ValueError: something else is there, or a store with files in it that are not the store's.
    """
    place = real_place(out)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not place.is_dir() or not _has_manifest(place):
        raise ValueError(
            f"{out}: expected nothing there, or a prediction store to replace, found another "
            "thing: move it, or choose another place"
        )
    foreign = sorted(p.name for p in place.iterdir() if not _OWN_FILE.fullmatch(p.name))
    if foreign:
        raise ValueError(
            f"{out}: expected a prediction store to replace, found one with '{foreign[0]}' in it: "
            "move it away, or choose another place"
        )


def _has_manifest(folder: Path) -> bool:
    try:
        record = load_json(folder / "manifest.json")
    except ValueError:
        return False
    return isinstance(record, dict) and set(record) >= _MANIFEST_KEYS


def _read_part(
    part: Path, expected: Sequence[str], wanted: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a part file's wanted images by image, in the file's order."""
    try:
        # Not `read_table`: it loads pandas, which takes longer than many a store.
        with pq.ParquetFile(part, memory_map=False) as file:
            table = file.read(columns=SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{part}: expected a whole Parquet file, found: {reason}") from None
    if foreign := sorted(set(table["key"].unique().to_pylist()) - set(expected), key=str):
        found = f"found {foreign[:3]}"
        raise ValueError(f"{part}: expected images of the manifest, {found}")
    if len(wanted) < len(expected):
        table = table.filter(pc.is_in(table["key"], pa.array(wanted, pa.string())))
    rows = defaultdict(list)
    for row in table.to_pylist():
        rows[row["key"]].append(row)
    return rows


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
    for other in stores[1:]:
        first = stores[0]
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
