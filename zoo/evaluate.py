"""Scores of stores, submissions and fusions against a data set's truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from converters.masks import EMPTY, CropMask, rasterize_labels
from converters.parallel import map_ordered
from converters.posture import is_bent
from converters.types import LabelSpace, Sample
from fusion import submission
from fusion.measures import FAST, measure_image
from fusion.metrics import ImageScore, Scores, score_image
from fusion.store import PredictionStore
from fusion.summary import POSTURES
from fusion.types import Prediction
from zoo.progress import Report, track
from zoo.source import DataSource

_Found = Prediction | dict[str, CropMask]


def truth_masks(sample: Sample) -> dict[str, CropMask]:
    """Return a sample's true masks, one a label."""
    return rasterize_labels(sample.instances, sample.size_hw)


def check_sizes(store: PredictionStore, samples: Mapping[str, Sample]) -> None:
    """Make sure that a store's predictions lie in the frame of the samples' truth.

    Raises:
        ValueError: an image has another size here and there, such as that of a crop.
    """
    for key, (height, width, _) in store.manifest.images.items():
        if key in samples and tuple(samples[key].size_hw) != (height, width):
            raise ValueError(
                f"{store.path}: '{key}' is {(height, width)}, its truth {samples[key].size_hw}; "
                "take the data set of whole images, from which the crops were cut"
            )


def binary_masks(prediction: Prediction, labels: LabelSpace) -> dict[str, CropMask]:
    """Return the masks that a submission of this prediction would hold."""
    found = {name: prediction.evidence(name, labels.once) for name in labels.names}
    return {n: e[1].binary(prediction.size_hw) if e else EMPTY for n, e in found.items()}


def score_prediction(prediction: Prediction, sample: Sample, labels: LabelSpace) -> ImageScore:
    """Score one image's prediction."""
    found = binary_masks(prediction, labels)
    return score_image(prediction.key, found, truth_masks(sample), labels)


def evaluate(
    source: Path,
    data: DataSource,
    labels_name: str,
    subset: str,
    report: Report,
    measures: Collection[str] = FAST,
    jobs: int = 1,
) -> Scores:
    """Score a prediction store, or a submission.

    Args:
        source: a store's folder or a submission's CSV.
        data: the data set with the truth.
        labels_name: label space of a submission; a store names its own.
        subset: the images that a submission has to cover; a store lists its own.
        report: for a progress bar.
        measures: of `fusion.measures.MEASURES`; Dice is always there.
        jobs: processes.

    Raises:
        ValueError: the source is neither, or speaks of other images or classes.
    """
    found: Iterable[tuple[str, _Found]]
    if source.is_dir():
        store = PredictionStore(source)
        labels = store.label_space()
        samples = data.annotated(labels)
        check_sizes(store, samples)
        found = ((p.key, p) for p in store)
        total, left_out = len(store.manifest.images), data.left_out(labels)
        spoken = labels.only(store.manifest.classes or labels.names)
    else:
        labels = LabelSpace.load(labels_name)
        samples, left_out = data.annotated(labels, subset), data.left_out(labels, subset)
        masks = _submitted(source, samples, left_out, labels)
        found, total, spoken = masks.items(), len(masks), labels
    tasks = _tasks(source, ((k, f) for k, f in found if k not in left_out), samples)
    measure = partial(_measure, labels=labels, spoken=spoken, measures=tuple(measures))
    return Scores(spoken, list(track(map_ordered(measure, tasks, jobs), total, report)))


def _submitted(
    path: Path,
    samples: Mapping[str, Sample],
    left_out: Mapping[str, Sample],
    labels: LabelSpace,
) -> dict[str, dict[str, CropMask]]:
    known = {**left_out, **samples}
    keys = by_file_name(known.values())
    sizes = {name: known[key].size_hw for name, key in keys.items()}
    masks = {keys[name]: found for name, found in submission.read_masks(path, sizes)}
    if missing := sorted(set(samples) - set(masks)):
        count = f"{len(missing)} of {len(samples)} images"
        raise ValueError(f"{path}: {count} are missing, such as '{missing[0]}'")
    for key, found in masks.items():
        if unknown := sorted(set(found) - set(labels.names)):
            raise ValueError(f"{path}: '{key}': unknown class '{unknown[0]}'")
    return masks


def _tasks(
    source: Path, found: Iterable[tuple[str, _Found]], samples: Mapping[str, Sample]
) -> Iterator[tuple[_Found, Sample]]:
    for key, masks in found:
        if key not in samples:
            raise ValueError(f"{source}: '{key}' has no truth in this data set")
        yield masks, samples[key]


def _measure(
    task: tuple[_Found, Sample],
    labels: LabelSpace,
    spoken: LabelSpace,
    measures: Collection[str],
) -> ImageScore:
    """Score what a source speaks of; of other classes it says nothing, not that there are none."""
    found, sample = task
    masks = binary_masks(found, spoken) if isinstance(found, Prediction) else found
    truth = {name: m for name, m in truth_masks(sample).items() if name in spoken.index}
    score = measure_image(
        *(sample.key, masks, truth, spoken, sample.size_hw),
        *(measures, labels.background),
    )
    return describe_person(score, sample, labels)


def describe_person(score: ImageScore, sample: Sample, labels: LabelSpace) -> ImageScore:
    """Return a score that knows whose image it is, and whether the hand is bent."""
    bent = is_bent(sample, labels)
    return replace(score, patient=sample.group, posture="" if bent is None else POSTURES[int(bent)])


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
