"""Commands around models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zoo.cli.defaults import TAKEN, for_data, for_predict, for_train
from zoo.cli.options import (
    Broken,
    Data,
    EditsFile,
    From,
    Images,
    Labels,
    Subset,
    Topic,
    check_json,
    command,
    command_line,
    say,
    seed_option,
    words,
    write_json,
)

if TYPE_CHECKING:
    from zoo.contract import PredictOptions
    from zoo.source import DataSource


@command(fill=for_train)
def train(
    family: Annotated[str, typer.Argument(help="smp, segformer, yolo, ...: zoo list families")],
    config: Annotated[
        str,
        typer.Option(help="Shipped config or YAML file; by default one that this computer trains."),
    ] = TAKEN,
    data: Data = TAKEN,
    out: Annotated[
        Path,
        typer.Option(help="Run folder; a stopped run continues. By default runs/FAMILY-CONFIG."),
    ] = TAKEN,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="key.sub=value ...; devices=4 trains on four GPUs, `batch` on each."),
    ] = None,
    labels: Labels = None,
    split: Annotated[
        Path | None, typer.Option(help="Split file; a data set converted with one carries it.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="The fold to hold out; 0 by default.")] = None,
    folds: Annotated[
        str, typer.Option(help="all: a run for each fold, and OUT/oof predicted by them.")
    ] = "",
    oof: Annotated[
        Path | None, typer.Option(help="With --folds all: the store of their predictions.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="A further data set to learn from, never held out, such as pseudo labels; several."
        ),
    ] = None,
    estimate: Annotated[
        float | None,
        typer.Option(
            help="Only say how much memory training needs on a GPU of so many GB, such as 32."
        ),
    ] = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Train a model on all folds but one; scores on that one go to metrics.csv."""
    from zoo.machine.processes import is_first_process
    from zoo.progress import bar
    from zoo.run_files.metrics import read_rows
    from zoo.runs.train import describe_scores
    from zoo.runs.train import train as train_run
    from zoo.source import DataSource

    if estimate is not None:
        _say_memory(family, config, data, changes or [], estimate)
        return
    if folds not in ("", "all") or (folds and fold is not None) or (oof and not folds):
        raise ValueError(f"--folds: expected 'all', without --fold; --oof goes with it: '{folds}'")
    source = DataSource.open(data, data_format, edits, broken, images).choosing(labels)
    common: dict[str, Any] = {
        "split_path": split,
        "changes": changes or [],
        "command": command_line(),
        "say": say,
        "also": [DataSource.open(path, None, None, broken) for path in also or ()],
    }
    with bar(f"train {family}") as report:
        if folds:
            from zoo.runs.cross_validation import train_folds

            store = oof or out / "oof"
            manifest = train_folds(
                family, config, source, out, report=report, store=store, **common
            )
            say(f"{store}: held-out predictions of {len(manifest.images)} images")
            return
        before = len(read_rows(out / "metrics.csv"))
        train_run(family, config, source, out, fold=fold, report=report, **common)
    if is_first_process():
        say(describe_scores(out, before))


def _say_memory(
    family: str, config: str, data: Path | None, changes: list[str], memory_gb: float
) -> None:
    from zoo.config import load_run_config
    from zoo.families import load_family
    from zoo.runs.batch_size import describe_memory
    from zoo.runs.memory import GB
    from zoo.source import DataSource

    source = DataSource.open(data) if data is not None else None
    found = load_run_config(load_family(family).Config, family, config, changes, source)
    say(describe_memory(found, family, memory_gb * GB))


