"""Fits the hybrid rule on predictions for images that the models did not learn from.

Everything that is fitted, from the meaning of a score to a class's threshold, is fitted anew in
each fold of a cross-validation by patient, and the strength of the shrinkage is chosen by a further
split inside it. What the held-out images say decides whether a class is fused or keeps its best
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.special import expit

from converters.parallel import IN_PROCESS, Workers
from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.fit.base import Fit, Tell, quiet
from fusion.fit.counted import Counted, CountedImage, Seen, count_evidence
from fusion.fit.counts import LEVEL_ODDS, LEVELS
from fusion.fit.objective import Objective, check_overlaps
from fusion.fit.report import ClassReport, FallBack, HeldOutReport, members, report_classes
from fusion.fit.spill import GoalFile, are_large
from fusion.fit.stacks import Stack
from fusion.fit.weights import Goal, Mixture, Shrinkage, fit_weights
from fusion.rules.calibration import Calibration, Gate, SourceReliability
from fusion.rules.evidence import SOFT_EDGE, ZONES
from fusion.rules.hybrid import ClassWeights, Hybrid

CHOICE_IMAGES = 40  # are enough to tell strengths apart that differ by a factor of three
LEAST_PATIENTS = 4  # for a choice by a split
Fitted = tuple[SourceReliability, dict[str, Floats]]
_Places = tuple[Sequence[int], Sequence[int] | None]  # of images to fit on and to judge on


@dataclass(frozen=True)
class HybridFit:
    """The fit's options.

    Attributes:
        folds: of the cross-validation by patient inside the fit.
        soft_edge: see `fusion.rules.evidence.fade_beyond`.
        zones: whether weights differ between zones.
        calibrate: whether probabilities are calibrated, per source and group; None where a split
            inside the training images gains by it.
        gate: whether detections are weighed by their score and overlap; None likewise.
        shrinkage: how strongly weights are drawn toward those of related classes.
        factors: of the shrinkage, increasing, from which a split inside the training images
            chooses: from the middle on to either side, for as long as it gains.
        fall_back: which classes keep their best source, see `FallBack`. A source that is the
            best of several on held-out images was lucky, too, so that to demand a sure gain over
            it costs more than it saves.
        objective: what weights, thresholds, the strength of the shrinkage and the choice of classes
            that keep a source are to win. For surface Dice, which cannot be counted, stands Dice of
            the pixels near outlines.
    """

    folds: int = 5
    soft_edge: float = SOFT_EDGE
    zones: bool = True
    calibrate: bool | None = None
    gate: bool | None = None
    shrinkage: Shrinkage = field(default_factory=Shrinkage)
    factors: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    fall_back: FallBack = "worse"
    objective: Objective = field(default_factory=Objective)

    def __call__(
        self,
        images: Iterable[Seen],
        sources: Sequence[str],
        labels: LabelSpace,
        tell: Tell = quiet,
        weights: Floats | None = None,
    ) -> Fit[Hybrid]:
        """Count images and fit the rule, in this process.

        Args:
            images: for each image the sources' predictions, the true masks and the patient.
            sources: the sources' names, in the predictions' order.
            labels: the classes.
            tell: told what is being done.
            weights: float64 (images,), above 0, how much each image counts; None for all alike.

        Raises:
            ValueError: no images, images of one patient only, another number of predictions than
                of sources, or more sources than tables can hold.
        """
        tell("counting pixels")
        counts = (self.count(seen, labels) for seen in images)
        return self.solve(Counted.of(counts, labels, len(sources), weights), sources, labels, tell)

    def count(self, seen: Seen, labels: LabelSpace) -> CountedImage:
        """Return what the fit keeps of an image; pure, so that it can run in any process."""
        overlaps = self.objective.needs_overlaps
        return count_evidence(seen, labels, self.soft_edge, self.zones, overlaps)

    def solve(
        self,
        counted: Counted,
        sources: Sequence[str],
        labels: LabelSpace,
        tell: Tell = quiet,
        workers: Workers = IN_PROCESS,
    ) -> Fit[Hybrid]:
        """Fit the rule to counted images; each fold by one of the workers."""
        check_overlaps(self.objective, counted.overlapping, labels)
        folds = counted.folds(self.folds)
        every: _Places = range(len(counted)), None
        results = workers.map(partial(self._fit_fold, counted, labels), (*folds, every))
        tell("cross-validating")
        held_out, fits = HeldOutReport.empty(counted), []
        for (_, test), (fitted, measured) in zip(folds, results, strict=False):
            fits.append(fitted)
            if measured is not None:
                held_out.fill(test, measured)
        tell("fitting")
        report = report_classes(counted, held_out, sources, labels, self.fall_back, self.objective)
        rule = self._rule(next(results)[0], report, sources)
        rules = counted.by_patient(folds, [self._rule(f, report, sources) for f in fits])
        return Fit(rule, "pool without a fit", Hybrid(), rules, len(counted), len(rules), report)

    def _fit_fold(
        self, counted: Counted, labels: LabelSpace, places: _Places
    ) -> tuple[Fitted, HeldOutReport | None]:
        train, test = places
        fitted = self._fit(counted.only(train), labels)
        return fitted, None if test is None else _measure(counted.only(test), fitted, labels)

    def _rule(
        self, fitted: Fitted, report: Mapping[str, ClassReport], sources: Sequence[str]
    ) -> Hybrid:
        reliability, parameters = fitted
        classes = {}
        for label, found in report.items():
            if found.keeps:
                classes[label] = ClassWeights.single(sources.index(found.keeps), sources)
            else:
                classes[label] = self._weights(parameters[label], len(sources))
        gates = {s: g for s, g in zip(sources, reliability.gates, strict=True) if g is not None}
        calibrations = {
            group: dict(zip(sources, found, strict=True))
            for group, found in reliability.calibrations.items()
        }
        return Hybrid(tuple(sources), classes, gates, calibrations, self.soft_edge)

    def _fit(self, counted: Counted, labels: LabelSpace) -> Fitted:
        chosen = self._choose(counted, labels)
        reliability = chosen.fit_reliability(counted, labels)
        goals = self.goals(counted, reliability, labels)
        (factor,) = chosen.factors
        shrinkage = self.shrinkage.times(factor)
        return reliability, fit_weights(goals, labels, counted.sources, shrinkage)

    def goals(
        self, counted: Counted, reliability: SourceReliability, labels: LabelSpace
    ) -> dict[str, Goal]:
        """Return what each class's weights are to win on some images."""
        parts = sum(map(bool, vars(self.objective).values()))
        is_large = are_large(counted.tables.values(), counted.sources, parts)
        file = GoalFile() if is_large else None
        goals: dict[str, Goal] = {}
        for n in labels.names:
            goal = self._goal(counted, n, _stack(counted, n, reliability, labels))
            goals[n] = file.put(goal) if file else goal
        return goals

    def _goal(self, counted: Counted, label: str, stack: Stack) -> Stack | Mixture:
        if self.objective.is_dice:
            return stack
        wanted, tables = self.objective, counted.tables[label]
        overlaps = label in counted.overlapping
        parts = [
            (wanted.dice + (0.0 if overlaps else wanted.shared), stack),
            *([(wanted.shared, stack.of_shared(tables))] if overlaps else []),
            (wanted.outlines + wanted.nsd, stack.near_outlines()),
        ]
        return Mixture(tuple((weight, part) for weight, part in parts if weight))

    def _choose(self, counted: Counted, labels: LabelSpace) -> HybridFit:
        """Settle what is open, by a split inside the images: one option after the other.

        Of equals the first, the simpler one, is taken.
        """
        settled = replace(
            self,
            gate=self.gate is not False and any(counted.is_instance),
            calibrate=self.calibrate is True,
            factors=(self.factors[len(self.factors) // 2],),
        )
        if len(set(counted.patients)) < LEAST_PATIENTS:
            return settled
        train, test = counted.folds(3)[0]
        parts = counted.only(train[:CHOICE_IMAGES]), counted.only(test[:CHOICE_IMAGES])
        trial = _Trial(*parts, labels)

        def best(choices: list[HybridFit]) -> HybridFit:
            return choices[0] if len(choices) == 1 else max(choices, key=trial.score)

        if self.gate is None and settled.gate:
            settled = best([replace(settled, gate=gate) for gate in (False, True)])
        if self.calibrate is None:
            settled = best([replace(settled, calibrate=on) for on in (False, True)])
        steps = [replace(settled, factors=(factor,)) for factor in self.factors]
        return _climb(steps, trial.score)

    def _weights(self, parameters: Floats, sources: int) -> ClassWeights:
        # Four digits are what a person reads, and more than the images tell.
        rows = parameters[:-1].round(4).reshape(len(ZONES), sources + 1).tolist()
        # Without zones all pixels were counted as of the first one.
        of_zones = {z: tuple(rows[i if self.zones else 0]) for i, z in enumerate(ZONES)}
        return ClassWeights(round(float(parameters[-1]), 4), of_zones)

    def fit_reliability(self, counted: Counted, labels: LabelSpace) -> SourceReliability:
        """Fit what the sources' detections and probabilities are worth."""
        gates = tuple(
            _gate(counted, k) if self.gate and counted.is_instance[k] else None
            for k in range(counted.sources)
        )
        if not self.calibrate:
            return SourceReliability(gates)
        groups = members(labels)
        return SourceReliability(
            gates, {g: _calibrations(counted, names) for g, names in groups.items()}
        )


class _Trial:
    """What options that are settled reach, fitted on some images and tried on others."""

    def __init__(self, seen: Counted, held_out: Counted, labels: LabelSpace) -> None:
        self._seen, self._held_out, self._labels = seen, held_out, labels
        self._scores: dict[HybridFit, float] = {}
        # Those of one choice fill as much memory as the fit itself.
        self._goals: tuple[HybridFit, tuple[dict[str, Goal], dict[str, Goal]]] | None = None

    def score(self, settled: HybridFit) -> float:
        """Return the mean over the classes; the same options are fitted once."""
        if settled not in self._scores:
            self._scores[settled] = self._score(settled)
        return self._scores[settled]

    def _score(self, settled: HybridFit) -> float:
        goals, tried = self._goals_of(replace(settled, factors=()))
        shrinkage = settled.shrinkage.times(settled.factors[0])
        fitted = fit_weights(goals, self._labels, self._seen.sources, shrinkage)
        return float(np.mean([_reached(tried[n], fitted[n]) for n in self._labels.names]))

    def _goals_of(self, trusting: HybridFit) -> tuple[dict[str, Goal], dict[str, Goal]]:
        if self._goals is None or self._goals[0] != trusting:
            self._goals = None
            self._goals = trusting, self._find_goals(trusting)
        return self._goals[1]

    def _find_goals(self, trusting: HybridFit) -> tuple[dict[str, Goal], dict[str, Goal]]:
        """Return them of both parts; whatever the shrinkage, they are the same."""
        reliability = trusting.fit_reliability(self._seen, self._labels)
        seen = trusting.goals(self._seen, reliability, self._labels)
        return seen, trusting.goals(self._held_out, reliability, self._labels)


def _climb(steps: Sequence[HybridFit], score: Callable[[HybridFit], float]) -> HybridFit:
    """Return the best, from the middle on: steps beyond one that gains nothing are not tried."""
    place = len(steps) // 2
    for step in (-1, 1):
        while 0 <= place + step < len(steps) and score(steps[place + step]) > score(steps[place]):
            place += step
    return steps[place]


def _reached(goal: Goal, parameters: Floats) -> float:
    return goal.mean_dice_above(goal.logits(parameters), 0.0)


def _measure(test: Counted, fitted: Fitted, labels: LabelSpace) -> HeldOutReport:
    """Return what weights reach on images that they were not fitted on."""
    (reliability, parameters), found = fitted, HeldOutReport.empty(test)
    for n in labels.names:
        stack = _stack(test, n, reliability, labels)
        found.fused[n][:] = stack.dice(parameters[n])
        if any(t.shared for t in test.tables[n]):
            found.shared[n][:] = stack.of_shared(test.tables[n]).dice_parts(parameters[n])
        for k in range(test.sources):
            without = _stack(test, n, reliability, labels, k).dice(parameters[n])
            found.lost[n][k] = found.fused[n] - without
    return found


def _stack(
    counted: Counted,
    label: str,
    reliability: SourceReliability,
    labels: LabelSpace,
    without: int | None = None,
) -> Stack:
    group = labels.group_of(label)
    return Stack.of(counted.tables[label], reliability, group, without, counted.weights)


def _gate(counted: Counted, k: int) -> Gate | None:
    rows = [
        (t.scores[k], t.overlaps[k], t.dice_alone(k))
        for tables in counted.tables.values()
        for t in tables
        if not t.silent[k]
    ]
    return Gate.fit(*np.array(rows).T) if rows else None


def _calibrations(counted: Counted, names: Sequence[str]) -> tuple[Calibration, ...]:
    pixels = np.zeros((2, counted.sources, LEVELS + 1))
    tables = (
        (t, w) for n in names for t, w in zip(counted.tables[n], counted.weights, strict=True)
    )
    for t, weight_of_image in tables:
        # An image counts whatever the size of the object in it.
        pixels += weight_of_image / max(t.truth, 1) * t.pixels_of_levels
    prob = expit(LEVEL_ODDS)
    return tuple(
        Calibration.fit(prob, b[:LEVELS], o[:LEVELS]) for b, o in zip(*pixels, strict=True)
    )
