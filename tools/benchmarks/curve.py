"""How many held-out images a fit needs: rules fitted on some patients, judged on all others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from converters.types import LabelSpace, Sample
from fusion import Rule
from fusion.fit import FITS
from fusion.fit.base import Fitting
from fusion.fit.counted import Counted, CountedImage, Seen
from fusion.metrics.annotated import measure_prediction
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import compare
from fusion.rules.pooling import Mean
from zoo.progress import bar
from zoo.results.held_out import HeldOut
from zoo.source import DataSource

# Patients that are always left to judge on.
_LEFT = 3


def run(
    data: Annotated[Path, typer.Argument(help="The data set.")],
    stores: Annotated[list[Path], typer.Argument(help="Out-of-fold predictions, one a model.")],
    split: Annotated[Path, typer.Option(help="The folds that they were made with.")],
    method: Annotated[str, typer.Option(help="The rule that is fitted.")] = "hybrid",
    draws: Annotated[int, typer.Option(help="Choices of patients for each number.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the choices.")] = 0,
) -> None:
    """Fit on 4, 8, 16, ... patients and print what that gains over the mean on the others."""
    source = DataSource.open(data).of_split(split)
    fitting = FITS[method]()
    with bar("counting") as report:
        held_out = HeldOut.open(stores, source, None)
        labels = held_out.labels
        seen = list(held_out.map(partial(_count, fitting, labels), report))
    samples = list(held_out.samples.values())
    patients = [patient for (_, _, patient), _ in seen]
    everyone = sorted(set(patients))
    plain = [_score(Mean(), *pair, labels) for pair in zip(seen, samples, strict=True)]
    random = np.random.default_rng(seed)
    print(f"| patients | images | {method} - mean, Dice | better in |")
    print("|---|---|---|---|")
    number = 4
    while number <= len(everyone) - _LEFT:
        gains, images = [], []
        for _ in range(draws):
            chosen = set(random.choice(everyone, number, replace=False).tolist())
            learnt = [i for i, patient in enumerate(patients) if patient in chosen]
            rest = [i for i, patient in enumerate(patients) if patient not in chosen]
            rule = _fit(fitting, [seen[i][1] for i in learnt], held_out)
            scores = [_score(rule, seen[i], samples[i], labels) for i in rest]
            found = compare(
                Scores(labels, scores), Scores(labels, [plain[i] for i in rest]), "dice"
            ).overall
            if found is not None:
                gains.append(found.mean)
            images.append(len(learnt))
        spread = f"{np.mean(gains):+.4f} ({min(gains):+.4f} to {max(gains):+.4f})"
        better = f"{sum(gain > 0 for gain in gains)} of {len(gains)} draws"
        print(f"| {number} | {np.mean(images):.0f} | {spread} | {better} |", flush=True)
        number *= 2


def _count(fitting: Fitting, labels: LabelSpace, seen: Seen) -> tuple[Seen, CountedImage]:
    return seen, fitting.count(seen, labels)


def _fit(fitting: Fitting, counted: Sequence[CountedImage], held_out: HeldOut) -> Rule:
    together = Counted.of(counted, held_out.labels, len(held_out.names))
    return fitting.solve(together, held_out.names, held_out.labels).rule


def _score(
    rule: Rule, seen: tuple[Seen, CountedImage], sample: Sample, labels: LabelSpace
) -> ImageScore:
    prediction = rule(seen[0][0], labels)
    return measure_prediction(prediction, sample, labels, labels, ("dice",))
