"""Small inputs of every sort, and every command on them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks import material

from converters import read
from converters.files.provenance import write_provenance
from converters.splits.split import Split
from converters.types import LabelSpace
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction
from harness.others import OTHERS
from zoo.cli import main

LABELS = "hand_bones"
SIDE = 256
IN, OUT = "inputs/", "out/"
# Format and layout of each data set that is made of the phantom.
DATA_SETS = {
    "yolo": ("yolo", ""),
    "packed": ("masks", "packed"),
    "per-class": ("masks", "per-class"),
    "index": ("masks", "index"),
    "arrow": ("segformer", "arrow"),
    "parquet": ("segformer", "parquet"),
    "datumaro": ("datumaro", "polygons"),
    "datumaro-masks": ("datumaro", "masks"),
    "coco": ("coco", "polygons"),
    "coco-rle": ("coco", "rle"),
    "labelme": ("labelme", ""),
    "rle": ("rle_table", "columns"),
}
EDITS = """\
version: 1
regroup: [{{key: {key}, group: ID9}}]
"""
SWEEP = """\
family: smp
config: inputs/tiny.yaml
changes: [epochs=1]
space:
  optim.lr: {log: [1.0e-4, 1.0e-3]}
trials: 2
seed: 0
"""
TINY = """\
size: [64, 64]
epochs: 2
batch: 2
architecture: unet
encoder: tu-mobilenetv3_small_050
encoder_weights: null
options: {decoder_channels: [8, 8, 8, 8, 8]}
loss: {bce: 0.5, dice: 0.5}
optim: {name: adamw, lr: 1.0e-3}
augment:
  - {name: HorizontalFlip, p: 0.5}
"""


RECIPE = """\
phantom: {people: 3, test_people: 1, size: 256}
split: {folds: 3}
models:
  unet: {family: smp, config: tiny.yaml, changes: {epochs: 1}}
second_stages:
  wrist: {of: unet, crop: [carpals], margin: 8, family: smp, config: tiny.yaml}
