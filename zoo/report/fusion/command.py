"""The page of sources and their fusion as a command writes it, and its lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from converters.files.json_files import dump_json
from converters.files.provenance import result_folder
from fusion.metrics.summary import POOLED, SHARED_MEASURES, describe_overlapping
from zoo.progress import Report, note
from zoo.report.fusion.entries import ReportEntry
from zoo.report.fusion.gains import Gain
from zoo.report.fusion.report import FusionReport, choose_rules, open_sources, report_fusion
from zoo.report.fusion.tables import headline, score_columns
from zoo.results.sources import warn_fitted
from zoo.source import DataSource

PAGE, RECORD = "report.html", "report.json"


def write_page(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    config: Path | None,
    labels_name: str | None,
    command: Sequence[str],
    report: Report,
    jobs: int = 1,
) -> FusionReport:
    """Measure sources and rules on annotated images; write OUT/report.html and OUT/report.json.

    Args:
        paths: prediction stores and submissions of the same images.
        data: the data set with their truth.
        out: folder; a previous report is replaced.
        config: a fitted rule; without it the page is about the plain mean.
        labels_name: label space of submissions; a store names its own.
        command: what the user called, for `provenance.json`.
        report: for a progress bar.
        jobs: processes.

    Raises:
        ValueError: sources, config and data set that do not fit together.
    """
    with result_folder(out, "report", {"command": list(command)}) as folder:
        sources, samples = open_sources(paths, data, labels_name)
        rules = choose_rules(sources, config)
        facts = [("Data", data.path.resolve().name)]
        if config is not None:
            facts.append(("Fusion config", config.name))
            if warning := warn_fitted(list(rules.values())[-1], sources, config):
                facts.append(("Caution", warning))
                note(warning)
        elif rules:
            facts.append(("Fusion rule", f"{list(rules)[-1]}, as no config was given"))
        found = report_fusion(
            folder / PAGE,
            title=f"{', '.join(source.name for source in sources.sources)} on {facts[0][1]}",
            sources=sources,
            rules=rules,
            samples=samples,
            facts=facts,
            report=report,
            jobs=jobs,
        )
        (folder / RECORD).write_text(dump_json(found.record()), encoding="utf-8")
    return found


def describe(found: FusionReport) -> str:
    """Return scores, and class by class what the fusion added, as lines for a terminal."""
    lines = [headline(found.entries), table(found.entries)]
    if found.gains is None:
        return "\n".join(lines)
    width = max(len(gain.name) for gain in found.gains.classes)
    lines.append(f"{'class':{width}s}  best source   {found.gains.subject} over it [95 %]")
    lines += [_line(gain, width) for gain in found.gains.classes]
    return "\n".join(lines)


def _line(gain: Gain, width: int) -> str:
    sure = "*" if gain.over_best.is_sure else " "
    kept = f"  keeps {gain.keeps}" if gain.keeps else ""
    recovered = f"  recovered on {gain.recovered}" if gain.recovered else ""
    source = f"{gain.winner} {gain.winner_dice:.4f}"
    return f"{gain.name:{width}s}  {source:18s} {gain.over_best}{sure}{kept}{recovered}"


def table(entries: Sequence[ReportEntry]) -> str:
    """Return the comparison as a table for a terminal."""
    columns = score_columns(entries[0].scores)
    short = {SHARED_MEASURES["shared"]: "shared", SHARED_MEASURES[POOLED]: "pooled"}
    heads = [short.get(title, title) for title in columns]
    width = max(10, *(len(entry.name) for entry in entries))
    lines = ["  ".join([f"{'Dice':{width}s}", *(f"{c:>8s}" for c in heads)])]
    for entry in entries:
        values = [value(entry.scores) for value in columns.values()]
        cells = ["       -" if v is None else f"{v:8.4f}" for v in values]
        lines.append("  ".join([f"{entry.name:{width}s}", *cells]))
    has_shared = entries[0].scores.labels.may_share
    said = describe_overlapping(entries[0].scores) if has_shared else ""
    return "\n".join([*lines, *textwrap.wrap(said, 98)])
