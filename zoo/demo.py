"""The whole way on synthetic radiographs, by the same commands a user would type."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from converters.files import atomic_write_text
from converters.masks import CropMask
from converters.types import LabelSpace, Sample
from fusion import Mean, Rule, Vote
from fusion.metrics import ImageScore, Scores, score_image
from fusion.rule_file import read_rule
from fusion.store import PredictionStore, read_together
from fusion.types import Prediction
from zoo.evaluate import binary_masks, store_labels, truth_masks
from zoo.fuse import open_stores, order_sources
from zoo.report import Case, Entry, worst_and_median, write_report
from zoo.source import DataSource

FAMILIES = ("smp", "segformer", "yolo")
PEOPLE, TEST_PEOPLE, SIZE, FOLDS = 30, 12, 512, 3
PRETRAINED = (
    "The networks start from small checkpoints that were trained on other phantoms "
    "(configs/*/demo.safetensors; recipe: tools/pretrain_demo.py) and are fine-tuned here."
)


def commands(out: Path, seed: int) -> Iterator[tuple[str, ...]]:
    """Yield the demo's commands, as a user would type them after `zoo`."""
    data, split, runs = str(out / "data"), str(out / "split.json"), out / "runs"
    sizes = ("--people", str(PEOPLE), "--test-people", str(TEST_PEOPLE), "--size", str(SIZE))
    yield ("phantom", data, *sizes, "--seed", str(seed), "--jobs", str(os.cpu_count() or 1))
    yield ("split", data, "--out", split, "--folds", str(FOLDS), "--seed", str(seed))
    fold = ("--split", split, "--fold", "0")
    for form in ("masks", "segformer", "yolo"):
        yield ("convert", data, "--to", form, "--out", str(out / form), *fold)
    for family in FAMILIES:
        # SegFormer and YOLO learn from their own format, which has the split inside.
        source = ("--data", data, *fold) if family == "smp" else ("--data", str(out / family))
        run = ("--config", "demo", "--out", str(runs / family))
        yield ("train", family, *source, *run, f"seed={seed}")
    for subset in ("val", "test"):
        for family in FAMILIES:
            store = str(out / subset / family)
            chosen = ("--data", data, "--subset", subset, "--out", store)
            yield ("predict", str(runs / family), *chosen)
    val, test = ([str(out / s / f) for f in FAMILIES] for s in ("val", "test"))
    rule, submission = str(out / "fusion.yaml"), str(out / "submission.csv")
    yield ("fit", *val, "--data", data, "--method", "hybrid", "--out", rule)
    yield ("fuse", *test, "--config", rule, "--out", submission)
    yield ("check", submission, "--data", data)
    yield ("evaluate", submission, "--data", data, "--json", str(out / "scores.json"))


