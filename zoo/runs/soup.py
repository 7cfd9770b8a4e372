"""Model soups: the mean of several runs' weights, as one run that costs no more than any of them.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022 (arXiv:2203.05482): runs that start from the same
weights and differ in how they go on often lie in one basin, and the mean of their weights lies
deeper in it. Runs that start from different random weights do not; the greedy recipe (algorithm 1)
then keeps the best run alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from converters.files.json_files import load_json
from converters.files.provenance import (
    PROVENANCE,
    atomic_write_text,
    check_place,
    copy_file,
    read_provenance,
    result_folder,
)
from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import score_prediction
from fusion.metrics.scores import Scores
from zoo.config import dump_config
from zoo.contract import PredictOptions
from zoo.progress import Report
from zoo.run_files.checkpoints import (
    BEST,
    FOLDER,
    LAST,
    find_weights,
    read_about,
    read_weights,
    write_weights,
)
from zoo.run_files.licences import FILE as LICENCES
from zoo.run_files.metrics import MetricsFile
from zoo.runs.batch_norms import Norms, Rebuilds, batch_norm_updater, check_norms
from zoo.runs.compatibility import check_alike_runs
from zoo.runs.run import Run, subset_samples
from zoo.source import DataSource

KIND = "soup"
Way = Literal["greedy", "uniform"]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One run's part in a soup.

    Attributes:
        run: its folder.
        alone: its validation Dice.
        together: that of the mean of its weights and of those that were kept before it; None where
            no such mean was scored.
        is_kept: whether it is in the soup.
    """

    run: str
    alone: float
    together: float | None
    is_kept: bool


@dataclass(frozen=True)
class Soup:
    """How a soup came about.

    Attributes:
        way: greedy or uniform.
        norms: where the statistics of batch norms come from: `mean` or `recompute`.
        images: how many held-out images it was scored on.
        dice: the soup's validation Dice.
        steps: the runs, the best one first.
    """

    way: Way
    norms: Norms
    images: int
    dice: float
    steps: tuple[Step, ...]

    def describe(self) -> str:
        """Return a table, a line a run, and the result in words."""
        width = max(len(step.run) for step in self.steps)
        lines = [f"{'run':{width}s}  {'alone':>6s}  {'soup':>6s}"]
        for step in self.steps:
            told = "     -" if step.together is None else f"{step.together:6.4f}"
            verdict = "kept" if step.is_kept else "left out"
            lines.append(f"{step.run:{width}s}  {step.alone:6.4f}  {told}  {verdict}")
        kept = sum(step.is_kept for step in self.steps)
        lines.append(
            f"{self.way} soup of {kept} of {len(self.steps)} runs: validation Dice {self.dice:.4f} "
            f"on {self.images} images, the best run's {self.steps[0].alone:.4f}"
        )
        if kept == 1:
            lines.append("nothing was gained by averaging: the soup is the best run")
        return "\n".join(lines)


# --- weights


@dataclass(frozen=True)
class Total:
    """The sum of several networks' weights.

    Attributes:
        first: the weights that came first, as they are.
        sums: name -> sum of the floating-point ones, float64.
        count: of how many networks.
    """

    first: Tensors
    sums: Tensors
    count: int = 1

    @classmethod
    def of(cls, tensors: Tensors) -> Total:
        """Return the total of one network."""
        sums = {k: v.double() for k, v in tensors.items() if v.is_floating_point()}
        return cls(tensors, sums)

    def plus(self, tensors: Tensors) -> Total:
        """Return the total with one network more."""
        sums = {k: v + tensors[k].double() for k, v in self.sums.items()}
        return Total(self.first, sums, self.count + 1)

    def mean(self) -> dict[str, torch.Tensor]:
        """Return the mean, in the first one's dtypes; whole numbers are the first one's."""
        return {
            k: (self.sums[k] / self.count).to(v.dtype) if k in self.sums else v
            for k, v in self.first.items()
        }


# --- scores


@dataclass(frozen=True)
class _Judge:
    """Scores runs on the images that all of them have held out, as `zoo predict` would predict."""

    samples: Sequence[Sample]
    labels: LabelSpace
    options: PredictOptions
    trials: int
    report: Report

    def score(self, run: Run, number: int) -> Scores:
        images = []
        found = run.family.predict(run.path, run.config, self.samples, self.options)
        total = self.trials * len(self.samples)
        for sample, prediction in zip(self.samples, found, strict=True):
            images.append(score_prediction(prediction, sample, self.labels))
            self.report(number * len(self.samples) + len(images), total, run.path.name)
        return Scores(self.labels, images)


@dataclass(frozen=True)
class _Ranked:
    run: Run
    scores: Scores


# --- the soup


