"""The audit of a data set: its findings as a page, a table, and a draft of corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from converters import audit as detectors
from converters.audit.findings import KINDS, Finding
from converters.describe import Description
from converters.describe import describe as describe_data
from converters.errors import Problem
from converters.files.json_files import dump_json
from converters.files.provenance import environment, result_folder
from converters.types import LabelSpace, Sample
from zoo.progress import Report, note
from zoo.report.audit.page import rank, write_audit
from zoo.source import DataSource

REPORT, FINDINGS, EDITS = "report.html", "findings.json", "edits.yaml"
DESCRIPTION = "description.json"
WORST = 5
_HEAD = """\
# Corrections that the audit holds for fairly certain. Look at report.html, take out what is wrong,
# add what you know better, and give this file to any command: zoo convert ... --edits edits.yaml
"""


def audit(
    source: DataSource,
    out: Path,
    labels_name: str | None,
    *,
    subset: str = "all",
    describe: bool = False,
    jobs: int = 1,
    command: Sequence[str],
    report: Report,
) -> str:
    """Audit a data set, broken files included; return what was found, in words.

    Args:
        source: the data set; its corrections, if any, are applied first.
        out: folder for report.html, findings.json, edits.yaml and description.json; a previous
            audit is replaced.
        labels_name: the label space.
        subset: `train`, `test` or `all`.
        describe: also what the data set is like.
        jobs: processes.
        command: what the user called, for `provenance.json`.
        report: for a progress bar.

    Raises:
        ValueError: nothing to audit, or `out` is not ours to replace.
    """
    labels = source.labels(labels_name)
    provenance: dict[str, Any] = {"command": list(command)}
    if source.edits:
        provenance["edits"] = source.edits.digest
    with result_folder(out, "audit", provenance) as folder:
        samples, problems = scan(source, labels, subset)
        if not samples and not problems:
            raise ValueError(f"{source.path}: expected images to audit, found none")
        findings = detectors.audit(
            samples, problems, labels, jobs=jobs, progress=_phase(report, "looking")
        )
        description = None
        if describe:
            done = _phase(report, "describing")
            description = describe_data(samples, labels, jobs=jobs, progress=done)
        _write_tables(folder, findings, description)
        write_audit(
            folder / REPORT,
            title=f"Audit of {source.path.resolve().name}",
            findings=findings,
            samples=samples,
            labels=labels,
            facts=_facts(source, subset, samples, problems),
            description=description,
            progress=_phase(report, "drawing"),
        )
    return "\n".join(summary(findings, out))


def scan(source: DataSource, labels: LabelSpace, subset: str) -> tuple[list[Sample], list[Problem]]:
    """Read what can be read of a data set, corrected; what its corrections exclude is no problem.

    Raises:
        ValueError: a format that cannot be read, or corrections of other images.
    """
    samples, problems = source.scan(labels, subset, note)
    if source.edits is None:
        return samples, problems
    gone = source.edits.excluded
    left = [p for p in problems if p.key not in gone and p.group not in gone]
    corrected = source.edits.apply(samples, subset=subset, labels=labels, problems=problems)
    return corrected, left


def summary(findings: Sequence[Finding], out: Path) -> list[str]:
    """Return lines for a terminal: how many of each kind, the surest, and where to look."""
    lines = []
    for kind, meaning in KINDS.items():
        found = [finding for finding in findings if finding.kind == kind]
        if found:
            lines.append(f"{len(found):6d}  {kind:10s}  {meaning}")
    worst = rank(findings)[:WORST]
    if worst:
        lines += ["the surest:"]
    lines += [f"  {f.score:.2f}  {f.kind}: {f.key + ': ' if f.key else ''}{f.what}" for f in worst]
    noun = "finding" if len(findings) == 1 else "findings"
    count = f"{len(findings)} {noun}" if findings else "nothing looks wrong"
    return [*lines, f"{out / REPORT}: {count}"]


def _phase(report: Report, note: str) -> Callable[[int, int], None]:
    return lambda done, total: report(done, total, note)


def _write_tables(
    folder: Path, findings: Sequence[Finding], description: Description | None
) -> None:
    records = [asdict(finding) for finding in findings]
    (folder / FINDINGS).write_text(dump_json(records), encoding="utf-8")
    (folder / EDITS).write_text(_HEAD + _yaml(detectors.draft_edits(findings)), encoding="utf-8")
    if description:
        (folder / DESCRIPTION).write_text(dump_json(description.record()), encoding="utf-8")


def _yaml(record: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(record), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def _facts(
    source: DataSource, subset: str, samples: Sequence[Sample], problems: Sequence[Problem]
) -> list[tuple[str, str]]:
    groups = len({sample.patient for sample in samples})
    is_known = any(sample.group for sample in samples)
    annotated = sum(bool(sample.instances) for sample in samples)
    facts = [
        ("Format, subset", f"{source.format}, {subset}"),
        ("Images read", f"{len(samples)} of {groups} patients" if is_known else str(len(samples))),
        ("Annotated", str(annotated)),
        ("Problems in files", str(len(problems))),
        ("Version", f"maskzoo {environment()['versions'].get('maskzoo', 'not installed')}"),
    ]
    return [*facts, ("Corrections", source.edits.digest[:12])] if source.edits else facts
