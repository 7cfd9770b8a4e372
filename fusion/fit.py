"""Fits the hybrid rule's weights on predictions for images that the models did not learn from.

What the fit has to know of an image is a table per class: how many pixels with this combination of
the sources' evidence and this zone are bone, how many are not. The tables are some thousand rows,
whatever the image's size, so that Dice and its gradient cost next to nothing.

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
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.evidence import (
    LOGIT_LIMIT,
    ZONES,
    ClassEvidence,
    Reliability,
    gather,
    logit_table,
)
from fusion.hybrid import ClassWeights, Hybrid
from fusion.metrics import dice
from fusion.types import Prediction

LEVELS = 16
AT_MOST_SOURCES = 15  # so many sources' levels, and the zone, fit into one int64
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassTable:
    """One class of one image, counted.

    Attributes:
        logits: float32 (n, K), the sources' log odds of each row; never 0 but for a silent source.
        zones: uint8 (n,).
        bone: int64 (n,), pixels of the row that belong to the class in truth.
        other: int64 (n,), pixels of the row that do not.
        missed: true pixels outside every source's window.
    """

    logits: npt.NDArray[np.float32]
    zones: npt.NDArray[np.uint8]
    bone: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    missed: int

    def dice_alone(self, source: int) -> float:
        """Return the Dice of one source's mask, which is empty where the source is silent."""
        chosen = self.logits[:, source] > 0
        hit, area = int(self.bone[chosen].sum()), int((self.bone + self.other)[chosen].sum())
        both = area + int(self.bone.sum()) + self.missed
        return 2 * hit / both if both else 1.0


def _level_centres() -> npt.NDArray[np.float32]:
    step = 2 * LOGIT_LIMIT / LEVELS
    centres = (np.arange(LEVELS + 1) - LEVELS / 2 + 0.5) * step
    centres[LEVELS] = 0.0  # a silent source's
    return centres.astype(np.float32)


def _levels_of_bytes() -> npt.NDArray[np.int64]:
    share = (logit_table() + LOGIT_LIMIT) / (2 * LOGIT_LIMIT)
    return np.clip(np.floor(share * LEVELS).astype(np.int64), 0, LEVELS - 1)


_CENTRES, _LEVELS = _level_centres(), _levels_of_bytes()


def tabulate(evidence: ClassEvidence | None, truth: CropMask, sources: int) -> ClassTable:
    """Count one class of one image; `evidence` is None where no source has seen it.

    Raises:
        ValueError: more sources than a row's code can hold.
    """
    if sources > AT_MOST_SOURCES:
        raise ValueError(f"fit: expected at most {AT_MOST_SOURCES} sources, found {sources}")
    if evidence is None:
        nothing = np.zeros(0, np.int64)
        return ClassTable(
            np.zeros((0, sources), np.float32),
            nothing.astype(np.uint8),
            nothing,
            nothing,
            truth.area,
        )
    code = evidence.zones.astype(np.int64)
    for layer, silent in zip(evidence.prob, evidence.silent, strict=True):
        code = code * (LEVELS + 1) + (LEVELS if silent else _LEVELS[layer])
    real = truth.window(evidence.window_xywh)
    rows, place = np.unique(code, return_inverse=True)
    total = np.bincount(place.ravel(), minlength=len(rows))
    bone = np.bincount(place.ravel(), weights=real.ravel(), minlength=len(rows)).astype(np.int64)
    logits = np.empty((len(rows), sources), np.float32)
    for k in reversed(range(sources)):
        rows, level = np.divmod(rows, LEVELS + 1)
        logits[:, k] = _CENTRES[level]
    return ClassTable(
        logits, rows.astype(np.uint8), bone, total - bone, truth.area - int(real.sum())
    )


@dataclass(frozen=True)
class _Stack:
    """Tables of several images, one below the other, as the optimiser wants them.

    Attributes:
        features: float32 (n, K * zones + 1): log odds in the columns of their zone; a last 1.
        image: int64 (n,), the row's image, 0 .. images - 1.
        bone: float64 (n,). total: float64 (n,). truth: float64 (images,), true pixels.
    """

    features: npt.NDArray[np.float32]
    image: npt.NDArray[np.int64]
    bone: Floats
    total: Floats
    truth: Floats

    @classmethod
    def of(cls, tables: Sequence[ClassTable], sources: int) -> _Stack:
        features = [_features(t, sources) for t in tables]
        image = np.repeat(np.arange(len(tables)), [len(t.bone) for t in tables])
        bone = np.concatenate([t.bone for t in tables]).astype(np.float64)
        other = np.concatenate([t.other for t in tables])
        truth = np.array([t.bone.sum() + t.missed for t in tables], np.float64)
        return cls(np.concatenate(features), image, bone, bone + other, truth)

    def dice(self, parameters: Floats) -> Floats:
        """Hard Dice of each image, float64 (images,)."""
        chosen = (self.features @ parameters.astype(np.float32)) >= 0
        hit = np.bincount(self.image, self.bone * chosen, len(self.truth))
        area = np.bincount(self.image, self.total * chosen, len(self.truth))
        both = self.truth + area
        return np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0)

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """1 - mean soft Dice over the images, and its gradient."""
        p = expit((self.features @ parameters.astype(np.float32)).astype(np.float64))
        images = len(self.truth)
        hit = np.bincount(self.image, self.bone * p, images)
        both = np.maximum(self.truth + np.bincount(self.image, self.total * p, images), 1e-9)
        value = 2 * hit / both
        slope = (2 * self.bone - value[self.image] * self.total) / both[self.image]
        gradient = (slope * p * (1 - p)) @ self.features
        return 1 - float(value.mean()), -gradient / images


def _features(table: ClassTable, sources: int) -> npt.NDArray[np.float32]:
    out = np.zeros((len(table.bone), len(ZONES) * sources + 1), np.float32)
    heard = table.logits != 0
    others = table.logits.sum(axis=1) / np.maximum(heard.sum(axis=1), 1)
    # With the others' mean in its place, a silent source's weight is spread over them.
    logits = np.where(heard, table.logits, others[:, None])
    for zone in range(len(ZONES)):
        rows = table.zones == zone
        out[rows, zone * sources : (zone + 1) * sources] = logits[rows]
    out[:, -1] = 1
    return out


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
                held_out = _Stack.of([tables[label][i] for i in test], len(sources))
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
        stacks = {n: _Stack.of([tables[n][i] for i in rows], sources) for n in labels.names}
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


def _descend(stacks: Sequence[_Stack], toward: Floats, shrink: float) -> Floats:
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


def _tune_bias(stack: _Stack, parameters: Floats) -> Floats:
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