def run_demo(out: Path, seed: int) -> str:
    """Run the demo into a folder and return its table as text.

    Raises:
        ValueError: a command failed; its own message has been shown before.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(PRETRAINED)
    for command in commands(out, seed):
        _run(command)
    stores = open_stores([out / "test" / family for family in FAMILIES])
    labels = store_labels(stores[0])
    compared, samples = rules(out / "fusion.yaml"), DataSource.open(out / "data").annotated(labels)
    entries = score_all(stores, compared, samples, labels)
    atomic_write_text(
        out / "comparison.json",
        json.dumps({e.name: e.scores.record() for e in entries}, indent=1) + "\n",
    )
    minutes = (time.monotonic() - started) / 60
    peak_gb = max(_peak_gb(resource.RUSAGE_CHILDREN), _peak_gb(resource.RUSAGE_SELF))
    facts = [
        ("Images", f"{TEST_PEOPLE * 2} test, {PEOPLE * 2} train, {SIZE} x {SIZE}, synthetic"),
        ("Seed", str(seed)),
        ("Training", PRETRAINED),
        ("Time", f"{minutes:.1f} minutes on {os.cpu_count()} cores"),
        ("Largest process", f"{peak_gb:.1f} GB"),
    ]
    write_report(
        out / "report.html",
        title="Hand bones: three families, one fusion",
        entries=entries,
        cases=_cases(entries, stores, compared, samples, labels),
        labels=labels,
        facts=facts,
    )
    return "\n".join([table(entries), f"{minutes:.1f} minutes, {peak_gb:.1f} GB", *_results(out)])


def _run(command: tuple[str, ...]) -> None:
    typer.echo(f"\n$ zoo {shlex.join(command)}")
    done = subprocess.run([sys.executable, "-m", "zoo", *command], check=False)
    if done.returncode:
        failed = f"'zoo {command[0]}' ended with code {done.returncode}"
        raise ValueError(f"demo: {failed}; see its message above")


def _results(out: Path) -> list[str]:
    return [f"{out / name}" for name in ("submission.csv", "fusion.yaml", "report.html")]


def rules(fitted: Path) -> dict[str, Rule]:
    """Return the rules that the demo compares: both plain ones, and the fitted hybrid."""
    return {"mean": Mean(), "vote": Vote(), "hybrid": read_rule(fitted)}


def score_all(
    stores: Sequence[PredictionStore],
    compared: Mapping[str, Rule],
    samples: Mapping[str, Sample],
    labels: LabelSpace,
) -> list[Entry]:
    """Score every source alone and every rule, in one pass over the stores."""
    scores: dict[str, list[ImageScore]] = {n: [] for n in [*(s.name for s in stores), *compared]}
    for predictions in read_together(stores):
        key = predictions[0].key
        truth = truth_masks(samples[key])
        for name, masks in all_masks(predictions, stores, compared, labels).items():
            scores[name].append(score_image(key, masks, truth, labels))
    sources = {store.name for store in stores}
    return [
        Entry(name, "source" if name in sources else "rule", Scores(labels, found))
        for name, found in scores.items()
    ]


def all_masks(
    predictions: Sequence[Prediction],
    stores: Sequence[PredictionStore],
    compared: Mapping[str, Rule],
    labels: LabelSpace,
) -> dict[str, dict[str, CropMask]]:
    """Return one image's masks by every source alone and by every rule."""
    named = {s.name: p for s, p in zip(stores, predictions, strict=True)}
    found = {name: binary_masks(p, labels) for name, p in named.items()}
    for name, rule in compared.items():
        ordered = [named[s.name] for s in order_sources(stores, rule)]
        found[name] = binary_masks(rule(ordered, labels), labels)
    return found


def _cases(
    entries: Sequence[Entry],
    stores: Sequence[PredictionStore],
    compared: Mapping[str, Rule],
    samples: Mapping[str, Sample],
    labels: LabelSpace,
) -> list[Case]:
    """The hybrid's worst and median wrist, with everybody's masks."""
    hybrid = next(entry for entry in entries if entry.name == "hybrid")
    keys = worst_and_median(hybrid.scores, "carpals")
    found = {}
    for predictions in read_together(stores):
        key = predictions[0].key
        if key in keys:
            found[key] = all_masks(predictions, stores, compared, labels)
    titles = ("Worst wrist", "Median wrist")
    note = "by the hybrid's mean Dice of the carpals"
    return [
        Case(title, key, note, samples[key], found[key])
        for title, key in zip(titles, keys, strict=True)
    ]


def table(entries: Sequence[Entry]) -> str:
    """Return the comparison as a table for a terminal."""
    groups = list(entries[0].scores.labels.groups)
    lines = ["  ".join([f"{'Dice':10s}", *(f"{c:>8s}" for c in ["all", *groups, "shared"])])]
    for entry in entries:
        shared = entry.scores.shared()
        values = [entry.scores.mean(), *entry.scores.per_group().values(), shared or 0.0]
        lines.append("  ".join([f"{entry.name:10s}", *(f"{v:8.4f}" for v in values)]))
    return "\n".join(lines)


def _peak_gb(who: int) -> float:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 1e9
