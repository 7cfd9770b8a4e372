"""Fits the hybrid rule's weights on predictions for images that the models did not learn from.

Per class the soft Dice, averaged over the images, is maximised; weights are shrunk toward those of
the class's group, which are shrunk toward those of all classes, which are shrunk toward the equal
pool. Cross-validation by patient then decides whether a class is fused or keeps its best source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.counts import ClassTable, Stack, tabulate
from fusion.evidence import LOGIT_LIMIT, ZONES, Reliability, gather
from fusion.hybrid import ClassWeights, Hybrid
from fusion.metrics import dice
from fusion.types import Prediction

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassReport:
    """What cross-validation said of one class.

    Attributes:
        single: mean held-out Dice of each source alone.
        fused: mean held-out Dice of the fitted pool.
        gain: `fused` minus the best source, held out.
        keeps: the source the class keeps, or "".
    """

    single: Mapping[str, float]
    fused: float
    gain: float
    keeps: str


@dataclass(frozen=True)
class Fit:
    """A fitted rule and why it is as it is."""

    rule: Hybrid
    report: Mapping[str, ClassReport]
    images: int

    def notes(self) -> dict[str, str]:
        """One comment a class, for the rule's file."""
        return {
            label: f"held-out Dice {r.fused:.4f} fused, "
            + ", ".join(f"{v:.4f} {name}" for name, v in r.single.items())
            + (f"; keeps {r.keeps}" if r.keeps else "")
            for label, r in self.report.items()
        }