def make_soup(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    way: Way = "greedy",
    norms: Norms = "mean",
    options: PredictOptions | None = None,
    command: Sequence[str] = (),
    report: Report = lambda done, total, note: None,
) -> Soup:
    """Average the weights of runs and leave the mean as a run; nothing is left where it fails.

    Greedy: the runs, best first, are added to the mean one by one; each stays if the mean's
    validation Dice does not fall. Uniform: all of them.

    Args:
        paths: run folders, of one network and one fold.
        data: the data set that they learned from.
        out: the soup's run folder; a soup that is there is replaced, nothing else.
        way: greedy or uniform.
        norms: statistics of batch norms: the `mean` of the runs', or `recompute` for the mean of
            the weights on the best run's augmented training images, as after SWA; `again` is an
            older word for it.
        options: how to predict the held-out images; no test-time augmentation.
        command: what the user called.
        report: for a progress bar.

    Raises:
        ValueError: runs that do not go together (see `check_alike_runs`), no held-out image with
            truth, or `out` is something else.
    """
    chosen = options or PredictOptions()
    runs = [Run.load(path) for path in paths]
    check_alike_runs(runs)
    check_norms(runs[0], norms)
    labels = runs[0].config.labels
    samples = [s for s in subset_samples(runs[0], data, "val", labels) if s.instances]
    if not samples:
        raise ValueError(f"{data.path}: expected annotated images to score on, found none")
    means = len(runs) - 1 if way == "greedy" else 1
    judge = _Judge(samples, labels, chosen, len(runs) + means, report)
    check_place(out, KIND)
    ranked = [_Ranked(run, judge.score(run, number)) for number, run in enumerate(runs)]
    # Of equal ones by name: the order in which they were given decides nothing.
    ranked.sort(key=lambda candidate: (-candidate.scores.mean(), candidate.run.path.name))
    best = ranked[0].run
    update = None if norms == "mean" else batch_norm_updater(best, data, labels, chosen)
    with result_folder(out, KIND, _provenance(best, command)) as folder:
        _lay_out(folder, [r.run for r in ranked], labels)
        soup_folder = _SoupFolder(folder, best, judge, update)
        steps, scores = (_greedy if way == "greedy" else _uniform)(ranked, soup_folder)
        soup = Soup(way, norms, len(samples), scores.mean(), tuple(steps))
        _finish(soup_folder, soup, scores)
    return soup


def _provenance(best: Run, command: Sequence[str]) -> dict[str, Any]:
    own = read_provenance(best.path)
    record: dict[str, Any] = {"command": list(command)}
    return record | {key: own[key] for key in ("config", "seed", "split") if key in own}


def _lay_out(folder: Path, runs: Sequence[Run], labels: LabelSpace) -> None:
    """Write what makes a folder the run of the first one's network, without weights."""
    best = runs[0]
    text = f"family: {best.name}\n{dump_config(best.config)}"
    atomic_write_text(folder / "config.yaml", text)
    if best.split is not None:
        best.split.save(folder / "split.json")
    if isinstance(best.family, Rebuilds):
        network = best.family.rebuild(best.path, best.config, len(labels))
        best.family.describe(folder, network)
    rows = [row for run in runs for row in _licences(run)]
    unique = [row for n, row in enumerate(rows) if row not in rows[:n]]
    atomic_write_text(folder / LICENCES, json.dumps(unique, indent=1, ensure_ascii=False) + "\n")


def _licences(run: Run) -> list[dict[str, Any]]:
    try:
        found = load_json(run.path / LICENCES)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


@dataclass(frozen=True)
class _SoupFolder:
    """The soup's folder, in which means of weights are tried as a run's."""

    folder: Path
    best: Run
    judge: _Judge
    update_batch_norms: Callable[[Path], None] | None

    @property
    def kept(self) -> Path:
        return self.folder / FOLDER / "kept.safetensors"

    def start(self, tensors: Tensors) -> None:
        write_weights(tensors, self.kept)

    def score_mean(self, total: Total, number: int) -> Scores:
        write_weights(total.mean(), self.folder / BEST)
        if self.update_batch_norms is not None:
            self.update_batch_norms(self.folder)
        return self.judge.score(Run.load(self.folder), number)

    def keep(self) -> None:
        os.replace(self.folder / BEST, self.kept)


def _greedy(ranked: Sequence[_Ranked], folder: _SoupFolder) -> tuple[list[Step], Scores]:
    """Algorithm 1 of the paper."""
    first = ranked[0]
    weights = read_weights(find_weights(first.run.path))
    total, scores = Total.of(weights), first.scores
    folder.start(weights)
    steps = [Step(str(first.run.path), scores.mean(), scores.mean(), is_kept=True)]
    for number, candidate in enumerate(ranked[1:], len(ranked)):
        larger = total.plus(read_weights(find_weights(candidate.run.path)))
        found = folder.score_mean(larger, number)
        is_kept = found.mean() >= scores.mean()
        alone = candidate.scores.mean()
        steps.append(Step(str(candidate.run.path), alone, found.mean(), is_kept))
        if is_kept:
            total, scores = larger, found
            folder.keep()
    return steps, scores


def _uniform(ranked: Sequence[_Ranked], folder: _SoupFolder) -> tuple[list[Step], Scores]:
    weights = [find_weights(candidate.run.path) for candidate in ranked]
    total = Total.of(read_weights(weights[0]))
    for path in weights[1:]:
        total = total.plus(read_weights(path))
    scores = folder.score_mean(total, len(ranked))
    folder.keep()
    alone = [(str(r.run.path), r.scores.mean()) for r in ranked]
    steps = [Step(path, score, None, is_kept=True) for path, score in alone[:-1]]
    return [*steps, Step(*alone[-1], scores.mean(), is_kept=True)], scores


def _finish(place: _SoupFolder, soup: Soup, scores: Scores) -> None:
    """Write weights, scores and provenance."""
    folder, best = place.folder, place.best
    about = read_about(find_weights(best.path))
    about |= {"epochs": str(best.config.workload.epochs), "val_dice": f"{soup.dice:.6f}"}
    about["soup"] = str(sum(step.is_kept for step in soup.steps))
    write_weights(read_weights(place.kept), folder / BEST, about)
    place.kept.unlink()
    # With all its epochs: `zoo train` leaves such a run as it is.
    copy_file(folder / BEST, folder / LAST)
    row: dict[str, Any] = {"epoch": 1, "val_dice": round(soup.dice, 6)}
    row |= {name: round(value, 6) for name, value in scores.per_class().items()}
    MetricsFile(folder / "metrics.csv", tuple(row)).append(row)
    record = {**read_provenance(folder), "soup": asdict(soup)}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    atomic_write_text(folder / PROVENANCE, text + "\n")
