"""Scores of stores, submissions and fusions against a data set's truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from converters.parallel import map_ordered
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import measure_prediction
from fusion.metrics.measures import FAST
from fusion.metrics.scores import ImageScore, Scores
from fusion.sources import submission
from fusion.sources.store import PredictionStore
from zoo.progress import Report, note, track
from zoo.results.truth import DataSetTruth, ImageBatch, batches, open_beside
from zoo.source import DataSource

_HELD_OUT_ALONE = "held-out images alone tell how good it is: zoo predict RUN --subset val"


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
    if not source.is_dir() and not known.entries:
        raise ValueError(f"{source}: {other_subset(data, subset)}")
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
    for store in opened.sources:
        if isinstance(store, PredictionStore):
            note_learned(store, keys, data)
    labels, spoken = opened.labels, opened.spoken
    if opened.silent:
        note(
            f"{source}: says nothing of {', '.join(opened.silent):.200}: scores are of the other "
            f"{len(spoken)} classes"
        )
    tasks = ((ImageBatch.of(opened, few), [samples[key] for key in few]) for few in batches(keys))
    measure = partial(_measure_few, labels=labels, spoken=spoken, measures=tuple(measures))
    found = chain.from_iterable(map_ordered(measure, tasks, jobs))
    return Scores(spoken, list(track(found, len(keys), report)))


def note_learned(store: PredictionStore, keys: Collection[str], data: DataSource) -> None:
    """Say of how many of the scored images a store's model knows the truth.

    Args:
        store: of predictions.
        keys: of the images that are scored.
        data: the data set.
    """
    count = count_learned(store, keys, data)
    if count is None:
        note(
            f"{store.path}: its model may have learned from some of the {len(keys)} images that "
            f"are scored (subset '{store.manifest.subset}', its split was not found); "
            f"{_HELD_OUT_ALONE}"
        )
    elif count:
        note(
            f"{store.path}: its model learned from {count} of the {len(keys)} images that are "
            f"scored; {_HELD_OUT_ALONE}"
        )


def count_learned(store: PredictionStore, keys: Collection[str], data: DataSource) -> int | None:
    """Count the images that a store's model learned from; None where that is not known.

    Of a store that names no split, such as one of another program, nobody knows, and nothing is
    said: 0.
    """
    manifest = store.manifest
    if manifest.subset in ("val", "test") or not manifest.split:
        return 0
    if manifest.subset == "train":
        return len(keys)
    split = _split_of(store, data)
    if split is None:
        return None
    # The mean of all folds has learned from whatever any of them has.
    learned = split.keys if manifest.fold is None else split.train(manifest.fold)
    return len(set(keys).intersection(learned))


def _split_of(store: PredictionStore, data: DataSource) -> Split | None:
    """Return the split of a store's run: its own, the one that is given, or the data set's."""
    if data.held_out and data.held_out[0].digest == store.manifest.split:
        return data.held_out[0]
    for folder in (store.path.absolute().parent, data.path):
        if (found := _read(folder / "split.json")) and found.digest == store.manifest.split:
            return found
    return None


def _read(path: Path) -> Split | None:
    try:
        return Split.load(path) if path.is_file() else None
    except ValueError:  # it is nobody's business here what is wrong with it
        return None


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


def other_subset(data: DataSource, subset: str, found: str = "found none there") -> str:
    """Say which images a submission has to have, what was found instead, and what to do.

    Args:
        data: the data set.
        subset: of it.
        found: what was found, after what is expected.
    """
    fold = data.held_out[1] if data.held_out else None
    part = f"'{subset}'" if fold is None else f"'{subset}', fold {fold}"
    return (
        f"expected images of {data.path}, subset {part}, {found}: give the data set of the "
        "predicted images (--data), or what they are of it (--subset train, test or all; val with "
        "--split and --fold); those of a split that was replaced since have to be predicted anew"
    )


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
