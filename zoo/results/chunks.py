"""A few images at a time: their fusion, and its results on the way to the whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from converters.files.atomic import claim
from converters.files.provenance import environment
from converters.masks import EMPTY, encode_rle
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.interchange.objects import objects_of
from fusion.objects import object_score, split_masks, split_prediction
from fusion.rules.flagged import flags_of
from fusion.rules.refine import drop_uncertain
from fusion.sources.ensemble import Ensemble
from fusion.sources.submission import RleRow
from fusion.types import Prediction, Rule
from zoo.machine.cluster import check_place, map_anywhere
from zoo.progress import Report

# Small enough that many processes share a test set evenly, and that a kill costs seconds.
IMAGES = 8
MANIFEST = "manifest.json"
FlagRow = tuple[str, str, str, str]
"""Image's name, class, kind and text of what looks wrong."""
EmptyImage = tuple[str, tuple[int, ...]]
"""Name of an image that came out without any object, and places of sources that saw none either."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Executor:
    """Who does the work on chunks.

    Attributes:
        jobs: processes on this machine.
        on: a cluster that works instead; see `zoo.machine.cluster.map_anywhere`.

    Raises:
        ValueError: no process, or no such place.
    """

    jobs: int = 1
    on: str = ""

    def __post_init__(self) -> None:
        check_place(self.on)
        if self.jobs < 1:
            raise ValueError(f"--jobs: expected 1 or more, found {self.jobs}")

    def map(
        self, work: Callable[[Chunk], Result], chunks: Iterable[Chunk], ensemble: Ensemble
    ) -> Iterator[Result]:
        """Yield what becomes of each chunk of an ensemble, in order."""
        needs = [source.path for source in ensemble.sources]
        return map_anywhere(work, chunks, self.jobs, self.on, needs)


@dataclass(frozen=True)
class Chunk:
    """A few images of an ensemble, to be fused in any process.

    Attributes:
        number: its place in the whole.
        parts: one a source; they read their files when they are iterated.
        names: what rows call the images.
    """

    number: int
    parts: tuple[Iterable[Prediction], ...]
    names: tuple[str, ...]


def cut(ensemble: Ensemble, wanted: Iterable[int], names: Sequence[str]) -> Iterator[Chunk]:
    """Yield the wanted chunks of an ensemble.

    Args:
        ensemble: the sources.
        wanted: numbers of chunks.
        names: what rows call the images, one an image of the ensemble.
    """
    for number in wanted:
        start, stop = number * IMAGES, (number + 1) * IMAGES
        yield Chunk(number, ensemble.part(start, stop), tuple(names[start:stop]))


def count(ensemble: Ensemble) -> int:
    """Return the number of chunks of an ensemble."""
    return -(-len(ensemble.images) // IMAGES)


def fuse(
    rule: Rule, labels: LabelSpace, chunk: Chunk
) -> Iterator[tuple[Prediction, tuple[Prediction, ...]]]:
    """Yield each of a chunk's images fused, and what was fused."""
    for sources in zip(*chunk.parts, strict=True):
        yield rule(sources, labels), sources


def fuse_and_look(
    rule: Rule, labels: LabelSpace, is_apart: bool, chunk: Chunk
) -> tuple[list[Prediction], tuple[EmptyImage, ...]]:
    """Fuse a chunk's images, and say which came out without any object.

    Args:
        rule: one image's predictions -> the fused one.
        labels: the classes.
        is_apart: the fused are single objects, not one mask a class.
        chunk: the images.
    """
    fused = [
        split_prediction(found, sources, labels) if is_apart else found
        for found, sources in fuse(rule, labels, chunk)
    ]
    return fused, find_empty(chunk, [not _has_object(p, labels) for p in fused], labels)


def find_empty(
    chunk: Chunk, is_empty: Sequence[bool], labels: LabelSpace
) -> tuple[EmptyImage, ...]:
    """Return the images of a chunk that came out without any object.

    Args:
        chunk: the images; of those without any the sources are read again.
        is_empty: one an image.
        labels: the classes.
    """
    if not any(is_empty):
        return ()
    return tuple(
        (name, tuple(n for n, source in enumerate(sources) if not _has_object(source, labels)))
        for name, empty, sources in zip(
            chunk.names, is_empty, zip(*chunk.parts, strict=True), strict=True
        )
        if empty
    )


def _has_object(prediction: Prediction, labels: LabelSpace) -> bool:
    return any(prediction.binary(n, once=labels.once).pixels.size for n in prediction.masks)


