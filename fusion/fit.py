"""Fits the hybrid rule on predictions for images that the models did not learn from.

Everything that is fitted, from the meaning of a score to a class's threshold, is fitted anew in
each fold of a cross-validation by patient, and the strength of the shrinkage is chosen by a further
split inside it. What the held-out images say decides whether a class is fused or keeps its best
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.counts import LEVELS, SILENT, ClassTable, Stack, level_logits, tabulate
from fusion.evidence import SOFT_EDGE, ZONES, gather
from fusion.gains import pool_gains
from fusion.hybrid import ClassWeights, Hybrid
from fusion.intervals import Estimate, mean_over_people
from fusion.trust import Calibration, Gate, Trust
from fusion.types import Prediction
from fusion.weights import Shrinkage, fit_weights

Floats = npt.NDArray[np.float64]
Seen = tuple[Sequence[Prediction], Mapping[str, CropMask], str]


@dataclass(frozen=True)
class ClassReport:
    """What cross-validation said of one class.

    Attributes:
        single: source -> mean Dice of it alone.
        mean: mean Dice of the sources' plain mean.
        fused: mean held-out Dice of the fitted pool.
        gain: `fused` minus the best source, with its interval over patients.
        likely_gain: the same, when the gains of the group's other classes are heard as well.
        worth: source -> held-out Dice that the pool loses without it.
        keeps: the source the class keeps, or "".
    """

    single: Mapping[str, float]
    mean: float
    fused: float
    gain: Estimate
    likely_gain: Estimate
    worth: Mapping[str, float]
    keeps: str


@dataclass(frozen=True)
class Fit:
    """A fitted rule and why it is as it is.

    Attributes:
        rule: the rule.
        report: class name -> what cross-validation said.
        images: how many were fitted on.
        patients: whose they are.
    """

    rule: Hybrid
    report: Mapping[str, ClassReport]
    images: int
    patients: int

    def notes(self) -> dict[str, str]:
        """One comment a class, for the rule's file."""
        return {
            label: f"held-out Dice {r.fused:.4f} fused, {r.mean:.4f} mean, "
            + ", ".join(f"{v:.4f} {name}" for name, v in r.single.items())
            for label, r in self.report.items()
        }


@dataclass(frozen=True)
class Counted:
    """Images with truth, counted: what the fit keeps of them.

    Attributes:
        tables: class name -> one table an image.
        patients: one an image.
        is_instance: bool (K,), which sources find instances.
    """

    tables: Mapping[str, Sequence[ClassTable]]
    patients: Sequence[str]
    is_instance: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def sources(self) -> int:
        """The number of sources."""
        return len(self.is_instance)

    @classmethod
    def of(
        cls, images: Iterable[Seen], labels: LabelSpace, sources: int, soft_edge: float, zones: bool
    ) -> Counted:
        """Count images, one in memory at a time.

        Raises:
            ValueError: images of one patient only, or another number of predictions than sources.
        """
        tables: dict[str, list[ClassTable]] = {label: [] for label in labels.names}
        patients, is_instance = [], np.zeros(sources, np.bool_)
        for predictions, truth, patient in images:
            if len(predictions) != sources:
                raise ValueError(f"fit: expected {sources} sources, found {len(predictions)}")
            is_instance |= np.array([p.kind == "instance" for p in predictions])
            found = {e.label: e for e in gather(predictions, labels, soft_edge)}
            for label in labels.names:
                evidence = found.get(label)
                if evidence is not None and not zones:
                    evidence = replace(evidence, zones=np.zeros_like(evidence.zones))
                tables[label].append(tabulate(evidence, truth.get(label, EMPTY), sources))
            patients.append(patient)
        if len(set(patients)) < 2:
            found_ = f"{len(set(patients))} in {len(patients)} images"
            raise ValueError(f"fit: expected images of at least two patients, found {found_}")
        return cls(tables, patients, is_instance)

    def only(self, places: Sequence[int]) -> Counted:
        """Return some of the images."""
        tables = {n: [t[i] for i in places] for n, t in self.tables.items()}
        return Counted(tables, [self.patients[i] for i in places], self.is_instance)

    def folds(self, count: int) -> list[tuple[list[int], list[int]]]:
        """Return the places of (train, test) images of a cross-validation by patient."""
        splitter = GroupKFold(min(count, len(set(self.patients))))
        split = splitter.split(np.zeros(len(self)), groups=self.patients)
        return [(train.tolist(), test.tolist()) for train, test in split]


