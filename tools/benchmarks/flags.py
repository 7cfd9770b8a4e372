"""How often bones of sound hands are flagged, and which planted faults of a prediction are found.

The rule learns how bones lie to each other from one phantom, and looks at hands of others, whose
seeds it has not seen.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from converters.masks import CropMask, union
from converters.types import LabelSpace
from fusion.checks.adjacency import Adjacency
from fusion.metrics.annotated import truth_masks
from zoo.source import DataSource

LABELS = "hand_bones"
Masks = Mapping[str, CropMask]
Fault = tuple[dict[str, CropMask], set[str], str]
"""Masks with a fault, the bones that it is about, and the kind of flag that it deserves."""


def run(
    people: Annotated[int, typer.Option(help="People to learn from, and of each other seed.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the phantom to learn from.")] = 100,
    others: Annotated[str, typer.Option(help="Seeds of the hands to look at.")] = "101,102",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 512,
    jobs: Annotated[int, typer.Option(help="Processes that draw.")] = 2,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure the flags of `zoo fuse` on sound hands and on planted faults."""
    labels = LabelSpace.load(LABELS)
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        known = _hands(root, people, size, seed, jobs)
        adjacency = Adjacency.learn(known, labels)
        planted, found, false = Counter[str](), Counter[str](), Counter[str]()
        hands = 0
        for number, other in enumerate(others.split(",")):
            rng = np.random.default_rng(number)
            for masks, _ in _hands(root, people, size, int(other), jobs):
                hands += 1
                false.update(flag.kind for flag in adjacency.check(masks))
                for name, fault in FAULTS.items():
                    wrong, about, kind = fault(masks, labels, rng)
                    flags = adjacency.check(wrong)
                    planted[name] += 1
                    found[name] += any(f.label in about and f.kind == kind for f in flags)
        print(
            f"learned from {len(known)} hands; {hands} sound hands: {false.total()} flags", *false
        )
        print("\n| planted | hands | found |\n|---|---|---|")
        for name, count in planted.items():
            print(f"| {name} | {count} | {found[name]} ({found[name] / count:.1%}) |")


def _hands(root: Path, people: int, size: int, seed: int, jobs: int) -> list[tuple[Masks, str]]:
    out = root / f"hands-{size}-{people}-{seed}"
    if not out.is_dir():
        counts = ["--people", str(people), "--test-people", "1", "--size", str(size)]
        command = ["phantom", str(out), *counts, "--seed", str(seed), "--jobs", str(jobs)]
        subprocess.run([sys.executable, "-m", "zoo", *command], check=True)
    labels = LabelSpace.load(LABELS)
    samples = DataSource.open(out).annotated(labels, "train")
    return [(truth_masks(sample, labels), sample.patient) for sample in samples.values()]


def _exchanged(
    choose: Callable[[LabelSpace], Iterator[tuple[str, str]]],
) -> Callable[[Masks, LabelSpace, np.random.Generator], Fault]:
    def plant(masks: Masks, labels: LabelSpace, rng: np.random.Generator) -> Fault:
        pairs = list(choose(labels))
        a, b = pairs[rng.integers(len(pairs))]
        return {**masks, a: masks[b], b: masks[a]}, {a, b}, "swapped"

    return plant


def _along_a_finger(labels: LabelSpace) -> Iterator[tuple[str, str]]:
    fingers = labels.groups["fingers"]
    yield from pairwise(fingers)


def _across_fingers(labels: LabelSpace) -> Iterator[tuple[str, str]]:
    # The thumb has three bones, each other finger four.
    fingers = labels.groups["fingers"][3:]
    yield from zip(fingers, fingers[4:], strict=False)


def _carpals(labels: LabelSpace) -> Iterator[tuple[str, str]]:
    carpals = labels.groups["carpals"]
    yield from ((a, b) for i, a in enumerate(carpals) for b in carpals[i + 1 :])


def _forearm(labels: LabelSpace) -> Iterator[tuple[str, str]]:
    yield ("Radius", "Ulna")


def _displaced(masks: Masks, labels: LabelSpace, rng: np.random.Generator) -> Fault:
    name = str(rng.choice(labels.names))
    mask = masks[name]
    away = 1.5 * np.sqrt(mask.area) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    moved = CropMask(mask.x + round(away.real), mask.y + round(away.imag), mask.pixels)
    return {**masks, name: moved}, {name}, "displaced"


def _torn(masks: Masks, labels: LabelSpace, rng: np.random.Generator) -> Fault:
    name, other = map(str, rng.choice(labels.names, 2, replace=False))
    piece, far = masks[other], masks[name]
    side = max(3, round(0.3 * np.sqrt(far.area)))
    blob = np.ones((side, side), np.uint8)
    stray = CropMask(piece.x, piece.y, blob)
    return {**masks, name: union(far, stray)}, {name}, "fragment"


def _missing(masks: Masks, labels: LabelSpace, rng: np.random.Generator) -> Fault:
    name = str(rng.choice(labels.names))
    return {n: m for n, m in masks.items() if n != name}, {name}, "missing"


FAULTS = {
    "neighbours of a finger exchanged": _exchanged(_along_a_finger),
    "same bone of two fingers exchanged": _exchanged(_across_fingers),
    "two carpals exchanged": _exchanged(_carpals),
    "radius and ulna exchanged": _exchanged(_forearm),
    "a bone 1.5 widths away": _displaced,
    "a stray part at another bone": _torn,
    "a bone missing": _missing,
}
