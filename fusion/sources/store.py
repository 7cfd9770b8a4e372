"""The prediction store: what a model said about a data set, as Parquet files in a folder.

One row per (key, label, rank) with kind, score, box in original pixels, rows, cols and the raster's
bytes; one part file per few images, so that a reader streams and a killed writer continues.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from converters.errors import did_you_mean, one_line
from converters.files.atomic import MARK, SUFFIX, claim, clear_leftovers, swap
from converters.files.json_files import load_json
from converters.files.outputs import real_place
from converters.types import LabelSpace
from fusion.sources import checksums
from fusion.sources.manifest import FILE as MANIFEST
from fusion.sources.manifest import Manifest, read_manifest
from fusion.types import Evidence, Prediction, SoftMask

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
# A box lies no farther out, in longer sides of the image; more is no prediction of it.
_FARTHEST = 1000
# By these a manifest of any version is recognised, and the files that lie beside it.
_MANIFEST_KEYS = {"version", "kind", "labels", "names", "images", "images_per_part"}

NO_COMMON_IMAGES = (
    "predict the same images by each; or, if these are folds of one recipe, gather their runs as "
    "RUNS/fold-0, RUNS/fold-1, ...: zoo predict RUNS --subset val makes one store of them"
)
"""What to do about stores that have no image in common."""
_OWN_FILE = re.compile(
    rf"manifest\.json|provenance\.json|{re.escape(checksums.FILE)}|"
    rf"part-\d{{5,}}\.(parquet|tmp)|{re.escape(MARK)}"
)


class StoreWriter:
    """Writes predictions in the manifest's order; continues where a killed one stopped.

    Parts go to `OUT.partial`, which becomes `OUT` when every image has been written.
    """

    def __init__(self, out: Path, manifest: Manifest, is_new: bool = False) -> None:
        """Open the folder of the unfinished store, or make it.

        Args:
            out: the store's folder.
            manifest: what it will hold.
            is_new: begin from the start, also where an unfinished one lies.

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
        started, text = self._partial / MANIFEST, manifest.dumps().encode()
        if is_new or not started.is_file() or started.read_bytes() != text:
            self._place.clear()
            started.write_bytes(text)
        whole = self._whole_parts()
        digests = {MANIFEST: checksums.digest_of(text), **whole}
        checksums.write_checksums(self._partial, digests)
        self._done = min(len(whole) * manifest.images_per_part, len(self))

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

    def _whole_parts(self) -> dict[str, str]:
        """Return name -> checksum of the parts that need not be written again.

        Parts are written in order: what lies behind a gap, or a damaged one, is written again.
        """
        whole: dict[str, str] = {}
        try:
            known = checksums.read_checksums(self._partial)
        except ValueError:
            return whole
        for name in self._parts:
            part = self._partial / name
            if not part.is_file() or checksums.digest_of(part.read_bytes()) != known.get(name):
                break
            whole[name] = known[name]
        return whole

    def _flush(self) -> None:
        part = self._partial / self._parts[self._done // self.manifest.images_per_part]
        unfinished = part.with_suffix(".tmp")
        pq.write_table(_table(self._pending), unfinished, compression="zstd")
        # Killed between these two, a second start writes the part again.
        digest = checksums.digest_of(unfinished.read_bytes())
        checksums.add_checksum(self._partial, part.name, digest)
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
    """A finished store: its manifest, and its predictions one image after the other.

    `for prediction in store`, `store[key]`, `len(store)`, `key in store.keys()`.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a store without reading its rasters.

        Raises:
            ValueError: not a store, a damaged one, or a part file is missing or one too many.
        """
        self.path = path = Path(path)
        content = read_manifest(path / MANIFEST)
        self.manifest = Manifest.parse(content, path / MANIFEST)
        self._checksums = self._read_checksums(content)
        self._keys = self._order = tuple(self.manifest.images)
        self._places = {key: number for number, key in enumerate(self._keys)}
        expected = set(self.manifest.part_names())
        found = {part.name for part in path.glob("part-*.parquet")}
        if differ := sorted(expected ^ found):
            what, remedy = "does not belong here", "move it away"
            if differ[0] in expected:
                what = "is missing"
                remedy = "copy the whole store again from where it is whole, or make it anew"
            raise ValueError(
                f"{path}: expected {len(expected)} part files, found {len(found)}: {differ[0]} "
                f"{what}: {remedy}"
            )

    def _read_checksums(self, manifest: bytes) -> dict[str, str]:
        """Return name -> checksum of the parts; of a store from before there were any, none."""
        if self.manifest.version == 1:
            return {}
        found = checksums.read_checksums(self.path)
        for name in (MANIFEST, *self.manifest.part_names()):
            if name not in found:
                raise ValueError(
                    f"{self.path / checksums.FILE}: expected a checksum of {name}, found none: "
                    "copy the whole store again from where it is whole, or make it anew"
                )
        path, what = self.path / MANIFEST, "a store's manifest"
        checksums.check_content(path, manifest, found[MANIFEST], what)
        return found

    @property
    def name(self) -> str:
        """The name by which fusion configs speak of the source; see `source_name`."""
        return source_name(self.path)

    @property
    def classes(self) -> frozenset[str]:
        """The classes that the source speaks of."""
        return frozenset(self.manifest.classes or self.manifest.names)

    def label_space(self, given: LabelSpace | None = None) -> LabelSpace:
        """Return the store's label space.

        Args:
            given: the one to take if it has the store's classes and the store, an old one, knows
                but the name of its own.

        Raises:
            ValueError: an old store, and the label space of that name has other classes now.
        """
        if self.manifest.space:
            return self.manifest.space
        if given and given.names == self.manifest.names:
            return given
        labels = LabelSpace.load(self.manifest.labels)
        if labels.names != self.manifest.names:
            raise ValueError(f"{self.path}: its classes are not those of '{labels.name}' any more")
        return labels

    @property
    def digest(self) -> str:
        """Changes when the store is written again; the rasters are not read for it."""
        marks = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self._files()]
        return hashlib.sha256(repr((self.manifest.dumps(), marks)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        said = f"{len(self)} images, {len(self.classes)} classes"
        return f"PredictionStore({str(self.path)!r}: {self.manifest.kind}, {said})"

    def keys(self) -> tuple[str, ...]:
        """Return the images' keys, in the store's order."""
        return self._order

    def in_order(self, keys: Iterable[str]) -> PredictionStore:
        """Return the same store with some of its images, or all, in another order.

        Raises:
            ValueError: these are other images, or one comes twice.
        """
        order = tuple(keys)
        if order == self._order:
            return self
        same = copy(self)
        same._order = order
        if len(set(order)) < len(order) or not self._places.keys() >= set(order):
            raise ValueError(f"{self.path}: expected an order of its own images, found others")
        return same

    def __getitem__(self, key: str) -> Prediction:
        """Return an image's prediction; raises KeyError where it has no such image."""
        if key not in self._order:
            raise KeyError(f"{self.path}: '{key}'{did_you_mean(key, self._order)}")
        place = self._order.index(key)
        (prediction,) = self.part(place, place + 1)
        return prediction

    def __iter__(self) -> Iterator[Prediction]:
        """Yield every image's prediction, in the store's order, a few in memory at a time.

        Raises:
            ValueError: a part file is cut off, or holds rows of other images or classes.
        """
        step = self.manifest.images_per_part
        for start in range(0, len(self), step):
            yield from self.part(start, start + step)

    def part(self, start: int, stop: int) -> StorePart:
        """Return the images from `start` up to `stop`, counted in the store's order."""
        step, keys, wanted = self.manifest.images_per_part, self._keys, self._order[start:stop]
        numbers = sorted({self._places[key] // step for key in wanted})
        around = [key for number in numbers for key in keys[number * step : (number + 1) * step]]
        manifest = replace(
            self.manifest,
            images={key: self.manifest.images[key] for key in around},
            domains={k: self.manifest.domains[k] for k in around if k in self.manifest.domains},
        )
        files = tuple(self._files()[number] for number in numbers)
        digests = tuple(self._checksums.get(file.name) for file in files)
        order = wanted if self._order != keys else ()
        return StorePart(files, manifest, frozenset(wanted), digests, order)

    def _files(self) -> list[Path]:
        return [self.path / name for name in self.manifest.part_names()]


@dataclass(frozen=True)
class StorePart:
    """A few of a store's images, which can be read without the others; light until it is.

    Attributes:
        files: the part files in which they are.
        manifest: the store's, of all images in these files.
        keys: the images that are wanted.
        digests: the files' checksums; None where an old store has none.
        order: the wanted images in the order in which they are yielded; empty is the manifest's.
    """

    files: tuple[Path, ...]
    manifest: Manifest
    keys: frozenset[str]
    digests: tuple[str | None, ...]
    order: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Prediction]:
        """Yield the wanted images' predictions; one file in memory where the order is its own.

        Raises:
            ValueError: a part file is damaged, or holds rows of other images or classes.
        """
        if not self.order:
            yield from self._in_own_order()
            return
        found = {prediction.key: prediction for prediction in self._in_own_order()}
        for key in self.order:
            yield found.pop(key)

    def _in_own_order(self) -> Iterator[Prediction]:
        keys, step = list(self.manifest.images), self.manifest.images_per_part
        for number, (file, digest) in enumerate(zip(self.files, self.digests, strict=True)):
            expected = keys[number * step : (number + 1) * step]
            wanted = [key for key in expected if key in self.keys]
            rows = _read_part(file, digest, expected, wanted)
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
            shape, prob = (row["rows"], row["cols"]), np.frombuffer(row["prob"], np.uint8)
            if min(shape) < 1 or len(prob) != shape[0] * shape[1]:
                raise ValueError(f"expected {shape[0]} x {shape[1]} bytes, found {len(prob)}")
            box = row["x"], row["y"], row["w"], row["h"]
            if not max(map(abs, box)) <= _FARTHEST * max(height, width):
                size = f"{height} x {width} (height x width)"
                raise ValueError(f"expected a box near the image of {size}, found {box}")
            mask = SoftMask(box, prob.reshape(shape))
            masks.setdefault(row["label"], []).append((row["score"], mask))
        found = {label: tuple(evidence) for label, evidence in masks.items()}
        classes = frozenset(self.manifest.classes) or None
        domain = self.manifest.domains.get(key)
        return Prediction(key, (height, width), self.manifest.kind, found, classes, domain)


def source_name(path: Path) -> str:
    """Return how fusion configs speak of a source: a store's folder, a submission's file.

    A store in a run's own folder, such as `runs/smp-laptop/val`, is called as the run.
    """
    if not path.is_dir():
        return path.stem
    home = path.absolute().parent
    is_in_run = (home / "config.yaml").is_file() or any(home.glob("fold-*/config.yaml"))
    return home.name if is_in_run else path.name


def check_distinct(paths: Sequence[Path]) -> None:
    """Make sure that sources are called otherwise each, as fusion configs speak of them.

    Raises:
        ValueError: two have the same name.
    """
    homes: dict[str, Path] = {}
    for path in paths:
        name = source_name(path)
        if (other := homes.setdefault(name, path)) is not path:
            raise ValueError(
                f"sources are known by the name of their run, folder or file: '{name}' is that of "
                f"{other} and of {path}: leave one of them out, or give its folder another name"
            )


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
    part: Path, digest: str | None, expected: Sequence[str], wanted: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a part file's wanted images by image, in the file's order."""
    table = _read_table(part, digest)
    if foreign := sorted(set(table["key"].unique().to_pylist()) - set(expected), key=str):
        found = f"found {foreign[:3]}"
        raise ValueError(f"{part}: expected images of the manifest, {found}")
    if len(wanted) < len(expected):
        table = table.filter(pc.is_in(table["key"], pa.array(wanted, pa.string())))
    rows = defaultdict(list)
    for row in table.to_pylist():
        rows[row["key"]].append(row)
    return rows


def _read_table(part: Path, digest: str | None) -> pa.Table:
    try:
        content = part.read_bytes()
        if digest:
            checksums.check_content(part, content, digest, "a whole Parquet file")
        # Not `read_table`: it loads pandas, which takes longer than many a store.
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            # Arrow's threads may abort a command that ends at once (apache/arrow#34314).
            table = file.read(columns=SCHEMA.names, use_threads=False)
            return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, KeyError) as error:
        # Arrow's errors of bad values are ValueErrors, too.
        reason = one_line(error)
        raise ValueError(f"{part}: expected a whole Parquet file, found: {reason}") from None


def _table(predictions: Iterable[Prediction]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for prediction in predictions:
        for label, rank, score, mask in prediction.rows():
            values = (prediction.key, label, rank, prediction.kind, score, *mask.box_xywh)
            raster = (*mask.prob.shape, mask.prob.tobytes())
            for column, value in zip(columns.values(), (*values, *raster), strict=True):
                column.append(value)
    return pa.table(columns, schema=SCHEMA)


def check_match(stores: Sequence[PredictionStore], common: bool = False) -> None:
    """Make sure that stores speak of the same classes and the same images.

    Args:
        stores: any.
        common: some images that all have will do.

    Raises:
        ValueError: the first difference: which store, which classes or images.
    """
    for other in stores[1:]:
        first = stores[0]
        if other.manifest.names != first.manifest.names:
            differ = sorted(set(other.manifest.names) ^ set(first.manifest.names))
            what = f"classes {differ[:5]}" if differ else "the order of the classes"
            raise ValueError(f"{other.path}: {what} differ from those of {first.path}")
        _check_spaces(first, other)
        ours, theirs = first.manifest.images, other.manifest.images
        differ = sorted(set(ours) ^ set(theirs))
        if differ and not common:
            where = "missing from" if differ[0] in ours else "only in"
            has_some = not ours.keys().isdisjoint(theirs)
            raise ValueError(
                f"{len(differ)} images differ: '{differ[0]}' is {where} {other.path}; {first.path} "
                f"has {len(ours)} images, it has {len(theirs)}: "
                f"{'predict the same images by both' if has_some else NO_COMMON_IMAGES}"
            )
        for key, entry in ours.items():
            if key in theirs and theirs[key][:2] != entry[:2]:
                raise ValueError(f"{other.path}: '{key}' is {theirs[key][:2]}, not {entry[:2]}")


def _check_spaces(first: PredictionStore, other: PredictionStore) -> None:
    """Refuse label spaces that would make other masks or groups of the same classes."""
    ours, theirs = first.manifest.space, other.manifest.space
    for name in ("once", "background", "groups", "posture") if ours and theirs else ():
        if getattr(ours, name) != getattr(theirs, name):
            raise ValueError(
                f"{other.path}: its label space has another '{name}' than that of {first.path}; "
                "predict again with one label space"
            )


def read_together(stores: Sequence[PredictionStore]) -> Iterator[tuple[Prediction, ...]]:
    """Yield each image's predictions from all stores, in the order of the first."""
    check_match(stores)
    yield from zip(*(store.in_order(stores[0].keys()) for store in stores), strict=True)
