"""A run, opened, and the samples of its subsets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.files.provenance import PROVENANCE, require_provenance
from converters.files.unknown import folders_with, name_first
from converters.splits.split import Split
from converters.strict_yaml import read_yaml
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
        doubt: why split and fold cannot be relied on; "" where they can.
    """

    path: Path
    name: str
    family: Family
    config: RunConfig
    split: Split | None
    fold: int | None
    doubt: str = ""

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run.

        Raises:
            ValueError: the folder is not a run.
        """
        file = path / "config.yaml"
        if not file.is_file():
            raise ValueError(f"{path}: expected a run with config.yaml, found {_instead(path)}")
        raw = read_yaml(file, "a run's settings")
        if not isinstance(raw, dict) or "family" not in raw:
            raise ValueError(f"{file}: expected the key 'family', found none")
        name = str(raw.pop("family"))
        family = load_family(name)
        config = check_config(family.Config, raw, str(file))
        split, fold, doubt = _read_division(path)
        return cls(path, name, family, config, split, fold, doubt)


def _read_division(path: Path) -> tuple[Split | None, int | None, str]:
    """Return a run's folds, the one that it held out, and why these are not known; "" if they are.

    Raises:
        ValueError: there is a split file, and it is none.
    """
    expected = f"{path}: expected a run with split.json and a fold, found"
    split = Split.load(path / "split.json") if (path / "split.json").is_file() else None
    try:
        record = require_provenance(path)
    except ValueError as error:
        return split, None, str(error)
    settings = record.get("config")
    fold = settings.get("fold") if isinstance(settings, dict) else None
    if type(fold) is not int:
        found = f"no 'config.fold' in {PROVENANCE}" if record else f"no {PROVENANCE}"
        return split, None, f"{expected} {found}"
    if split is None:
        return split, fold, f"{expected} no split.json"
    if record.get("split") != split.digest:
        return split, fold, f"{path}: split.json is not the one that the run learned with"
    if not 0 <= fold < len(split.folds):
        return split, fold, f"{path}: fold {fold}: expected 0 to {len(split.folds) - 1}"
    return split, fold, ""


def known_split(run: Run) -> tuple[Split, int]:
    """Return the folds that a run learned with, and the one that it held out.

    Raises:
        ValueError: nobody knows: `split.json` or `provenance.json` is missing, broken or of
            another run.
    """
    if run.doubt or run.split is None or run.fold is None:
        doubt = run.doubt or f"{run.path}: expected a run with split.json and a fold, found none"
        raise ValueError(
            f"{doubt}; what it held out is not known: put the file back, or train the run again"
        )
    return run.split, run.fold


def _instead(path: Path) -> str:
    """Say what is there in the place of a run, and where its runs are, if it has some."""
    if not path.is_dir():
        return "a file; images are given by --data" if path.is_file() else "no such folder"
    inside = folders_with(path, "config.yaml")
    if not inside:
        return "a folder without"
    return f"a folder of others: give one of {name_first(inside, ', ')}"


def subset_samples(run: Run, data: DataSource, subset: str, labels: LabelSpace) -> list[Sample]:
    """Return the samples of a subset: `val` and `train` by the run's split, `test`, or `all`: both.

    Raises:
        ValueError: the run's split is not known, the data set has other images, or none of these.
    """
    if run.split is not None and not data.groups:
        # Tables of patients may be asked for what they say of them.
        data = data.of_groups(run.split.groups)
    if subset in ("val", "train"):
        found = _divided(run, data, subset, labels)
    else:
        found = data.read(labels, subset)
    if not found:
        raise data.nothing_in(subset)
    return found


def _divided(run: Run, data: DataSource, subset: str, labels: LabelSpace) -> list[Sample]:
    split, fold = known_split(run)
    found = data.read(labels)
    try:
        split.check(found, data.excluded)
    except ValueError as error:
        raise ValueError(
            f"{data.path}: {error}; --subset {subset} needs the images that the run learned with"
        ) from None
    held_out = set(split.val(fold))
    return [s for s in found if (s.key in held_out) == (subset == "val")]
