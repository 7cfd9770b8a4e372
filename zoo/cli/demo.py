"""The whole way on synthetic radiographs: a shipped recipe, and a page of its own."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import typer

from configs import DEFAULT_LABELS
from converters.files.provenance import atomic_write_text
from zoo.pipeline.command import carry_out
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.recipe import Phantom, Recipe
from zoo.progress import bar
from zoo.report.fusion.command import table
from zoo.report.fusion.report import FusionReport, choose_rules, open_sources, report_fusion
from zoo.source import DataSource

RECIPE = "demo"
PRETRAINED = (
    "The networks start from small checkpoints that were trained on other phantoms "
    "(configs/*/demo.safetensors; recipe: tools/pretrain_demo.py) and are fine-tuned here."
)


def run_demo(out: Path, seed: int, recipe: Recipe | None = None) -> str:
    """Run the demo into a folder and return its table as text.

    Args:
        out: the folder.
        seed: of phantoms, folds and training.
        recipe: other steps than the shipped ones.

    Raises:
        ValueError: a step failed; says which, and where its own words are.
    """
    started = time.monotonic()
    typer.echo(PRETRAINED)
    chosen = (recipe or Recipe.load(RECIPE)).model_copy(update={"seed": seed})
    pipeline = Pipeline.open(chosen, out)
    carry_out(pipeline, ["zoo", "demo"], say=typer.echo)
    found = _report(pipeline, started)
    record = {entry.name: entry.scores.record() for entry in found.entries}
    atomic_write_text(out / "comparison.json", json.dumps(record, indent=1) + "\n")
    spent = f"{_minutes(started):.1f} minutes, {_peak_gb():.1f} GB"
    results = [f"{out / name}" for name in ("submission.csv", "fusion.yaml", "report.html")]
    return "\n".join([table(found.entries), spent, *results])


def _report(pipeline: Pipeline, started: float) -> FusionReport:
    """Write the page of the test images: sources, both plain rules, and the fitted hybrid."""
    out, recipe = pipeline.out, pipeline.recipe
    paths = [out / "test" / name for name in recipe.models]
    sources, samples = open_sources(paths, DataSource.open(out / "data"), DEFAULT_LABELS)
    hands = recipe.phantom or Phantom()
    told = f"{hands.test_people * 2} test, {hands.people * 2} train, {hands.size} x {hands.size}"
    facts = [
        ("Data", f"{told}, synthetic"),
        ("Seed", str(recipe.seed)),
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


def _minutes(started: float) -> float:
    return (time.monotonic() - started) / 60


def _peak_gb() -> float:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)
    return max(resource.getrusage(one).ru_maxrss for one in who) * unit / 1e9