@dataclass(frozen=True)
class HybridFit:
    """The fit's options.

    Attributes:
        folds: of the cross-validation by patient inside the fit.
        soft_edge: see `fusion.evidence.soften_edges`.
        zones: whether weights differ between zones.
        calibrate: whether probabilities are calibrated, per source and group.
        gate: whether detections are weighed by their score and overlap.
        shrinkage: how strongly weights are drawn toward those of related classes.
        factors: of the shrinkage, from which a split inside the training images chooses.
        fall_back: whether a class without a sure gain keeps its best source.
    """

    folds: int = 5
    soft_edge: float = SOFT_EDGE
    zones: bool = True
    calibrate: bool = True
    gate: bool = True
    shrinkage: Shrinkage = field(default_factory=Shrinkage)
    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    fall_back: bool = True

    def __call__(
        self,
        images: Iterable[Seen],
        sources: Sequence[str],
        labels: LabelSpace,
        progress: Callable[[str], None] = lambda note: None,
    ) -> Fit:
        """Fit the rule.

        Args:
            images: for each image the sources' predictions, the true masks and the patient.
            sources: the sources' names, in the predictions' order.
            labels: the classes.
            progress: told what is being done.

        Raises:
            ValueError: no images, images of one patient only, another number of predictions than
                of sources, or more sources than tables can hold.
        """
        progress("counting pixels")
        counted = Counted.of(images, labels, len(sources), self.soft_edge, self.zones)
        progress("cross-validating")
        report = self._cross_validate(counted, sources, labels)
        progress("fitting")
        trust, fitted = self._fit(counted, labels)
        classes = {}
        for label in labels.names:
            keeps = report[label].keeps
            single = ClassWeights.single(sources.index(keeps), sources) if keeps else None
            classes[label] = single or self._weights(fitted[label], len(sources))
        gates = {s: g for s, g in zip(sources, trust.gates, strict=True) if g is not None}
        calibrations = {
            group: dict(zip(sources, found, strict=True))
            for group, found in trust.calibrations.items()
        }
        rule = Hybrid(tuple(sources), classes, gates, calibrations, self.soft_edge)
        return Fit(rule, report, len(counted), len(set(counted.patients)))

    def _cross_validate(
        self, counted: Counted, sources: Sequence[str], labels: LabelSpace
    ) -> dict[str, ClassReport]:
        fused = {n: np.zeros(len(counted)) for n in labels.names}
        lost = {n: np.zeros((len(sources), len(counted))) for n in labels.names}
        for train, test in counted.folds(self.folds):
            trust, fitted = self._fit(counted.only(train), labels)
            held_out = counted.only(test)
            for n in labels.names:
                fused[n][test] = _stack(held_out, n, trust, labels).dice(fitted[n])
                for k in range(len(sources)):
                    without = _stack(held_out, n, trust, labels, k).dice(fitted[n])
                    lost[n][k, test] = fused[n][test] - without
        return self._reports(counted, fused, lost, sources, labels)

    def _reports(
        self,
        counted: Counted,
        fused: Mapping[str, Floats],
        lost: Mapping[str, Floats],
        sources: Sequence[str],
        labels: LabelSpace,
    ) -> dict[str, ClassReport]:
        alone = {n: _alone(counted, n) for n in labels.names}
        best = {n: int(np.argmax(alone[n].mean(axis=1))) for n in labels.names}
        gains = {
            n: mean_over_people(fused[n] - alone[n][best[n]], counted.patients)
            for n in labels.names
        }
        likely: dict[str, Estimate] = {}
        for names in _members(labels).values():
            likely |= zip(names, pool_gains([gains[n] for n in names]), strict=True)
        return {
            n: ClassReport(
                single=_named(sources, alone[n].mean(axis=1)),
                mean=float(np.mean([t.dice_of_mean() for t in counted.tables[n]])),
                fused=float(fused[n].mean()),
                gain=gains[n],
                likely_gain=likely[n],
                worth=_named(sources, lost[n].mean(axis=1)),
                keeps=sources[best[n]] if self.fall_back and not _is_sure(likely[n]) else "",
            )
            for n in labels.names
        }

    def _fit(self, counted: Counted, labels: LabelSpace) -> tuple[Trust, dict[str, Floats]]:
        trust = self.fit_trust(counted, labels)
        shrinkage = self.shrinkage.times(self._choose_factor(counted, labels))
        stacks = {n: _stack(counted, n, trust, labels) for n in labels.names}
        return trust, fit_weights(stacks, labels, counted.sources, shrinkage)

    def _choose_factor(self, counted: Counted, labels: LabelSpace) -> float:
        if len(self.factors) == 1 or len(set(counted.patients)) < 4:
            return self.factors[len(self.factors) // 2]
        train, test = counted.folds(3)[0]
        seen, held_out = counted.only(train), counted.only(test)
        trust = self.fit_trust(seen, labels)
        stacks = {n: _stack(seen, n, trust, labels) for n in labels.names}
        tried = {n: _stack(held_out, n, trust, labels) for n in labels.names}

        def score(factor: float) -> float:
            shrinkage = self.shrinkage.times(factor)
            fitted = fit_weights(stacks, labels, counted.sources, shrinkage)
            return float(np.mean([tried[n].dice(fitted[n]).mean() for n in labels.names]))

        return max(self.factors, key=score)

    def _weights(self, parameters: Floats, sources: int) -> ClassWeights:
        rows = parameters[:-1].reshape(len(ZONES), sources + 1).tolist()
        # Without zones all pixels were counted as of the first one.
        of_zones = {z: tuple(rows[i if self.zones else 0]) for i, z in enumerate(ZONES)}
        return ClassWeights(float(parameters[-1]), of_zones)

    def fit_trust(self, counted: Counted, labels: LabelSpace) -> Trust:
        """Fit what the sources' detections and probabilities are worth."""
        gates = tuple(
            _gate(counted, k) if self.gate and counted.is_instance[k] else None
            for k in range(counted.sources)
        )
        if not self.calibrate:
            return Trust(gates)
        members = _members(labels)
        return Trust(gates, {g: _calibrations(counted, names) for g, names in members.items()})


def _members(labels: LabelSpace) -> dict[str, list[str]]:
    """Return group -> its classes; "" for those without one."""
    members: dict[str, list[str]] = {}
    for n in labels.names:
        members.setdefault(labels.group_of(n) or "", []).append(n)
    return members


def _alone(counted: Counted, label: str) -> Floats:
    """Dice of each source alone, float64 (K, images)."""
    tables = counted.tables[label]
    return np.array([[t.dice_alone(k) for t in tables] for k in range(counted.sources)])


def _named(sources: Sequence[str], values: Floats) -> dict[str, float]:
    return dict(zip(sources, values.tolist(), strict=True))


def _is_sure(gain: Estimate) -> bool:
    return gain.interval is not None and gain.interval[0] > 0


def _stack(
    counted: Counted, label: str, trust: Trust, labels: LabelSpace, without: int | None = None
) -> Stack:
    return Stack.of(counted.tables[label], trust, labels.group_of(label), without)


def _gate(counted: Counted, k: int) -> Gate | None:
    rows = [
        (t.scores[k], t.overlaps[k], t.dice_alone(k))
        for tables in counted.tables.values()
        for t in tables
        if not t.silent[k]
    ]
    return Gate.fit(*np.array(rows).T) if rows else None


def _calibrations(counted: Counted, names: Sequence[str]) -> tuple[Calibration, ...]:
    bone, other = np.zeros((2, counted.sources, LEVELS + 1))
    for t in (t for n in names for t in counted.tables[n]):
        # Every image counts the same, whatever the size of the bone in it.
        weight = 1 / max(t.truth, 1)
        for k in range(counted.sources):
            bone[k] += weight * np.bincount(t.levels[:, k], t.bone, SILENT + 1)
            other[k] += weight * np.bincount(t.levels[:, k], t.other, SILENT + 1)
    prob = expit(level_logits())
    return tuple(
        Calibration.fit(prob, b[:LEVELS], o[:LEVELS]) for b, o in zip(bone, other, strict=True)
    )
