"""Sweeps: many runs of one config with some keys varied, chosen and ended early by Optuna."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import one_line
from converters.files.atomic import is_leftover
from converters.files.provenance import (
    PROVENANCE,
    atomic_write_text,
    read_provenance,
    write_provenance,
)
from converters.splits.split import Split
from converters.strict_yaml import read_yaml
from converters.types import LabelSpace
from zoo.config import check_config, dump_config, load_run_config
from zoo.families import load_family
from zoo.machine.devices import free_memory
from zoo.machine.faults import is_disk_full
from zoo.options import as_text
from zoo.progress import Report
from zoo.run_files.metrics import RowFeed, best_row, last_row, read_rows
from zoo.runs.sweeps.config import SweepConfig
from zoo.runs.sweeps.study import (
    distributions_of,
    finished,
    folder_of,
    open_study,
    quiet_optuna,
    requeue,
    sampler_of,
    values_of,
)
from zoo.runs.train import divide
from zoo.runs.train import train as train_run
from zoo.source import DataSource

if TYPE_CHECKING:
    import optuna

# One or two may be the space's fault, such as a rate at which the loss diverges.
FAILURES_IN_A_ROW = 3
_PARTS = 100


class PrunedError(Exception):
    """A trial that is not worth going on with; ends its training from within."""


@dataclass(frozen=True)
class SweepTrial:
    """One row of a sweep's table.

    Attributes:
        folder: the run's, below the sweep's.
        state: `complete`, `pruned`, or `failed`.
        score: of its best epoch; None where it has none.
        epoch: the best one, counted from 1; 0 where there is none.
        epochs: the last one that was scored.
        seconds: that it trained.
        values: key -> value.
        note: why it failed.
    """

    folder: str
    state: str
    score: float | None
    epoch: int
    epochs: int
    seconds: float
    values: Mapping[str, Any]
    note: str


def run_sweep(
    config: SweepConfig,
    data: DataSource,
    out: Path,
    *,
    split_path: Path | None,
    fold: int | None,
    command: Sequence[str],
    report: Report,
) -> list[SweepTrial]:
    """Train the trials of a sweep, or those that are left of it; return all, best first.

    `OUT` holds a run folder a trial, `study.db` (Optuna), `trials.csv`, and `best.yaml`, which
    `zoo train --config` takes. A trial during which the sweep was killed is continued from its
    last checkpoint; what is tried is the same as if it had not been.

    Args:
        config: what to try.
        data: the data set.
        out: the sweep's folder.
        split_path: the folds; None takes those that the data set carries.
        fold: the one to hold out.
        command: for the record.
        report: a progress bar.

    Raises:
        ValueError: a bad config or data, `out` holds another sweep, another process is at it, or
            several trials in a row failed.
    """
    check_space(config, data)
    own_format = load_family(config.family).Config.own_format
    # Before the folder is made: what is wrong with the data leaves nothing behind.
    split, held_out, _, _ = divide(data, _labels(config, data), split_path, fold, own_format)
    with quiet_optuna(), _alone(out):
        _open_folder(out, config, split, held_out, command)
        return _Sweep(config, data, out, split_path, fold, command, report).run()


def check_space(config: SweepConfig, data: DataSource | None = None) -> None:
    """Make sure that every end of the space is a config of runs on a data set.

    Raises:
        ValueError: a key that the family's config lacks, or a value that it does not take.
    """
    family = load_family(config.family)
    first = {key: parameter.values[0] for key, parameter in config.space.items()}
    for key, parameter in config.space.items():
        for value in parameter.values:
            changes = [*config.changes, *as_changes(first | {key: value})]
            base = load_run_config(family.Config, config.family, config.config, changes, data)
    if base.workload.ranks > 1 and config.pruner.name != "none":
        raise ValueError(
            "pruner: a run on several devices cannot be ended by one of them; set "
            "pruner: {name: none}, or devices=1 among the changes"
        )


def as_changes(values: Mapping[str, Any]) -> list[str]:
    """Return values as `key=value` texts.

    >>> as_changes({"optim.lr": 0.001, "size": [64, 64]})
    ['optim.lr=0.001', 'size=[64, 64]']
    """
    return [f"{key}={as_text(value)}" for key, value in values.items()]


class _Sweep:
    def __init__(
        self,
        config: SweepConfig,
        data: DataSource,
        out: Path,
        split_path: Path | None,
        fold: int | None,
        command: Sequence[str],
        report: Report,
    ) -> None:
        self._config, self._data, self._out = config, data, out
        self._split_path, self._fold = split_path, fold
        self._command, self._report = command, report
        self._study = open_study(config, out)

    def run(self) -> list[SweepTrial]:
        requeue(self._study)
        failures = 0
        while (done := len(finished(self._study))) < self._config.trials:
            # By the trial's number, so that a continued sweep chooses what it would have chosen.
            self._study.sampler = sampler_of(self._config, done)
            error = self._try(self._study.ask(distributions_of(self._config)), done)
            self._write()
            failures = failures + 1 if error else 0
            if error is not None and failures == FAILURES_IN_A_ROW:
                raise ValueError(f"{failures} trials in a row failed, the last with: {error}")
        return self._write()

    def _try(self, trial: optuna.Trial, done: int) -> Exception | None:
        """Train a trial and tell Optuna; return what went wrong with it."""
        from optuna.trial import TrialState

        folder = trial.user_attrs.get("folder") or self._free_folder(done)
        trial.set_user_attr("folder", folder)
        feed = RowFeed(self._out / folder / "metrics.csv")

        def progress(step: int, total: int, note: str) -> None:
            self._learn(trial, feed)
            if trial.should_prune():
                raise PrunedError
            part = _PARTS * done + _PARTS * step // max(1, total)
            self._report(part, _PARTS * self._config.trials, f"{folder}{self._best()}, {note}")

        values = values_of(self._config, trial.params)
        try:
            train_run(
                self._config.family,
                self._config.config,
                self._data,
                self._out / folder,
                split_path=self._split_path,
                fold=self._fold,
                changes=[*self._config.changes, *as_changes(values)],
                command=self._command,
                report=progress,
            )
            self._learn(trial, feed)
            self._study.tell(trial, _best_score(self._out / folder, self._config.score))
        except PrunedError:
            self._study.tell(trial, state=TrialState.PRUNED)
        except (ValueError, RuntimeError) as error:
            # No trial's fault: the sweep stops, and goes on with this one.
            if is_disk_full(error):
                raise
            # A loss that diverges, or a batch that is too large for the device.
            trial.set_user_attr("note", f"{type(error).__name__}: {one_line(error)}")
            self._study.tell(trial, state=TrialState.FAIL)
            return error
        finally:
            free_memory()
        return None

    def _free_folder(self, done: int) -> str:
        """Not by Optuna's number: a sweep that was killed has more of these than folders."""
        taken = {t.user_attrs.get("folder") for t in finished(self._study)}
        return next(f for n in count(done) if (f := f"trial-{n:04d}") not in taken)

    def _learn(self, trial: optuna.Trial, feed: RowFeed) -> None:
        for row in feed.poll():
            if row.get(self._config.score):
                trial.report(float(row[self._config.score]), int(row["epoch"]))

    def _best(self) -> str:
        # Not study.best_value: it raises where there is none.
        found = [t.value for t in finished(self._study) if t.state.name == "COMPLETE"]
        best = max((value for value in found if value is not None), default=None)
        return "" if best is None else f", best {best:.4f}"

    def _write(self) -> list[SweepTrial]:
        """Write the table and the best config; return the trials, best first."""
        config, study = self._config, self._study
        trials = [_row(self._out, config, found) for found in finished(study)]
        rank = {"complete": 0, "pruned": 1, "failed": 2}
        trials.sort(key=lambda t: (rank[t.state], -(t.score or 0.0), t.folder))
        text = io.StringIO()
        columns = ["trial", "state", "score", "epoch", "epochs", "seconds", *config.space, "note"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for t in trials:
            score = "" if t.score is None else t.score
            given = [as_text(t.values[key]) if key in t.values else "" for key in config.space]
            known = [t.folder, t.state, score, t.epoch, t.epochs, t.seconds]
            writer.writerow([*known, *given, t.note])
        atomic_write_text(self._out / "trials.csv", text.getvalue())
        if trials and trials[0].state == "complete":
            self._write_best(trials[0])
        return trials

    def _write_best(self, best: SweepTrial) -> None:
        config = self._config
        changes = [*config.changes, *as_changes(best.values)]
        model = load_family(config.family).Config
        found = load_run_config(model, config.family, config.config, changes, self._data)
        head = (
            f"# {config.family}: {best.folder}, {config.score} {best.score} of epoch {best.epoch}"
        )
        atomic_write_text(self._out / "best.yaml", f"{head}\n{dump_config(found)}")


# --- files


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"{out}: another process is at this sweep") from None