@dataclass(frozen=True)
class HybridFit:
    """The fit's options.

    Attributes:
        folds: of the cross-validation by patient inside the fit.
        shrink_class: strength that draws a class's weights to its group's.
        shrink_group: strength that draws a group's weights to all classes'.
        shrink_global: strength that draws all classes' weights to the equal pool.
    """

    folds: int = 5
    shrink_class: float = 0.05
    shrink_group: float = 0.02
    shrink_global: float = 0.01

    def __call__(
        self,
        images: Iterable[tuple[Sequence[Prediction], Mapping[str, CropMask], str]],
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
                of sources, or more than 15 sources.
        """
        read = list(images)
        groups = [group for _, _, group in read]
        if len(set(groups)) < 2:
            found = f"{len(set(groups))} in {len(read)} images"
            raise ValueError(f"fit: expected images of at least two patients, found {found}")
        trust = _reliabilities(read, labels)
        progress("counting pixels")
        tables = _tabulate_all(read, labels, trust, len(sources))
        progress("cross-validating")
        report = self._cross_validate(tables, groups, sources, labels)
        progress("fitting")
        fitted = self._fit_all(tables, range(len(read)), labels, len(sources))
        classes = {}
        for label in labels.names:
            keeps = report[label].keeps
            single = ClassWeights.single(sources.index(keeps), sources) if keeps else None
            classes[label] = single or _weights(fitted[label], len(sources))
        named = {sources[k]: r for k, r in trust.items()}
        return Fit(Hybrid(tuple(sources), classes, named), report, len(read))

    def _cross_validate(
        self,
        tables: Mapping[str, Sequence[ClassTable]],
        groups: Sequence[str],
        sources: Sequence[str],
        labels: LabelSpace,
    ) -> dict[str, ClassReport]:
        count = len(groups)
        fused = {label: np.zeros(count) for label in labels.names}
        folds = GroupKFold(min(self.folds, len(set(groups))))
        for train, test in folds.split(np.zeros(count), groups=groups):
            fitted = self._fit_all(tables, train.tolist(), labels, len(sources))
            for label in labels.names:
                held_out = Stack.of([tables[label][i] for i in test], len(sources))
                fused[label][test] = held_out.dice(fitted[label])
        return {n: _report(tables[n], float(fused[n].mean()), sources) for n in labels.names}

    def _fit_all(
        self,
        tables: Mapping[str, Sequence[ClassTable]],
        chosen: Iterable[int],
        labels: LabelSpace,
        sources: int,
    ) -> dict[str, Floats]:
        rows = list(chosen)
        stacks = {n: Stack.of([tables[n][i] for i in rows], sources) for n in labels.names}
        equal = _flat(ClassWeights.equal(sources))
        top = _descend(list(stacks.values()), equal, self.shrink_global)
        group_fits = {
            group: _descend([stacks[n] for n in names], top, self.shrink_group)
            for group, names in labels.groups.items()
            if names
        }
        fitted = {}
        for name, stack in stacks.items():
            group = labels.group_of(name)
            toward = group_fits[group] if group else top
            fitted[name] = _tune_bias(stack, _descend([stack], toward, self.shrink_class))
        return fitted


def _descend(stacks: Sequence[Stack], toward: Floats, shrink: float) -> Floats:
    """Minimise the mean soft loss of the stacks plus shrink * squared distance to `toward`."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        values = [stack.soft_loss(parameters) for stack in stacks]
        away = parameters - toward
        value = float(np.mean([v for v, _ in values])) + shrink * float(away @ away)
        gradient = np.mean([g for _, g in values], axis=0) + 2 * shrink * away
        return value, np.asarray(gradient, np.float64)

    bounds = [(0.0, None)] * (len(toward) - 1) + [(-LOGIT_LIMIT, LOGIT_LIMIT)]
    options = {"maxiter": 60}
    found = minimize(loss, toward, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, np.float64)


def _tune_bias(stack: Stack, parameters: Floats) -> Floats:
    """Move the bias to where hard Dice is best, if it stays best when the neighbours count too."""
    shifts = np.linspace(-0.8, 0.8, 17)
    values = []
    for shift in shifts:
        moved = parameters.copy()
        moved[-1] += shift
        values.append(float(stack.dice(moved).mean()))
    # A single lucky threshold is noise: smooth over three neighbours, then choose.
    padded = np.pad(values, 1, mode="edge")
    smooth = np.convolve(padded, [0.25, 0.5, 0.25], mode="valid")
    best = int(np.argmax(smooth - 1e-4 * np.abs(shifts)))
    tuned = parameters.copy()
    tuned[-1] += shifts[best]
    return tuned


def _report(tables: Sequence[ClassTable], fused: float, sources: Sequence[str]) -> ClassReport:
    alone = {
        name: float(np.mean([table.dice_alone(k) for table in tables]))
        for k, name in enumerate(sources)
    }
    best = max(alone, key=lambda name: alone[name])
    gain = fused - alone[best]
    return ClassReport(alone, fused, gain, "" if gain > 0 else best)


def _flat(weights: ClassWeights) -> Floats:
    rows = [w for zone in ZONES for w in weights.weights[zone]]
    return np.array([*rows, weights.bias], np.float64)


def _weights(parameters: Floats, sources: int) -> ClassWeights:
    rows = {
        zone: tuple(parameters[i * sources : (i + 1) * sources].tolist())
        for i, zone in enumerate(ZONES)
    }
    return ClassWeights(float(parameters[-1]), rows)


def _tabulate_all(
    images: Sequence[tuple[Sequence[Prediction], Mapping[str, CropMask], str]],
    labels: LabelSpace,
    trust: Mapping[int, Reliability],
    sources: int,
) -> dict[str, list[ClassTable]]:
    tables: dict[str, list[ClassTable]] = {label: [] for label in labels.names}
    for predictions, truth, _ in images:
        if len(predictions) != sources:
            raise ValueError(f"fit: expected {sources} sources, found {len(predictions)}")
        found = {e.label: e for e in gather(predictions, labels, trust)}
        for label in labels.names:
            real = truth.get(label, EMPTY)
            tables[label].append(tabulate(found.get(label), real, sources))
    return tables


def _reliabilities(
    images: Sequence[tuple[Sequence[Prediction], Mapping[str, CropMask], str]], labels: LabelSpace
) -> dict[int, Reliability]:
    """Isotonic regression of the detections' Dice on their score, per instance source."""
    found: dict[int, Reliability] = {}
    for k, prediction in enumerate(images[0][0]):
        if prediction.kind != "instance":
            continue
        pairs = [
            (best[0], dice(best[1].binary(p[k].size_hw), truth.get(label, EMPTY)))
            for p, truth, _ in images
            for label in labels.names
            if (best := p[k].best(label)) is not None
        ]
        if pairs:
            found[k] = _isotonic(np.array(pairs))
    return found


def _isotonic(pairs: Floats, knots: int = 9) -> Reliability:
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(pairs[:, 0], pairs[:, 1])
    scores = np.unique(np.round(np.quantile(pairs[:, 0], np.linspace(0, 1, knots)), 4))
    values = np.maximum.accumulate(np.round(model.predict(scores), 4))
    return Reliability(tuple(scores.tolist()), tuple(values.tolist()))
