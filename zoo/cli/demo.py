"""The whole way on synthetic radiographs, by the same commands a user would type."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from configs import DEFAULT_LABELS
from converters.files.provenance import atomic_write_text
from zoo.progress import bar
from zoo.report.fusion.command import table
from zoo.report.fusion.report import FusionReport, choose_rules, open_sources, report_fusion
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
    yield ("split", data, "--out", split, "--folds", str(FOLDS), "--seed", str(seed), "--replace")
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
    found = _report(out, seed, started)
    record = {entry.name: entry.scores.record() for entry in found.entries}
    atomic_write_text(out / "comparison.json", json.dumps(record, indent=1) + "\n")
    spent = f"{_minutes(started):.1f} minutes, {_peak_gb():.1f} GB"
    results = [f"{out / name}" for name in ("submission.csv", "fusion.yaml", "report.html")]
    return "\n".join([table(found.entries), spent, *results])


def _report(out: Path, seed: int, started: float) -> FusionReport:
    """Write the page of the test images: sources, both plain rules, and the fitted hybrid."""
    paths = [out / "test" / family for family in FAMILIES]
    sources, samples = open_sources(paths, DataSource.open(out / "data"), DEFAULT_LABELS)
    facts = [
        ("Data", f"{TEST_PEOPLE * 2} test, {PEOPLE * 2} train, {SIZE} x {SIZE}, synthetic"),
        ("Seed", str(seed)),
        ("Training", PRETRAINED),
        ("Time", f"{_minutes(started):.1f} minutes on {os.cpu_count()} cores"),
        ("Largest process", f"{_peak_gb():.1f} GB"),
    ]
    with bar("report") as progress:
        return report_fusion(
            out / "report.html",
            title="Hand bones: three families, one fusion",
            sources=sources,
            rules=choose_rules(sources, out / "fusion.yaml"),
            samples=samples,
            facts=facts,
            report=progress,
        )


def _run(command: tuple[str, ...]) -> None:
    typer.echo(f"\n$ zoo {shlex.join(command)}")
    done = subprocess.run([sys.executable, "-m", "zoo", *command], check=False)
    if done.returncode:
        failed = f"'zoo {command[0]}' ended with code {done.returncode}"
        raise ValueError(f"demo: {failed}; see its message above")


def _minutes(started: float) -> float:
    return (time.monotonic() - started) / 60


def _peak_gb() -> float:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)
    return max(resource.getrusage(one).ru_maxrss for one in who) * unit / 1e9
