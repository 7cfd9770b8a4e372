"""The page of a fusion from its sources: scores, what the rule added, pictures; and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.files.provenance import environment
from converters.types import Sample
from fusion.metrics.summary import count_people
from fusion.rules.base import layers
from fusion.rules.file import check_names, check_options, read_rule
from fusion.rules.pooling import Mean
from fusion.rules.refine import Refined
from fusion.rules.registry import FUSIONS
from fusion.rules.voting import Vote
from fusion.sources.ensemble import Ensemble
from fusion.types import Rule
from zoo.progress import Report
from zoo.report.fusion.entries import ReportEntry
from zoo.report.fusion.gains import FusionGains, find_gains
from zoo.report.fusion.measuring import Measured, hybrid_in, measure, show_cases
from zoo.report.fusion.page import write_report
from zoo.report.fusion.tables import best_source, headline, shared_gains, subject_of
from zoo.results.sources import give_images
from zoo.results.truth import DataSetTruth, open_beside
from zoo.source import DataSource


@dataclass(frozen=True)
class FusionReport:
    """What a report says.

    Attributes:
        measured: the scores of sources and rules.
        gains: what the rule that the report is about added; None without a fusion.
    """

    measured: Measured
    gains: FusionGains | None

    @property
    def entries(self) -> tuple[ReportEntry, ...]:
        """The sources, then the rules."""
        return self.measured.entries

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "headline": headline(self.entries),
            "entries": {e.name: {"kind": e.kind, **e.scores.record()} for e in self.entries},
            "gains": self.gains.record() if self.gains else None,
            "shared_over_best_source": self._shared_gains(),
            "recovered": {
                rule: {name: list(keys) for name, keys in found.items()}
                for rule, found in self.measured.recovered.items()
            },
        }

    def _shared_gains(self) -> dict[str, Any]:
        subject, source = subject_of(self.entries), best_source(self.entries)
        if subject is None or source is None:
            return {}
        return {name: gain.record() for name, gain in shared_gains(subject, source).items()}


def _classes(sources: Ensemble) -> str:
    silent = f"; no source says anything of {', '.join(sources.silent)}" if sources.silent else ""
    return f"{len(sources.spoken)} of '{sources.labels.name}'{silent:.200}"


def choose_rules(sources: Ensemble, config: Path | None) -> dict[str, Rule]:
    """Return the rules that a report compares: both plain ones, and that of a fusion config.

    The last one, or `hybrid`, is what the report is about. Without a config that is the mean, to
    which no weights have to be fitted.

    Raises:
        ValueError: a bad config, one that does not fit the sources, or a source with a rule's name.
    """
    plain: dict[str, Rule] = {"mean": Mean(), "vote": Vote()} if len(sources.sources) > 1 else {}
    rules = plain if config else dict(reversed(plain.items()))
    if config is not None:
        rule = read_rule(config)
        check_names(rule, [source.name for source in sources.sources], config)
        check_options(rule, len(sources.sources), sources.labels, config)
        hybrid = hybrid_in(rule)
        name = next((n for n, kind in FUSIONS.items() if type(hybrid or rule) is kind), config.stem)
        rules.pop(name, None)
        rules[name] = rule
    if taken := sorted(set(rules) & {source.name for source in sources.sources}):
        raise ValueError(
            f"{next(s.path for s in sources.sources if s.name == taken[0])}: expected another "
            f"name than that of a rule, found '{taken[0]}'; rename the folder or the file"
        )
    return rules


def open_sources(
    paths: Sequence[Path], data: DataSource, labels_name: str | None
) -> tuple[Ensemble, dict[str, Sample]]:
    """Open stores and submissions of the same images, and the samples that have truth.

    Raises:
        ValueError: they do not fit together, or no image has truth.
    """
    usual = data.labels(labels_name)
    return open_beside(paths, DataSetTruth.read(paths, data, usual), usual, data.path)


def report_fusion(
    out: Path,
    *,
    title: str,
    sources: Ensemble,
    rules: Mapping[str, Rule],
    samples: Mapping[str, Sample],
    facts: Sequence[tuple[str, str]],
    report: Report,
    jobs: int = 1,
) -> FusionReport:
    """Measure sources and rules, and write the page.

    Args:
        out: the HTML file; replaced where it exists.
        title: of the page.
        sources: predictions of the same images.
        rules: name -> rule; the page is about `hybrid`, else about the last one.
        samples: key -> sample with truth.
        facts: name and value of what else a reader wants to know.
        report: for a progress bar.
        jobs: processes.

    Raises:
        ValueError: sources, rules and samples that do not fit together, or an image that cannot be
            read.
    """
    rules = {name: give_images(rule, samples) for name, rule in rules.items()}
    measured = measure(sources, rules, samples, report, jobs)
    subject = subject_of(measured.entries)
    shown = subject or best_source(measured.entries) or measured.entries[0]
    hybrid = hybrid_in(rules.get(subject.name)) if subject else None
    gains = find_gains(measured, subject, hybrid) if subject else None
    write_report(
        out,
        title=title,
        entries=measured.entries,
        cases=show_cases(shown, sources, rules, samples),
        labels=sources.spoken,
        facts=[*_facts(sources, measured), *facts, *_refined(rules.get(shown.name))],
        gains=gains,
        hybrid=hybrid,
    )
    return FusionReport(measured, gains)


def _refined(rule: Rule | None) -> list[tuple[str, str]]:
    """Say what is done to a rule's result, which is no merit of its weights."""
    around = () if rule is None else layers(rule)
    refined = next((found for found in around if isinstance(found, Refined)), None)
    if refined is None:
        return []
    refine, where = refined.refine, dict[str, list[str]]()
    for name, steps in {"others": refine.all, **refine.groups, **refine.classes}.items():
        for step in steps.chosen:
            where.setdefault(step, []).append(name)
    # Without an entry of its own for any group, all classes are meant.
    is_all = not (refine.groups or refine.classes)
    said = "; ".join(
        step if is_all else f"{step} ({', '.join(names)})" for step, names in where.items()
    )
    return [("Refined after fusing", said)] if said else []


def _facts(sources: Ensemble, measured: Measured) -> list[tuple[str, str]]:
    images = measured.entries[0].scores.images
    unknown = len(sources.images) - len(images)
    facts = [
        ("Images", count_people(measured.entries[0].scores).replace(" images", "", 1)),
        ("Classes", _classes(sources)),
        ("Version", f"maskzoo {environment()['versions'].get('maskzoo', 'not installed')}"),
    ]
    return [*facts, ("Images without truth", f"{unknown}, left out")] if unknown else facts
