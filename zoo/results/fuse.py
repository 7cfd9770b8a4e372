"""From several sources to one: a submission, a prediction store, or a labelled data set."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from converters.files.provenance import atomic_write_text, environment
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble
from fusion.sources.store import Manifest, PredictionStore, StoreWriter
from fusion.sources.submission import RleRow
from zoo.machine.cluster import map_anywhere
from zoo.progress import Report
from zoo.results import chunks
from zoo.results.chunks import ChunkFolder
from zoo.results.job import CSV, STORE, Job, _labels_name
from zoo.results.labels import write_labels

FLAG_HEADER = ("image_name", "class", "kind", "text")


@dataclass(frozen=True)
class Fused:
    """What came of it.

    Attributes:
        images: their number.
        rows: of the submission; 0 for other formats.
        left_out: class -> number of objects that were too uncertain.
        loss: what the data set format could not hold, in words.
        flags: kind -> number of bones that look wrong.
        flag_file: where they are listed; None where there are none.
    """

    images: int
    rows: int = 0
    left_out: Mapping[str, int] | None = None
    loss: str = ""
    flags: Mapping[str, int] | None = None
    flag_file: Path | None = None

    def describe(self, out: Path) -> str:
        """Return it as lines for a terminal."""
        rows = f"{self.rows} rows for " if self.rows else ""
        lines = [f"{out}: {rows}{self.images} images"]
        if self.left_out:
            ranked = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            listed = ", ".join(f"{label} {n}" for label, n in ranked)
            lines.append(f"left out as uncertain: {sum(self.left_out.values())} ({listed})")
        if self.flags:
            listed = ", ".join(f"{kind} {n}" for kind, n in sorted(self.flags.items()))
            lines.append(f"{self.flag_file}: bones to look at: {listed}")
        return "\n".join([*lines, *([self.loss] if self.loss else [])])


# --- sources


# --- results


def write_fused(job: Job, report: Report) -> Fused:
    """Fuse all images and write the result, whole or not at all.

    Raises:
        ValueError: a source cannot be read; nothing is written then, and nothing stays.
    """
    return _write_store(job, report) if job.format == STORE else _write_rows(job, report)


def _write_store(job: Job, report: Report) -> Fused:
    total, size = len(job.ensemble.images), chunks.IMAGES
    fuse = partial(chunks.fuse, job.rule, job.ensemble.labels)
    with StoreWriter(job.out, _manifest(job)) as writer:
        done = total - len(writer.remaining)
        wanted = range(-(-done // size), chunks.count(job.ensemble))
        tasks = chunks.cut(job.ensemble, wanted, list(job.ensemble.images))
        try:
            for predictions in map_anywhere(fuse, tasks, job.jobs, job.on, _needs(job)):
                for prediction in predictions:
                    writer.append(prediction)
                report(total - len(writer.remaining), total, "")
        except ValueError:
            # What is wrong with a source will not mend itself: no part is worth keeping.
            writer.discard()
            raise
    return Fused(total)


def _manifest(job: Job) -> Manifest:
    ensemble = job.ensemble
    classes = ensemble.classes if len(ensemble.classes) < len(ensemble.labels) else ()
    source = {
        "fusion": repr(job.rule),
        "sources": [[source.name, source.digest] for source in ensemble.sources],
    }
    return Manifest(
        "semantic",
        _labels_name(job),
        ensemble.labels.names,
        dict(ensemble.images),
        source,
        images_per_part=chunks.IMAGES,
        classes=classes,
        **_origin(ensemble),
    )


def _origin(ensemble: Ensemble) -> dict[str, Any]:
    """Split, fold and subset where all sources have the same; of a submission nobody knows."""
    found = [
        (source.manifest.split, source.manifest.fold, source.manifest.subset)
        for source in ensemble.sources
        if isinstance(source, PredictionStore)
    ]
    if len(found) < len(ensemble.sources) or len(set(found)) > 1:
        return {}
    return dict(zip(("split", "fold", "subset"), found[0], strict=True))


def _write_rows(job: Job, report: Report) -> Fused:
    left_out: Counter[str] = Counter()
    flags: list[chunks.FlagRow] = []
    number = chunks.count(job.ensemble)

    def rows(folder: ChunkFolder) -> Iterator[RleRow]:
        for chunk in map(folder.load, range(number)):
            left_out.update(chunk.left_out)
            flags.extend(chunk.flags)
            yield from chunk.rows

    written, loss = 0, ""
    with ChunkFolder(job.out, _record(job)) as folder:
        _fill(folder, number, job, report)
        if job.format == CSV:
            written = submission.write(job.out, rows(folder))
        else:
            loss = write_labels(job, rows(folder), report)
    listed = _write_flags(job.out, flags)
    kinds = Counter(kind for _, _, kind, _ in flags)
    return Fused(len(job.ensemble.images), written, left_out, loss, kinds, listed)


def _write_flags(out: Path, flags: Sequence[chunks.FlagRow]) -> Path | None:
    """List what looks wrong beside the result; remove the list of a result that was replaced."""
    path = out.with_name(f"{out.stem if out.suffix == '.csv' else out.name}.flags.csv")
    if not flags:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([FLAG_HEADER, *flags])
    atomic_write_text(path, text.getvalue())
    return path


def _row_names(job: Job) -> list[str]:
    """Return what the rows call the images: a submission their files, a data set their keys."""
    if job.format != CSV:
        return list(job.ensemble.images)
    names = [name for _, _, name in job.ensemble.images.values()]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(
            f"several images are named {twice[0]}: a submission cannot tell them apart"
        )
    return names


def _fill(folder: ChunkFolder, number: int, job: Job, report: Report) -> None:
    ensemble, total = job.ensemble, len(job.ensemble.images)
    wanted = folder.missing(number)
    fuse = partial(chunks.fuse_to_rows, job.rule, ensemble.labels, ensemble.classes, job.floor)
    tasks = chunks.cut(ensemble, wanted, _row_names(job))
    results = map_anywhere(fuse, tasks, job.jobs, job.on, _needs(job))
    for done, (place, chunk) in enumerate(zip(wanted, results, strict=True), start=1):
        folder.save(place, chunk)
        report(min(total, (number - len(wanted) + done) * chunks.IMAGES), total, "")


def _needs(job: Job) -> list[Path]:
    return [source.path for source in job.ensemble.sources]


def _record(job: Job) -> dict[str, Any]:
    ensemble = job.ensemble
    images = repr([*ensemble.images.items(), job.format == CSV]).encode()
    return {
        "version": 1,
        # Another version may round otherwise: chunks of two are never mixed.
        "made_by": environment(),
        "rule": repr(job.rule),
        "sources": [[source.name, source.digest] for source in ensemble.sources],
        "classes": ensemble.classes,
        "images": hashlib.sha256(images).hexdigest(),
        "images_per_chunk": chunks.IMAGES,
        "floor": job.floor,
    }
