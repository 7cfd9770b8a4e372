"""Ablations: one config trained as it is and with each change alone, over folds and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

import configs
from converters.errors import one_line
from converters.files.atomic import is_leftover
from converters.files.provenance import (
    PROVENANCE,
    atomic_write_text,
    read_provenance,
    require_provenance,
    write_provenance,
)
from converters.splits.split import Split
from converters.strict_yaml import read_mapping
from converters.types import LabelSpace
from zoo.config import (
    RunConfig,
    apply_changes,
    check_classes,
    check_config,
    complete_config,
    dump_config,
    keep_steps,
    read_config,
)
from zoo.families import load_family
from zoo.machine.cluster import LOCAL, check_place, map_anywhere
from zoo.machine.devices import free_memory
from zoo.machine.faults import is_disk_full
from zoo.options import as_text
from zoo.progress import Report, note
from zoo.runs.ablations.changes import BASE, Change, check_changes
from zoo.runs.ablations.held_out import score_held_out
from zoo.runs.train import divide
from zoo.runs.train import train as train_run
from zoo.source import DataSource

SETTINGS = "ablation.yaml"
CONFIGS = "configs"
# What is told to others: no part of what a run is, and an address is a secret.
_UNWRITTEN = "notice"
_PARTS = 100


@dataclass(frozen=True)
class Ablation:
    """What is tried.

    Attributes:
        family: whose config changes.
        config: its shipped name or file: the base.
        changes: each alone against the base.
        given: `key.sub=value` of all runs, the base's too.
        folds: each held out in turn; empty is the one that `zoo train` would hold out.
        seeds: each in turn; empty is the config's.
    """

    family: str
    config: str
    changes: tuple[Change, ...]
    given: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class AblationRun:
    """One run of an ablation, to be trained in any process.

    Attributes:
        change: the name of what differs from the base.
        seed: of the run.
        fold: that it holds out.
        path: its folder.
        error: why it failed; "" where it did not, or has not been tried.
    """

    change: str
    seed: int
    fold: int
    path: Path
    error: str = ""


def run_ablation(
    ablation: Ablation,
    data: DataSource,
    out: Path,
    *,
    split_path: Path | None,
    command: Sequence[str],
    report: Report,
    jobs: int = 1,
    on: str = LOCAL,
) -> tuple[list[AblationRun], LabelSpace]:
    """Train all runs of an ablation, or those that are left of it; return them, and the classes.

    `OUT/CHANGE/seed-S/fold-F` are the runs, `OUT/configs` what they were given. A run that is
    finished is not trained again; one during which the ablation was killed is continued. Changes,
    folds and seeds may be added later. A run that fails, such as one whose loss diverges, is noted;
    the others go on.

    Args:
        ablation: what to try.
        data: the data set.
        out: the ablation's folder.
        split_path: the folds; None takes those that the data set carries.
        command: for the record.
        report: a progress bar.
        jobs: processes on this machine that train at the same time.
        on: a cluster that trains instead, see `zoo.machine.cluster.map_anywhere`: each run has a
            processor, and its config's `devices` GPUs, to itself.

    Raises:
        ValueError: a bad change or data, `out` holds another ablation, or all runs failed.
    """
    check_place(on)
    check_changes(ablation.changes)
    data = data.of_split(split_path)
    variants = resolve(ablation, data)
    base = variants[0].config
    split, folds = _divide(ablation, data, split_path, base)
    _open_folder(out, ablation, base, split, command)
    runs = []
    for variant in variants:
        _write_config(out, variant)
        for seed in ablation.seeds or (variant.config.seed,):
            runs += [_run_of(out, variant.change, seed, fold) for fold in folds]
    given = {variant.change.name: variant for variant in variants}
    # Absolute, as other machines have to find them, and without what was read of the data already.
    source = replace(data, path=data.path.resolve())
    place = split_path and split_path.resolve()
    work = partial(_train, out.resolve(), ablation.family, source, place, list(command))
    tasks = [(run, _told(given[run.change].raw)) for run in runs]
    if on or jobs > 1:
        needs = [path for path in (source.path, place, (out / CONFIGS).resolve()) if path]
        gpus = 0 if base.workload.device == "cpu" else base.workload.devices
        found = map_anywhere(work, tasks, jobs, on, needs, gpus)
        done = []
        for run in found:
            done.append(run)
            report(len(done), len(tasks), run.change)
    else:
        done = [
            work(task, report=_part_of(report, number, len(tasks), task[0]))
            for number, task in enumerate(tasks)
        ]
    failed = [run for run in done if run.error]
    if len(failed) == len(done):
        raise ValueError(f"all {len(done)} runs failed, the first with: {failed[0].error}")
    return done, base.labels


@dataclass(frozen=True)
class Variant:
    """The base or a change of it, checked.

    Attributes:
        change: what differs.
        raw: the config's plain values, as a file holds them.
        config: what they come to.
    """

    change: Change
    raw: Mapping[str, Any]
    config: RunConfig


def resolve(ablation: Ablation, data: DataSource | None) -> list[Variant]:
    """Return the base and its changes as configs, the base first.

    A change that changes nothing, or what another one does, is left out with a word about it.

    Raises:
        ValueError: a key or a value that the family's config does not take, a seed that is given
            twice over, or no change is left.
    """
    model = load_family(ablation.family).Config
    path = configs.find(ablation.family, ablation.config)
    own = read_config(path)
    given = keep_steps(own, apply_changes(own, ablation.given))
    found: list[Variant] = []
    known: dict[str, str] = {}
    for change in (BASE, *ablation.changes):
        if ablation.seeds and "seed" in change.keys:
            raise ValueError(f"change '{change.name}': expected no seed beside --seeds, found one")
        raw = keep_steps(given, change.apply(given))
        where = str(path) if change is BASE else f"change '{change.name}'"
        config = complete_config(model, raw, where, data)
        check_classes(config, data)
        text = dump_config(config)
        if text in known:
            note(f"{where} is left out: it is the same config as '{known[text]}'")
            continue
        known[text] = change.name
        found.append(Variant(change, raw, config))
    if len(found) == 1:
        raise ValueError(f"{path}: expected changes that differ from the base, found none")
    return found


def _divide(
    ablation: Ablation, data: DataSource, split_path: Path | None, base: RunConfig
) -> tuple[Split, tuple[int, ...]]:
    first = ablation.folds[0] if ablation.folds else None
    split, held_out, _, _ = divide(data, base.labels, split_path, first, base.own_format)
    folds = ablation.folds or (held_out,)
    if bad := [fold for fold in folds if not 0 <= fold < len(split.folds)]:
        raise ValueError(f"--folds {bad[0]}: expected 0 to {len(split.folds) - 1}")
    written = require_provenance(data.path).get("fold")
    if len(folds) > 1 and written is not None:
        raise ValueError(
            f"{data.path}: was written for fold {written} alone; give the data set that it was "
            "converted from"
        )
    return split, folds


def _run_of(out: Path, change: Change, seed: int, fold: int) -> AblationRun:
    path = out / change.folder / f"seed-{seed}" / f"fold-{fold}"
    return AblationRun(change.name, seed, fold, path.resolve())


def _told(raw: Mapping[str, Any]) -> list[str]:
    return [f"{_UNWRITTEN}={as_text(raw[_UNWRITTEN])}"] if raw.get(_UNWRITTEN) else []


def _part_of(report: Report, number: int, total: int, run: AblationRun) -> Report:
    def part(done: int, whole: int, text: str) -> None:
        name = f"{run.change} seed {run.seed} fold {run.fold}"
        step = _PARTS * number + _PARTS * done // max(1, whole)
        report(step, _PARTS * total, f"{name}, {text}".rstrip(", "))

    return part


def _silent(done: int, total: int, text: str) -> None:
    """Move no progress bar: another process has it."""


def _train(
    out: Path,
    family: str,
    data: DataSource,
    split_path: Path | None,
    command: Sequence[str],
    task: tuple[AblationRun, Sequence[str]],
    *,
    report: Report = _silent,
) -> AblationRun:
    """Train a run, or what is left of it, and score what it held out; say why it failed."""
    run, told = task
    try:
        train_run(
            family,
            str(_config_file(out, run.path.relative_to(out).parts[0])),
            data,
            run.path,
            split_path=split_path,
            fold=run.fold,
            changes=[f"seed={run.seed}", *told],
            command=command,
            report=report,
        )
        score_held_out(run.path, data)
    except (ValueError, RuntimeError) as error:
        # No run's fault: the ablation stops, and goes on with this one.
        if is_disk_full(error):
            raise
        return replace(run, error=f"{type(error).__name__}: {one_line(error)}")
    finally:
        free_memory()
    return run


# --- files


def _config_file(out: Path, folder: str) -> Path:
    return out / CONFIGS / f"{folder}.yaml"


def _write_config(out: Path, variant: Variant) -> None:
    written = {key: value for key, value in variant.raw.items() if key != _UNWRITTEN}
    file = _config_file(out, variant.change.folder)
    file.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        atomic_write_text(file, text)


def _open_folder(
    out: Path, ablation: Ablation, base: RunConfig, split: Split, command: Sequence[str]
) -> None:
    """Write down what the base is, or check that it is this one."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / SETTINGS
    settings = {"family": ablation.family, **base.model_dump(mode="json")}
    if file.is_file():
        found = read_mapping(file, "the base of an ablation")
        is_same = _as_now(found, ablation, base, file) == settings
        if not is_same or read_provenance(out).get("split") != split.digest:
            raise ValueError(
                f"{out}: expected the same base and split to continue (changes, folds and seeds "
                "may be added); choose another --out"
            )
        return
    names = {path.name for path in _entries(out)}
    if names - {PROVENANCE} or (names and read_provenance(out).get("kind") != "ablation"):
        raise ValueError(f"{out}: expected an ablation or an empty folder, found other files")
    write_provenance(out, list(command), settings, base.seed, split.digest, kind="ablation")
    atomic_write_text(file, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _entries(out: Path) -> Iterator[Path]:
    return (path for path in out.iterdir() if not is_leftover(path))


def _as_now(
    found: Mapping[str, Any], ablation: Ablation, base: RunConfig, file: Path
) -> dict[str, Any]:
    """Return a base that was written down, with the keys that it is too old to have."""
    own = {key: value for key, value in found.items() if key != "family"}
    config = check_config(type(base), own, str(file))
    return {"family": found.get("family"), **config.model_dump(mode="json")}
