"""Commands that show: two predictions beside each other, the page of a fusion, the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.defaults import TAKEN, for_report, for_view
from zoo.cli.options import (
    Broken,
    Data,
    EditsFile,
    From,
    Images,
    Jobs,
    Labels,
    SubmissionLabels,
    check_json,
    command,
    command_line,
    say,
    write_json,
)

# By these keys what was written before is recognised.
_COMPARISON = ("a", "b", "identical", "per_class")
_REPORT = ("headline", "entries", "gains")


@command()
def compare(
    a: Annotated[Path, typer.Argument(help="Prediction store or submission (CSV).")],
    b: Annotated[Path, typer.Argument(help="Another one of the same images.")],
    out: Annotated[Path, typer.Option(help="Folder to write: compare.html, compare.json.")] = Path(
        "compare"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Data set: for pictures, and for truth where it has any.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: SubmissionLabels = None,
) -> None:
    """Show where two predictions differ, by class and image, and who is right: A minus B."""
    from zoo.progress import bar
    from zoo.report.compare.command import compare as compare_predictions
    from zoo.report.compare.command import describe
    from zoo.source import DataSource

    check_json(json_out, *_COMPARISON)
    source = DataSource.open(data, data_format, edits, broken, images) if data else None
    with bar("compare") as report:
        found = compare_predictions(
            (a, b),
            out,
            data=source,
            labels_name=labels,
            command=command_line(),
            report=report,
        )
    if json_out is not None:
        write_json(json_out, found.record(), *_COMPARISON)
    say(describe(found, out))


@command(fill=for_report)
def report(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="Prediction stores and submissions (CSV) of the same images; without, what the "
            "runs in runs/ held out."
        ),
    ] = TAKEN,
    data: Data = TAKEN,
    out: Annotated[Path, typer.Option(help="Folder to write: report.html, report.json.")] = Path(
        "report"
    ),
    config: Annotated[
        Path | None,
        typer.Option(
            help="Fusion config: a file from `zoo fit`, or a shipped name; without one, and "
            "without a fusion.yaml of these predictions here, the page is about the mean."
        ),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: SubmissionLabels = None,
    jobs: Jobs = 1,
) -> None:
    """Show what sources and their fusion are worth on annotated images, class by class."""
    from zoo.progress import bar
    from zoo.report.fusion.command import PAGE, describe, write_page
    from zoo.source import DataSource

    check_json(json_out, *_REPORT)
    source = DataSource.open(data, data_format, edits, broken, images)
    with bar("report") as progress:
        found = write_page(
            predictions,
            source,
            out,
            config=config,
            labels_name=labels,
            command=command_line(),
            report=progress,
            jobs=jobs,
        )
    if json_out is not None:
        write_json(json_out, found.record(), *_REPORT)
    say(f"{describe(found)}\n{out / PAGE}")


@command(fill=for_view)
def view(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A data set, and what is held against it: folders with runs, prediction stores, "
            "submissions (CSV), what `zoo audit` has written, the folder of `zoo run`; the nearest "
            "without.",
        ),
    ] = TAKEN,
    edits: Annotated[
        Path, typer.Option(help="Corrections (YAML): shown, and written where some are made.")
    ] = Path("edits.yaml"),
    method: Annotated[
        str | None, typer.Option(help="Fuse the sources by this rule: `zoo list fusions`.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Fuse the sources by a config, as `zoo fuse`.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port on this computer; the first free one from 8501 without."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in a browser.")
    ] = False,
    data_format: From = None,
    labels: Labels = None,
) -> None:
    """Look at images, masks and where they differ in a browser; correct what is wrong."""
    from zoo.viewer.server import check_installed, serve
    from zoo.viewer.start import page_arguments

    check_installed()
    arguments = page_arguments(
        paths or [],
        edits,
        data_format=data_format,
        labels_name=labels,
        method=method,
        config=config,
    )
    serve(arguments, port, not no_browser, say)
