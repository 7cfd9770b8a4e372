"""A run's scores and pictures for TensorBoard, Weights & Biases and MLflow, whatever the family.

Trackers look on from outside: they read `metrics.csv` as it grows, and ask the family for
predictions when the run has ended. Nobody but them knows that they are there.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from converters.errors import one_line
from converters.files.json_files import load_json
from converters.files.provenance import atomic_write_text
from converters.types import LabelSpace
from zoo.config import RunConfig
from zoo.contract import Family, PredictOptions, TrainJob
from zoo.machine.processes import is_first_process
from zoo.run_files.metrics import Row, RowFeed, read_rows, watched
from zoo.tracking.backends import Drawing, Ending, Tracker, open_trackers

FOLDER = "tracking"
_NAMES = {"train_loss": "train/loss", "lr": "train/lr", "step": "train/step"}


@contextmanager
def tracked(config: RunConfig, job: TrainJob, family: Family) -> Iterator[TrainJob]:
    """Give the job to train, and tell trackers what comes of it; without any it is the same job.

    A continued run continues at the trackers, too: scores of epochs that they have are not sent
    again. A tracker that fails while the run goes on is left out with a warning.

    Raises:
        ValueError: a tracker's library is missing, or its server cannot be reached; before the
            run begins.
    """
    chosen = config.track
    if not (chosen.tensorboard or chosen.wandb or chosen.mlflow) or not is_first_process():
        yield job
        return
    trackers = TrackerSet(config, job)
    ending: Ending = "failed"
    try:
        yield watched(job, trackers.log_scores)
        ending = "finished"
        trackers.log_scores()
        if chosen.pictures:
            trackers.show(family)
    except (KeyboardInterrupt, SystemExit):
        ending = "stopped"
        raise
    finally:
        trackers.log_scores()
        trackers.close(ending)


def scores_of(row: Row, labels: LabelSpace) -> dict[str, float]:
    """Return a row's numbers under the names that trackers group by, with groups' means.

    >>> labels = LabelSpace("pair", ("a", "b"), {"both": ("a", "b")})
    >>> row = {"epoch": "1", "train_loss": "", "val_dice": "0.75", "a": "0.5", "b": "1"}
    >>> scores_of(row, labels)
    {'val/dice': 0.75, 'dice/a': 0.5, 'dice/b': 1.0, 'dice_of_group/both': 0.75}
    """
    found = {}
    for column, text in row.items():
        if column != "epoch" and text not in ("", None):
            found[_name(column, labels)] = float(text)
    for group, members in labels.groups.items():
        values = [found[f"dice/{name}"] for name in members if f"dice/{name}" in found]
        if values:
            found[f"dice_of_group/{group}"] = sum(values) / len(values)
    return found


def _name(column: str, labels: LabelSpace) -> str:
    if column in labels.names:
        return f"dice/{column}"
    return _NAMES.get(column) or column.replace("val_", "val/", 1)


class TrackerSet:
    """The trackers of a run, and what each of them has been told.

    `tracking/state.json` keeps that beside their files: tracker -> id, last epoch, and whether it
    has the pictures.
    """

    def __init__(self, config: RunConfig, job: TrainJob) -> None:
        self._config, self._job = config, job
        self._file = job.out / FOLDER / "state.json"
        self._state = _read_state(self._file)
        known = {name: str(entry.get("id", "")) for name, entry in self._state.items()}
        settings = {**config.model_dump(mode="json"), "fold": job.fold}
        folder = job.out / FOLDER
        trackers = open_trackers(config.track, folder, job.out.name, settings, known)
        self._trackers: dict[str, Tracker] = {tracker.name: tracker for tracker in trackers}
        for name, tracker in self._trackers.items():
            self._state.setdefault(name, {"epoch": 0})["id"] = tracker.run_id
        told = min((int(self._state[name]["epoch"]) for name in self._trackers), default=0)
        self._feed = RowFeed(job.out / "metrics.csv", told)
        self._save_state()

    def log_scores(self) -> None:
        """Send the rows that are new."""
        rows = self._feed.poll()
        for row in rows:
            epoch, scores = int(row["epoch"]), scores_of(row, self._job.labels)
            for name in list(self._trackers):
                if epoch > int(self._state[name]["epoch"]):
                    self._tell(name, lambda t, e=epoch, s=scores: t.log_scores(e, s), epoch=epoch)  # type: ignore[misc]
        if rows:
            self._save_state()

    def show(self, family: Family) -> None:
        """Draw the worst validation images with the best weights, for trackers that lack them."""
        try:
            self._draw(family)
        except Exception as error:
            # The run is trained; a picture is no reason to call it failed.
            warnings.warn(f"track.pictures: {_named(error)}; none are sent", stacklevel=2)

    def _draw(self, family: Family) -> None:
        rows = read_rows(self._job.out / "metrics.csv")
        samples = [sample for sample in self._job.val if sample.instances]
        waiting = [n for n in self._trackers if not self._state[n].get("pictures")]
        if not (rows and samples and waiting):
            return
        # Late: most runs draw nothing.
        from zoo.tracking.drawings import draw_worst, worst_samples

        options = PredictOptions(device=self._config.workload.device)
        predictions = family.predict(self._job.out, self._config, samples, options)
        labels = self._job.labels
        worst = worst_samples(predictions, samples, labels, self._config.track.pictures)
        epoch = int(rows[-1]["epoch"])
        for drawing in draw_worst(worst, labels):
            for name in waiting:
                if name in self._trackers:
                    self._send(name, drawing, epoch)
        for name in waiting:
            self._state[name]["pictures"] = name in self._trackers
        self._save_state()

    def close(self, ending: Ending) -> None:
        """Close the trackers."""
        for name in list(self._trackers):
            self._tell(name, lambda tracker: tracker.close(ending))

    def _send(self, name: str, drawing: Drawing, epoch: int) -> None:
        self._tell(name, lambda tracker: tracker.log_drawing(epoch, drawing))

    def _tell(self, name: str, what: Callable[[Tracker], None], epoch: int | None = None) -> None:
        try:
            what(self._trackers[name])
        except Exception as error:
            # A server that is away for a while must not end days of training.
            tracker = self._trackers.pop(name)
            with suppress(Exception):
                tracker.close("failed")
            warnings.warn(
                f"track.{name}: {_named(error)}; training goes on without it, and a continued "
                "run sends what is missing",
                stacklevel=2,
            )
            return
        if epoch is not None:
            self._state[name]["epoch"] = epoch

    def _save_state(self) -> None:
        atomic_write_text(self._file, json.dumps(self._state, indent=1) + "\n")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error):.200}"


def _read_state(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = load_json(path)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): dict(v) for k, v in found.items() if isinstance(v, Mapping)}
