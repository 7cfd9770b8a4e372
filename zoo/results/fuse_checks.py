"""What is said of a fusion before the work, not after it."""

from __future__ import annotations

from pathlib import Path

import converters
from converters.files.outputs import check_file, csv_with, json_with
from converters.files.provenance import PROVENANCE
from fusion.sources import submission
from fusion.sources.ensemble import UNNAMED, Ensemble
from fusion.sources.store import PredictionStore, check_replaceable
from fusion.types import Rule
from zoo.results.chunks import file_names
from zoo.results.fused_objects import are_results

CSV, STORE, COCO_RESULTS = "csv", "store", "coco_results"
_NO_DATA_SETS = (CSV, STORE, COCO_RESULTS)
FLAG_HEADER = ("image_name", "class", "kind", "text")


def check_fusion(
    ensemble: Ensemble,
    rule: Rule,
    out: Path,
    *,
    to: str,
    floor: float,
    has_data: bool,
    labels_name: str | None,
    is_apart: bool,
    layout: str = "",
) -> None:
    """Make sure that a fusion can be written.

    Args:
        ensemble: the sources, in the order of the rule.
        rule: one image's predictions -> the fused one.
        out: the file or folder to write.
        to: `CSV`, `STORE`, `COCO_RESULTS`, or a data set format.
        floor: objects whose mean probability is below it are left out.
        has_data: whether there is a data set with the images.
        labels_name: how the user called the label space of submissions.
        is_apart: a store of single objects is wanted.
        layout: of the data set format.

    Raises:
        ValueError: an unknown format; a floor beyond 0 to 1, or of a store; single objects of a
            submission, or where a class occurs once; sizes or images that nobody knows; `out`
            is somebody else's, or a source; images that a submission cannot tell apart; a store
            whose label space nobody knows.
    """
    if to not in (*_NO_DATA_SETS, *converters.FORMATS):
        raise converters.unknown_format(to, (*_NO_DATA_SETS, *converters.written_formats()))
    if not 0 <= floor <= 1:
        raise ValueError(f"--floor: expected 0 to 1, found {floor}")
    if floor and to == STORE:
        raise ValueError("--floor: a store keeps every probability; give it to what reads it")
    if is_apart and (to == CSV or ensemble.labels.once):
        once = "each class occurs once in an image here: leave it out"
        rows = "a submission has one row for each class: expected --format store, coco or another"
        raise ValueError(f"--objects: {once if ensemble.labels.once else rows}")
    _check_sizes(ensemble, rule, to, has_data)
    if layout and to in _NO_DATA_SETS:
        raise ValueError(f"--layout: expected --format with a data set format, found {to}")
    _check_out(out, to, layout)
    for source in ensemble.sources:
        if source.path.resolve() == out.resolve():
            raise ValueError(f"{out}: expected another place than that of a source, which it is")
    if to == STORE:
        _check_labels(ensemble, labels_name)
    if to == CSV:
        file_names(ensemble)


def _check_sizes(ensemble: Ensemble, rule: Rule, to: str, has_data: bool) -> None:
    if to not in (CSV, STORE) and not has_data:
        raise ValueError(f"--format {to}: expected --data with the images, found none")
    if ensemble.sizes_known:
        return
    if to == STORE:
        raise ValueError("--format store: a submission has no image sizes; expected --data too")
    if not rule.is_pixelwise:
        raise ValueError("this rule looks at neighbours: submissions alone need --data, for sizes")


def _check_out(out: Path, to: str, layout: str) -> None:
    if to != STORE:
        check_file(flags_path(out), "a list of objects to look at", csv_with(FLAG_HEADER))
    if to in (CSV, COCO_RESULTS):
        check_record(out)
    if to == CSV:
        if (meant := out.suffix[1:].lower()) in converters.FORMATS:
            raise ValueError(
                f"--out {out}: expected the name of a submission (.csv), or --format {meant}"
            )
        check_file(out, "a submission", submission.is_submission)
        return
    if to == STORE:
        check_replaceable(out)
        return
    if to == COCO_RESULTS:
        if out.suffix.lower() != ".json":
            raise ValueError(f"--out {out}: expected the name of a list of results (.json)")
        check_file(out, "a list of COCO's results", are_results)
        return
    converters.check_target(out, to, layout)


def flags_path(out: Path) -> Path:
    """Return the file beside a result that lists what looks wrong in it."""
    return _beside(out, "flags.csv")


def record_path(out: Path) -> Path:
    """Return the file beside a submission that says where it came from."""
    return _beside(out, PROVENANCE)


def _beside(out: Path, name: str) -> Path:
    stem = out.stem if out.suffix.lower() in (".csv", ".json") else out.name
    return out.with_name(f"{stem}.{name}")


def check_record(out: Path) -> None:
    """Make sure that the record of where a submission came from replaces nobody's file.

    Raises:
        ValueError: as `check_file`.
    """
    check_file(record_path(out), "the record of a submission", json_with("kind", "versions"))


def _check_labels(ensemble: Ensemble, labels_name: str | None) -> None:
    """Make sure that a store's label space is known: submissions alone tell but its names."""
    if any(isinstance(source, PredictionStore) for source in ensemble.sources):
        return
    if labels_name is None and ensemble.labels.name == UNNAMED:
        raise ValueError("--format store: expected --labels with the classes of the submissions")