fusion: {method: mean}
"""
BEGUN = {"key": "0" * 16, "state": "begun", "command": ["split"], "seconds": 1.5}


@dataclass(frozen=True)
class Command:
    """A command on the inputs.

    Attributes:
        name: of the case.
        words: what follows `zoo`, given beside the folder `inputs`; results go to `out`.
        inputs: what of the inputs the command reads.
        is_trained: it needs a trained network, or trains one: seconds, and torch.
    """

    name: str
    words: tuple[str, ...]
    inputs: tuple[str, ...]
    is_trained: bool = False


def make_inputs(root: Path, is_trained: bool = False) -> Path:
    """Write the inputs, once; return their folder.

    Args:
        root: where `inputs` goes.
        is_trained: train a tiny network and a sweep as well: a minute.
    """
    inputs = root / "inputs"
    if not inputs.is_dir():
        scratch = root / "inputs.unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        _make(scratch)
        scratch.rename(inputs)
    for seed, name in enumerate(("run", "other")):
        if is_trained and not (inputs / name).is_dir():
            run("train", "smp", "--config", inputs / "tiny.yaml", "--data", inputs / "hands",
                "--split", inputs / "split.json", "--out", inputs / name,
                f"seed={seed}")  # fmt: skip
    if is_trained and not (inputs / "exported").is_dir():
        run("export", inputs / "run", "--out", inputs / "exported")
    return inputs


def _make(inputs: Path) -> None:
    hands = inputs / "hands"
    run("phantom", hands, "--people", 3, "--test-people", 1, "--size", SIDE)
    run("split", hands, "--folds", 3, "--out", inputs / "split.json")
    for name, (data_format, layout) in DATA_SETS.items():
        extra = ("--layout", layout) if layout else ()
        run("convert", hands, "--to", data_format, "--out", inputs / name, *extra)
    samples = read(hands, labels=LabelSpace.load(LABELS))
    for name, write in OTHERS.items():
        (inputs / name).mkdir()
        write(samples, inputs / name, LabelSpace.load(LABELS))
    digest = Split.load(inputs / "split.json").digest
    for store, name in (("a", "net512a"), ("b", "boxes")):
        _write_store(inputs / store, [material.source(name, s) for s in samples], digest)
    run("fuse", inputs / "a", "--method", "mean", "--out", inputs / "c.csv")
    run("fit", inputs / "a", inputs / "b", "--data", hands, "--out", inputs / "fusion.yaml")
    (inputs / "edits.yaml").write_text(EDITS.format(key=samples[0].key))
    (inputs / "tiny.yaml").write_text(TINY)
    (inputs / "sweep.yaml").write_text(SWEEP)
    (inputs / "recipe.yaml").write_text(RECIPE)
    begun = inputs / "begun"
    (begun / "steps").mkdir(parents=True)
    write_provenance(begun, ["zoo", "run"], kind="pipeline")
    places = RECIPE.replace("tiny.yaml", "../tiny.yaml")
    (begun / "recipe.yaml").write_text(places)
    (begun / "steps" / "split.json").write_text(json.dumps(BEGUN))
    # What `zoo status` reads of it.
    shutil.copytree(begun, inputs / "stepped")
    (inputs / "stepped" / "recipe.yaml").unlink()


def _write_store(out: Path, predictions: Sequence[Prediction], digest: str) -> None:
    labels = LabelSpace.load(LABELS)
    images = {p.key: (*p.size_hw, f"{Path(p.key).name}.png") for p in predictions}
    manifest = Manifest(
        predictions[0].kind, LABELS, labels.names, images, split=digest, subset="val", space=labels
    )
    with StoreWriter(out, manifest) as writer:
        for prediction in predictions:
            writer.append(prediction)


def copy_inputs(command: Command, inputs: Path, work: Path) -> None:
    """Make the folder that a command is given in: what it reads, nothing else, no results."""
    for name in ("inputs", "out", "tmp"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    for name in command.inputs:
        source, place = inputs / name, work / "inputs" / name
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)


def run(*words: object) -> None:
    """Run a command in this process; it has to succeed."""
    unheard = io.StringIO()
    try:
        with redirect_stdout(unheard), redirect_stderr(unheard):
            main([str(word) for word in words])
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{words}: exit code {ended.code}") from None


def commands() -> Iterator[Command]:
    """Yield every command, on every sort of input."""
    for name in ("hands", *DATA_SETS, *OTHERS):
        target = "datumaro" if name in ("hands", "coco", "yolo") else "coco"
        yield _on("convert", name, "--to", target, "--out", "out/data")
    for name in ("hands", "packed", "parquet"):
        yield _on("split", name, "--folds", "2", "--out", "out/split.json")
    for name in ("hands", "coco", "yolo"):
        yield _on("audit", name, "--describe", "--out", "out/audit")
    extra = ("--split", "inputs/split.json", "--edits", "inputs/edits.yaml")
    yield _on("convert", "hands", "--to", "masks", "--out", "out/data", *extra, title="chosen")
    crops = ("--crop", "carpals", "--boxes", "inputs/a", "--out", "out/data")
    yield _on("convert", "hands", "--to", "coco", *crops, title="crops")
    data = ("--data", "inputs/hands")
    two = ("a", "b")
    yield _on("fit", *two, *data, "--out", "out/fusion.yaml")
    config = ("--config", "inputs/fusion.yaml")
    yield _on("fuse", *two, *config, "--out", "out/s.csv")
    yield _on("fuse", "a", "c.csv", "--method", "vote", "--format", "store", "--out", "out/store")
    written = ("--format", "coco", "--out", "out/coco")
    yield _on("fuse", *two, "--method", "mean", *data, *written, title="data set")
    yield _on("check", "c.csv", *data, "--subset", "train")
    yield _on("evaluate", "a", *data, "--json", "out/scores.json")
    yield _on("evaluate", "c.csv", *data, "--subset", "train", "--json", "out/scores.json")
    yield _on("evaluate", "a", *data, "--edits", "inputs/coco", title="corrected")
    drafts = ("--to", "coco", "--top", "2", "--out", "out/review")
    yield _on("review", *two, *data, *config, *drafts)
    yield _on("compare", "a", "c.csv", *data, "--out", "out/compare")
    yield _on("report", *two, *data, *config, "--out", "out/report")
    recipe = ("run", "inputs/recipe.yaml", "--dry-run", "--out", "out/run")
    yield Command("run recipe", recipe, ("recipe.yaml", "tiny.yaml"))
    begun = ("run", "inputs/begun", "--dry-run")
    yield Command("run begun", begun, ("begun", "tiny.yaml"))
    yield Command("status", ("status", "inputs/stepped"), ("stepped",))
    yield Command("phantom", ("phantom", "out/hands", "--people", "3", "--size", "256"), ())
    yield Command("list configs", ("list", "configs"), ())
    yield from _of_networks(data)


def _of_networks(data: tuple[str, ...]) -> Iterator[Command]:
    config, split = ("--config", "inputs/tiny.yaml"), ("--split", "inputs/split.json")
    read = ("hands", "tiny.yaml", "split.json")
    preview = ("augment", "smp", *config, *data, "--preview", "out/preview.png")
    yield Command("augment", preview, read[:2], True)
    copies = ("augment", "smp", *config, *data, "--to", "masks", "--out", "out/data")
    yield Command("augment copies", copies, read[:2], True)
    train = ("train", "smp", *config, *data, *split, "--out", "out/run")
    yield Command("train", train, read, True)
    folds = (*train, "--folds", "all")
    yield Command("train folds", folds, read, True)
    store = ("predict", "inputs/run", *data, "--out", "out/store")
    yield Command("predict", store, ("hands", "run"), True)
    export = ("export", "inputs/run", "--out", "out/exported")
    yield Command("export", export, ("run",), True)
    exported = ("predict", "inputs/exported", *data, "--subset", "all", "--out", "out/store")
    yield Command("predict exported", exported, ("hands", "exported"), True)
    soup = ("soup", "inputs/run", "inputs/other", *data, "--uniform", "--out", "out/soup")
    yield Command("soup", soup, ("hands", "run", "other"), True)
    yield Command("runs", ("runs", "inputs/run", "--csv", "out/runs.csv"), ("run",), True)
    sweep = ("sweep", "inputs/sweep.yaml", *data, *split, "--out", "out/sweep")
    yield Command("sweep", sweep, (*read, "sweep.yaml"), True)


def _on(command: str, *words: str, title: str = "") -> Command:
    """Return a command whose first words are inputs; those that options name are read as well."""
    count = next(n for n, word in enumerate(words) if word.startswith("--"))
    inputs = words[:count]
    named = [word.removeprefix(IN) for word in words[count:] if word.startswith(IN)]
    placed = (*(f"{IN}{name}" for name in inputs), *words[count:])
    name = " ".join((command, *inputs, *((title,) if title else ())))
    return Command(name, (command, *placed), (*inputs, *named))
