"""What a fitted rule reaches on people whom it was not fitted on, by the rules themselves.

Counts are good enough to fit to; a comparison between rules wants the very pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.binary import binary_masks
from fusion.fit.base import Fit
from fusion.fit.choice import score_for
from fusion.fit.counted import Seen
from fusion.fit.objective import Objective, image_values
from fusion.fit.report import ClassReport, likely_gains
from fusion.metrics.intervals import Estimate, mean_over_people
from fusion.metrics.scores import ImageScore, Scores, dice
from fusion.rules.hybrid import fuse_by_each
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
        scored: one an image: the scores of the fitted rule, the one without a fit, the mean, and
            each source; none where nothing but Dice was to be won.
    """

    fused: Floats
    plain: Floats
    mean: Floats
    single: Floats
    without: Floats
    scored: tuple[tuple[ImageScore, ...], ...] = ()

    @classmethod
    def stack(cls, images: Sequence[Judged]) -> Judged:
        """Put images one below the other."""
        scored = tuple(chain.from_iterable(image.scored for image in images))
        columns = {name: np.stack([getattr(i, name) for i in images]) for name in _COLUMNS}
        return cls(**columns, scored=scored)


_COLUMNS = ("fused", "plain", "mean", "single", "without")


@dataclass(frozen=True)
class Judge:
    """Judges a fit image by image; pure, so that it can run in any process.

    Attributes:
        held_out: patient -> the rule that has not seen the patient.
        plain: the rule without a fit.
        labels: the classes.
        mute: whether it is of interest what the rule loses without a source.
        objective: what the rule was fitted for.
    """

    held_out: Mapping[str, Rule]
    plain: Rule
    labels: LabelSpace
    mute: bool = False
    objective: Objective = field(default_factory=Objective)

    def __call__(self, seen: Seen) -> tuple[Prediction, Judged]:
        """Return what the held-out rule makes of an image, and the Dice of all that is compared."""
        predictions, truth, patient = seen
        rule = self.held_out[patient]
        fused, unfitted = fuse_by_each((rule, self.plain), predictions, self.labels)
        plain = self._score(unfitted, truth)
        is_mean = self.plain == Mean()
        mean = plain if is_mean else self._score(Mean()(predictions, self.labels), truth)
        single = [self._score(p, truth) for p in predictions]
        without = np.zeros((0, len(self.labels)))
        if self.mute:
            others = (_mute(predictions, k) for k in range(len(predictions)))
            without = np.stack([self._score(rule(p, self.labels), truth) for p in others])
        scored = () if self.objective.is_dice else (self._scores((fused, unfitted), seen),)
        dice = self._score(fused, truth)
        return fused, Judged(dice, plain, mean, np.stack(single), without, scored)

    def _scores(self, fused: Sequence[Prediction], seen: Seen) -> tuple[ImageScore, ...]:
        shown = (*fused, Mean()(seen[0], self.labels), *seen[0])
        return tuple(score_for(self.objective, p, seen, self.labels) for p in shown)

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
class Won:
    """What a rule was fitted for, on people it was not fitted on; there may be more than Dice.

    Attributes:
        objective: its name.
        fused: of the fitted rule.
        plain: of the rule without a fit.
        mean: of the sources' mean.
        single: source -> of it alone.
        gain: of the fit over the rule without one, with its interval over patients.
        over_mean: of the fit over the mean.
    """

    objective: str
    fused: float
    plain: float
    mean: float
    single: Mapping[str, float]
    gain: Estimate
    over_mean: Estimate

    @classmethod
    def of(
        cls,
        objective: Objective,
        scored: Sequence[Sequence[ImageScore]],
        patients: Sequence[str],
        sources: Sequence[str],
        labels: LabelSpace,
        weights: Floats,
    ) -> Won:
        """Judge by an objective what `Judged.scored` holds."""
        fused, plain, mean, *single = (
            image_values(Scores(labels, images), objective, weights)
            for images in zip(*scored, strict=True)
        )

        def average(values: Floats) -> float:
            return float(np.average(values, weights=weights))

        return cls(
            str(objective),
            average(fused),
            average(plain),
            average(mean),
            dict(zip(sources, map(average, single), strict=True)),
            mean_over_people(fused - plain, patients, weights),
            mean_over_people(fused - mean, patients, weights),
        )

    def describe(self, method: str, plain_name: str) -> str:
        """Return it in a line."""
        best = max(self.single, key=lambda name: self.single[name])
        return (
            f"held-out {self.objective}: fitted {method} {self.fused:.4f}, {plain_name} "
            f"{self.plain:.4f}, mean {self.mean:.4f}, {best} {self.single[best]:.4f}; gain over "
            f"the {plain_name} {self.gain}, over the mean {self.over_mean}"
        )


@dataclass(frozen=True)
class Comparison:
    """A fitted rule beside the same rule without a fit, on people it was not fitted on.

    Attributes:
        report: class name -> the fitted rule beside each source.
        fused: mean Dice of the fitted rule, over classes and images.
        plain_name: how people call the rule without a fit.
        plain: its mean Dice.
        mean: that of the sources' mean.
        gain: of the fit over the rule without one, with its interval over patients.
        over: source -> the gain of the fit over it alone.
        won: the same of what the rule was fitted for; None where that is Dice.
    """

    report: Mapping[str, ClassReport]
    fused: float
    plain_name: str
    plain: float
    mean: float
    gain: Estimate
    over: Mapping[str, Estimate]
    won: Won | None = None

    def describe(self, method: str, best: str = "") -> str:
        """Return who is how good, and whether the fit is worth it; the objective's line first.

        Args:
            method: how the rule is called.
            best: the best source alone, to compare with, too; "" where there is none.
        """
        first = f"{self.won.describe(method, self.plain_name)}\n" if self.won else ""
        return first + self._describe_dice(method, best)

    def _describe_dice(self, method: str, best: str) -> str:
        values = f"fitted {method} {self.fused:.4f}, {self.plain_name} {self.plain:.4f}"
        text = f"held-out mean Dice: {values}; gain over the {self.plain_name} {self.gain}"
        if best:
            text += f", over {best} alone {self.over[best]}"
        if self.gain.is_gain or self.won:
            return text
        return f"{text}: the fit does not surely beat the {self.plain_name}"


def compare(
    fit: Fit[Rule],
    judged: Judged,
    patients: Sequence[str],
    sources: Sequence[str],
    labels: LabelSpace,
    weights: Floats | None = None,
    objective: Objective | None = None,
) -> Comparison:
    """Compare what was judged.

    Args:
        fit: the fit; what it knows of the classes itself is kept.
        judged: of all images.
        patients: whose they are.
        sources: the sources' names.
        labels: the classes.
        weights: float64 (images,), above 0, how much each image counts; None for all alike.
        objective: what the rule was fitted for, where that is not Dice.
    """
    weights = np.ones(len(patients)) if weights is None else weights
    won = None
    if objective is not None and judged.scored:
        won = Won.of(objective, judged.scored, patients, sources, labels, weights)
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
        {
            name: mean_over_people(judged.fused - judged.single[:, k], patients, weights)
            for k, name in enumerate(sources)
        },
        won,
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
            reached=float(fused[i]),
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
    return replace(own, mean=judged.mean, fused=fused, reached=judged.reached)
