"""Instance-semantic fusion: the sources' log odds pooled per class and zone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.rules.base import FusionRule
from fusion.rules.calibration import Calibration, Gate, SourceReliability
from fusion.rules.evidence import (
    NEUTRAL,
    SOFT_EDGE,
    ZONES,
    ClassEvidence,
    check_same_image,
    gather,
    logit_table,
)
from fusion.types import Evidence, Prediction, Rule, SoftMask, evidence_at_pixels

# Of log odds, and of weights that sum to 1.
_STEPS = 1 << 16
FAINTEST = 26  # a tenth: from a mask that stays below it nothing is recovered


@dataclass(frozen=True)
class ClassWeights:
    """How one class's sources are pooled.

    Attributes:
        bias: added to the pooled log odds; it is the class's threshold.
        weights: zone -> one weight a source, then that of their mean; zones are alone, shared,
            outline.
        keeps: name of the single source that the class keeps as it is, "" where it is fused.
    """

    bias: float
    weights: Mapping[str, tuple[float, ...]]
    keeps: str = ""

    def __post_init__(self) -> None:
        if set(self.weights) != set(ZONES):
            raise ValueError(f"weights: expected zones {ZONES}, found {sorted(self.weights)}")
        numbers = [self.bias, *(w for zone in self.weights.values() for w in zone)]
        if not np.isfinite(numbers).all():
            raise ValueError(f"weights: expected finite numbers, found {numbers}")

    @classmethod
    def plain(cls, sources: int) -> ClassWeights:
        """Half the logarithmic pool with equal weights, half the mean: it needs no fit."""
        return cls(0.0, dict.fromkeys(ZONES, (0.5 / sources,) * sources + (0.5,)))

    @classmethod
    def single(cls, source: int, names: Sequence[str]) -> ClassWeights:
        """One source alone."""
        row = (*(float(k == source) for k in range(len(names))), 0.0)
        return cls(0.0, dict.fromkeys(ZONES, row), names[source])


@dataclass(frozen=True)
class Hybrid(FusionRule):
    """Pools instance and semantic sources in log odds, with weights per class and zone.

    For class c at pixel x in zone z(x), with M the mean of the sources' probabilities:
    logit F_c = b_c + sum_k w_kcz logit C_k(P_kc) + v_cz logit M_c.
    That is the logarithmic opinion pool (Genest and Zidek, Statistical Science 1986, section 3)
    with weights that depend on the place, and the linear pool as one more opinion, so that the
    plain mean and every single source are cases of it. C_k calibrates a source's probabilities.
    A detection has its say as far as it is worth it, by its score and by its overlap with the
    semantic sources; what is left of its weight, and all of a source's that has nothing to say, is
    the others'. A class that keeps a source is what that source says; where classes may be absent,
    also that there is none. Detections fade out beyond their boxes, so that what a box cuts off is
    the semantic sources' to fill in. Where every class occurs once in an image and nothing reaches
    one half, the object is recovered from the source that is most certain of it.

    Attributes:
        sources: names of the sources, in the order of the weights.
        classes: class name -> weights: in each zone one a source, then that of their mean; a class
            that is absent uses the plain pool.
        gates: name of an instance source -> what its detections are worth.
        calibrations: group of classes ("" for classes without one) -> source -> what its
            probabilities mean; what is absent is taken as it is.
        soft_edge: how far detections fade out beyond their boxes: see `fade_beyond`.
        recover: whether a class that nothing supports is recovered.
    """

    classes: Mapping[str, ClassWeights] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)
    calibrations: Mapping[str, Mapping[str, Calibration]] = field(default_factory=dict)
    soft_edge: float = SOFT_EDGE
    recover: bool = True

    def __post_init__(self) -> None:
        named = {*self.gates, *(s for found in self.calibrations.values() for s in found)}
        named |= {w.keeps for w in self.classes.values() if w.keeps}
        if unknown := sorted(named - set(self.sources)):
            raise ValueError(f"hybrid: expected names of its sources, found {unknown}")
        for label, weights in self.classes.items():
            for zone, row in weights.weights.items():
                if len(row) != len(self.sources) + 1:
                    expected = f"{len(self.sources)} weights and that of the mean"
                    raise ValueError(f"hybrid: {label} {zone}: expected {expected}, found {row}")

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`.

        Raises:
            ValueError: another number of predictions than sources, predictions of different
                images, or weights of a class that the label space does not have.
        """
        self._check(predictions, labels)
        return self.fuse(gather(predictions, labels, self.soft_edge), predictions, labels)

    def _check(self, predictions: Sequence[Prediction], labels: LabelSpace) -> None:
        check_same_image(predictions)
        if unknown := sorted(set(self.classes) - set(labels.names)):
            raise ValueError(f"hybrid: expected classes of '{labels.name}', found {unknown}")
        if self.sources and len(predictions) != len(self.sources):
            expected = f"{len(self.sources)} sources ({', '.join(self.sources)})"
            raise ValueError(f"hybrid: expected {expected}, found {len(predictions)}")

    def fuse(
        self,
        gathered: Sequence[ClassEvidence],
        predictions: Sequence[Prediction],
        labels: LabelSpace,
    ) -> Prediction:
        """Fuse what has been gathered, with the rule's soft edge, of one image's predictions."""
        recover = self.recover and labels.once
        reliability = self.reliability(len(predictions))
        masks: dict[str, tuple[Evidence, ...]] = {}
        for evidence in gathered:
            label = evidence.label
            found, kept = None, self._kept(label)
            if kept is not None:
                if not evidence.silent[kept]:
                    found = predictions[kept].evidence(label, labels.once)
                # Where every class occurs once it has missed it, and the others are asked.
                if found is None and not labels.once and predictions[kept].speaks_of(label):
                    continue
            found = found or self._pooled(evidence, reliability, labels.group_of(label))
            if recover and int(found[1].prob.max(initial=0)) < NEUTRAL:
                found = strongest(label, predictions) or found
            masks[label] = (found,)
        return Prediction(predictions[0].key, predictions[0].size_hw, "semantic", masks)

    def reliability(self, sources: int) -> SourceReliability:
        """Return gates and calibrations by the sources' places."""
        if not self.sources:
            return SourceReliability((None,) * sources)
        calibrations = {
            group: tuple(found.get(name, Calibration()) for name in self.sources)
            for group, found in self.calibrations.items()
        }
        return SourceReliability(tuple(self.gates.get(name) for name in self.sources), calibrations)

    def _kept(self, label: str) -> int | None:
        """Return the place of the source that a class keeps; None where it is pooled."""
        weights = self.classes.get(label)
        return self.sources.index(weights.keeps) if weights and weights.keeps else None

    def _pooled(
        self, evidence: ClassEvidence, reliability: SourceReliability, group: str | None
    ) -> Evidence:
        weights = self.classes.get(evidence.label)
        if weights is None or weights.keeps:
            weights = ClassWeights.plain(len(evidence.prob))
        return evidence_at_pixels(
            evidence.window_xywh, pool(evidence, weights, reliability, group)
        )[0]


