"""Real images: what families reach by themselves and fused, on images that they have not seen.

A data set in any readable format is split by patient; every model is cross-validated, so that each
image is predicted by networks that have not seen it; and each fused answer of an image comes from
rules that were fitted without its patient. Nothing is chosen by the figures that are reported.
"""

import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import nnunet as rival
from converters.splits.split import Split
from converters.types import LabelSpace
from fusion import Rule
from fusion.binary import binary_masks
from fusion.fit import FITS
from fusion.fit.counted import Seen
from fusion.metrics.annotated import measure_masks
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import (
    SHARED_MEASURES,
    Summary,
    compare,
    count_people,
    describe_overlapping,
    summarize,
)
from fusion.rules.pooling import Mean
from fusion.rules.staple import Staple
from fusion.rules.voting import Vote
from fusion.sources.store import PredictionStore
from zoo.machine.facts import count_cores
from zoo.progress import bar
from zoo.results.fit import solve
from zoo.results.held_out import HeldOut
from zoo.source import DataSource

MEASURES = ("dice", "iou", "nsd")
USUAL = (
    "unet: smp --config laptop",
    "segformer: segformer --config laptop",
    "yolo: yolo --config laptop",
)


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        name: of the model or the rule.
        minutes: of a processor core, for training and prediction in all folds; None for a rule.
        scores: of all images.
        is_fused: whether it is one of the models that the rules fuse.
    """

    name: str
    minutes: float | None
    scores: Scores
    is_fused: bool = False


def run(
    data: Annotated[Path, typer.Argument(help="A data set in any readable format.")],
    out: Annotated[
        Path, typer.Option(help="Folder of runs and stores; started again, it goes on.")
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="'NAME: FAMILY ...' as after `zoo train`; several.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Classes, as `zoo split --labels` takes them.")] = "",
    group_by: Annotated[str, typer.Option(help="As `zoo split --group-by` takes it.")] = "",
    folds: Annotated[int, typer.Option(help="Folds by patient.")] = 3,
    strategy: Annotated[str, typer.Option(help="As `zoo split --strategy` takes it.")] = "group",
    seed: Annotated[int, typer.Option(help="Of folds and of training.")] = 0,
    nnunet: Annotated[
        Path | None,
        typer.Option(help="Python of an environment with nnunetv2, to be measured beside."),
    ] = None,
    nnunet_minutes: Annotated[
        float, typer.Option(help="Of a core, for its steps in a fold; 0: as the slowest model's.")
    ] = 0.0,
    nnunet_size: Annotated[int, typer.Option(help="Longer side of its images.")] = 256,
    nnunet_batch: Annotated[int, typer.Option(help="Its images a step.")] = 5,
) -> None:
    """Cross-validate models on real images, fuse what they say of held-out images, and compare."""
    models = dict(parse_model(line) for line in model or USUAL)
    out.mkdir(parents=True, exist_ok=True)
    split = out / "split.json"
    if not split.is_file():
        wanted = [*(["--labels", labels] if labels else [])]
        wanted += ["--group-by", group_by] if group_by else []
        wanted += ["--folds", str(folds), "--strategy", strategy, "--seed", str(seed)]
        zoo("split", data, "--out", split, *wanted)
    minutes = {name: _train(name, words, data, out, split, seed) for name, words in models.items()}
    source = DataSource.open(data).of_split(split)
    entries = list(_measure(source, out, minutes))
    if nnunet:
        each = nnunet_minutes or max(minutes.values()) / len(Split.load(split).folds)
        wanted = ["--labels", labels] if labels else []
        convert = [sys.executable, "-m", "zoo", "convert", str(data), "--split", str(split)]
        rival.write_raw([*convert, *wanted], out / "nnunet", nnunet_size)
        took = rival.cross_validate(nnunet, out / "nnunet", each, nnunet_batch, seed)
        like = PredictionStore(out / "val" / next(iter(minutes))).manifest
        rival.write_store(out / "nnunet", like, out / "nnunet" / rival.NAME)
        entries.append(_measure_alone(source, out / "nnunet" / rival.NAME, took))
    text = describe(data, entries, seed, Split.load(split), models)
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def parse_model(line: str) -> tuple[str, list[str]]:
    """Return the name and the words after `zoo train` of 'NAME: FAMILY ...'."""
    name, colon, words = line.partition(":")
    if not colon or not words.strip():
        raise typer.BadParameter(f"--model '{line}': expected 'NAME: FAMILY ...'")
    return name.strip(), shlex.split(words)


def zoo(*words: object) -> None:
    """Run a command of ours; raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "zoo", *map(str, words)]
    print("$", shlex.join(command[2:]), flush=True)
    subprocess.run(command, check=True)


def _train(name: str, words: Sequence[str], data: Path, out: Path, split: Path, seed: int) -> float:
    """Cross-validate a model; return the minutes of a core that it took, now or before."""
    done = out / f"{name}.json"
    if not done.is_file():
        start, used = time.monotonic(), _used()
        family, *further = words
        folder, store = out / "runs" / name, out / "val" / name
        places = ("--data", data, "--split", split, "--folds", "all", "--out", folder)
        zoo("train", family, *further, *places, "--oof", store, f"seed={seed}")
        took = (time.monotonic() - start) / 60
        record: dict[str, Any] = {"minutes": took, "core_minutes": (_used() - used) / 60}
        record["seconds_of_epochs"] = list(_seconds(folder))
        done.write_text(json.dumps(record), encoding="utf-8")
    return float(json.loads(done.read_text(encoding="utf-8"))["core_minutes"])


