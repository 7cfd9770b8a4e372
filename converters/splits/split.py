"""Folds by patient, as a JSON file that all families share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from converters.errors import Problems, expecting
from converters.files.json_files import load_json
from converters.files.provenance import atomic_write_text
from converters.types import LabelSpace, Sample

__all__ = [
    *("GIVEN", "STRATEGIES", "VERSION"),
    *("Split", "check_leakage", "given_split", "make_split"),
]

VERSION = 1
STRATEGIES = ("group", "stratified")
GIVEN = "given"


@dataclass(frozen=True)
class Split:
    """Which samples each fold holds out.

    Attributes:
        version: of the file's layout.
        seed: of the shuffle.
        strategy: how the folds were made, such as `group`.
        folds: the held-out keys of each fold.
        groups: key -> what must not be torn apart, such as the patient. Where the data set's own
            part is the one fold (`given`), what it does not hold out is all to learn from.
        labels: the classes that were asked for when it was made; None for the data set's own. It
            does not tell splits apart.

    Raises:
        ValueError: another version, a key twice or without a group, or a group in two folds.
    """

    version: int
    seed: int
    strategy: str
    folds: tuple[tuple[str, ...], ...]
    groups: Mapping[str, str]
    labels: LabelSpace | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"split: expected version {VERSION}, found {self.version}")
        if len(self.folds) < 2 and not self._only_learnt:
            raise ValueError(f"split: expected at least 2 folds, found {len(self.folds)}")
        self._check_keys()
        home: dict[str, int] = {}
        for number, keys in enumerate((*self.folds, self._only_learnt)):
            for key in keys:
                group = self.groups[key]
                if (first := home.setdefault(group, number)) != number:
                    is_learnt = number == len(self.folds)
                    where = f"folds {first} and {number}"
                    where = f"fold {first} and what is learned from" if is_learnt else where
                    raise ValueError(
                        f"split: group '{group}' is in {where} ('{key}'); "
                        "a patient's images must stay together"
                    )

    @cached_property
    def _only_learnt(self) -> tuple[str, ...]:
        """Keys that the data set's own part does not hold out, sorted."""
        if self.strategy != GIVEN or len(self.folds) != 1:
            return ()
        return tuple(sorted(set(self.groups) - set(self.folds[0])))

    def _check_keys(self) -> None:
        seen = set(self._only_learnt)
        for key in self.held_out:
            if key in seen:
                raise ValueError(f"split: '{key}' is held out twice")
            if key not in self.groups:
                raise ValueError(f"split: '{key}' has no group")
            seen.add(key)
        if left := sorted(set(self.groups) - seen):
            raise ValueError(f"split: '{left[0]}' has a group but is in no fold")

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, fold after fold; last those that no fold holds out."""
        return (*self.held_out, *self._only_learnt)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The keys that any fold holds out, fold after fold."""
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
        record = self._record() | ({"labels": self.labels.record()} if self.labels else {})
        atomic_write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read and check a split file.

        Raises:
            ValueError: no such file, not a split, or one that is not valid.
        """
        try:
            raw = load_json(path)
            if not isinstance(raw, dict):
                raise TypeError(f"{raw!r:.80}")
            listed, owners, seed = raw["folds"], raw["groups"], raw["seed"]
            with expecting("expected a split file with 'folds': a list of {\"val\": [keys]}"):
                folds = tuple(tuple(str(key) for key in fold["val"]) for fold in listed)
            with expecting("expected a split file with 'groups': key -> group"):
                groups = {str(key): str(group) for key, group in owners.items()}
            with expecting("expected a split file with 'seed': a whole number"):
                head = raw["version"], int(seed), str(raw["strategy"])
            labels = LabelSpace.of_record(raw["labels"]) if raw.get("labels") else None
            return cls(*head, folds, groups, labels)
        except KeyError as error:
            raise ValueError(f"{path}: expected a split file, found no {error}") from None
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{path}: expected a split file, found: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def make_split(
    samples: Sequence[Sample],
    folds: int = 5,
    seed: int = 0,
    strategy: str = "group",
    labels: LabelSpace | None = None,
) -> Split:
    """Deal samples into folds; all samples of a group go to the same one.

    The result does not depend on the samples' order. A sample without a group is its own.

    Args:
        samples: what is divided.
        folds: 2 or more.
        seed: of the shuffle.
        strategy: `group` makes folds of equal size; `stratified` makes folds that resemble each
            other in which classes they have, how large those are, and how many an image has.
        labels: lets `stratified` spread bent images too; None leaves the posture out.

    Raises:
        ValueError: an unknown strategy, fewer than 2 folds, fewer groups than folds, or nothing
            annotated to stratify by.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"split strategy '{strategy}': expected one of {', '.join(STRATEGIES)}")
    if folds < 2:
        raise ValueError(f"split: expected at least 2 folds, found {folds}")
    ordered = sorted(samples, key=lambda sample: sample.key)
    members: dict[str, list[Sample]] = {}
    for sample in ordered:
        members.setdefault(sample.patient, []).append(sample)
    if len(members) < folds:
        raise ValueError(
            f"split: expected at least {folds} groups for {folds} folds, found {len(members)}"
        )
    dealt = _deal_evenly if strategy == "group" else partial(_deal_stratified, labels=labels)
    home = dealt(members, folds, seed)
    held_out = tuple(
        tuple(s.key for s in ordered if home[s.patient] == fold) for fold in range(folds)
    )
    return Split(VERSION, seed, strategy, held_out, {s.key: s.patient for s in ordered})


