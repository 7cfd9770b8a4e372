"""The whole way on synthetic radiographs, by the same commands a user would type."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from converters.masks import CropMask
from converters.types import LabelSpace
from fusion import FUSIONS, Hybrid, Rule
from fusion.fit import ClassReport
from fusion.metrics import ImageScore, Scores, score_image
from fusion.store import PredictionStore, read_together
from fusion.types import Prediction
from zoo.evaluate import annotated, binary_masks, truth_masks
from zoo.fuse import open_stores, order_sources, read_rule

FAMILIES = ("smp", "segformer", "yolo")
PEOPLE, TEST_PEOPLE, SIZE, FOLDS = 30, 12, 512, 3
PRETRAINED = (
    "The networks start from small checkpoints that were trained on other phantoms "
    "(configs/*/demo.safetensors; recipe: tools/pretrain_demo.py) and are fine-tuned here."
)


@dataclass(frozen=True)
class Step:
    """One command of the demo and how it went."""

    command: tuple[str, ...]
    seconds: float


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
            yield ("predict", str(runs / family), *chosen, *_held_out(family, subset, split))
    val, test = ([str(out / s / f) for f in FAMILIES] for s in ("val", "test"))
    rule, submission = str(out / "fusion.yaml"), str(out / "submission.csv")
    yield ("fit", *val, "--data", data, "--method", "hybrid", "--out", rule)
    yield ("fuse", *test, "--config", rule, "--out", submission)
    yield ("check", submission, "--data", data)
    yield ("evaluate", submission, "--data", data, "--json", str(out / "scores.json"))


def _held_out(family: str, subset: str, split: str) -> tuple[str, ...]:
    return ("--split", split, "--fold", "0") if subset == "val" and family != "smp" else ()


def run_demo(out: Path, seed: int) -> str:
    """Run the demo into a folder and return its table as text.

    Raises:
        ValueError: a command failed; its own message has been shown before.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(PRETRAINED)
    steps = [_run(command) for command in commands(out, seed)]
    return summarise(out, seed, steps, started)


def _run(command: tuple[str, ...]) -> Step:
    typer.echo(f"\n$ zoo {shlex.join(command)}")
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "zoo", *command], check=False)
    if done.returncode:
        failed = f"zoo {command[0]}"
        raise ValueError(f"demo: '{failed}' ended with code {done.returncode}; see its message above")
    return Step(command, time.monotonic() - started)
