"""What a fitted rule reaches on people whom it was not fitted on, by the rules themselves.

Counts are good enough to fit to; a comparison between rules wants the very pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.binary import binary_masks
from fusion.fit.base import Fit
from fusion.fit.counted import Seen
from fusion.fit.report import ClassReport, likely_gains
from fusion.metrics.intervals import Estimate, mean_over_people
from fusion.metrics.scores import dice
from fusion.rules.pooling import Mean
from fusion.types import Prediction, Rule


@dataclass(frozen=True)
class Judged:
    """Dice of one image, or of several one below the other.

    Attributes:
        fused: float64 (..., classes), of the fitted rule that has not seen the patient.
        plain: float64 (..., classes), of the rule without a fit.
        mean: float64 (..., classes), of the sources' mean.
        single: float64 (..., K, classes), of each source alone.
        without: float64 (..., K, classes), of the fitted rule where one source says nothing;
            float64 (..., 0, classes) if nobody asked.
    """

    fused: Floats
    plain: Floats
    mean: Floats
    single: Floats
    without: Floats

    @classmethod
    def stack(cls, images: Sequence[Judged]) -> Judged:
        """Put images one below the other."""
        return cls(*(np.stack([getattr(i, name) for i in images]) for name in _COLUMNS))


_COLUMNS = ("fused", "plain", "mean", "single", "without")


@dataclass(frozen=True)
class Judge:
    """Judges a fit image by image; pure, so that it can run in any process.

    Attributes:
        held_out: patient -> the rule that has not seen the patient.
        plain: the rule without a fit.
        labels: the classes.
        mute: whether it is of interest what the rule loses without a source.
    """

    held_out: Mapping[str, Rule]
    plain: Rule
    labels: LabelSpace
    mute: bool = False

    def __call__(self, seen: Seen) -> tuple[Prediction, Judged]:
        """Return what the held-out rule makes of an image, and the Dice of all that is compared."""
        predictions, truth, patient = seen
        rule = self.held_out[patient]
        fused = rule(predictions, self.labels)
        plain = self._score(self.plain(predictions, self.labels), truth)
        is_mean = self.plain == Mean()
        mean = plain if is_mean else self._score(Mean()(predictions, self.labels), truth)
        single = [self._score(p, truth) for p in predictions]
        without = np.zeros((0, len(self.labels)))
        if self.mute:
            others = (_mute(predictions, k) for k in range(len(predictions)))
            without = np.stack([self._score(rule(p, self.labels), truth) for p in others])
        return fused, Judged(self._score(fused, truth), plain, mean, np.stack(single), without)

    def _score(self, prediction: Prediction, truth: Mapping[str, CropMask]) -> Floats:
        found = binary_masks(prediction, self.labels)
        return np.array([dice(mask, truth.get(name, EMPTY)) for name, mask in found.items()])


def _mute(predictions: Sequence[Prediction], place: int) -> list[Prediction]:
    """The predictions, of which one says nothing."""
    return [
        replace(p, masks={}, classes=frozenset()) if k == place else p
        for k, p in enumerate(predictions)
    ]


@dataclass(frozen=True)
class Comparison:
    """A fitted rule beside the same rule without a fit, on people it was not fitted on.

    Attributes:
        report: class name -> the fitted rule beside each source.
        fused: mean Dice of the fitted rule, over classes and images.
        plain_name: how people call the rule without a fit.
        plain: its mean Dice.
        mean: that of the sources' mean.
        gain: of the fit, with its interval over patients.
    """

    report: Mapping[str, ClassReport]
    fused: float
    plain_name: str
    plain: float
    mean: float
    gain: Estimate

    def describe(self, method: str) -> str:
        """Return it in a line: who is how good, and whether the fit is worth it."""
        values = f"fitted {method} {self.fused:.4f}, {self.plain_name} {self.plain:.4f}"
        text = f"held-out mean Dice: {values}; gain {self.gain}"
        if self.gain.is_gain:
            return text
        return f"{text}: the fit does not surely beat the {self.plain_name}"


def compare(
    fit: Fit[Rule],
    judged: Judged,
    patients: Sequence[str],
    sources: Sequence[str],
    labels: LabelSpace,
    weights: Floats | None = None,
) -> Comparison:
    """Compare what was judged.

    Args:
        fit: the fit; what it knows of the classes itself is kept.
        judged: of all images.
        patients: whose they are.
        sources: the sources' names.
        labels: the classes.
        weights: float64 (images,), above 0, how much each image counts; None for all alike.
    """
    weights = np.ones(len(patients)) if weights is None else weights
    report = _report(fit, judged, patients, sources, labels, weights)
    if fit.report:
        report = {n: _known(fit.report[n], found) for n, found in report.items()}
    return Comparison(
        report,
        float(_over_images(judged.fused, weights).mean()),
        fit.plain_name,
        float(_over_images(judged.plain, weights).mean()),
        float(_over_images(judged.mean, weights).mean()),
        mean_over_people(judged.fused - judged.plain, patients, weights),
    )


def _over_images(values: Floats, weights: Floats) -> Floats:
    """Mean over the first axis, as much as each image counts."""
    return np.asarray(np.average(values, axis=0, weights=weights))


def _report(
    fit: Fit[Rule],
    judged: Judged,
    patients: Sequence[str],
    sources: Sequence[str],
    labels: LabelSpace,
    weights: Floats,
) -> dict[str, ClassReport]:
    single, names = _over_images(judged.single, weights), labels.names
    mean, fused = _over_images(judged.mean, weights), _over_images(judged.fused, weights)
    best = single.argmax(axis=0)
    gains = {
        n: mean_over_people(judged.fused[:, i] - judged.single[:, best[i], i], patients, weights)
        for i, n in enumerate(names)
    }
    likely = likely_gains(gains, labels)
    lost = fused - _over_images(judged.without, weights)
    return {
        n: ClassReport(
            single=dict(zip(sources, single[:, i].tolist(), strict=True)),
            mean=float(mean[i]),
            fused=float(fused[i]),
            gain=gains[n],
            likely_gain=likely[n],
            worth=dict(zip(sources, lost[:, i].tolist(), strict=bool(len(lost)))),
            keeps=fit.takes.get(n, ""),
        )
        for i, n in enumerate(names)
    }


def _known(own: ClassReport, judged: ClassReport) -> ClassReport:
    """What the fit decided, and by what; Dice of what the rule does as it was judged."""
    fused = own.fused if own.keeps else judged.fused
    return replace(own, mean=judged.mean, fused=fused)
