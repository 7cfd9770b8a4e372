"""The `zoo` command: one subcommand an arrow from polygons to submission. Imports late."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Option("--data", help="Data set: a folder in any readable format.")]
From = Annotated[
    str | None, typer.Option("--from", help="The data set's format, where it is not recognised.")
]
Edits = Annotated[
    Path | None, typer.Option("--edits", help="Corrections (YAML) to apply while reading.")
]
Jobs = Annotated[int, typer.Option(help="Processes.")]
Labels = Annotated[str, typer.Option(help="Label space: a shipped name or a YAML file.")]
Stores = Annotated[list[Path], typer.Argument(help="Prediction stores, one a model.")]


class Subset(StrEnum):
    """Which images of a data set."""

    val = "val"
    train = "train"
    test = "test"
    all = "all"


class Topic(StrEnum):
    """What `zoo list` can list."""

    families = "families"
    formats = "formats"
    fusions = "fusions"
    configs = "configs"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _say(f"segzoo {version('segzoo')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Segmentation of overlapping structures: convert, train, predict, fuse, evaluate."""


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    people: Annotated[int, typer.Option(help="People in train; two hands each.")] = 8,
    test_people: Annotated[int, typer.Option(help="People in test; two hands each.")] = 4,
    size: Annotated[int, typer.Option(help="Image side in pixels, 256 to 2048.")] = 512,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    bent_train: Annotated[float, typer.Option(help="Share of bent wrists in train.")] = 0.10,
    bent_test: Annotated[float, typer.Option(help="Share of bent wrists in test.")] = 0.58,
    jobs: Jobs = 1,
) -> None:
    """Write synthetic hand radiographs in the competition's format."""
    from zoo.phantom import PhantomConfig, write_phantom
    from zoo.progress import bar

    config = PhantomConfig(
        people=people,
        test_people=test_people,
        size=size,
        seed=seed,
        bent_train=bent_train,
        bent_test=bent_test,
    )
    with bar("phantom") as report:
        write_phantom(out, config, progress=lambda done, total: report(done, total, ""), jobs=jobs)
    _say(f"{out}: {2 * people} train and {2 * test_people} test images of {size} x {size}")


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="Data set.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("split.json"),
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    strategy: Annotated[
        str, typer.Option(help="group: a patient is in one fold; stratified: and folds are alike.")
    ] = "group",
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0,
    describe: Annotated[
        bool, typer.Option("--describe", help="Show images, patients, posture, areas per fold.")
    ] = False,
    data_format: From = None,
    edits: Edits = None,
    labels: Labels = "hand_bones",
) -> None:
    """Divide the train images into folds by patient, for all families alike."""
    from zoo.convert import split as split_data
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits)
    _say(split_data(source, out, labels, folds, strategy, seed, describe=describe))


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="Data set to read.")],
    to: Annotated[str, typer.Option(help="Format to write; see: zoo list formats")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    layout: Annotated[str, typer.Option(help="Variant of the format; see: zoo list formats")] = "",
    split: Annotated[Path | None, typer.Option(help="Split file: divides train and val.")] = None,
    fold: Annotated[int, typer.Option(help="The fold that is val.")] = 0,
    subset: Annotated[Subset, typer.Option(help="Which images.")] = Subset.train,
    crop: Annotated[str, typer.Option(help="Cut out these groups or classes: carpals,Radius")] = "",
    margin: Annotated[int, typer.Option(help="Pixels around what is cut out.")] = 0,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Only say how large crops have to be.")
    ] = False,
    scale: Annotated[int, typer.Option(help="Enlarge crops by this factor.")] = 1,
    enlarger: Annotated[
        str, typer.Option(help="Super-resolution model (.onnx, TorchScript); Lanczos without.")
    ] = "",
    boxes: Annotated[
        Path | None, typer.Option(help="Prediction store that says where to cut; else the truth.")
    ] = None,
    jobs: Jobs = 1,
    data_format: From = None,
    edits: Edits = None,
    labels: Labels = "hand_bones",
) -> None:
    """Write a data set in another format, and say what that format could not hold."""
    from zoo import convert as converting
    from zoo.progress import bar
    from zoo.source import DataSource

    plan = converting.plan_crop(_words(crop), margin, scale, enlarger, boxes)
    source = DataSource.open(data, data_format, edits)
    if suggest:
        _say(converting.suggest(source, labels, subset.value, plan))
        return
    if not to or out is None:
        raise ValueError("expected --to FORMAT and --out FOLDER; see: zoo list formats")
    with bar(f"convert to {to}") as report:
        count, loss = converting.convert(
            *(source, to, out, labels),
            subset=subset.value,
            split_path=split,
            fold=fold,
            layout=layout,
            crop_plan=plan,
            jobs=jobs,
            command=_command(),
            report=report,
        )
    _say(f"{out}: {count} images")
    _say(loss or "nothing was lost: every bone's pixels come back as they were")


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Data set to look into.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("audit"),
    describe: Annotated[
        bool, typer.Option("--describe", help="Also areas, overlaps, posture, metadata.")
    ] = False,
    subset: Annotated[Subset, typer.Option(help="Which images.")] = Subset.all,
    jobs: Jobs = 1,
    data_format: From = None,
    edits: Edits = None,
    labels: Labels = "hand_bones",
) -> None:
    """Find what is wrong with annotations: a page of pictures, and a draft of corrections."""
    from zoo.audit import audit as audit_data
    from zoo.progress import bar
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits)
    with bar("audit") as report:
        lines = audit_data(
            *(source, out, labels),
            subset=subset.value,
            describe=describe,
            jobs=jobs,
            command=_command(),
            report=report,
        )
    _say(lines)


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
            command=_command(),
            report=report,
        )
    _say(f"{out}: validation Dice {float(last['val_dice']):.4f}" if last else f"{out}: done")


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

    chosen: dict[str, Any] = {"tta": _words(tta), "batch": batch, "device": device}
    options = check_config(PredictOptions, chosen, "zoo predict")
    with bar("predict") as report:
        manifest = runs.predict(
            *(runs.Run.load(run), DataSource.open(data, data_format, edits), out),
            subset=subset.value,
            options=options,
            command=_command(),
            report=report,
        )
    _say(f"{out}: {manifest.kind} predictions of {len(manifest.images)} images")


