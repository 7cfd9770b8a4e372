"""Commands around models that leave the house."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.options import command, say, words


@command()
def export(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, folders of --folds all, or a folder of `zoo run`."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write, for `zoo predict` and `zoo serve`.")
    ] = Path("model"),
    to: Annotated[str, typer.Option(help="The format of the networks: onnx.")] = "onnx",
    fusion: Annotated[
        str | None,
        typer.Option(
            help="Of several runs: a fusion config of `zoo fit`, a shipped name, or a rule such as "
            "mean; of `zoo run` its own without."
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(help="Largest difference of a probability from PyTorch's that is allowed."),
    ] = 1e-3,
    time: Annotated[
        int, typer.Option("--time", help="Measure an image's time on the CPU so many times.")
    ] = 0,
) -> None:
    """Write runs as ONNX networks that predict without PyTorch; checked against it."""
    from zoo.export.command import export as export_runs
    from zoo.progress import bar

    if to != "onnx" or not tolerance > 0 or time < 0:
        raise ValueError(
            "--to, --tolerance, --time: expected onnx, a positive number and one from 0, found "
            f"{to}, {tolerance:g}, {time}"
        )
    with bar("export") as report:
        made = export_runs(
            runs,
            out,
            fusion=fusion,
            tolerance=tolerance,
            repetitions=time,
            report=report,
            say=say,
        )
    say(made.describe())


@command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder of `zoo export`.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is this computer alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", max=65535)] = 8000,
    jobs: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    queue: Annotated[int, typer.Option(help="Images that may wait; further ones get 503.")] = 8,
    max_mb: Annotated[float, typer.Option(help="Largest file of an image, in MB.")] = 64,
    max_pixels: Annotated[int, typer.Option(help="Most pixels of an image.")] = 100_000_000,
    timeout: Annotated[
        float, typer.Option(help="Seconds in which masks have to be ready, waiting included.")
    ] = 120,
    threads: Annotated[
        int, typer.Option(help="Threads that an image may use; 0 takes all cores.")
    ] = 0,
    tta: Annotated[str, typer.Option(help="Test-time augmentation, as in `zoo predict`.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Answer images over HTTP with their masks: POST an image to /, as RLE, COCO or PNG."""
    from zoo.config import check_config
    from zoo.contract import PredictOptions
    from zoo.serve.server import serve as serve_model
    from zoo.serve.workers import Limits

    limits = Limits(
        body_bytes=int(max_mb * 1e6),
        pixels=max_pixels,
        queue=queue,
        jobs=jobs,
        answer_s=timeout,
    )
    options = check_config(PredictOptions, {"tta": words(tta), "device": device}, "zoo serve")
    serve_model(
        folder, host=host, port=port, limits=limits, options=options, threads=threads, say=say
    )
