"""What a fusion added: over the best single source and over the mean, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.types import LabelSpace
from fusion.metrics.intervals import Estimate
from fusion.metrics.summary import Summary, compare
from fusion.rules.hybrid import Hybrid
from zoo.report import intervals
from zoo.report.fusion.entries import ReportEntry
from zoo.report.fusion.measuring import Measured
from zoo.report.intervals import Mark
from zoo.report.numbers import rounded
from zoo.report.sections import by_group

MEAN = "mean"


@dataclass(frozen=True)
class Gain:
    """One class, or several: the subject beside the best source there, and beside the mean.

    Attributes:
        name: the class, the group, or `all`.
        winner: the source with the highest mean Dice there.
        winner_dice: of that source.
        won: images on which no source has a higher Dice than the winner; None for several classes.
        fused: the subject's mean Dice.
        over_best: the subject minus the winner.
        over_mean: the subject minus the plain mean; None without that rule.
        keeps: the source that the fit keeps for the class; "" where it pools.
        recovered: images on which the class was recovered.
        missing: images on which the subject draws nothing although the class is there.
        missing_winner: the same of the winner.
    """

    name: str
    winner: str
    winner_dice: float
    won: int | None
    fused: float
    over_best: Estimate
    over_mean: Estimate | None
    keeps: str = ""
    recovered: int = 0
    missing: int = 0
    missing_winner: int = 0

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        found = dict(vars(self))
        for field in ("over_best", "over_mean"):
            found[field] = found[field].record() if found[field] else None
        return found


@dataclass(frozen=True)
class FusionGains:
    """What the subject added.

    Attributes:
        subject: the rule's name.
        images: how many it was measured on.
        people: whose they are.
        overall: all classes and each group, each beside the source that is best there.
        classes: one a class, in the label space's order.
    """

    subject: str
    images: int
    people: int
    overall: tuple[Gain, ...]
    classes: tuple[Gain, ...]

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            "rule": self.subject,
            "images": self.images,
            "patients": self.people,
            "overall": [gain.record() for gain in self.overall],
            "classes": [gain.record() for gain in self.classes],
        }


def find_gains(
    measured: Measured, subject: ReportEntry, hybrid: Hybrid | None
) -> FusionGains | None:
    """Return what the subject added; None where there are fewer than two sources to fuse."""
    sources = [entry for entry in measured.entries if entry.kind == "source"]
    if len(sources) < 2 or subject.kind == "source":
        return None
    mean = next((e for e in measured.entries if e.name == MEAN and e != subject), None)
    over = {entry.name: compare(subject.scores, entry.scores, "dice") for entry in sources}
    over_mean = compare(subject.scores, mean.scores, "dice") if mean else None
    recovered = measured.recovered.get(subject.name, {})
    labels = subject.scores.labels
    people = {image.patient or image.key for image in subject.scores.images}
    overall = [
        _of_several(name, names, sources, subject, over, over_mean)
        for name, names in {"all": labels.names, **labels.groups}.items()
    ]
    classes = [
        _of_class(name, sources, subject, over, over_mean, hybrid, len(recovered.get(name, ())))
        for name in labels.names
    ]
    count = len(subject.scores.images)
    return FusionGains(subject.name, count, len(people), tuple(overall), tuple(classes))


def _of_several(
    name: str,
    names: Sequence[str],
    sources: Sequence[ReportEntry],
    subject: ReportEntry,
    over: Mapping[str, Summary],
    over_mean: Summary | None,
) -> Gain:
    winner = max(sources, key=lambda entry: rounded(entry.scores.mean(names)))
    return Gain(
        name,
        winner.name,
        winner.scores.mean(names),
        None,
        subject.scores.mean(names),
        _estimate(over[winner.name], name),
        _estimate(over_mean, name) if over_mean else None,
    )


def _estimate(summary: Summary, name: str) -> Estimate:
    found = summary.overall if name == "all" else summary.groups.get(name)
    return found or Estimate(0.0, None)


def _of_class(
    name: str,
    sources: Sequence[ReportEntry],
    subject: ReportEntry,
    over: Mapping[str, Summary],
    over_mean: Summary | None,
    hybrid: Hybrid | None,
    recovered: int,
) -> Gain:
    dice = {entry.name: [image.dice[name] for image in entry.scores.images] for entry in sources}
    winner = max(sources, key=lambda entry: rounded(entry.scores.mean([name])))
    best = [max(values) for values in zip(*dice.values(), strict=True)]
    weights = hybrid.classes.get(name) if hybrid else None
    return Gain(
        name,
        winner.name,
        winner.scores.mean([name]),
        sum(ours == top for ours, top in zip(dice[winner.name], best, strict=True)),
        subject.scores.mean([name]),
        over[winner.name].classes[name],
        over_mean.classes[name] if over_mean else None,
        weights.keeps if weights else "",
        recovered,
        sum(name in image.missing for image in subject.scores.images),
        sum(name in image.missing for image in winner.scores.images),
    )


# --- as the page shows it


@dataclass(frozen=True)
class GainView:
    """One row of the table: what was gained, and its marks."""

    gain: Gain
    over_best: Mark | None
    over_mean: Mark | None


@dataclass(frozen=True)
class GainTable:
    """The table of gains: classes in sections of a group each.

    Attributes:
        gains: what it shows.
        sections: title -> rows; the first holds all classes together and each group.
        reach: how far the axis of the marks reaches to both sides.
        tally: classes on which the subject is above the best source, below it, and neither.
    """

    gains: FusionGains
    sections: tuple[tuple[str, tuple[GainView, ...]], ...]
    reach: float
    tally: tuple[int, int, int]

    @property
    def has_mean(self) -> bool:
        """Whether the subject was measured beside the plain mean."""
        return self.gains.classes[0].over_mean is not None

    @property
    def has_losses(self) -> bool:
        """Whether a class was drawn nowhere on some image, or recovered there."""
        return any(g.missing or g.missing_winner or g.recovered for g in self.gains.classes)


def gain_table(gains: FusionGains, labels: LabelSpace) -> GainTable:
    """Return the gains as the template shows them."""
    shown = [*gains.overall, *gains.classes]
    reach = intervals.reach_of(e for g in shown for e in (g.over_best, g.over_mean))
    views = {
        gain.name: GainView(
            gain, intervals.mark(gain.over_best, reach), intervals.mark(gain.over_mean, reach)
        )
        for gain in shown
    }
    rows = {gain.name: views[gain.name] for gain in gains.classes}
    together = tuple(
        GainView(g, intervals.mark(g.over_best, reach), intervals.mark(g.over_mean, reach))
        for g in gains.overall
    )
    sections = [("together", together), *by_group(rows, labels)]
    sure = [g.over_best.mean for g in gains.classes if g.over_best.is_sure]
    above, below = sum(mean > 0 for mean in sure), sum(mean < 0 for mean in sure)
    tally = above, below, len(gains.classes) - above - below
    return GainTable(gains, tuple(sections), reach, tally)
