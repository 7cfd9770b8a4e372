"""What corrections of the annotations do to scores: before, after, and the difference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.masks import EMPTY
from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import truth_masks
from fusion.metrics.intervals import Estimate
from fusion.metrics.scores import Scores
from fusion.metrics.summary import Summary, compare, summarize
from zoo.progress import Report
from zoo.results.disagreement import difference
from zoo.results.score_table import CLASS_MEASURES, ordered_measures
from zoo.results.scoring import evaluate
from zoo.results.truth import DataSetTruth
from zoo.source import DataSource

# Of the names' column, in characters.
_NARROWEST = 18


@dataclass(frozen=True)
class CorrectionEffect:
    """Scores of the same predictions against annotations as they were, and as they are now.

    Attributes:
        changed: keys of scored images whose objects are others now.
        left_out: keys of images that count no longer.
        new: keys of images that have annotations only now.
        before: of the images that count in both, as they were; None where none changed.
        after: of the same images, as they are.
    """

    changed: tuple[str, ...]
    left_out: tuple[str, ...]
    new: tuple[str, ...]
    before: Scores | None = None
    after: Scores | None = None

    def summaries(self, measure: str) -> tuple[Summary, Summary, Summary] | None:
        """Return a measure before, after, and the difference after - before; None without any."""
        if self.before is None or self.after is None:
            return None
        before, after = self.before, self.after
        return (
            summarize(before, measure),
            summarize(after, measure),
            compare(after, before, measure),
        )

    def record(self, measures: Sequence[str]) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        found: dict[str, Any] = {
            "changed": list(self.changed),
            "left_out": list(self.left_out),
            "new": list(self.new),
            "measures": {},
        }
        for name in ordered_measures(self.after, measures) if self.after else ():
            if three := self.summaries(name):
                keys = ("before", "after", "difference")
                records = (summary.record() for summary in three)
                found["measures"][name] = dict(zip(keys, records, strict=True))
        return found

    def describe(self, measures: Sequence[str]) -> str:
        """Return it as lines for a terminal."""
        counts = [f"{len(self.changed)} scored images have other objects than before"]
        counts += [f"{len(self.left_out)} are left out"] if self.left_out else []
        counts += [f"{len(self.new)} had no annotations before"] if self.new else []
        lines = [f"corrections: {', '.join(counts)}"]
        if self.after is None:
            return lines[0]
        lines.append(
            f"on the {len(self.after.images)} images that count before and after; * where the 95 % "
            "interval over patients leaves out 0"
        )
        for name in ordered_measures(self.after, measures):
            if three := self.summaries(name):
                lines += _table(name, three)
        return "\n".join(lines)


def score_corrections(
    path: Path,
    data: DataSource,
    labels_name: str | None,
    subset: str,
    report: Report,
    after: Scores,
    measures: Collection[str],
    jobs: int = 1,
) -> CorrectionEffect:
    """Score the images that corrections changed against their former annotations, too.

    Takes what `zoo.results.scoring.evaluate` takes, and the scores that it gave with corrections.

    Raises:
        ValueError: as `evaluate`.
    """
    former = data.uncorrected()
    usual = data.labels(labels_name)
    part = "all" if path.is_dir() and not (subset == "val" and data.held_out) else subset
    now = DataSetTruth.read([path], data, usual, part).annotated
    then = DataSetTruth.read([path], former, usual, part).annotated
    scored = {image.key: image for image in after.images}
    space = after.labels
    changed = tuple(k for k in scored if k in then and not _same(now[k], then[k], space))
    gone = tuple(sorted(k for k in then if k not in now))
    new = tuple(k for k in scored if k not in then)
    if not changed:
        return CorrectionEffect((), gone, new)
    old = evaluate(path, former, labels_name, subset, report, measures, jobs, only=changed)
    by_key = {image.key: image for image in old.images}
    common = [image for key, image in scored.items() if key in then]
    return CorrectionEffect(
        changed,
        gone,
        new,
        Scores(after.labels, [by_key.get(image.key, image) for image in common]),
        Scores(after.labels, common),
    )


def _same(a: Sample, b: Sample, labels: LabelSpace) -> bool:
    """Whether two samples score the same; outlines of the same pixels may be others."""
    if a.group != b.group:
        return False
    if list(a.instances) == list(b.instances):
        return True
    one, other = truth_masks(a, labels), truth_masks(b, labels)
    pairs = ((one.get(name, EMPTY), other.get(name, EMPTY)) for name in labels.names)
    return not any(difference(*pair).area for pair in pairs)


def _table(measure: str, three: tuple[Summary, Summary, Summary]) -> list[str]:
    before, after, difference = three
    title = CLASS_MEASURES[measure]
    rows = [("all", before.overall, after.overall, difference.overall)]
    for part, indent in (("groups", ""), ("classes", "  ")):
        found: Mapping[str, Estimate] = getattr(difference, part)
        for name, change in found.items():
            # Most classes of most corrections are as they were.
            if change.mean:
                values = getattr(before, part).get(name), getattr(after, part).get(name)
                rows.append((f"{indent}{name}", *values, change))
    width = max(_NARROWEST, *(len(name) + 1 for name, *_ in rows))
    lines = [f"{title:{width}s}{'before':>9s}{'after':>9s}{'change':>10s}"]
    return lines + [line for row in rows for line in _line(width, *row)]


def _line(
    width: int,
    title: str,
    before: Estimate | None,
    after: Estimate | None,
    change: Estimate | None,
) -> list[str]:
    if before is None or after is None or change is None:
        return []
    sure = "*" if change.is_sure else " "
    return [
        f"{title:{width}s}{before.mean:9.4f}{after.mean:9.4f}{change.mean:+9.4f}{sure}".rstrip()
    ]
