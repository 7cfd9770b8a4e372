"""Sources and rules measured beside each other on annotated images, in one pass over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converters.masks import CropMask
from converters.types import Sample
from fusion import Hybrid, Rule
from fusion.measures import measure_image
from fusion.metrics import ImageScore, Scores
from fusion.sources import Ensemble
from fusion.types import Prediction
from zoo.evaluate import binary_masks, describe_person, truth_masks
from zoo.fuse import source_names
from zoo.progress import Report, track
from zoo.report.entries import Case, Entry, worst_and_median

MEASURES = ("dice", "confusion", "presence")

Masks = dict[str, dict[str, CropMask]]
"""Name of a source or rule -> class -> mask."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        entries: the sources, then the rules, all on the same images.
        recovered: rule -> class -> images on which it took a bone, that its pool did not find, from
            the source that was most certain of it.
    """

    entries: tuple[Entry, ...]
    recovered: Mapping[str, Mapping[str, tuple[str, ...]]]


def measure(
    sources: Ensemble,
    rules: Mapping[str, Rule],
    samples: Mapping[str, Sample],
    report: Report,
) -> Measured:
    """Score every source alone and every rule on the images that have truth.

    Args:
        sources: predictions of the same images.
        rules: name -> rule, none with the name of a source.
        samples: key -> sample with truth; images without one are left out.
        report: for a progress bar.

    Raises:
        ValueError: no image has truth, an image is predicted in another frame than its truth, or a
            rule does not fit the sources.
    """
    labels = sources.labels
    names = [*(source.name for source in sources.sources), *rules]
    scores: dict[str, list[ImageScore]] = {name: [] for name in names}
    recovered: dict[str, dict[str, list[str]]] = {name: {} for name in rules}
    for predictions in track(read_known(sources, samples), _count(sources, samples), report):
        sample = samples[predictions[0].key]
        truth = truth_masks(sample)
        for name, masks in mask_all(predictions, sources, rules).items():
            found = measure_image(sample.key, masks, truth, labels, sample.size_hw, MEASURES)
            scores[name].append(describe_person(found, sample, labels))
            for label in _recovered(rules.get(name), predictions, sources, masks):
                recovered[name].setdefault(label, []).append(sample.key)
    entries = tuple(
        Entry(name, "rule" if name in rules else "source", Scores(labels, found))
        for name, found in scores.items()
    )
    kept = {
        rule: {n: tuple(keys) for n, keys in found.items()} for rule, found in recovered.items()
    }
    return Measured(entries, kept)


def read_known(
    sources: Ensemble, samples: Mapping[str, Sample], keys: Iterable[str] | None = None
) -> Iterator[tuple[Prediction, ...]]:
    """Yield the sources' predictions of images that have truth, or of some of these.

    Raises:
        ValueError: an image is predicted in another frame than its truth.
    """
    wanted = set(samples if keys is None else keys)
    for key in wanted & sources.images.keys():
        size_hw = tuple(sources.images[key][:2])
        if size_hw != tuple(samples[key].size_hw):
            raise ValueError(
                f"'{key}' was predicted at {size_hw}, its truth is {tuple(samples[key].size_hw)}; "
                "take the data set of whole images"
            )
    yield from read_some(sources, [key for key in sources.images if key in wanted])


def read_some(sources: Ensemble, keys: Sequence[str]) -> Iterator[tuple[Prediction, ...]]:
    """Yield the sources' predictions of some images, in the given order.

    Images that follow each other in the sources are read together, which is faster.
    """
    place = {key: number for number, key in enumerate(sources.images)}
    numbers = [place[key] for key in keys]
    steps = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    for first, last in zip([0, *steps], [*steps, len(numbers)], strict=True):
        if first < last:
            yield from zip(*sources.part(numbers[first], numbers[last - 1] + 1), strict=True)


def _count(sources: Ensemble, samples: Mapping[str, Sample]) -> int:
    return sum(key in samples for key in sources.images)


def mask_all(
    predictions: Sequence[Prediction], sources: Ensemble, rules: Mapping[str, Rule]
) -> Masks:
    """Return one image's masks by every source alone and by every rule."""
    named = {s.name: p for s, p in zip(sources.sources, predictions, strict=True)}
    found = {name: binary_masks(p, sources.labels) for name, p in named.items()}
    for name, rule in rules.items():
        fused = rule(_ordered(rule, named), sources.labels)
        found[name] = binary_masks(fused, sources.labels)
    return found


def _ordered(rule: Rule, named: Mapping[str, Prediction]) -> list[Prediction]:
    names = source_names(rule) or tuple(named)
    if set(names) != set(named):
        expected, found = ", ".join(names), ", ".join(named)
        raise ValueError(f"the fusion config expects the sources {expected}; given are {found}")
    return [named[name] for name in names]


def hybrid_in(rule: Rule | None) -> Hybrid | None:
    """Return the hybrid that a rule is, or that it is built around; None for other rules."""
    inner: object = rule
    while inner is not None and not isinstance(inner, Hybrid):
        inner = getattr(inner, "rule", None)
    return inner


def _recovered(
    rule: Rule | None,
    predictions: Sequence[Prediction],
    sources: Ensemble,
    masks: Mapping[str, CropMask],
) -> list[str]:
    """The classes that a hybrid would not have found without recovering them."""
    hybrid = hybrid_in(rule)
    if hybrid is None or not hybrid.recover:
        return []
    named = {s.name: p for s, p in zip(sources.sources, predictions, strict=True)}
    pooled = replace(hybrid, recover=False)(_ordered(hybrid, named), sources.labels)
    return [name for name, mask in masks.items() if mask.area and not pooled.binary(name).area]


def show_cases(
    subject: Entry,
    sources: Ensemble,
    rules: Mapping[str, Rule],
    samples: Mapping[str, Sample],
) -> list[Case]:
    """Return the subject's worst and median image, with everybody's masks.

    They are chosen by the group of classes that the subject draws worst, which is where there is
    something to see.
    """
    means = subject.scores.per_group()
    group = min(means, key=lambda name: means[name], default=None)
    keys = dict.fromkeys(worst_and_median(subject.scores, group))
    found = {p[0].key: mask_all(p, sources, rules) for p in read_known(sources, samples, keys)}
    what = f"of the {group}" if group else "of all classes"
    return [
        Case(title, key, f"by {subject.name}'s mean Dice {what}", samples[key], found[key], group)
        for title, key in zip(("Worst image", "Median image"), keys, strict=False)
    ]
