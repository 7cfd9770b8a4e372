"""Predictions held against annotated samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from converters.masks import CropMask, class_masks
from converters.posture import is_bent
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.metrics.measures import FAST, measure_image, parse_measures
from fusion.metrics.objects import match_classes, predicted_objects, true_objects
from fusion.metrics.scores import ImageScore, Scores, score_image
from fusion.metrics.summary import POSTURES
from fusion.types import Prediction


def score(
    predictions: Iterable[Prediction],
    samples: Sequence[Sample],
    labels: LabelSpace,
    measures: str | Collection[str] = FAST,
) -> Scores:
    """Score predictions against annotated samples.

    Args:
        predictions: one an image.
        samples: with the truth; those that nobody has predicted are passed over.
        labels: the classes.
        measures: of `fusion.metrics.measures.MEASURES`, or a text such as `fast` or `dice,nsd`;
            Dice is always there.

    Raises:
        ValueError: an unknown measure, no prediction, or one without a sample, without truth, or
            of another size or of other classes than its sample.
    """
    if isinstance(predictions, Prediction) or isinstance(samples, Sample):
        raise ValueError("score: expected lists of predictions and samples, found a single one")
    wanted = parse_measures(measures) if isinstance(measures, str) else tuple(measures)
    known = {sample.key: sample for sample in samples}
    found = []
    for prediction in predictions:
        prediction.check_classes(labels)
        sample = known.get(prediction.key)
        if sample is None or not sample.instances:
            raise ValueError(
                f"score: '{prediction.key}': expected an annotated sample of this key, found none"
            )
        if tuple(sample.size_hw) != tuple(prediction.size_hw):
            raise ValueError(
                f"score: '{prediction.key}' was predicted at {tuple(prediction.size_hw)}, its "
                f"truth is {tuple(sample.size_hw)}"
            )
        found.append(measure_prediction(prediction, sample, labels, labels, wanted))
    if not found:
        raise ValueError("score: expected predictions, found none")
    return Scores(labels, found)


def truth_masks(sample: Sample, labels: LabelSpace) -> dict[str, CropMask]:
    """Return a sample's true masks, one a label that occurs."""
    return class_masks(sample.instances, sample.size_hw, labels)


def score_prediction(prediction: Prediction, sample: Sample, labels: LabelSpace) -> ImageScore:
    """Score one image's prediction."""
    found = binary_masks(prediction, labels)
    return score_image(prediction.key, found, truth_masks(sample, labels), labels)


def measure_prediction(
    prediction: Prediction,
    sample: Sample,
    labels: LabelSpace,
    spoken: LabelSpace,
    measures: Collection[str],
) -> ImageScore:
    """Score one image's prediction; arguments as for `measure_masks`."""
    masks = binary_masks(prediction, spoken)
    objects = predicted_objects(prediction, spoken, masks) if "objects" in measures else None
    return measure_masks(masks, sample, labels, spoken, measures, objects)


def measure_masks(
    masks: Mapping[str, CropMask],
    sample: Sample,
    labels: LabelSpace,
    spoken: LabelSpace,
    measures: Collection[str],
    objects: Mapping[str, Sequence[CropMask]] | None = None,
) -> ImageScore:
    """Score what a source speaks of; of other classes it says nothing, not that there are none.

    Args:
        masks: class -> mask; a class that is absent is an empty mask.
        sample: the image with its truth.
        labels: all classes.
        spoken: those that the source speaks of.
        measures: of `fusion.metrics.measures.MEASURES`; Dice is always there.
        objects: class -> its objects one by one, to be measured, too; see `measure_prediction`.
    """
    truth = {name: m for name, m in truth_masks(sample, labels).items() if name in spoken.index}
    score = measure_image(
        sample.key,
        masks,
        truth,
        spoken,
        sample.size_hw,
        measures,
        labels.background,
    )
    if not labels.once:
        # Of several true objects that touch, more parts than one are no mistake.
        times = Counter(sample.labels)
        score = replace(score, doubled=tuple(n for n in score.doubled if times[n] < 2))
    if objects is not None:
        # The class of what no object covers has none.
        names = [name for name in spoken.names if name != labels.background]
        matches = match_classes(objects, true_objects(sample, spoken, truth), names)
        score = replace(score, objects=matches)
    return describe_person(score, sample, labels)


def describe_person(score: ImageScore, sample: Sample, labels: LabelSpace) -> ImageScore:
    """Return a score that knows whose image it is, and its posture."""
    bent = is_bent(sample, labels)
    return replace(score, patient=sample.group, posture="" if bent is None else POSTURES[int(bent)])
