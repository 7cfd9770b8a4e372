"""Folds by patient, as a JSON file that all families share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.files import atomic_write_text
from converters.types import Sample

VERSION = 1


@dataclass(frozen=True)
class Split:
    """Which samples each fold holds out.

    Attributes:
        version: of the file's layout.
        seed: of the shuffle.
        strategy: how the folds were made, such as `group`.
        folds: the held-out keys of each fold.
        groups: key -> what must not be torn apart, such as the patient.

    Raises:
        ValueError: another version, a key twice or without a group, or a group in two folds.
    """

    version: int
    seed: int
    strategy: str
    folds: tuple[tuple[str, ...], ...]
    groups: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"split: expected version {VERSION}, found {self.version}")
        if len(self.folds) < 2:
            raise ValueError(f"split: expected at least 2 folds, found {len(self.folds)}")
        self._check_keys()
        home: dict[str, int] = {}
        for number, keys in enumerate(self.folds):
            for key in keys:
                group = self.groups[key]
                if home.setdefault(group, number) != number:
                    raise ValueError(
                        f"split: group '{group}' is in folds {home[group]} and {number} ('{key}'); "
                        "a patient's images must stay together"
                    )

    def _check_keys(self) -> None:
        seen: set[str] = set()
        for key in self.keys:
            if key in seen:
                raise ValueError(f"split: '{key}' is held out twice")
            if key not in self.groups:
                raise ValueError(f"split: '{key}' has no group")
            seen.add(key)
        if left := sorted(set(self.groups) - seen):
            raise ValueError(f"split: '{left[0]}' has a group but is in no fold")

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, fold after fold."""
        return tuple(key for keys in self.folds for key in keys)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex; equal splits have equal digests."""
        text = json.dumps(self._record(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def val(self, fold: int) -> tuple[str, ...]:
        """Return the keys that a fold holds out.

        Raises:
            ValueError: there is no such fold.
        """
        if not 0 <= fold < len(self.folds):
            raise ValueError(f"fold {fold}: expected 0 to {len(self.folds) - 1}")
        return self.folds[fold]

    def train(self, fold: int) -> tuple[str, ...]:
        """Return the keys that a fold learns from, sorted.

        Raises:
            ValueError: there is no such fold.
        """
        return tuple(sorted(set(self.keys) - set(self.val(fold))))

    def check(self, samples: Iterable[Sample], excluded: Collection[str] = ()) -> None:
        """Make sure that the split is about these samples.

        Args:
            samples: the data.
            excluded: keys and groups that may be absent from the data.

        Raises:
            ValueError: keys that only one side has.
        """
        ours, theirs = set(self.keys), {sample.key for sample in samples}
        if only := sorted(theirs - ours):
            raise ValueError(f"split: {len(only)} images are in no fold, such as '{only[0]}'")
        gone = {k for k in ours if k in excluded or self.groups[k] in excluded}
        if only := sorted(ours - theirs - gone):
            raise ValueError(
                f"split: {len(only)} of its images are not in the data, such as '{only[0]}'"
            )

    def _record(self) -> dict[str, Any]:
        folds = [{"val": list(keys)} for keys in self.folds]
        head = {"version": self.version, "seed": self.seed, "strategy": self.strategy}
        return {**head, "folds": folds, "groups": dict(self.groups)}

    def save(self, path: Path) -> None:
        """Write the split as JSON; the file is there as a whole or not at all."""
        atomic_write_text(path, json.dumps(self._record(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read and check a split file.

        Raises:
            ValueError: no such file, not a split, or one that is not valid.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            folds = tuple(tuple(str(key) for key in fold["val"]) for fold in raw["folds"])
            groups = {str(key): str(group) for key, group in raw["groups"].items()}
            return cls(raw["version"], int(raw["seed"]), str(raw["strategy"]), folds, groups)
        except OSError as error:
            raise ValueError(f"{path}: expected a split file: {error.strerror}") from None
        except KeyError as error:
            raise ValueError(f"{path}: expected a split file, found no {error}") from None
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{path}: expected a split file, found: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def make_split(
    samples: Sequence[Sample], folds: int = 5, seed: int = 0, strategy: str = "group"
) -> Split:
    """Deal samples into folds; all samples of a group go to the same one.

    The result does not depend on the samples' order. A sample without a group is its own.

    Raises:
        ValueError: an unknown strategy, fewer than 2 folds, or fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold

    if strategy != "group":
        raise ValueError(f"split strategy '{strategy}': expected 'group', the only one so far")
    if folds < 2:
        raise ValueError(f"split: expected at least 2 folds, found {folds}")
    groups = {s.key: s.group or s.key for s in sorted(samples, key=lambda s: s.key)}
    if (found := len(set(groups.values()))) < folds:
        raise ValueError(
            f"split: expected at least {folds} groups for {folds} folds, found {found}"
        )
    keys = np.array(list(groups))
    dealt = GroupKFold(folds, shuffle=True, random_state=seed).split(
        keys, groups=list(groups.values())
    )
    held_out = tuple(tuple(keys[val].tolist()) for _, val in dealt)
    return Split(VERSION, seed, strategy, held_out, groups)
