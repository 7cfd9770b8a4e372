"""A few images at a time: their fusion, and its results on the way to the whole."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.files.atomic import claim
from converters.types import LabelSpace
from fusion.rules.flagged import flags_of
from fusion.rules.refine import drop_uncertain
from fusion.sources.ensemble import Ensemble
from fusion.sources.submission import RleRow, encode
from fusion.types import Prediction, Rule

# Small enough that many processes share a test set evenly, and that a kill costs seconds.
IMAGES = 8
MANIFEST = "manifest.json"
FlagRow = tuple[str, str, str, str]


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


def fuse(rule: Rule, labels: LabelSpace, chunk: Chunk) -> list[Prediction]:
    """Fuse a chunk's images."""
    return [rule(predictions, labels) for predictions in zip(*chunk.parts, strict=True)]


@dataclass(frozen=True)
class Coded:
    """A chunk as a submission holds it.

    Attributes:
        rows: image by image, in the order of the classes.
        left_out: class -> number of objects that were too uncertain.
        flags: image's name, class, kind and text of what looks wrong.
    """

    rows: tuple[RleRow, ...]
    left_out: Mapping[str, int]
    flags: tuple[FlagRow, ...] = ()


def fuse_to_rows(
    rule: Rule, labels: LabelSpace, classes: Sequence[str], floor: float, chunk: Chunk
) -> Coded:
    """Fuse a chunk's images into rows of a submission.

    Args:
        rule: one image's predictions -> the fused one.
        labels: the classes that the rule fuses.
        classes: those that get a row.
        floor: objects whose mean probability is below it are left out; their rows are empty.
        chunk: the images.
    """
    rows: list[RleRow] = []
    left_out: Counter[str] = Counter()
    flags: list[FlagRow] = []
    for prediction, name in zip(fuse(rule, labels, chunk), chunk.names, strict=True):
        kept, dropped = (
            drop_uncertain(prediction, floor, labels.once) if floor else (prediction, ())
        )
        left_out.update(dropped)
        rows.extend(encode(kept, name, classes, labels.once))
        flags += [(name, f.label, f.kind, f.text) for f in flags_of(rule, kept, labels)]
    return Coded(tuple(rows), dict(left_out), tuple(flags))


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

    def save(self, number: int, chunk: Coded) -> None:
        """Keep a chunk."""
        record = {"rows": chunk.rows, "left_out": chunk.left_out, "flags": chunk.flags}
        # Nobody else writes in this folder.
        half = self._file(number).with_suffix(".tmp")
        half.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        os.replace(half, self._file(number))

    def load(self, number: int) -> Coded:
        """Read a chunk that was kept."""
        raw = json.loads(self._file(number).read_text(encoding="utf-8"))
        name, label, kind, text = range(4)
        flags = tuple((f[name], f[label], f[kind], f[text]) for f in raw["flags"])
        return Coded(tuple(RleRow(*row) for row in raw["rows"]), raw["left_out"], flags)

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
