"""Commands around annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.defaults import STORE, TAKEN, for_augment, for_convert, for_data
from zoo.cli.options import (
    Broken,
    Data,
    EditsFile,
    From,
    Images,
    Jobs,
    Labels,
    Part,
    command,
    command_line,
    say,
    seed_option,
    words,
)

# As `fusion.interchange.files.arrays` has it, which is not loaded for help alone.
Activation = Literal["sigmoid", "softmax"]


@command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    people: Annotated[int, typer.Option(help="People in train; two hands each.")] = 8,
    test_people: Annotated[int, typer.Option(help="People in test; two hands each.")] = 4,
    size: Annotated[int, typer.Option(help="Image side in pixels, 256 to 2048.")] = 512,
    seed: Annotated[int, seed_option("Same seed, same bytes.")] = 0,
    bent_train: Annotated[float, typer.Option(help="Share of bent wrists in train.")] = 0.10,
    bent_test: Annotated[float, typer.Option(help="Share of bent wrists in test.")] = 0.58,
    annotators: Annotated[
        int, typer.Option(help="2: outlines in two people's ways, guessed under other bones.")
    ] = 1,
    jobs: Jobs = 1,
) -> None:
    """Write synthetic hand radiographs in the competition's format."""
    from zoo.phantom.config import PhantomConfig
    from zoo.phantom.tree import write_phantom
    from zoo.progress import bar

    config = PhantomConfig(
        people=people,
        test_people=test_people,
        size=size,
        seed=seed,
        bent_train=bent_train,
        bent_test=bent_test,
        annotators=annotators,
    )
    with bar("phantom") as report:
        write_phantom(out, config, progress=lambda done, total: report(done, total, ""), jobs=jobs)
    say(f"{out}: {2 * people} train and {2 * test_people} test images of {size} x {size}")


@command(fill=for_data)
def split(
    data: Annotated[
        Path, typer.Argument(help="Data set; the nearest without. --data names it, too.")
    ] = TAKEN,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("split.json"),
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    strategy: Annotated[
        str,
        typer.Option(
            help="group: a patient is in one fold; stratified: and folds are alike; given: the "
            "data set's own valid or val folder is the one fold, or its folders fold1, fold2, ..."
        ),
    ] = "group",
    seed: Annotated[int, seed_option("Of the shuffle.")] = 0,
    by: Annotated[
        str,
        typer.Option(
            "--group-by",
            help="Whose an image is: folder, FILE.csv:COLUMN, dicom:PatientID, an attribute, or a "
            "regular expression on its key. Remembered in the split.",
        ),
    ] = "",
    describe: Annotated[
        bool, typer.Option("--describe", help="Show images, patients, posture, areas per fold.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also replace other folds that OUT has already.")
    ] = False,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: Labels = None,
) -> None:
    """Divide the train images into folds by patient, for all families alike."""
    from zoo.datasets.split import split as split_data
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits, broken, images)
    said = split_data(
        source, out, labels, folds, strategy, seed, describe=describe, replace=replace, by=by
    )
    say(said)


@command(fill=for_convert)
def convert(
    data: Annotated[
        Path,
        typer.Argument(
            help="Data set to read; the nearest without. --data names it, too. For --to store: "
            "predictions of another program."
        ),
    ] = TAKEN,
    to: Annotated[
        str,
        typer.Option(
            help="Format to write, see: zoo list formats; or store: a prediction store, to score "
            "and fuse, of COCO results or files, a table of run-length codes, label files of YOLO, "
            "maps and masks (PNG, TIFF), arrays (NPY, NPZ), or a data set whose labels are "
            "predictions."
        ),
    ] = "",
    known: Annotated[
        Path | None,
        typer.Option(
            "--data", help="For --to store: the data set of the images, or its annotation file."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default called as the format.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Variant of the format; see: zoo list formats")] = "",
    activation: Annotated[
        Activation | None,
        typer.Option(
            help="For --to store: arrays hold logits; makes probabilities of each class by itself, "
            "or of all planes together."
        ),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Split file: divides train and val.")] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            help="The fold that is val; 0 where --split is given alone, and for --to store all."
        ),
    ] = None,
    subset: Annotated[Part, typer.Option(help="Which images.")] = Part.train,
    crop: Annotated[str, typer.Option(help="Cut out these groups or classes, with commas.")] = "",
    margin: Annotated[int, typer.Option(help="Pixels around what is cut out.")] = 0,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Only say how large crops have to be.")
    ] = False,
    scale: Annotated[int, typer.Option(help="Enlarge crops by this factor.")] = 1,
    enlarger: Annotated[
        str,
        typer.Option(
            help="Super-resolution model: .onnx, TorchScript, or swin2sr:NAME_OR_FOLDER; Lanczos "
            "without."
        ),
    ] = "",
    boxes: Annotated[
        Path | None, typer.Option(help="Prediction store that says where to cut; else the truth.")
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Hard links instead of copies of images: a change of one is one of both."
        ),
    ] = False,
    jobs: Jobs = 1,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: Labels = None,
) -> None:
    """Write a data set in another format, and say what that format could not hold."""
    from zoo.datasets.convert import convert as convert_data
    from zoo.datasets.crop import plan_crop
    from zoo.datasets.crop import suggest as suggest_crop
    from zoo.progress import bar
    from zoo.source import DataSource

    if to == STORE:
        others = {"layout": layout, "crop": crop, "boxes": boxes, "link": link, "margin": margin}
        others |= {"scale": scale != 1, "enlarger": enlarger, "suggest": suggest}
        others |= {"subset": subset != Part.train}
        if wrong := next((name for name, value in others.items() if value), None):
            raise ValueError(f"--{wrong}: expected a data set format with it, found --to {to}")
        given = (data, known, out, data_format, edits, broken, images, labels, split, fold)
        say(_import(*given, activation))
        return
    if activation is not None:
        raise ValueError(f"--activation {activation}: expected --to {STORE} with it")
    plan = plan_crop(words(crop), margin, scale, enlarger, boxes)
    source = DataSource.open(data, data_format, edits, broken, images)
    if suggest:
        say(suggest_crop(source, labels, subset.value, plan))
        return
    if not to or out is None:
        raise ValueError("expected --to FORMAT and --out FOLDER; see: zoo list formats")
    with bar(f"convert to {to}") as report:
        count, loss = convert_data(
            source,
            to,
            out,
            labels,
            subset=subset.value,
            split_path=split,
            fold=fold or 0,
            layout=layout,
            crop_plan=plan,
            jobs=jobs,
            links=link,
            command=command_line(),
            report=report,
            say=say,
        )
    say(f"{out}: {count} images")
    say(loss)