@app.command()
def fit(
    predictions: Stores,
    data: Data,
    out: Annotated[Path, typer.Option(help="Fusion config to write (YAML).")],
    method: Annotated[str, typer.Option(help="Rule to fit.")] = "hybrid",
    data_format: From = None,
    edits: Edits = None,
) -> None:
    """Fit the fusion's weights on predictions for images the models did not learn from."""
    from zoo import fuse as fusing
    from zoo.progress import bar
    from zoo.source import DataSource

    if method != "hybrid":
        raise ValueError(f"method '{method}': expected hybrid; the other rules need no fit")
    source = DataSource.open(data, data_format, edits)
    with bar("fit") as report:
        fitted = fusing.fit(predictions, source, out, report)
    kept = sum(bool(r.keeps) for r in fitted.report.values())
    _say(f"{out}: fitted on {fitted.images} images; {kept} classes keep their best source")


@app.command()
def fuse(
    predictions: Stores,
    out: Annotated[Path, typer.Option(help="Submission to write (CSV).")],
    method: Annotated[str | None, typer.Option(help="See: zoo list fusions")] = None,
    config: Annotated[Path | None, typer.Option(help="Fusion config from `zoo fit`.")] = None,
) -> None:
    """Fuse prediction stores into one RLE submission."""
    from zoo import fuse as fusing
    from zoo.progress import bar

    rule = fusing.load_rule(method, config)
    with bar("fuse") as report:
        images, rows = fusing.write_submission(predictions, rule, out, report)
    _say(f"{out}: {rows} rows for {images} images")


@app.command()
def check(
    submission: Annotated[Path, typer.Argument(help="Submission (CSV).")],
    data: Data,
    subset: Annotated[Subset, typer.Option(help="The images it has to cover.")] = Subset.test,
    data_format: From = None,
    edits: Edits = None,
    labels: Labels = "hand_bones",
) -> None:
    """Check a submission against the data set: rows, order, names, codes, sizes."""
    from zoo.evaluate import check_submission
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits)
    problems = check_submission(submission, source, subset.value, labels)
    if problems:
        raise ValueError("\n".join(f"{submission}: {problem}" for problem in problems))
    _say(f"{submission}: valid")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Prediction store or submission.")],
    data: Data,
    json_out: Annotated[Path | None, typer.Option("--json", help="Scores as JSON.")] = None,
    subset: Annotated[
        Subset, typer.Option(help="The images that a submission covers; a store lists its own.")
    ] = Subset.test,
    data_format: From = None,
    edits: Edits = None,
    labels: Labels = "hand_bones",
) -> None:
    """Score a prediction store or a submission: Dice per class, group, and on shared pixels."""
    from converters.files import atomic_write_text
    from zoo.evaluate import describe
    from zoo.evaluate import evaluate as score
    from zoo.progress import bar
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits)
    with bar("evaluate") as report:
        scores = score(predictions, source, labels, subset.value, report)
    if json_out is not None:
        text = json.dumps(scores.record(), indent=1, ensure_ascii=False)
        atomic_write_text(json_out, text + "\n")
    _say(describe(scores))


@app.command("list")
def list_(
    topic: Annotated[Topic, typer.Argument(help="What to list.")] = Topic.configs,
) -> None:
    """List what is there: families, formats, fusions, configs."""
    import configs

    if topic is Topic.configs:
        from zoo.families import FAMILIES

        for family in FAMILIES:
            _say("\n".join(f"{family} {name}" for name in configs.names(family)))
        return
    if topic is Topic.formats:
        from zoo.convert import describe_formats

        _say(describe_formats())
        return
    from fusion import FUSIONS
    from zoo.families import FAMILIES

    _say("\n".join(FAMILIES if topic is Topic.families else FUSIONS))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the phantoms, the folds and the training.")] = 0,
) -> None:
    """Go the whole way on synthetic radiographs: phantom, training, fusion, report."""
    from zoo.demo import run_demo

    _say(run_demo(out, seed))


def main(arguments: list[str] | None = None) -> None:
    """Run the command; what a user can mend ends in one line a problem and exit code 2.

    Args:
        arguments: what follows `zoo` on the command line; by default what this process was given.
            `--debug` anywhere among them shows the traceback instead.
    """
    given = sys.argv[1:] if arguments is None else arguments
    rest = [argument for argument in given if argument != "--debug"]
    try:
        app(rest)
    except (ValueError, OSError, ImportError) as error:
        if "--debug" in given:
            raise
        for line in (str(error) or type(error).__name__).splitlines():
            typer.echo(f"zoo: {line}", err=True)
        sys.exit(2)


def _say(text: str) -> None:
    if text:
        typer.echo(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _command() -> list[str]:
    return ["zoo", *sys.argv[1:]]