def _used() -> float:
    """Return the seconds of processor cores that the commands so far have used."""
    found = os.times()
    return found.children_user + found.children_system


def _seconds(folder: Path) -> Iterator[float]:
    for file in sorted(folder.glob("fold-*/metrics.csv")):
        with file.open(newline="", encoding="utf-8") as text:
            yield float(list(csv.DictReader(text))[-1]["seconds"])


def _measure_alone(source: DataSource, store: Path, minutes: float) -> Entry:
    """Return what a store of held-out images is worth that no rule fuses."""
    with bar(f"measuring {store.name}") as report:
        held_out = HeldOut.open([store], source, None, (store.name,))
        samples, labels = held_out.samples.values(), held_out.labels
        found = [
            measure_masks(binary_masks(seen[0], labels), sample, labels, labels, MEASURES)
            for sample, (seen, _, _) in zip(samples, held_out.map(same, report), strict=True)
        ]
    return Entry(store.name, minutes, Scores(labels, found))


def _measure(source: DataSource, out: Path, minutes: Mapping[str, float]) -> Iterator[Entry]:
    """Yield the models, the plain rules, and the fitted one, on the same images."""
    with bar("measuring") as report:
        held_out = HeldOut.open([out / "val" / name for name in minutes], source, None)
        fitted = solve(FITS["hybrid"](), held_out, report).held_out
        labels, count = held_out.labels, len(minutes)
        plain: dict[str, Rule] = {"mean": Mean(), "vote": Vote(), "STAPLE": Staple()}
        scores: dict[str, list[ImageScore]] = {name: [] for name in (*minutes, *plain, "hybrid")}
        samples = iter(held_out.samples.values())
        for seen in held_out.map(same, report):
            sample, (predictions, _, patient) = next(samples), seen
            alone = dict(zip(held_out.names, predictions, strict=True))
            rules = {**plain, "hybrid": fitted[patient]} if count > 1 else {}
            found = alone | {name: rule(predictions, labels) for name, rule in rules.items()}
            for name, prediction in found.items():
                masks = binary_masks(prediction, labels)
                scores[name].append(measure_masks(masks, sample, labels, labels, MEASURES))
    for name, images in scores.items():
        if images:
            yield Entry(name, minutes.get(name), Scores(labels, images), name in minutes)


def same(seen: Seen) -> Seen:
    """Return an image as it was seen."""
    return seen


# --- the table


def describe(
    data: Path,
    entries: Sequence[Entry],
    seed: int,
    split: Split,
    models: Mapping[str, Sequence[str]],
) -> str:
    """Return the table and all that is needed to get it again, as Markdown."""
    labels = entries[0].scores.labels
    lines = [
        f"## {data.name}: {count_people(entries[0].scores)}, {len(labels)} classes",
        "",
        f"{len(split.folds)} folds ({split.strategy}), seed {seed}; {describe_processor()}. Means "
        "over images, then classes; in brackets 95 % over patients.",
        "",
        "| | core minutes | Dice | Jaccard | surface Dice, 2 px | shared pixels | shared, pooled |",
        "|---|---|---|---|---|---|---|",
        *(_row(entry) for entry in entries),
        "",
        describe_overlapping(entries[0].scores),
        "",
        *_differences(entries),
        "",
        "| Jaccard | " + " | ".join(entry.name for entry in entries) + " |",
        "|---" * (len(entries) + 1) + "|",
        *_per_class(entries, labels),
        "",
        *(f"- {name}: `zoo train {shlex.join(words)}`" for name, words in models.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(entry: Entry) -> str:
    cells = [entry.name, "" if entry.minutes is None else f"{entry.minutes:.1f}"]
    for measure in (*MEASURES, *SHARED_MEASURES):
        cells.append(_cell(summarize(entry.scores, measure)))
    return "| " + " | ".join(cells) + " |"


def _cell(summary: Summary) -> str:
    found = summary.overall
    if found is None:
        return "-"
    span = f" [{found.interval[0]:.4f}, {found.interval[1]:.4f}]" if found.interval else ""
    return f"{found.mean:.4f}{span}"


def _differences(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what the fitted rule is above the mean, the best model and a rival, image by image."""
    by_name = {entry.name: entry.scores for entry in entries}
    if "hybrid" not in by_name:
        return
    best = max((e for e in entries if e.is_fused), key=lambda e: e.scores.mean())
    rivals = [e.name for e in entries if e.minutes is not None and not e.is_fused]
    for other in ("mean", best.name, *rivals):
        for measure in ("dice", "iou"):
            found = compare(by_name["hybrid"], by_name[other], measure).overall
            if found is not None:
                yield f"- hybrid - {other}, {'Dice' if measure == 'dice' else 'Jaccard'}: {found}"


def _per_class(entries: Sequence[Entry], labels: LabelSpace) -> Iterator[str]:
    columns = [summarize(entry.scores, "iou").classes for entry in entries]
    for name in labels.names:
        found: list[Any] = [column.get(name) for column in columns]
        cells = ("-" if value is None else f"{value.mean:.4f}" for value in found)
        yield f"| {name} | " + " | ".join(cells) + " |"


def describe_processor() -> str:
    """Say what this computes on."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
    return f"{count_cores()} cores of {name}"
