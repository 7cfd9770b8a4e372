"""Sources and rules measured beside each other on annotated images, in one pass over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from converters.masks import CropMask
from converters.parallel import map_ordered
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.metrics.annotated import measure_masks
from fusion.metrics.objects import predicted_objects
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import has_several
from fusion.objects import split_masks
from fusion.rules.hybrid import Hybrid
from fusion.sources.ensemble import Ensemble
from fusion.types import Prediction, Rule
from zoo.progress import Report, track
from zoo.report.fusion.entries import ReportCase, ReportEntry, worst_and_median
from zoo.results.truth import ImageBatch, batches, check_frames

MEASURES = ("dice", "confusion", "presence")

MasksByEntry = dict[str, dict[str, CropMask]]
"""Name of a source or rule -> class -> mask."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        entries: the sources, then the rules, all on the same images.
        recovered: rule -> class -> images on which it took the class, that its pool did not find,
            from the source that was most certain of it.
    """

    entries: tuple[ReportEntry, ...]
    recovered: Mapping[str, Mapping[str, tuple[str, ...]]]


def measure(
    sources: Ensemble,
    rules: Mapping[str, Rule],
    samples: Mapping[str, Sample],
    report: Report,
    jobs: int = 1,
) -> Measured:
    """Score every source alone and every rule on the images that have truth.

    Args:
        sources: predictions of the same images.
        rules: name -> rule, none with the name of a source.
        samples: key -> sample with truth; images without one are left out.
        report: for a progress bar.
        jobs: processes.

    Raises:
        ValueError: no image has truth, an image is predicted in another frame than its truth, or a
            rule does not fit the sources.
    """
    check_frames(sources.images, samples)
    names = tuple(source.name for source in sources.sources)
    scores: dict[str, list[ImageScore]] = {name: [] for name in (*names, *rules)}
    recovered: dict[str, dict[str, list[str]]] = {name: {} for name in rules}
    keys = [key for key in sources.images if key in samples]
    tasks = ((ImageBatch.of(sources, few), [samples[key] for key in few]) for few in batches(keys))
    labels, spoken = sources.labels, sources.spoken
    work = partial(_measure_few, names=names, labels=labels, spoken=spoken, rules=rules)
    results = chain.from_iterable(map_ordered(work, tasks, jobs))
    for found, taken in track(results, len(keys), report):
        for name, score in found.items():
            scores[name].append(score)
            for label in taken.get(name, ()):
                recovered[name].setdefault(label, []).append(score.key)
    entries = tuple(
        ReportEntry(name, "rule" if name in rules else "source", Scores(spoken, found))
        for name, found in scores.items()
    )
    kept = {
        rule: {n: tuple(keys) for n, keys in found.items()} for rule, found in recovered.items()
    }
    return Measured(entries, kept)


def _measure_few(
    task: tuple[ImageBatch, Sequence[Sample]],
    names: Sequence[str],
    labels: LabelSpace,
    spoken: LabelSpace,
    rules: Mapping[str, Rule],
) -> list[tuple[dict[str, ImageScore], dict[str, list[str]]]]:
    """Score a few images: name -> score, and rule -> the classes that it recovered."""
    results = []
    for predictions, sample in zip(*task, strict=True):
        named = dict(zip(names, predictions, strict=True))
        masks = _mask_all(named, labels, rules)
        objects = {} if labels.once else _objects_all(named, spoken, masks)
        scores = {
            name: measure_masks(found, sample, labels, spoken, MEASURES, objects.get(name))
            for name, found in masks.items()
        }
        taken = {n: _recovered(rule, named, labels, masks[n]) for n, rule in rules.items()}
        results.append((scores, taken))
    return results


def _mask_all(
    named: Mapping[str, Prediction], labels: LabelSpace, rules: Mapping[str, Rule]
) -> MasksByEntry:
    """One image's masks by every source alone and by every rule."""
    found = {name: binary_masks(p, labels) for name, p in named.items()}
    for name, rule in rules.items():
        found[name] = binary_masks(rule(_ordered(rule, named), labels), labels)
    return found


def _objects_all(
    named: Mapping[str, Prediction], labels: LabelSpace, masks: MasksByEntry
) -> dict[str, Mapping[str, Sequence[CropMask]]]:
    """One image's objects by every source alone, and by every rule as `zoo fuse` divides them."""
    sources = tuple(named.values())
    return {
        name: predicted_objects(named[name], labels, found)
        if name in named
        else split_masks(found, sources, labels)
        for name, found in masks.items()
    }


def _ordered(rule: Rule, named: Mapping[str, Prediction]) -> list[Prediction]:
    names = rule.sources or tuple(named)
    if set(names) != set(named):
        expected, found = ", ".join(names), ", ".join(named)
        raise ValueError(f"the fusion config expects the sources {expected}; given are {found}")
    return [named[name] for name in names]


def hybrid_in(rule: Rule | None) -> Hybrid | None:
    """Return the hybrid that a rule is, or that it is built around; None for other rules."""
    inner = None if rule is None else rule.innermost()
    return inner if isinstance(inner, Hybrid) else None


def _recovered(
    rule: Rule,
    named: Mapping[str, Prediction],
    labels: LabelSpace,
    masks: Mapping[str, CropMask],
) -> list[str]:
    """The classes that a hybrid would not have found without recovering them."""
    hybrid = hybrid_in(rule)
    if hybrid is None or not hybrid.recover:
        return []
    pooled = replace(hybrid, recover=False)(_ordered(hybrid, named), labels)
    found = binary_masks(pooled, labels)
    return [name for name, mask in masks.items() if mask.area and not found[name].area]


def show_cases(
    subject: ReportEntry,
    sources: Ensemble,
    rules: Mapping[str, Rule],
    samples: Mapping[str, Sample],
) -> list[ReportCase]:
    """Return the subject's worst and median image, with everybody's masks.

    They are chosen by the group of classes that the subject draws worst, which is where there is
    something to see; as in `worst_and_median`, by panoptic quality or by mean Dice.
    """
    scores, by_objects = subject.scores, has_several(subject.scores)
    means = scores.per_group()
    if by_objects:
        each = {name: scores.pq(names) for name, names in scores.labels.groups.items()}
        means = {name: pq for name, pq in each.items() if pq is not None}
    group = min(means, key=lambda name: means[name], default=None)
    keys = tuple(dict.fromkeys(worst_and_median(scores, group)))
    names = [source.name for source in sources.sources]
    found = {
        p[0].key: _mask_all(dict(zip(names, p, strict=True)), sources.labels, rules)
        for p in ImageBatch.of(sources, keys)
    }
    measure = "panoptic quality" if by_objects else "mean Dice"
    note = f"by {subject.name}'s {measure} of {f'the {group}' if group else 'all classes'}"
    return [
        ReportCase(title, key, note, samples[key], found[key], group)
        for title, key in zip(("Worst image", "Median image"), keys, strict=False)
    ]