@command(fill=for_predict)
def predict(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Run folder of `zoo train`, or that of --folds all: their mean; or a folder of "
            "`zoo export`, which needs no PyTorch. Without one all of runs/ predict held-out and "
            "test images."
        ),
    ] = None,
    data: Data = TAKEN,
    out: Annotated[
        Path | None, typer.Option(help="Prediction store to write; by default RUN/SUBSET.")
    ] = None,
    subset: Annotated[
        Subset | None,
        typer.Option(help="Which images; without it val, of an exported model all."),
    ] = None,
    tta: Annotated[
        str,
        typer.Option(help="Test-time augmentation: hflip, scale:0.75, contrast:0.8, ..."),
    ] = "",
    average: Annotated[str, typer.Option(help="Of it: probabilities or logits.")] = "probabilities",
    size: Annotated[
        str, typer.Option(help="Stretch images to this size first: 2048 or 1024x768.")
    ] = "",
    window: Annotated[str, typer.Option(help="Sliding windows of this size; whole for none.")] = "",
    overlap: Annotated[
        float | None, typer.Option(help="Share of a window's side that the next one repeats.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="Only score ways to predict: --compare hflip,scale:0.75 ..."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="The comparison as JSON.")] = None,
    batch: Annotated[int, typer.Option(help="Images at a time; 0 lets the family choose.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    metadata: Annotated[
        str, typer.Option(help="Table of the patients' columns, for runs that are shown them.")
    ] = "",
    sources: Annotated[
        str,
        typer.Option(
            help="Of a refiner: stores of these images, with commas; by default those it learned "
            "with."
        ),
    ] = "",
    objects: Annotated[
        bool,
        typer.Option(
            "--objects",
            help="Of an exported model: single objects, not a mask a class, where an image may "
            "have several of one.",
        ),
    ] = False,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Write soft masks for a data set into a prediction store.

    Of a folder of folds, --subset val has each image by the fold that held it out; test and all
    have the mean of all folds.
    """
    from zoo.config import check_config
    from zoo.contract import PredictOptions
    from zoo.export.description import is_exported
    from zoo.progress import bar
    from zoo.source import DataSource

    given = {"tta": words(tta), "average": average, "batch": batch, "device": device}
    given["sources"] = words(sources)
    placed = {"size": size or None, "window": window or None, "overlap": overlap}
    placed["metadata"] = metadata or None
    options = check_config(PredictOptions, {**given, **placed}, "zoo predict")
    source = DataSource.open(data, data_format, edits, broken, images)
    subset = subset or Subset.val
    if run is None:
        if objects:
            raise ValueError("--objects: expected an exported model, found none")
        _predict_all(source, options)
        return
    if is_exported(run):
        _predict_exported(run, source, out, subset.value, options, compare, objects)
        return
    if objects:
        raise ValueError(
            f"--objects: expected an exported model, found {run}: a run's store has what its "
            "network found; zoo fuse --format store --objects divides what is fused"
        )
    from zoo.runs.cross_validation import find_folds, predict_folds
    from zoo.runs.predict import predict as predict_run
    from zoo.runs.run import Run

    folds = find_folds(run)
    if compare:
        if folds:
            raise ValueError(f"--compare: expected one run, such as {folds[0]}, found {run}")
        from zoo.runs import prediction_benchmark as comparing

        keys = ("run", "patients", "choices")
        check_json(json_out, *keys)

        with bar("compare") as report:
            found = comparing.compare(
                Run.load(run), source, compare, options=options, report=report
            )
        if json_out is not None:
            write_json(json_out, found.record(), *keys)
        say(comparing.describe(found))
        return
    if out is None:
        raise ValueError("expected --out STORE, or --compare CHOICE")
    common: dict[str, Any] = {
        "subset": subset.value,
        "options": options,
        "command": command_line(),
    }
    with bar("predict") as report:
        if folds:
            manifest = predict_folds(folds, source, out, report=report, **common)
        else:
            manifest = predict_run(Run.load(run), source, out, report=report, **common)
    say(f"{out}: {manifest.kind} predictions of {len(manifest.images)} images")


def _predict_exported(
    folder: Path,
    data: DataSource,
    out: Path | None,
    subset: str,
    options: PredictOptions,
    compare: list[str] | None,
    is_apart: bool,
) -> None:
    from zoo.export.predict import predict_exported
    from zoo.progress import bar

    if compare or out is None:
        raise ValueError(f"{folder}: expected --out STORE for an exported model, not --compare")
    with bar("predict") as report:
        manifest = predict_exported(
            folder,
            data,
            out,
            subset=subset,
            options=options,
            is_apart=is_apart,
            command=command_line(),
            report=report,
        )
    say(f"{out}: {manifest.kind} predictions of {len(manifest.images)} images")


def _predict_all(data: DataSource, options: PredictOptions) -> None:
    """Predict held-out and test images by all runs below `runs/`."""
    from converters.files.outputs import only_writer
    from zoo.cli.defaults import run_folders
    from zoo.progress import bar
    from zoo.runs.cross_validation import find_folds, predict_folds
    from zoo.runs.predict import predict as predict_run
    from zoo.runs.run import Run

    if data.format == "images":
        subsets = ["test"]
    else:
        subsets = ["val", "test"] if data.scan_test(data.classes) else ["val"]
    for path in run_folders():
        for subset in subsets:
            out, folds = path / subset, find_folds(path)
            with only_writer(out), bar(f"predict {out}") as report:
                common: dict[str, Any] = {
                    "subset": subset,
                    "options": options,
                    "command": command_line(),
                    "report": report,
                }
                if folds:
                    manifest = predict_folds(folds, data, out, **common)
                else:
                    manifest = predict_run(Run.load(path), data, out, **common)
            say(f"{out}: {manifest.kind} predictions of {len(manifest.images)} images")


@command("list")
def list_(
    topic: Annotated[Topic, typer.Argument(help="What to list.")] = Topic.configs,
    memory: Annotated[
        bool, typer.Option("--memory", help="Of models: what training needs; takes minutes.")
    ] = False,
) -> None:
    """List what is there: configs, models, families, losses, formats, fusions, labels, ...

    What `models` reports is of others: the system's number and the report in which it is described,
    as in the header of its config, and the Dice that they found.
    """
    from zoo.cli.listing import lines

    if memory and topic is not Topic.models:
        raise ValueError(f"--memory: expected with 'models', found '{topic.value}'")
    for line in lines("memory" if memory else topic.value):
        say(line)


@command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, seed_option("Of the phantoms, the folds and the training.")] = 0,
) -> None:
    """Go the whole way on synthetic radiographs: phantom, training, fusion, report."""
    from zoo.cli.demo import run_demo

    say(run_demo(out, seed))


@command(fill=for_data)
def soup(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one network and one fold.")],
    out: Annotated[Path, typer.Option(help="Run folder of their mean, for `zoo predict`.")],
    data: Data = TAKEN,
    greedy: Annotated[
        bool, typer.Option("--greedy/--uniform", help="Keep the runs that help, or all of them.")
    ] = True,
    norms: Annotated[
        Literal["mean", "recompute", "again"],
        typer.Option(
            help="Statistics of batch norms: the runs' mean, or computed anew; again: an old word."
        ),
    ] = "mean",
    batch: Annotated[int, typer.Option(help="Images at a time; 0 lets the family choose.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Average the weights of runs that started alike, chosen by Dice on the fold they held out."""
    from zoo.config import check_config
    from zoo.contract import PredictOptions
    from zoo.progress import bar
    from zoo.runs.soup import make_soup
    from zoo.source import DataSource

    with bar("soup") as report:
        made = make_soup(
            runs,
            DataSource.open(data, data_format, edits, broken, images),
            out,
            way="greedy" if greedy else "uniform",
            norms=norms,
            options=check_config(PredictOptions, {"batch": batch, "device": device}, "zoo soup"),
            command=command_line(),
            report=report,
        )
    say(made.describe())