def fuse_by_each(
    rules: Sequence[Rule], predictions: Sequence[Prediction], labels: LabelSpace
) -> Iterator[Prediction]:
    """Yield what each of several rules makes of one image; hybrids gather its evidence once.

    Raises:
        ValueError: as the rules.
    """
    gathered: dict[float, list[ClassEvidence]] = {}
    for rule in rules:
        if not isinstance(rule, Hybrid):
            yield rule(predictions, labels)
            continue
        rule._check(predictions, labels)
        edge = rule.soft_edge
        if edge not in gathered:
            gathered[edge] = gather(predictions, labels, edge)
        yield rule.fuse(gathered[edge], predictions, labels)


def pool(
    evidence: ClassEvidence,
    weights: ClassWeights,
    reliability: SourceReliability,
    group: str | None,
) -> npt.NDArray[np.uint8]:
    """Return the pooled probability at the window's pixels, uint8 (h, w), 255 = 1."""
    worth = reliability.worth(evidence.scores, evidence.overlaps, evidence.silent)
    rows = {zone: spread(weights.weights[zone][:-1], worth) for zone in ZONES}
    total = _Total(evidence.zones, weights.bias)
    calibrations = reliability.of_group(group)
    for k in np.flatnonzero(worth):
        total.add(evidence.prob[k], calibrations[k].table(), [row[k] for row in rows.values()])
    of_mean = [weights.weights[zone][-1] for zone in ZONES]
    if any(of_mean):
        total.add(weighted_mean(evidence.prob, worth), logit_table(), of_mean)
    return to_bytes(total.logit)


class _Total:
    """A sum of layers' log odds, each times the weight of the pixel's zone."""

    def __init__(self, zones: npt.NDArray[np.uint8], bias: float) -> None:
        self.logit = np.full(zones.shape, _in_steps(np.float32(bias)), np.float32)
        self._zones = np.left_shift(zones, 8, dtype=np.uint16)
        # Fresh memory costs more than the sum: each layer uses the same.
        self._layer = np.empty_like(self.logit)
        self._codes = np.empty_like(self._zones)
        self._table = np.zeros(1 << 16, np.float32)

    def add(
        self,
        prob: npt.NDArray[np.uint8],
        logits: npt.NDArray[np.float32],
        weights: Sequence[float],
    ) -> None:
        """Add a layer; logits: of the 256 byte values; weights: one a zone."""
        if len(set(weights)) == 1:
            cv2.LUT(prob, _in_steps(np.float32(weights[0]) * logits), self._layer)
        else:
            for zone, weight in enumerate(weights):
                self._table[zone << 8 :][:256] = _in_steps(np.float32(weight) * logits)
            np.bitwise_or(self._zones, prob, out=self._codes)
            cv2.LUT(self._codes, self._table, self._layer)
        self.logit += self._layer


