"""Scores of stores, submissions and fusions against a data set's truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from converters.parallel import map_ordered
from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import measure_prediction
from fusion.metrics.measures import FAST
from fusion.metrics.scores import ImageScore, Scores
from fusion.sources import submission
from fusion.sources.store import PredictionStore
from zoo.progress import Report, note, track
from zoo.results.truth import DataSetTruth, ImageBatch, batches, open_beside
from zoo.source import DataSource


def check_predictions(path: Path) -> None:
    """Make sure that there is a store or a submission, before any data are read.

    Raises:
        ValueError: there is nothing, or another file or folder.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a prediction store or a submission, found nothing")
    if path.is_file():
        next(iter(submission.read(path)), None)
    else:
        PredictionStore(path)


def evaluate(
    source: Path,
    data: DataSource,
    labels_name: str | None,
    subset: str,
    report: Report,
    measures: Collection[str] = FAST,
    jobs: int = 1,
    only: Collection[str] | None = None,
) -> Scores:
    """Score a prediction store, or a submission.

    Args:
        source: a store's folder or a submission's CSV.
        data: the data set with the truth.
        labels_name: label space of a submission; a store names its own. Of either those classes
            are scored that it speaks of.
        subset: the images that a submission has to cover; a store lists its own. Of a store too
            those alone are scored that the data set's folds hold out, where it is `val`.
        report: for a progress bar.
        measures: of `fusion.metrics.measures.MEASURES`; Dice is always there.
        jobs: processes.
        only: keys of images that alone are scored; None is all.

    Raises:
        ValueError: the source is neither, or speaks of other images or classes.
    """
    usual = data.labels(labels_name)
    is_listed = source.is_dir() and not (subset == "val" and data.held_out)
    known = DataSetTruth.read([source], data, usual, "all" if is_listed else subset)
    opened, samples = open_beside([source], known, usual, data.path)
    if not source.is_dir():
        _check_complete(source, known, samples, data)
    keys = [key for key in opened.images if key not in known.left_out]
    if only is not None:
        keys = [key for key in keys if key in only]
    if source.is_dir() and not is_listed:
        keys = [key for key in keys if key in known.samples]
    bare = [key for key in keys if key not in samples]
    if unknown := [key for key in bare if key not in known.samples]:
        raise ValueError(f"{source}: '{unknown[0]}' has no truth in this data set")
    if bare:
        note(f"{data.path}: {len(bare)} images without annotations are not scored: {bare[0]}")
        keys = [key for key in keys if key in samples]
    labels, spoken = opened.labels, opened.labels.only(opened.classes)
    tasks = ((ImageBatch.of(opened, few), [samples[key] for key in few]) for few in batches(keys))
    measure = partial(_measure_few, labels=labels, spoken=spoken, measures=tuple(measures))
    found = chain.from_iterable(map_ordered(measure, tasks, jobs))
    return Scores(spoken, list(track(found, len(keys), report)))


def common_images(sides: tuple[Scores, Scores], names: tuple[str, str]) -> tuple[Scores, Scores]:
    """Return two scores of the images that both have; say how many others there are.

    Args:
        sides: of one prediction and another.
        names: what they are called.

    Raises:
        ValueError: they have no image in common.
    """
    both = {i.key for i in sides[0].images} & {i.key for i in sides[1].images}
    counts = {name: len(one.images) - len(both) for name, one in zip(names, sides, strict=True)}
    if not any(counts.values()):
        return sides
    if not both:
        raise ValueError(
            f"--against: expected images that {names[0]} and {names[1]} have, found none"
        )
    left = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    note(f"compared on the {len(both)} images that both have; left out are {left}")
    first, second = (Scores(s.labels, [i for i in s.images if i.key in both]) for s in sides)
    return first, second


def _check_complete(
    path: Path, known: DataSetTruth, samples: Mapping[str, Sample], data: DataSource
) -> None:
    if missing := sorted(known.annotated.keys() - samples.keys()):
        count = f"{len(missing)} of {len(known.annotated)} images"
        hint = fold_hint(data, samples)
        raise ValueError(f"{path}: {count} are missing, such as '{missing[0]}'{hint}")


def fold_hint(data: DataSource, keys: Collection[str]) -> str:
    """Say which fold's images these are, where all folds' were expected; "" if no one's."""
    split, fold = data.held_out or (None, None)
    if split is None or fold is not None:
        return ""
    gone = {k for k in split.keys if not data.excluded.isdisjoint((k, split.groups[k]))}
    wanted = set(keys) - gone
    alike = (n for n, held_out in enumerate(split.folds) if set(held_out) - gone == wanted)
    number = next(alike, None)
    told = f"; these are the images of fold {number}: give --fold {number}"
    return "" if number is None else told


def _measure_few(
    task: tuple[ImageBatch, Sequence[Sample]],
    labels: LabelSpace,
    spoken: LabelSpace,
    measures: Collection[str],
) -> list[ImageScore]:
    few, samples = task
    return [
        measure_prediction(found, sample, labels, spoken, measures)
        for (found,), sample in zip(few, samples, strict=True)
    ]


def by_file_name(samples: Iterable[Sample]) -> dict[str, str]:
    """Return image base name -> key.

    Raises:
        ValueError: two images have the same base name, so that a submission cannot tell them apart.
    """
    names: dict[str, str] = {}
    for sample in samples:
        if sample.file_name in names:
            other = names[sample.file_name]
            raise ValueError(f"'{sample.key}' and '{other}' are both named {sample.file_name}")
        names[sample.file_name] = sample.key
    return names