def given_split(samples: Sequence[Sample], held_out: Sequence[Collection[str]]) -> Split:
    """Return the split that a data set has itself.

    Args:
        samples: all images.
        held_out: keys of each fold; what a single one does not hold out is all to learn from.

    Raises:
        ValueError: a group in two folds, or in the only one and not; an image in none of several;
            or there are no images to learn from or to hold out.
    """
    ordered = sorted(samples, key=lambda sample: sample.key)
    folds = tuple(tuple(s.key for s in ordered if s.key in keys) for keys in held_out)
    if not all(folds) or len(folds[0]) == len(ordered):
        raise ValueError("split: expected images to learn from and held-out ones, found no both")
    return Split(VERSION, 0, GIVEN, folds, {s.key: s.patient for s in ordered})


def _deal_evenly(members: Mapping[str, Sequence[Sample]], folds: int, seed: int) -> dict[str, int]:
    from sklearn.model_selection import GroupKFold

    groups = [group for group, samples in members.items() for _ in samples]
    dealer = GroupKFold(folds, shuffle=True, random_state=seed)
    return {
        groups[i]: fold
        for fold, (_, held_out) in enumerate(dealer.split(groups, groups=groups))
        for i in held_out.tolist()
    }


def _deal_stratified(
    members: Mapping[str, Sequence[Sample]], folds: int, seed: int, labels: LabelSpace | None
) -> dict[str, int]:
    from converters.splits.stratify import deal, strata_of

    weights = [len(samples) for samples in members.values()]
    dealt = deal(strata_of(members, labels), weights, folds, seed)
    return dict(zip(members, dealt.tolist(), strict=True))


# --- leakage


def check_leakage(split: Split, samples: Iterable[Sample]) -> None:
    """Make sure that no fold, and no test image, knows what another fold holds out.

    Args:
        split: the folds.
        samples: with their images; those that the split does not have are test images.

    Raises:
        DataError: a patient or a key in two places, a sample whose group is not the split's, or
            the same image (to the byte) in two places; all of them in one error.
    """
    problems = Problems(Path("split"))
    ordered = sorted(samples, key=lambda sample: sample.key)
    homes = {key: f"fold {fold}" for fold, keys in enumerate(split.folds) for key in keys}
    homes = {key: "what is learned from" for key in split.groups} | homes
    homes = {sample.key: homes.get(sample.key, "test") for sample in ordered}
    _check_groups(split, ordered, homes, problems)
    for twins in _same_images(ordered, problems):
        if len({homes[sample.key] for sample in twins}) > 1:
            named = " and ".join(f"'{sample.key}' ({homes[sample.key]})" for sample in twins)
            what = f"expected in one place, found the same file as {named}"
            remedy = "leave one out: `zoo audit` drafts what --edits takes"
            problems.add("image", f"{what}; {remedy}")
    problems.check()


def _check_groups(
    split: Split, samples: Sequence[Sample], homes: Mapping[str, str], problems: Problems
) -> None:
    for sample, following in pairwise(samples):
        if sample.key == following.key:
            problems.add(sample.key, "expected one image of this key, found two")
    places: dict[str, dict[str, str]] = {}
    for sample in samples:
        group = sample.patient
        if (expected := split.groups.get(sample.key, group)) != group:
            problems.add(
                sample.key, f"expected group '{expected}' as in the split, found '{group}'"
            )
        places.setdefault(group, {}).setdefault(homes[sample.key], sample.key)
    for group, found in places.items():
        if len(found) > 1:
            where = " and ".join(f"{home} ('{key}')" for home, key in found.items())
            problems.add(f"group '{group}'", f"expected in one place, found in {where}")


def _same_images(samples: Sequence[Sample], problems: Problems) -> Iterator[list[Sample]]:
    """Yield samples whose files are equal; only files of equal length are read."""
    by_length: dict[int, list[Sample]] = {}
    for sample in samples:
        try:
            length = sample.image.stat().st_size if isinstance(sample.image, Path) else -1
        except OSError as error:
            problems.add(sample.key, f"expected an image: {error.strerror}")
            continue
        by_length.setdefault(length, []).append(sample)
    for candidates in by_length.values():
        if len(candidates) == 1:
            continue
        by_content: dict[bytes, list[Sample]] = {}
        for sample in candidates:
            content = hashlib.sha256(sample.image.read_bytes()).digest()
            by_content.setdefault(content, []).append(sample)
        yield from (twins for twins in by_content.values() if len(twins) > 1)