def _in_steps(logits: Any) -> Any:
    """Return float32 log odds in steps so large that sums of them are exact, in any order."""
    return np.rint(logits * _STEPS) / _STEPS


def weighted_mean(prob: npt.NDArray[np.uint8], worth: Floats) -> npt.NDArray[np.uint8]:
    """Return the mean of the sources' probabilities, weighted by their worth.

    Args:
        prob: uint8 (K, h, w).
        worth: float64 (K,), at least one above 0; a source without any has no influence.
    """
    used = np.flatnonzero(worth)
    whole = math.fsum(worth[used].tolist())
    shares = [round(w / whole * _STEPS) for w in worth[used].tolist()]
    total = np.zeros(prob.shape[1:], np.float32)
    # Sums of whole numbers below 2 ** 24 are exact, so that the order does not matter.
    if len(set(shares)) == 1:
        shares = [1] * len(shares)
        for k in used:
            cv2.accumulate(prob[k], total)
    else:
        for k, share in zip(used, shares, strict=True):
            total += cv2.LUT(prob[k], np.arange(256, dtype=np.float32) * np.float32(share))
    # A little more, so that halves are rounded up whatever the quotient's last digits are.
    return cv2.convertScaleAbs(total, alpha=1 / sum(shares), beta=3e-4)


def spread(row: Sequence[float], worth: Floats) -> npt.NDArray[np.float32]:
    """Return one weight a source, float32 (K,), after what is not relied on went to the others.

    A source keeps the part of its weight that it is worth; the rest is divided among all by what
    they are worth. The weights' sum stays, and with it the bias keeps its counterweight.

    >>> spread((0.5, 0.25, 0.25), np.array([0.0, 1.0, 1.0])).tolist()
    [0.0, 0.5, 0.5]
    >>> spread((0.75, 0.25), np.array([0.5, 0.5])).tolist()
    [0.625, 0.375]
    """
    weights = np.array(row, np.float64)
    left_over = math.fsum((weights * (1 - worth)).tolist())
    whole = math.fsum(worth.tolist())
    return (worth * (weights + left_over / whole)).astype(np.float32)


def to_bytes(logit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return log odds as bytes, 255 = 1; at least 0 becomes at least 128, below 0 below it."""
    steps = np.multiply(logit, np.float32(32))
    np.floor(steps, out=steps)
    steps += 256
    return cv2.LUT(np.clip(steps, 0, 511, out=steps).astype(np.uint16), _SIGMOID)


def _sigmoid_table() -> npt.NDArray[np.uint8]:
    centres = (np.arange(512) - 256 + 0.5) / 32
    values = np.rint(255 / (1 + np.exp(-centres)))
    values[:256] = np.minimum(values[:256], NEUTRAL - 1)
    values[256:] = np.maximum(values[256:], NEUTRAL)
    table = np.zeros(1 << 16, np.uint8)
    table[:512] = values
    return table


_SIGMOID = _sigmoid_table()


def strongest(label: str, predictions: Sequence[Prediction]) -> Evidence | None:
    """Return the class's most certain evidence, stretched so that its outline lies at one half.

    The outline is put at half of the highest probability. None where every source's mask stays
    below a tenth.
    """
    found = [e for p in predictions if (e := p.best(label)) is not None]
    candidates = [e for e in found if int(e[1].prob.max()) >= FAINTEST]
    if not candidates:
        return None
    score, mask = max(candidates, key=_certainty)
    gain = min(255.0, 255 / float(mask.prob.max()))
    stretched = np.rint(mask.prob * np.float32(gain)).astype(np.uint8)
    return score, SoftMask(mask.box_xywh, stretched)


def _certainty(evidence: Evidence) -> tuple[Any, ...]:
    """What the most certain evidence has most of; behind it what it is, whoever it comes from."""
    score, mask = evidence
    # A detection is as certain as its score says, whatever its mask's contrast.
    certain = min(score, float(mask.prob.max()) / 255)
    return certain, score, int(mask.prob.sum()), mask.box_xywh, mask.prob.shape, mask.prob.tobytes()