def _open_folder(
    out: Path, config: SweepConfig, split: Split, held_out: int, command: Sequence[str]
) -> None:
    """Write down what the sweep is, or check that it is this one."""
    file = out / "sweep.yaml"
    if not file.is_file():
        if not _is_unfinished(out):
            raise ValueError(f"{out}: expected a sweep or an empty folder, found other files")
        settings = {**config.model_dump(mode="json"), "fold": held_out}
        write_provenance(out, list(command), settings, config.seed, split.digest, kind="sweep")
    else:
        before = read_yaml(file, "a sweep's settings")
        found = check_config(SweepConfig, before, str(file))
        record = read_provenance(out)
        known = (record.get("config", {}).get("fold"), record.get("split"))
        same = found.model_copy(update={"trials": config.trials}) == config
        if not same or known != (held_out, split.digest):
            raise ValueError(
                f"{out}: expected the same sweep to continue (only trials may change); "
                "choose another --out"
            )
    atomic_write_text(file, dump_config(config))


def _is_unfinished(out: Path) -> bool:
    """Tell whether a folder has no more than the first files of a sweep."""
    names = {path.name for path in out.iterdir() if not is_leftover(path)} - {".lock"}
    return not names or (names == {PROVENANCE} and read_provenance(out).get("kind") == "sweep")