def _import(
    path: Path,
    known: Path | None,
    out: Path | None,
    predictions_format: str | None,
    edits: Path | None,
    broken: str,
    images: Path | None,
    labels: str | None,
    split: Path | None,
    fold: int | None,
    activation: Activation | None,
) -> str:
    """Write predictions of another program as a prediction store; return what to say of it."""
    from zoo.progress import bar
    from zoo.results.imported import data_folder, import_predictions
    from zoo.source import DataSource

    if known is None or out is None:
        raise ValueError("expected --data DATA and --out STORE with --to store")
    folder, annotations = data_folder(known)
    source = DataSource.open(folder, None, edits, broken, images)
    with bar(f"convert to {STORE}") as report:
        count, objects = import_predictions(
            path,
            source,
            out,
            labels,
            predictions_format=predictions_format,
            annotations=annotations,
            activation=activation,
            split_path=split,
            fold=fold,
            command=command_line(),
            report=report,
            say=say,
        )
    return f"{out}: {count} images, {objects} objects"


@command(fill=for_data)
def audit(
    data: Annotated[
        Path,
        typer.Argument(help="Data set to look into; the nearest without. --data names it, too."),
    ] = TAKEN,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("audit"),
    describe: Annotated[
        bool, typer.Option("--describe", help="Also areas, overlaps, posture, metadata.")
    ] = False,
    subset: Annotated[Part, typer.Option(help="Which images.")] = Part.all,
    jobs: Jobs = 1,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: Labels = None,
) -> None:
    """Find what is wrong with annotations: a page of pictures, and a draft of corrections."""
    from zoo.progress import bar
    from zoo.report.audit.command import audit as audit_data
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits, broken, images)
    with bar("audit") as report:
        lines = audit_data(
            source,
            out,
            labels,
            subset=subset.value,
            describe=describe,
            jobs=jobs,
            command=command_line(),
            report=report,
        )
    say(lines)


@command(fill=for_augment)
def augment(
    family: Annotated[str, typer.Argument(help="smp, segformer, yolo, ...")],
    config: Annotated[str, typer.Option(help="Shipped config or YAML file; its `augment`.")],
    data: Data = TAKEN,
    changes: Annotated[list[str] | None, typer.Argument(help="key.sub=value ...")] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Write a contact sheet (PNG): samples and what they become.")
    ] = None,
    count: Annotated[int, typer.Option(help="Samples on the contact sheet.")] = 4,
    out: Annotated[Path | None, typer.Option(help="Write a data set with copies.")] = None,
    to: Annotated[str, typer.Option(help="Its format.")] = "masks",
    copies: Annotated[int, typer.Option(help="Augmented copies of each training image.")] = 1,
    split: Annotated[Path | None, typer.Option(help="Split file: val gets no copies.")] = None,
    fold: Annotated[
        int | None, typer.Option(help="The fold that is val; 0 where --split is given alone.")
    ] = None,
    seed: Annotated[int, seed_option("Same seed, same copies.")] = 0,
    jobs: Jobs = 1,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Show what a config's augmentation does, or write its results as a data set."""
    from zoo.datasets.augment import plan, write
    from zoo.datasets.augment import preview as draw_preview
    from zoo.families import load_family
    from zoo.progress import bar
    from zoo.source import DataSource

    if preview is None and out is None:
        raise ValueError("expected --preview SHEET.png or --out FOLDER")
    source = DataSource.open(data, data_format, edits, broken, images)
    chosen = plan(load_family(family).Config, family, config, changes or [], source)
    if preview is not None:
        rows = draw_preview(
            chosen.steps,
            chosen.labels,
            chosen.size_hw,
            source,
            preview,
            count=count,
            seed=seed,
        )
        say(f"{preview}: {rows} samples")
    if out is None:
        return
    with bar("augment") as report:
        written, loss = write(
            chosen.steps,
            chosen.labels,
            source,
            out,
            copies=copies,
            data_format=to,
            split_path=split,
            fold=fold or 0,
            seed=seed,
            jobs=jobs,
            command=command_line(),
            report=report,
        )
    say(f"{out}: {written} images")
    say(loss)
