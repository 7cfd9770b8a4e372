"""What the page is told, checked before the server starts: a mistake is a line in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.edits.recording import load_or_empty
from fusion.rules.file import load_rule
from fusion.sources import submission
from zoo.viewer.places import Places
from zoo.viewer.sources import space_of


def page_arguments(
    paths: Sequence[Path],
    edits: Path,
    *,
    data_format: str | None = None,
    labels_name: str | None = None,
    method: str | None = None,
    config: Path | None = None,
) -> list[str]:
    """Return the arguments of `page.py`, with absolute paths.

    Args:
        paths: at most one data set, stores, submissions, folders with runs, audits, pipelines.
        edits: the file of corrections, there or not.
        data_format: the data set's format, where it is not recognised.
        labels_name: the label space.
        method: a fusion rule by name; or give `config`.
        config: a fusion config.

    Raises:
        ValueError: a path that is nothing of this, two data sets, stores of different classes, an
            unknown rule, both a rule and a config, or a file that holds no edits.
    """
    places = Places.sort(paths, data_format)
    space_of(places.sources, places.usual_labels(places.source(data_format), labels_name))
    for path in places.sources:
        if path.is_file():
            next(submission.read(path), None)
    load_or_empty(edits)
    if method or config:
        load_rule(method, config)
    if (method or config) and not places.sources:
        raise ValueError("expected prediction stores or submissions to fuse, found none")
    options = {
        "edits": str(edits.absolute()),
        "data_format": data_format,
        "labels_name": labels_name,
        "method": method,
        # A shipped config is called by its name.
        "config": str(config.absolute()) if config and config.exists() else config and str(config),
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*given, "--", *(str(path.absolute()) for path in paths)]
