"""A run, opened, and the samples of its subsets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from converters.files.provenance import read_provenance
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from zoo.config import RunConfig, check_config
from zoo.contract import Family
from zoo.families import load_family
from zoo.source import DataSource


@dataclass(frozen=True)
class Run:
    """A trained model's folder.

    Attributes:
        path: the folder.
        name: the family's name.
        family: what trains and predicts.
        config: the family's config.
        split: the folds it was trained with, or None.
        fold: the fold it has not seen, or None.
    """

    path: Path
    name: str
    family: Family
    config: RunConfig
    split: Split | None
    fold: int | None

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run.

        Raises:
            ValueError: the folder is not a run.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise ValueError(f"{path}: expected a run with config.yaml, found none")
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or "family" not in raw:
            raise ValueError(f"{file}: expected the key 'family', found none")
        name = str(raw.pop("family"))
        family = load_family(name)
        config = check_config(family.Config, raw, str(file))
        split = path / "split.json"
        fold = read_provenance(path).get("config", {}).get("fold")
        found = Split.load(split) if split.is_file() else None
        return cls(path, name, family, config, found, fold)


def subset_samples(run: Run, data: DataSource, subset: str, labels: LabelSpace) -> list[Sample]:
    """Return the samples of a subset: `val` and `train` by the run's split, `test`, or `all`."""
    if subset == "test":
        found = data.read(labels, "test")
    else:
        found = data.read(labels)
        if subset in ("val", "train") and run.split is None:
            raise ValueError(f"{run.path}: the run has no split.json, so '{subset}' is unknown")
        if run.split is not None and run.fold is not None and subset in ("val", "train"):
            held_out = set(run.split.val(run.fold))
            found = [s for s in found if (s.key in held_out) == (subset == "val")]
    if not found:
        raise ValueError(f"{data.path}: expected images of the subset '{subset}', found none")
    return found