def _labels(config: SweepConfig, data: DataSource) -> LabelSpace:
    model = load_family(config.family).Config
    base = load_run_config(model, config.family, config.config, config.changes, data)
    return base.labels


def _best_score(run: Path, column: str) -> float:
    """Return the highest score of a run."""
    rows = read_rows(run / "metrics.csv")
    if rows and column not in rows[0]:
        known = ", ".join(rows[0])
        raise ValueError(f"score '{column}': expected a column of metrics.csv: {known}")
    best = best_row(rows, column)
    if best is None:
        raise ValueError(f"{run}: expected scores in metrics.csv, found none")
    return float(best[column])


def _row(out: Path, config: SweepConfig, trial: optuna.trial.FrozenTrial) -> SweepTrial:
    folder = folder_of(trial)
    rows = read_rows(out / folder / "metrics.csv")
    best, last = best_row(rows, config.score), last_row(rows)
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    return SweepTrial(
        folder=folder,
        state=state,
        score=float(best[config.score]) if best else None,
        epoch=int(best["epoch"]) if best else 0,
        epochs=int(last.get("epoch") or 0),
        seconds=float(last.get("seconds") or 0),
        values=values_of(config, trial.params),
        note=str(trial.user_attrs.get("note", "")),
    )


def describe(trials: Sequence[SweepTrial], out: Path) -> str:
    """Say how a sweep went, in a few lines."""
    counts = {s: sum(t.state == s for t in trials) for s in ("complete", "pruned", "failed")}
    lines = [f"{out}: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    if trials and trials[0].state == "complete":
        best = trials[0]
        values = " ".join(as_changes(best.values))
        lines.append(f"best: {best.folder}, {best.score:.4f} at epoch {best.epoch}: {values}")
        lines.append(f"its config: {out / 'best.yaml'}; all trials: {out / 'trials.csv'}")
    return "\n".join(lines)
