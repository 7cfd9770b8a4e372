"""Runs that go together: of one network, with the same images held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.files.json_files import read_json
from zoo.metadata.columns import FILE as COLUMNS_FILE
from zoo.metadata.columns import Columns
from zoo.run_files.checkpoints import check_alike, find_weights, read_weights
from zoo.runs.run import Run, known_split

# What a network computes beyond what the names and shapes of its weights tell.
_NETWORK_KEYS = (
    "architecture",
    "model",
    "encoder",
    "options",
    "encoder_options",
    "network",
    "backbone",
    "pretrained",
    "channels",
    "feature_size",
    "depths",
    "num_heads",
    "window_size",
    "use_v2",
    "norm",
    "freeze_norms",
    "anchors",
    "detector",
    "depth",
    "width",
    "max_channels",
)
# What some families leave in a run because their config does not say it.
_NETWORK_FILE = "network.json"


def check_alike_runs(runs: Sequence[Run]) -> None:
    """Make sure that runs are of one network, and have held out the same images.

    Raises:
        ValueError: fewer than two runs, one twice, without weights or split, of another family,
            label space, split, fold or network; names the first key or tensor that differs.
    """
    if len(runs) < 2:
        raise ValueError(f"soup: expected at least 2 runs, found {len(runs)}")
    seen: set[Path] = set()
    first = runs[0]
    weights = read_weights(find_weights(first.path))
    for run in runs:
        if run.path.resolve() in seen:
            raise ValueError(f"{run.path}: expected each run once, found it twice")
        seen.add(run.path.resolve())
        _check_held_out(run, first)
        _check_network(run, first)
        path = find_weights(run.path)
        check_alike(read_weights(path), weights, path)


def _check_held_out(run: Run, first: Run) -> None:
    ours, theirs = known_split(first), known_split(run)
    pairs = {"split": (ours[0].digest, theirs[0].digest), "fold": (ours[1], theirs[1])}
    for name, (expected, found) in pairs.items():
        if found != expected:
            raise ValueError(
                f"{run.path}: expected the {name} of {first.path}, {expected!s:.12}, found "
                f"{found!s:.12}: each has learned what the other held out, so no image is left to "
                "score their mean on; give runs of one fold"
            )


def _check_network(run: Run, first: Run) -> None:
    ours = {"family": first.name, **_network_of(first)}
    theirs = {"family": run.name, **_network_of(run)}
    for key in dict.fromkeys((*ours, *theirs)):
        if ours.get(key) != theirs.get(key):
            raise ValueError(
                f"{run.path}: expected the network of {first.path}: '{key}' "
                f"{ours.get(key)!r:.60}, found {theirs.get(key)!r:.60}"
            )


def _network_of(run: Run) -> dict[str, Any]:
    config = run.config.model_dump(mode="json")
    found = {key: config[key] for key in ("labels", *_NETWORK_KEYS) if key in config}
    if metadata := config.get("metadata"):
        found |= {f"metadata.{key}": metadata[key] for key in ("use", "width")}
        columns = Columns.load(run.path).columns
        found |= {f"{COLUMNS_FILE}: {column.name}": column for column in columns}
    file = run.path / _NETWORK_FILE
    if file.is_file():
        described = read_json(file, "the network's dimensions")
        if not isinstance(described, dict):
            raise ValueError(f"{file}: expected the network's dimensions, found {described!r:.40}")
        # Not where it was fetched from, nor by which version of the library it was written.
        untold = ("transformers_version", "dtype", "torch_dtype")
        kept = {k: v for k, v in described.items() if k[0] != "_" and k not in untold}
        found |= {f"{_NETWORK_FILE}: {k}": v for k, v in kept.items()}
    return found
