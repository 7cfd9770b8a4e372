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

import converters
from converters.files import atomic_write_text, environment, read_provenance
from converters.types import LabelSpace, Sample
from fusion import Rule, submission
from fusion.reach import looks_around
from fusion.sources import Ensemble, check_splits
from fusion.store import ImageEntry, Manifest, PredictionStore, StoreWriter, check_match
from fusion.submission import Row
from zoo import chunks
from zoo.chunks import ChunkFolder
from zoo.cluster import check_place, map_anywhere
from zoo.fused_labels import write_labels
from zoo.progress import Report
from zoo.source import DataSource

CSV, STORE = "csv", "store"
FLAG_HEADER = ("image_name", "class", "kind", "text")
USUAL_LABELS = "hand_bones"


@dataclass(frozen=True)
class Job:
    """What is fused, by which rule, into what.

    Attributes:
        ensemble: the sources, in the order of the rule.
        rule: one image's predictions -> the fused one.
        out: the file or folder to write.
        format: `csv`, `store`, or a data set format that can be written.
        samples: key -> the data set's sample, where one is given.
        floor: objects whose mean probability is below it are left out.
        jobs: processes.
        on: where; see `zoo.cluster.map_anywhere`. Paths are absolute where it is not "".
        labels_name: how the user called the label space of submissions.
        command: what the user called, for the record.
    """

    ensemble: Ensemble
    rule: Rule
    out: Path
    format: str = CSV
    samples: Mapping[str, Sample] | None = None
    floor: float = 0.0
    jobs: int = 1
    on: str = ""
    labels_name: str | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_place(self.on)
        if self.jobs < 1:
            raise ValueError(f"--jobs: expected 1 or more, found {self.jobs}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"--floor: expected 0 to 1, found {self.floor}")
        if self.floor and self.format == STORE:
            raise ValueError("--floor: a store keeps every probability; give it to what reads it")
        _check_sizes(self)
        _check_out(self.out, self.format)
        _check_kept(self.out, self.ensemble)
        if self.format == STORE:
            _labels_name(self)


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


def open_stores(paths: Sequence[Path]) -> list[PredictionStore]:
    """Open prediction stores that speak of the same images.

    Raises:
        ValueError: none given, two of the same name, or they differ; says where.
    """
    if not paths:
        raise ValueError("expected at least one prediction store, found none")
    stores = [PredictionStore(path) for path in paths]
    names = [store.name for store in stores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"stores are known by their folder's name; these come twice: {twice}")
    check_match(stores)
    return stores


def open_sources(
    paths: Sequence[Path],
    rule: Rule,
    data: DataSource | None = None,
    subset: str = "all",
    labels_name: str | None = None,
) -> tuple[Ensemble, dict[str, Sample] | None]:
    """Open stores and submissions in the rule's order, and the samples of their data set.

    Raises:
        ValueError: they do not fit together, or not to the rule or the data set.
    """
    labels = LabelSpace.load(labels_name) if labels_name else None
    usual = LabelSpace.load(USUAL_LABELS)
    samples, images = None, None
    if data is not None:
        stores = [path for path in paths if path.is_dir()]
        known = labels or (PredictionStore(stores[0]).label_space() if stores else usual)
        samples = {sample.key: sample for sample in data.read(known, subset)}
        images = {key: (*s.size_hw, s.file_name) for key, s in samples.items()}
    ensemble = Ensemble.open(paths, images, labels, usual)
    check_splits(ensemble)
    if images is not None:
        _check_images(ensemble.images, images, data.path if data else Path())
    names = source_names(rule)
    return (ensemble.ordered(names) if names else ensemble), samples


def source_names(rule: Rule) -> tuple[str, ...]:
    """Return the names of the sources that a rule expects, in order; empty if it takes any."""
    return tuple(getattr(rule, "sources", ()))


def _check_images(
    images: Mapping[str, ImageEntry], known: Mapping[str, ImageEntry], data: Path
) -> None:
    for key, (height, width, _) in images.items():
        if key not in known:
            raise ValueError(f"{data}: expected the image '{key}' of the sources, found none")
        if known[key][:2] != (height, width):
            sizes = f"{(height, width)} in the sources, {known[key][:2]} in {data}"
            raise ValueError(f"'{key}' is {sizes}; take the data set of whole images")


def _check_sizes(job: Job) -> None:
    if job.format not in (CSV, STORE) and job.samples is None:
        raise ValueError(f"--format {job.format}: expected --data with the images, found none")
    if job.ensemble.sizes_known:
        return
    if job.format == STORE:
        raise ValueError("--format store: a submission has no image sizes; expected --data too")
    if looks_around(job.rule):
        raise ValueError("this rule looks at neighbours: submissions alone need --data, for sizes")


def _check_out(out: Path, form: str) -> None:
    """Say before the work what would be said after it."""
    if form == CSV:
        if out.is_dir():
            raise ValueError(f"{out}: expected a file to write, found a folder")
        if out.is_file() and not _is_submission(out):
            raise ValueError(f"{out}: expected nothing there, or a submission to replace")
        return
    if out.is_file():
        raise ValueError(f"{out}: expected a folder to write, found a file")
    if form == STORE:
        return
    if not hasattr(converters.load_format(form), "write"):
        raise ValueError(f"format '{form}': expected one that can be written")
    if out.is_dir() and any(out.iterdir()) and read_provenance(out).get("kind") != form:
        raise ValueError(f"{out}: expected nothing there, or a data set in {form} to replace")


def _is_submission(path: Path) -> bool:
    """Whether a file starts as a submission does, or is empty."""
    with path.open("rb") as file:
        start = file.readline(200)
    found = start.decode("utf-8-sig", errors="replace").strip()
    return not start or found == ",".join(submission.HEADER)


def _check_kept(out: Path, ensemble: Ensemble) -> None:
    for source in ensemble.sources:
        if source.path.resolve() == out.resolve():
            raise ValueError(f"{out}: expected another place than that of a source, which it is")


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


def _labels_name(job: Job) -> str:
    """Return the name or file by which whoever reads the store finds its label space."""
    for source in job.ensemble.sources:
        if isinstance(source, PredictionStore):
            return source.manifest.labels
    if job.labels_name is None and job.ensemble.labels.name != USUAL_LABELS:
        raise ValueError("--format store: expected --labels with the classes of the submissions")
    return job.labels_name or USUAL_LABELS


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

    def rows(folder: ChunkFolder) -> Iterator[Row]:
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
