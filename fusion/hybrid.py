"""Instance-semantic fusion: the sources' log odds pooled per class and zone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.evidence import (
    NEUTRAL,
    ZONES,
    ClassEvidence,
    Reliability,
    check_same_image,
    gather,
    logit_table,
)
from fusion.types import Evidence, Prediction, SoftMask, evidence_at_pixels

FAINTEST = 26  # a tenth: from a mask that stays below it nothing is recovered


@dataclass(frozen=True)
class ClassWeights:
    """How one class's sources are pooled.

    Attributes:
        bias: added to the pooled log odds; it is the class's threshold.
        weights: zone -> one weight a source; zones are alone, shared, outline.
        keeps: name of the single source that the class keeps, "" where it is fused. For reading;
            the weights say the same.
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
    def equal(cls, sources: int) -> ClassWeights:
        """The logarithmic opinion pool with equal weights, which needs no fit."""
        return cls(0.0, {zone: (1 / sources,) * sources for zone in ZONES})

    @classmethod
    def single(cls, source: int, names: Sequence[str]) -> ClassWeights:
        """One source alone."""
        row = tuple(float(k == source) for k in range(len(names)))
        return cls(0.0, dict.fromkeys(ZONES, row), names[source])


@dataclass(frozen=True)
class Hybrid:
    """Pools instance and semantic sources in log odds, with weights per class and zone.

    For class c at pixel x in zone z(x): logit F_c = b_c + sum_k w_kcz logit P_kc. This is the
    logarithmic opinion pool (Genest and Zidek, Statistical Science 1986, section 3) with weights
    that depend on the place. A detection's log odds are first multiplied by how reliable its
    score is. The weight of a detector that found nothing is spread evenly over the other sources:
    left out, it would leave the bias without a counterweight. Each class occurs once: where nothing
    reaches one half, the object is recovered from the source that is most certain of it.

    Attributes:
        sources: names of the prediction stores, in the order of the weights.
        classes: class name -> weights; a class that is absent uses equal weights.
        reliability: name of an instance source -> what its scores mean.
        recover: whether a class that nothing supports is recovered.
    """

    sources: tuple[str, ...] = ()
    classes: Mapping[str, ClassWeights] = field(default_factory=dict)
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    recover: bool = True

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.reliability) - set(self.sources)):
            raise ValueError(f"hybrid: reliability of sources that are not there: {unknown}")
        for label, weights in self.classes.items():
            for zone, row in weights.weights.items():
                if len(row) != len(self.sources):
                    expected = f"{len(self.sources)} weights"
                    raise ValueError(f"hybrid: {label} {zone}: expected {expected}, found {row}")

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`.

        Raises:
            ValueError: another number of predictions than sources, predictions of different
                images, or weights of a class that the label space does not have.
        """
        check_same_image(predictions)
        if unknown := sorted(set(self.classes) - set(labels.names)):
            raise ValueError(f"hybrid: expected classes of '{labels.name}', found {unknown}")
        if self.sources and len(predictions) != len(self.sources):
            expected = f"{len(self.sources)} sources ({', '.join(self.sources)})"
            raise ValueError(f"hybrid: expected {expected}, found {len(predictions)}")
        trust = {self.sources.index(name): r for name, r in self.reliability.items()}
        plain = ClassWeights.equal(len(predictions))
        masks: dict[str, tuple[Evidence, ...]] = {}
        for evidence in gather(predictions, labels, trust):
            weights = self.classes.get(evidence.label, plain)
            pooled = pool(evidence, weights)
            if self.recover and int(pooled.max(initial=0)) < NEUTRAL:
                found = strongest(evidence.label, predictions)
                if found is not None:
                    masks[evidence.label] = (found,)
                    continue
            masks[evidence.label] = evidence_at_pixels(evidence.window_xywh, pooled)
        return Prediction(predictions[0].key, predictions[0].size_hw, "semantic", masks)


def pool(evidence: ClassEvidence, weights: ClassWeights) -> npt.NDArray[np.uint8]:
    """Return the pooled probability at the window's pixels, uint8 (h, w), 255 = 1."""
    rows = {zone: spread(weights.weights[zone], evidence.silent) for zone in ZONES}
    zone_base = evidence.zones.astype(np.uint16) << 8
    total = np.full(evidence.zones.shape, weights.bias, np.float32)
    logits = logit_table()
    for k in np.flatnonzero(~evidence.silent):
        table = np.concatenate([rows[zone][k] * logits for zone in ZONES])
        total += table.take(zone_base | evidence.prob[k])
    return to_bytes(total)


def spread(row: Sequence[float], silent: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return one weight a source, float32 (K,), those of silent ones spread over the others.

    >>> spread((0.5, 0.25, 0.25), np.array([True, False, False])).tolist()
    [0.0, 0.5, 0.5]
    """
    weights = np.array(row, np.float32)
    heard = ~silent
    weights[heard] += weights[silent].sum() / np.count_nonzero(heard)
    weights[silent] = 0
    return weights


def to_bytes(logit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return log odds as bytes, 255 = 1; at least 0 becomes at least 128, below 0 below it."""
    steps = np.clip(np.floor(logit * np.float32(32)) + 256, 0, 511).astype(np.uint16)
    return _SIGMOID.take(steps)


def _sigmoid_table() -> npt.NDArray[np.uint8]:
    centres = (np.arange(512) - 256 + 0.5) / 32
    values = np.rint(255 / (1 + np.exp(-centres)))
    values[:256] = np.minimum(values[:256], NEUTRAL - 1)
    values[256:] = np.maximum(values[256:], NEUTRAL)
    return values.astype(np.uint8)


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
    # A detection is as certain as its score says, whatever its mask's contrast.
    best = max(candidates, key=lambda e: min(e[0], float(e[1].prob.max()) / 255))
    score, mask = best
    gain = min(255.0, 255 / float(mask.prob.max()))
    stretched = np.rint(mask.prob * np.float32(gain)).astype(np.uint8)
    return score, SoftMask(mask.box_xywh, stretched)
