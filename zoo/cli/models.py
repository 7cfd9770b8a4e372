"""Commands around models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.options import Data, Edits, From, Subset, Topic, app, command_line, say, words


@app.command()
def train(
    family: Annotated[str, typer.Argument(help="smp, segformer, yolo; see: zoo list families")],
    config: Annotated[str, typer.Option(help="Shipped config or YAML file.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; a stopped run continues.")],
    changes: Annotated[list[str] | None, typer.Argument(help="key.sub=value ...")] = None,
    split: Annotated[
        Path | None, typer.Option(help="Split file; a data set converted with one carries it.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="The fold to hold out; 0 by default.")] = None,
    data_format: From = None,
    edits: Edits = None,
) -> None:
    """Train a model on all folds but one; scores on that one go to metrics.csv."""
    from zoo import runs
    from zoo.progress import bar
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits)
    with bar(f"train {family}") as report:
        last = runs.train(
            *(family, config, source, out),
            split_path=split,
            fold=fold,
            changes=changes or [],
            command=command_line(),
            report=report,
        )
    say(f"{out}: validation Dice {float(last['val_dice']):.4f}" if last else f"{out}: done")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of `zoo train`.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Prediction store to write.")],
    subset: Annotated[Subset, typer.Option(help="Which images.")] = Subset.val,
    tta: Annotated[str, typer.Option(help="Test-time augmentation, such as hflip.")] = "",
    batch: Annotated[int, typer.Option(help="Images at a time; 0 lets the family choose.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    data_format: From = None,
    edits: Edits = None,
) -> None:
    """Write a model's soft masks for a data set into a prediction store."""
    from zoo import runs
    from zoo.config import check_config
    from zoo.families.base import PredictOptions
    from zoo.progress import bar
    from zoo.source import DataSource

    chosen: dict[str, Any] = {"tta": words(tta), "batch": batch, "device": device}
    options = check_config(PredictOptions, chosen, "zoo predict")
    with bar("predict") as report:
        manifest = runs.predict(
            *(runs.Run.load(run), DataSource.open(data, data_format, edits), out),
            subset=subset.value,
            options=options,
            command=command_line(),
            report=report,
        )
    say(f"{out}: {manifest.kind} predictions of {len(manifest.images)} images")


@app.command("list")
def list_(
    topic: Annotated[Topic, typer.Argument(help="What to list.")] = Topic.configs,
) -> None:
    """List what is there: families, formats, fusions, configs."""
    import configs

    if topic is Topic.configs:
        from zoo.families import FAMILIES

        for family in FAMILIES:
            say("\n".join(f"{family} {name}" for name in configs.names(family)))
        return
    if topic is Topic.formats:
        from zoo.convert import describe_formats

        say(describe_formats())
        return
    from fusion import FUSIONS
    from zoo.families import FAMILIES

    say("\n".join(FAMILIES if topic is Topic.families else FUSIONS))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the phantoms, the folds and the training.")] = 0,
) -> None:
    """Go the whole way on synthetic radiographs: phantom, training, fusion, report."""
    from zoo.demo import run_demo

    say(run_demo(out, seed))
