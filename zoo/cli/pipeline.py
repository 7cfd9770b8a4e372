"""The command that goes the whole way: a recipe's steps, in their order, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.defaults import TAKEN, for_run
from zoo.cli.options import Broken, EditsFile, From, Labels, command, command_line, say, seed_option


@command(fill=for_run)
def run(
    what: Annotated[
        Path,
        typer.Argument(
            help="Recipe (YAML file or shipped name), or a data set to plan one for; the nearest "
            "data set without.",
            metavar="RECIPE|DATA",
        ),
    ] = TAKEN,
    data: Annotated[
        Path | None,
        typer.Option(help="For a recipe that names no data set: its folder; the nearest without."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all results, to go on in; by default NAME-run."),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="For a plan: in how many hours an answer is wanted.", min=0.01),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only show the steps, what they need, and which are done already."
        ),
    ] = False,
    by: Annotated[
        str,
        typer.Option("--group-by", help="For a plan: whose an image is, as `zoo split` takes it."),
    ] = "",
    test: Annotated[
        Path | None,
        typer.Option(help="For a plan: folder of images to be answered; else the data's own."),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="For a plan: encoder of smp networks, as tu-tf_efficientnet_lite0."),
    ] = "",
    encoder_weights: Annotated[
        str,
        typer.Option(
            help="For a plan: what the encoder has learned: a name such as imagenet, which is "
            "downloaded, or a file. Few images are worth far more with it.",
        ),
    ] = "",
    machine: Annotated[
        str,
        typer.Option(help="With --dry-run: plan for another machine, on paper: 1xV100, 8xA100."),
    ] = "",
    images: Annotated[
        int,
        typer.Option(
            help="With --dry-run --machine: as if there were so many images to learn from.", min=0
        ),
    ] = 0,
    seed: Annotated[int, seed_option("For a plan: of folds and training.")] = 0,
    on: Annotated[
        str,
        typer.Option(
            help="Work on a Ray cluster: ray, auto, HOST:PORT or ray://HOST:PORT, as `zoo fuse`."
        ),
    ] = "",
    through: Annotated[
        str,
        typer.Option(
            help="With --on, for machines that share no disk: URL of a place that all of them "
            "reach: file://, s3://, sftp://, or env:NAME.",
        ),
    ] = "",
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="With --through: leave what was put there; without, it is removed when all has "
            "ended well, but for what other pipelines need.",
        ),
    ] = False,
    forgets: Annotated[
        bool,
        typer.Option(
            "--forget", help="Only remove what FOLDER keeps of recipes as they were before."
        ),
    ] = False,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    labels: Labels = None,
) -> None:
    """Go from a data set to a checked answer by a recipe, or by one that is planned here.

    Given again, it goes on; after a change only what depends on it is done anew.
    """
    from zoo.pipeline.command import PlanOptions, forget, run_command

    if forgets:
        forget(what, out, say)
        return
    given = PlanOptions(
        data=data,
        hours=hours,
        group_by=by,
        test=test,
        encoder=encoder,
        encoder_weights=encoder_weights,
        machine=machine,
        images=images,
        seed=seed,
        format=data_format,
        edits=edits,
        broken=broken,
        labels=labels,
    )
    run_command(
        str(what),
        out,
        given,
        dry_run=dry_run,
        on=on,
        through=through,
        keep=keep,
        command=command_line(),
        say=say,
    )


@command()
def status(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of `zoo run`; only the machines without.")
    ] = None,
    on: Annotated[
        str, typer.Option(help="Ray cluster whose nodes are asked: ray, auto, HOST:PORT, ...")
    ] = "",
    post: Annotated[
        str, typer.Option(help="Also post it to a chat: a webhook's address, or env:NAME.")
    ] = "",
) -> None:
    """Show how far a pipeline is, and the GPUs, memory and disk of its machines."""
    from zoo.pipeline.status import describe_status
    from zoo.pipeline.status import post as post_lines

    lines = describe_status(folder, on)
    for line in lines:
        say(line)
    if post:
        post_lines(lines, post)


@command()
def clear(
    place: Annotated[str, typer.Argument(help="URL of the place, or env:NAME.", metavar="URL")],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(help="Remove what this one has there; may be given several times."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(
            help="Remove what those have there that gave no sign of life for so many days.", min=0.1
        ),
    ] = None,
) -> None:
    """Show what pipelines have at a place of `zoo run --through`, or remove what dead ones left."""
    from zoo.pipeline.command import clear_place

    clear_place(place, pipeline or [], days, say)
