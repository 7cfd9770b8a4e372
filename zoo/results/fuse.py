"""From several sources to one: a submission, a prediction store, or a labelled data set."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.files.outputs import check_file, csv_with
from converters.files.provenance import atomic_write_text, environment, write_record
from converters.formats.coco.result_ids import ResultIds
from fusion.rules.pooling import Mean
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble
from fusion.sources.store import PredictionStore
from fusion.types import Rule
from zoo.progress import Report, note
from zoo.results.chunks import EmptyImage, Executor, FlagRow, fused_rows
from zoo.results.fuse_checks import (
    COCO_RESULTS,
    CSV,
    FLAG_HEADER,
    STORE,
    check_fusion,
    check_record,
    flags_path,
    record_path,
)
from zoo.results.fused_objects import write_labels, write_results
from zoo.results.sources import open_fusion, warn_fitted
from zoo.results.store import write_store
from zoo.source import DataSource


@dataclass(frozen=True)
class FusionResult:
    """What a fusion has written.

    Attributes:
        images: their number.
        rows: of the submission, or detections; 0 for other formats.
        left_out: class -> number of objects that were too uncertain.
        loss: what the data set format could not hold, in words.
        flags: kind -> number of objects that look wrong.
        flag_file: where they are listed; None where there are none.
        empty: images without any object, each with the places of sources that saw none either.
        sources: names of the sources, in their order.
        unit: what `rows` counts, in words.
    """

    images: int
    rows: int = 0
    left_out: Mapping[str, int] | None = None
    loss: str = ""
    flags: Mapping[str, int] | None = None
    flag_file: Path | None = None
    empty: Sequence[EmptyImage] = ()
    sources: Sequence[str] = ()
    unit: str = "rows"

    def describe(self, out: Path) -> str:
        """Return it as lines for a terminal."""
        rows = f"{self.rows} {self.unit} for " if self.rows else ""
        lines = [f"{out}: {rows}{self.images} images"]
        if self.empty:
            lines.append(self._describe_empty())
        if self.left_out:
            ranked = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            listed = ", ".join(f"{label} {n}" for label, n in ranked)
            lines.append(f"left out as uncertain: {sum(self.left_out.values())} ({listed})")
        if self.flags:
            listed = ", ".join(f"{kind} {n}" for kind, n in sorted(self.flags.items()))
            lines.append(f"{self.flag_file}: objects to look at: {listed}")
        return "\n".join([*lines, *([self.loss] if self.loss else [])])

    def _describe_empty(self) -> str:
        count = len(self.empty)
        line = f"{count} of {self.images} images came out without any object, such as "
        line += self.empty[0][0]
        silent = Counter(place for _, places in self.empty for place in places)
        told = [
            f"{name} in {'all of them' if silent[place] == count else silent[place]}"
            for place, name in enumerate(self.sources)
            if silent[place]
        ]
        none = f"sources that had none there either: {', '.join(told)}" if told else ""
        return f"{line}; {none or 'each source had some there'}"


def fuse(
    paths: Sequence[Path],
    out: Path,
    *,
    method: str | None = None,
    config: Path | None = None,
    to: str = CSV,
    data: DataSource | None = None,
    subset: str = "all",
    labels_name: str | None = None,
    floor: float = 0.0,
    jobs: int = 1,
    on: str = "",
    is_apart: bool = False,
    layout: str = "",
    command: Sequence[str],
    report: Report,
) -> FusionResult:
    """Fuse prediction stores and submissions, and write the result, whole or not at all.

    Args:
        paths: the sources; absolute where `on` is not "".
        out: the file or folder to write.
        method: a rule with its usual options; or give `config`.
        config: a fusion config, by file or shipped name.
        to: `CSV`, `STORE`, `COCO_RESULTS`, or a data set format that can be written.
        data: the data set with the images.
        subset: of the data set.
        labels_name: label space of submissions; None takes what a store names, or what their
            classes tell.
        floor: objects whose mean probability is below it are left out.
        jobs: processes; the result does not depend on their number.
        on: a cluster that works instead; see `zoo.machine.cluster.map_anywhere`.
        is_apart: a store of single objects, not of one mask a class; data sets always have these.
        layout: of the data set format; "" is its first.
        command: what the user called, for the record.
        report: for a progress bar.

    Raises:
        ValueError: rule, sources and data set do not fit together, the result cannot be written,
            or a source cannot be read; nothing is written then, and nothing stays.
    """
    rule, ensemble, samples = open_fusion(paths, method, config, data, subset, labels_name)
    names = [source.name for source in ensemble.sources]
    if ensemble.silent:
        silent = ", ".join(ensemble.silent)
        note(f"no source says anything of {silent:.200}: nothing is written of it")
    if warning := warn_fitted(rule, ensemble, config):
        note(warning)
    executor = Executor(jobs, on)
    check_fusion(
        ensemble,
        rule,
        out,
        to=to,
        floor=floor,
        has_data=samples is not None,
        labels_name=labels_name,
        is_apart=is_apart,
        layout=layout,
    )
    ids = None
    if to == COCO_RESULTS:
        assert data is not None
        ids = ResultIds.read(
            out,
            data.path,
            ensemble.labels,
            ensemble.images,
            [name for name in ensemble.classes if name != ensemble.labels.background],
            images=data.images,
            annotations=data.annotations,
        )
    if to == STORE:
        empty = write_store(ensemble, rule, out, executor, report, is_apart)
        return FusionResult(len(ensemble.images), empty=empty, sources=names)
    written, loss = 0, ""
    sources = [os.fspath(source.path) for source in ensemble.sources]
    settings = {"rule": repr(rule), "sources": sources, "floor": floor}
    record = {"command": list(command), "config": settings}
    as_found = ids is not None and _is_one_detector(ensemble, rule)
    if as_found:
        note(f"{names[0]}: its objects are written as it has found them, with its scores")
    with fused_rows(
        ensemble,
        rule,
        out,
        by_file=to == CSV,
        floor=floor,
        executor=executor,
        report=report,
        as_found=as_found,
    ) as rows:
        if to == CSV:
            written = submission.write(out, rows)
        elif ids is not None:
            sizes = {key: (height, width) for key, (height, width, _) in ensemble.images.items()}
            written = write_results(rows.scored(), sizes, out, ids)
        else:
            loss = write_labels(
                rows,
                {key: (samples or {})[key] for key in ensemble.images},
                ensemble.labels,
                out,
                to,
                layout=layout,
                jobs=jobs,
                provenance=record,
                report=report,
            )
    if to in (CSV, COCO_RESULTS):
        check_record(out)
        labels = ensemble.labels.record()
        write_record(record_path(out), {"kind": to, **record, "labels": labels, **environment()})
    kinds = Counter(kind for _, _, kind, _ in rows.flags)
    flag_file = _write_flags(out, rows.flags)
    return FusionResult(
        len(ensemble.images),
        written,
        rows.left_out,
        loss,
        kinds,
        flag_file,
        rows.empty,
        names,
        "rows" if to == CSV else "objects",
    )


def _is_one_detector(ensemble: Ensemble, rule: Rule) -> bool:
    """Tell whether there is nothing to fuse: one source that finds objects, and a plain mean."""
    first, *others = ensemble.sources
    if others or not isinstance(rule, Mean) or not isinstance(first, PredictionStore):
        return False
    return first.manifest.kind == "instance"


def _write_flags(out: Path, flags: Sequence[FlagRow]) -> Path | None:
    """List what looks wrong beside the result; remove the list of a result that was replaced."""
    path = flags_path(out)
    # The work may have taken hours, in which somebody put something there.
    check_file(path, "a list of objects to look at", csv_with(FLAG_HEADER))
    if not flags:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([FLAG_HEADER, *flags])
    atomic_write_text(path, text.getvalue())
    return path