@dataclass(frozen=True)
class CodedChunk:
    """A chunk as a submission holds it.

    Attributes:
        rows: image by image, in the order of the classes.
        left_out: class -> number of objects that were too uncertain.
        flags: image's name, class, kind and text of what looks wrong.
        empty: images without any object.
        scores: mean probability of each row's object, where a row is an object.
    """

    rows: tuple[RleRow, ...]
    left_out: Mapping[str, int]
    flags: tuple[FlagRow, ...] = ()
    empty: tuple[EmptyImage, ...] = ()
    scores: tuple[float, ...] = ()


def fuse_to_rows(
    rule: Rule,
    labels: LabelSpace,
    classes: Sequence[str],
    floor: float,
    is_apart: bool,
    as_found: bool,
    chunk: Chunk,
) -> CodedChunk:
    """Fuse a chunk's images into rows of a submission, or of a data set's objects.

    Args:
        rule: one image's predictions -> the fused one.
        labels: the classes that the rule fuses.
        classes: those that get a row.
        floor: objects whose mean probability is below it are left out; their rows are empty.
        is_apart: a row for each object, not one for each class.
        as_found: the objects are those of the one source, with its scores, not of the fused masks.
        chunk: the images.
    """
    if as_found:
        return _rows_as_found(labels, classes, floor, chunk)
    rows: list[RleRow] = []
    left_out: Counter[str] = Counter()
    scores: list[float] = []
    flags: list[FlagRow] = []
    is_empty: list[bool] = []
    images = zip(fuse(rule, labels, chunk), chunk.names, strict=True)
    for (prediction, sources), name in images:
        kept, dropped = (
            drop_uncertain(prediction, floor, labels.once) if floor else (prediction, ())
        )
        left_out.update(dropped)
        masks = binary_masks(kept, labels)
        apart = split_masks(masks, sources, labels) if is_apart else {}
        objects = [
            (label, mask)
            for label in classes
            for mask in (apart.get(label, ()) if is_apart else (masks.get(label, EMPTY),))
        ]
        own = [RleRow(name, label, encode_rle(mask, kept.size_hw)) for label, mask in objects]
        if is_apart:
            scores += [object_score(kept, label, mask) for label, mask in objects]
        is_empty.append(not any(row.rle for row in own))
        rows += own
        flags += [(name, f.label, f.kind, f.text) for f in flags_of(rule, kept, labels)]
    empty = find_empty(chunk, is_empty, labels)
    return CodedChunk(tuple(rows), dict(left_out), tuple(flags), empty, tuple(scores))


def _rows_as_found(
    labels: LabelSpace, classes: Sequence[str], floor: float, chunk: Chunk
) -> CodedChunk:
    """Return what a detector has found, each object by itself, as a chunk of rows."""
    rows: list[RleRow] = []
    scores: list[float] = []
    left_out: Counter[str] = Counter()
    is_empty: list[bool] = []
    (part,) = chunk.parts
    for prediction, name in zip(part, chunk.names, strict=True):
        found = [one for one in objects_of(prediction, labels) if one.label in classes]
        kept = [one for one in found if one.score >= floor]
        left_out.update(one.label for one in found if one.score < floor)
        rows += [RleRow(name, o.label, encode_rle(o.mask, prediction.size_hw)) for o in kept]
        scores += [one.score for one in kept]
        is_empty.append(not kept)
    empty = find_empty(chunk, is_empty, labels)
    return CodedChunk(tuple(rows), dict(left_out), (), empty, tuple(scores))


