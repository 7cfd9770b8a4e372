"""Runs: a trained model's folder, how it comes about, and what it predicts."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from converters.files.atomic import is_leftover, unfinished
from converters.files.outputs import real_place
from converters.files.provenance import (
    PROVENANCE,
    atomic_write_text,
    read_provenance,
    require_provenance,
    write_provenance,
)
from converters.splits.split import Split
from converters.strict_yaml import read_yaml
from converters.types import LabelSpace, Sample
from zoo.config import RunConfig, check_config, dump_config, load_run_config
from zoo.contract import DivergedError, TrainJob
from zoo.datasets.further import digest_of, read_further
from zoo.families import load_family
from zoo.machine.processes import is_first_process
from zoo.options import as_text
from zoo.progress import Report
from zoo.run_files.metrics import best_row, last_row, read_rows
from zoo.run_files.notes import add_note, mark_failed, set_note
from zoo.runs.ranks import all_ranks
from zoo.source import DataSource
from zoo.tracking import tracked
from zoo.tracking.alerts import noticed

SECONDS_TO_WAIT = 120.0
# Dice beyond that of an answer without a pixel that tells of something found.
_LEAST_FOUND = 0.005
_TO_FIND = "train longer, or lower the rate"
# Where a run computes, which may change when it continues, such as on another machine.
_WHERE = ("device", "devices", "num_nodes", "strategy", "requeue")
# Of settings that differ, so many are named, and so many characters of each value shown.
_LISTED, _SHOWN = 12, 60


def train(
    family_name: str,
    config_name: str,
    data: DataSource,
    out: Path,
    *,
    split_path: Path | None,
    fold: int | None,
    changes: Sequence[str],
    command: Sequence[str],
    report: Report,
    say: Callable[[str], None] = lambda line: None,
    also: Sequence[DataSource] = (),
) -> dict[str, Any]:
    """Train a model, or continue where the run in `out` stopped; return its last scores.

    Args:
        family_name: the family.
        config_name: shipped config or YAML file.
        data: the data set.
        out: the run's folder.
        split_path: the folds; None takes those that the data set carries.
        fold: the one to hold out; None takes the one that the data set was written for, or 0.
        changes: `key.sub=value` texts.
        command: what the user called.
        report: moves the progress bar.
        say: takes a line to show before training, on a GPU: how much memory it will need.
        also: further data sets that are learned from beside it, whatever the fold.

    Raises:
        ValueError: bad config, data or split, `out` holds a run with other settings, or the
            training diverged.
    """
    family = load_family(family_name)
    data = data.of_split(split_path)
    config = load_run_config(family.Config, family_name, config_name, changes, data)
    labels = config.labels
    # A file of several says other things than the folder that the family would read by itself.
    own_format = "" if also or data.annotations else config.own_format
    split, held_out, learn, score = divide(data, labels, split_path, fold, own_format)
    further = read_further(also, labels, [*learn, *score])
    config, chosen = _settle_batch(config, family_name, out)
    learnt_from = {
        "fold": held_out,
        "edits": data.edits and data.edits.digest,
        "also": digest_of(further),
    }
    is_new = _open_run(out, family_name, config, split, learnt_from, command)
    config, moved = (config, "") if is_new else _keep_steps(config, out)
    job = TrainJob(
        out=out,
        labels=labels,
        train=[*learn, *further] if further else learn,
        val=score,
        data=data.path,
        data_format=data.format,
        is_edited=bool(data.edits or further or data.annotations),
        split=split,
        fold=held_out,
        progress=report,
    )
    try:
        if is_first_process():
            set_note(out, config.note)
            for line in filter(None, (chosen, moved)):
                say(line)
                add_note(out, line)
        _tell_memory(config, family_name, out, say)
        others = all_ranks(family_name, config, job)
        with noticed(config, job), tracked(config, job, family) as told, others:
            family.train(config, told)
        if is_first_process():
            mark_failed(out, None)
    except Exception as error:
        if isinstance(error, DivergedError) and is_first_process():
            mark_failed(out, str(error))
        # What the user is about to mend may be a setting: a run that never began is no run.
        if is_new and not any((out / "checkpoints").glob("*")):
            shutil.rmtree(out)
        # All processes find it out together: one says so.
        if isinstance(error, DivergedError) and not is_first_process():
            raise SystemExit(2) from None
        raise
    rows = read_rows(out / "metrics.csv")
    # The weights of the best epoch predict.
    best = best_row(rows, "val_dice") or {}
    if is_first_process() and _finds_nothing(best, score, labels):
        say(f"{out}: the network finds nothing in held-out images{_lifted(best)}: {_TO_FIND}")
    return last_row(rows)


def _finds_nothing(row: Mapping[str, Any], held_out: Sequence[Sample], labels: LabelSpace) -> bool:
    """Tell whether scores are hardly better than those of an answer without a pixel.

    That answer's Dice is the share of absent classes, each of which counts 1.
    """
    if not row.get("val_dice") or not held_out:
        return False
    present = Counter(label for sample in held_out for label in {*sample.labels} & {*labels.names})
    absent = {name: 1 - present[name] / len(held_out) for name in labels.names}
    without = sum(absent.values()) / len(absent)
    # What is drawn where it is not brings a class below that.
    is_drawn = any(row.get(n) and float(row[n]) < a - _LEAST_FOUND for n, a in absent.items())
    return bool(present) and not is_drawn and float(row["val_dice"]) < without + _LEAST_FOUND


def _lifted(row: Mapping[str, Any]) -> str:
    """Say where a Dice comes from where nothing is found; "" where there is none."""
    dice = float(row["val_dice"])
    if dice < _LEAST_FOUND:
        return ""
    return f" (its Dice of {dice:.4f} is that of classes neither there nor found, which count 1)"


def describe_scores(out: Path, before: int = 0) -> str:
    """Return in a line how well a run did: in its best epoch, and in its last.

    Args:
        out: the run's folder.
        before: how many epochs were scored before it was begun again.
    """
    rows = read_rows(out / "metrics.csv")
    # Where a pixel has one label, mIoU is the score.
    scores = {"val_miou": "mIoU", "val_dice": "Dice"}
    parts = []
    for key, name in scores.items():
        best = best_row(rows, key)
        if best is None:
            continue
        part = f"{name} {float(best[key]):.4f}"
        last = rows[-1]
        if best is not last and last.get(key):
            part += (
                f" in epoch {best['epoch']} ({float(last[key]):.4f} in the last, {last['epoch']})"
            )
        parts.append(part)
    is_old = parts and len(rows) == before
    done = " was finished already; another --out trains anew" if is_old else ""
    told = f"validation {', '.join(parts)}" if parts else "done"
    return f"{out}{done}: {told}"


def _settle_batch(config: RunConfig, family: str, out: Path) -> tuple[RunConfig, str]:
    """Return the config with a number for `batch: auto`; the first process of several chooses."""
    if getattr(config, "effective_batch", None) is None:
        return config, ""
    if not is_first_process():
        wait_for_run(out)
    # Late: what it imports is no business of other runs.
    from zoo.runs.batch_size import settle_batch

    return settle_batch(config, family, out)


def _tell_memory(config: RunConfig, family: str, out: Path, say: Callable[[str], None]) -> None:
    """Say what the run will need, and keep it with the run; a run that seems too large is tried."""
    if not is_first_process() or config.workload.device == "cpu":
        return
    # Late: what it imports is no business of runs on the CPU.
    from zoo.runs.memory import advise_before

    for line in filter(None, advise_before(config, family)):
        say(line)
        add_note(out, line)


def divide(
    data: DataSource,
    labels: LabelSpace,
    split_path: Path | None,
    fold: int | None,
    own_format: str = "",
) -> tuple[Split, int, Sequence[Sample], Sequence[Sample]]:
    """Return the split, the fold, the samples to learn from, and those to score on.

    A data set that was written with a split carries it: `split.json`, and the fold in
    `provenance.json`.

    Args:
        data: the data set.
        labels: the classes.
        split_path: the folds; None takes those that the data set carries.
        fold: the one to hold out; None takes the one that the data set was written for, or 0.
        own_format: the format that the family reads by itself: no samples then.

    Raises:
        ValueError: no split, another fold than the data set was written for, or a split of other
            images.
    """
    path = data.path
    inside = path / "split.json"
    if split_path is None and not inside.is_file():
        raise ValueError(f"{path}: expected --split split.json; make one with: zoo split {path}")
    split = Split.load(split_path or inside)
    written = require_provenance(path).get("fold") if inside.is_file() else None
    if inside.is_file() and written is None and data.format == own_format:
        raise ValueError(
            f"{path / PROVENANCE}: expected the fold that the data set was written for, found "
            "none: which of its images are held out is not known; convert it again"
        )
    if written is not None and fold not in (None, written):
        raise ValueError(f"{path}: was written for fold {written}, found --fold {fold}")
    chosen = fold if fold is not None else written or 0
    if data.format == own_format and data.edits is None:
        return split, chosen, (), ()  # the division is inside
    samples = data.read(labels)
    split.check(samples, data.excluded)
    held_out = set(split.val(chosen))
    learn = [s for s in samples if s.key not in held_out]
    return split, chosen, learn, [s for s in samples if s.key in held_out]


def _open_run(
    out: Path,
    family: str,
    config: RunConfig,
    split: Split,
    learnt_from: Mapping[str, Any],
    command: Sequence[str],
) -> bool:
    """Make the run's folder, or check that it is this run's; tell whether it was made.

    Args:
        out: the folder.
        family: of the run.
        config: its settings.
        split: its folds.
        learnt_from: the fold, and digests of corrections and of further data sets.
        command: what the user called.
    """
    file = out / "config.yaml"
    if not is_first_process():
        wait_for_run(out)
    text = f"family: {family}\n{dump_config(config)}"
    wanted = yaml.safe_load(text)
    if file.is_file():
        record = read_provenance(out)
        if (kind := record.get("kind", "run")) != "run":
            raise ValueError(f"{out}: expected a run, found a {kind}; choose another --out")
        settings = record.get("config", {})
        past = {name: settings.get(name) for name in learnt_from}
        own = _read_settings(file, type(config))
        before = (_without_place(own), past, {"split": record.get("split")})
        now = (_without_place(wanted), dict(learnt_from), {"split": split.digest})
        if before != now:
            found = [line for a, b in zip(before, now, strict=True) for line in differences(a, b)]
            # Of another family's keys none is the same.
            found = [line for line in found if line.startswith("family: ")] or found
            raise ValueError(
                f"{out}: expected the same settings to continue, found others: "
                f"{_listed(found)}; choose another --out"
            )
        return False
    place = real_place(out)
    if place.exists() and not _is_unfinished(place):
        raise ValueError(f"{out}: expected a run or an empty folder, found other files")
    settings = {**wanted, **{k: v for k, v in learnt_from.items() if v or k != "also"}}
    with unfinished(place) as folder:
        folder.mkdir()
        split.save(folder / "split.json")
        write_provenance(
            folder,
            list(command),
            settings,
            config.seed,
            split.digest,
            labels=config.labels.record(),
        )
        atomic_write_text(folder / "config.yaml", text)
    return True


def _without_place(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {key: value for key, value in settings.items() if key not in _WHERE}


def _keep_steps(config: RunConfig, out: Path) -> tuple[RunConfig, str]:
    """Return the config with which a run goes on on another number of devices, and a line of it.

    The weights move for as many images as before: each device takes more or fewer of them.

    Raises:
        ValueError: that many images cannot be shared out among the devices.
    """
    found = read_yaml(out / "config.yaml", "a run's settings")
    raw = {key: value for key, value in found.items() if key != "family"}
    before: Any = check_config(type(config), raw, str(out / "config.yaml"))
    chosen: Any = config
    old, new = before.workload.ranks, config.workload.ranks
    if old == new:
        return config, ""
    images = before.images_a_step * old
    batch = math.gcd(before.batch, images // new)
    if images % new or batch < chosen.least_batch:
        raise ValueError(
            f"devices: expected as many as share {images} images for the optimizer out evenly, "
            f"which {old} did before, at least {chosen.least_batch} each: found {new}"
        )
    chosen = chosen.model_copy(update={"effective_batch": images // new}).with_steps_of(batch)
    return chosen, (
        f"goes on on {new} instead of {old} devices, with {batch} images at a time on each, and "
        f"{images} for the optimizer as before"
    )


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Return which keys of two configs differ, each with its old and its new value.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c: 2 -> 3']
    """
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        both = sorted(before.keys() | now.keys(), key=str)
        start = f"{key}." if key else ""
        parts = (differences(before.get(k), now.get(k), f"{start}{k}") for k in both)
        return [line for part in parts for line in part]
    return [f"{key or 'config.yaml'}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else as_text(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _listed(lines: Sequence[str]) -> str:
    rest = len(lines) - _LISTED
    return "; ".join([*lines[:_LISTED], *([f"and {rest} more"] if rest > 0 else [])])


def _is_unfinished(out: Path) -> bool:
    """Tell whether a folder is empty, or has no more than the first files of a run."""
    if not out.is_dir():
        return False
    names = {path.name for path in out.iterdir() if not is_leftover(path)}
    if not names <= {"split.json", PROVENANCE}:
        return False
    if PROVENANCE in names and "versions" not in read_provenance(out):
        return False
    try:
        return "split.json" not in names or bool(Split.load(out / "split.json"))
    except ValueError:
        return False


def wait_for_run(out: Path) -> None:
    """Wait until the first process of several has made the run's folder, two minutes at most."""
    end = time.monotonic() + SECONDS_TO_WAIT
    while not (out / "config.yaml").is_file() and time.monotonic() < end:
        time.sleep(0.1)


def _read_settings(file: Path, model: type[RunConfig]) -> Any:
    """Read a run's config; keys that it is too old to have get the values that they stand for."""
    found = read_yaml(file, "a run's settings")
    if not isinstance(found, dict):
        return found
    try:
        own = check_config(model, {k: v for k, v in found.items() if k != "family"}, str(file))
    except ValueError:
        return found
    return {"family": found.get("family"), **yaml.safe_load(dump_config(own))}