class ChunkFolder:
    """Chunks that are done, beside the result to be: `OUT.fusing`.

    A killed command that is started again goes on with them, if it is the same command on the same
    sources; otherwise they are thrown away.
    """

    def __init__(self, out: Path, record: Mapping[str, Any]) -> None:
        """Open the folder, or make it.

        Args:
            out: the result.
            record: what the chunks depend on, as JSON can hold it.

        Raises:
            ValueError: a folder or a file of that name is somebody else's, or another process is
                writing there.
        """
        self.folder = out.with_name(out.name + ".fusing")
        self._place = claim(self.folder, "an unfinished fusion")
        manifest, text = self.folder / MANIFEST, json.dumps(record, indent=1) + "\n"
        if not manifest.is_file() or manifest.read_text(encoding="utf-8") != text:
            self._place.clear()
            manifest.write_text(text, encoding="utf-8")

    def missing(self, chunks: int) -> list[int]:
        """Return the numbers of the chunks that are not done."""
        return [number for number in range(chunks) if not self._file(number).is_file()]

    def save(self, number: int, chunk: CodedChunk) -> None:
        """Keep a chunk."""
        record = {own.name: getattr(chunk, own.name) for own in fields(chunk)}
        # Nobody else writes in this folder.
        half = self._file(number).with_suffix(".tmp")
        half.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        os.replace(half, self._file(number))

    def load(self, number: int) -> CodedChunk:
        """Read a chunk that was kept."""
        raw = json.loads(self._file(number).read_text(encoding="utf-8"))
        name, label, kind, text = range(4)
        flags = tuple((f[name], f[label], f[kind], f[text]) for f in raw["flags"])
        empty = tuple((name, tuple(silent)) for name, silent in raw["empty"])
        rows = tuple(RleRow(*row) for row in raw["rows"])
        return CodedChunk(rows, raw["left_out"], flags, empty, tuple(raw["scores"]))

    def remove(self) -> None:
        """Throw the chunks away."""
        self._place.remove()

    def __enter__(self) -> ChunkFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep the chunks for a second start, unless they are of no use to one."""
        # What is wrong with a source will not mend itself.
        has_use = kind is not None and not issubclass(kind, ValueError)
        if has_use and any(self.folder.glob("chunk-*.json")):
            self._place.release()
        else:
            self.remove()

    def _file(self, number: int) -> Path:
        return self.folder / f"chunk-{number:05d}.json"


class FusedRows:
    """The rows of all images, read from their chunks one after the other.

    Attributes:
        left_out: class -> number of objects that were too uncertain, of what was read.
        flags: what looks wrong in what was read.
        empty: images without any object in what was read.
    """

    def __init__(self, folder: ChunkFolder, chunks: int) -> None:
        """Take the rows of a folder's chunks, of which none is missing."""
        self.left_out: Counter[str] = Counter()
        self.flags: list[FlagRow] = []
        self.empty: list[EmptyImage] = []
        self._folder, self._chunks = folder, chunks

    def __iter__(self) -> Iterator[RleRow]:
        """Yield the rows, image by image; once, as what they count adds up."""
        for chunk in self._read():
            yield from chunk.rows

    def scored(self) -> Iterator[tuple[RleRow, float]]:
        """Yield each row and its object's score, where a row is an object; as `__iter__`, once."""
        for chunk in self._read():
            yield from zip(chunk.rows, chunk.scores, strict=True)

    def _read(self) -> Iterator[CodedChunk]:
        for chunk in map(self._folder.load, range(self._chunks)):
            self.left_out.update(chunk.left_out)
            self.flags.extend(chunk.flags)
            self.empty.extend(chunk.empty)
            yield chunk


@contextmanager
def fused_rows(
    ensemble: Ensemble,
    rule: Rule,
    out: Path,
    *,
    by_file: bool,
    floor: float,
    executor: Executor,
    report: Report,
    as_found: bool = False,
) -> Iterator[FusedRows]:
    """Fuse all images and give their rows; a fusion that was killed goes on where it was.

    Args:
        ensemble: the sources, in the order of the rule.
        rule: one image's predictions -> the fused one.
        out: the result that the rows are for; chunks are kept beside it until it is there.
        by_file: for a submission: a row for each class, and images are called by their files'
            names; otherwise a row for each object, and images are called by their keys.
        floor: objects whose mean probability is below it are left out; their rows are empty.
        executor: does the work.
        report: for a progress bar.
        as_found: see `fuse_to_rows`.

    Raises:
        ValueError: a source cannot be read, or a submission cannot tell two images apart.
    """
    number, total = count(ensemble), len(ensemble.images)
    with ChunkFolder(out, _record(ensemble, rule, by_file, floor, as_found)) as folder:
        wanted = folder.missing(number)
        names = file_names(ensemble) if by_file else list(ensemble.images)
        labels, classes = ensemble.labels, ensemble.classes
        work = partial(fuse_to_rows, rule, labels, classes, floor, not by_file, as_found)
        results = executor.map(work, cut(ensemble, wanted, names), ensemble)
        for done, (place, chunk) in enumerate(zip(wanted, results, strict=True), start=1):
            folder.save(place, chunk)
            report(min(total, (number - len(wanted) + done) * IMAGES), total, "")
        yield FusedRows(folder, number)


def file_names(ensemble: Ensemble) -> list[str]:
    """Return the names of the images' files, by which a submission calls them.

    Raises:
        ValueError: two images have one.
    """
    names = [name for _, _, name in ensemble.images.values()]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(
            f"several images are named {twice[0]}: a submission cannot tell them apart"
        )
    return names


def _record(
    ensemble: Ensemble, rule: Rule, by_file: bool, floor: float, as_found: bool
) -> dict[str, Any]:
    images = repr([*ensemble.images.items(), by_file]).encode()
    return {
        "version": 4,
        # Another version may round otherwise: chunks of two are never mixed.
        "made_by": environment(),
        "rule": repr(rule),
        "sources": [[source.name, source.digest] for source in ensemble.sources],
        "classes": ensemble.classes,
        "images": hashlib.sha256(images).hexdigest(),
        "images_per_chunk": IMAGES,
        "floor": floor,
        "as_found": as_found,
    }
