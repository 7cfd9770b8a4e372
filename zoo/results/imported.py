"""Predictions of another program as a prediction store, so that they can be scored and fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from converters.errors import DataError
from converters.files.names import is_of_annotations
from converters.formats.coco.files import annotation_files
from converters.formats.yolo.config import YoloConfig
from converters.subsets.names import part_of
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.checks.exchanged import Placement
from fusion.interchange.files.arrays import Activation
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages, WrittenPredictions
from fusion.metrics.annotated import truth_masks
from fusion.metrics.scores import dice
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter, check_replaceable
from fusion.types import LEAST_SCORE, Prediction
from zoo.progress import Report
from zoo.runs.predict import crop_windows, cropped_classes, full_size, to_original_frame
from zoo.source import DataSource

# Of a class in an image, as a store counts them.
_MOST = 2**15 - 1
# Annotated images that are looked at, and the Dice below which something is wrong.
_LOOKED_AT, _HARDLY = 12, 0.3


def data_folder(path: Path) -> tuple[Path, Path | None]:
    """Return the folder of a data set that is named by its folder or by an annotation file.

    Returns:
        The folder, and the annotation file; None where the folder was named.

    Raises:
        ValueError: another file.
    """
    if not path.is_file():
        return path, None
    if path.suffix.lower() != ".json":
        raise ValueError(f"{path}: expected a data set's folder or its annotation file (JSON)")
    beside = path.absolute().parent
    # As COCO and Roboflow lay it out, the data set is the folder above.
    is_inside = is_of_annotations(beside.name) or bool(part_of(beside.name))
    is_below = is_inside or not _is_coco(beside, path)
    folder = beside.parent if is_below and _is_coco(beside.parent, path) else beside
    return folder, path.absolute()


def _is_coco(folder: Path, file: Path) -> bool:
    return file.absolute() in annotation_files(folder)


def import_predictions(
    path: Path,
    data: DataSource,
    out: Path,
    labels_name: str | None,
    *,
    predictions_format: str | None = None,
    annotations: Path | None = None,
    activation: Activation | None = None,
    split_path: Path | None = None,
    fold: int | None = None,
    command: Sequence[str],
    report: Report,
    say: Callable[[str], None],
) -> tuple[int, int]:
    """Write predictions of another program as a prediction store, whole or not at all.

    Args:
        path: a file or a folder in one of `fusion.interchange.files.files.FORMS`.
        data: the data set of the images.
        out: the store's folder.
        labels_name: the classes, as `DataSource.labels` takes them; None is all.
        predictions_format: the format of predictions that are a data set; None recognises it.
        annotations: the annotation file whose ids COCO's results have; None finds it.
        activation: what makes probabilities of arrays of logits.
        split_path: the store holds what a split's folds hold out, and says so.
        fold: of the split; None is all.
        command: what the user called, for the record.
        report: for a progress bar.
        say: told of what the user should know.

    Returns:
        Number of images and of objects.

    Raises:
        ValueError: predictions in no known form, broken, or of other images.
    """
    check_replaceable(out)
    # Before a split chooses classes: other programs' numbers are those of the files.
    own = data.labels()
    if split_path:
        data = data.holding_out(split_path, fold)
    labels = data.labels(labels_name)
    samples = {sample.key: sample for sample in data.read(labels, "all")}
    found = open_written(
        path,
        KnownImages(samples, labels, _numbers(data, own), own.background is not None),
        data.path,
        data_format=predictions_format,
        images=data.images,
        annotations=annotations,
        activation=activation,
        note=say,
    )
    if path.resolve() == data.path.resolve():
        say(f"{path}: the data set's own annotations are taken for predictions")
    wanted = [sample.key for sample in data.read(labels, "val")] if split_path else None
    keys = _covered(path, found, wanted, say)
    covered = [samples[key] for key in keys]
    cropped = cropped_classes(data, labels)
    spoken = cropped or found.classes
    if cropped and found.classes:
        spoken = tuple(name for name in cropped if name in found.classes)
    manifest = Manifest(
        found.kind,
        labels.name,
        labels.names,
        {sample.key: (*full_size(sample), sample.file_name) for sample in covered},
        {"form": found.form, "command": list(command)},
        split=data.held_out[0].digest if data.held_out else "",
        fold=fold,
        subset="val" if split_path else "all",
        classes=spoken,
        domains=crop_windows(covered),
        groups={sample.key: sample.group for sample in covered if sample.group},
        space=labels,
    )
    counts: list[int] = []
    scores: list[float] = []
    problems: list[str] = []
    annotated = [sample.key for sample in covered if sample.instances]
    looked_at = frozenset(annotated[:: -(-len(annotated) // _LOOKED_AT) or 1])
    overlaps: list[float] = []
    placement = Placement(labels.background)
    # Always from the start: what the numbers in the files mean may have changed meanwhile.
    with StoreWriter(out, manifest, is_new=True) as writer:
        try:
            for done, sample in enumerate(covered, 1):
                try:
                    prediction = found.predict(sample.key)
                    counts.append(_count(prediction))
                    scores += [score for _, _, score, _ in prediction.rows()]
                except ValueError as error:
                    problems.append(f"'{sample.key}': {error}")
                    continue
                if not problems:
                    prediction = replace(prediction, classes=frozenset(found.classes) or None)
                    if sample.key in looked_at:
                        overlaps += _overlaps(prediction, sample, labels, placement)
                    writer.append(to_original_frame(prediction, sample, spoken))
                report(done, len(keys), "")
            if problems:
                raise DataError(path, problems)
            _check_counts(path, counts, say)
            if found.kind == "instance":
                _tell_scores(found, scores, labels, say)
            if misplaced := placement.describe():
                say(misplaced)
            if overlaps and (mean := fmean(overlaps)) < _HARDLY:
                say(
                    f"the masks lie on the annotations with a Dice of {mean:.2f} alone, in "
                    f"{len(looked_at)} images: are the order of the classes, that of the pixels "
                    "and the size as they should be?"
                )
        except ValueError:
            writer.discard()
            raise
    return len(keys), sum(counts)


def _overlaps(
    prediction: Prediction, sample: Sample, labels: LabelSpace, placement: Placement
) -> list[float]:
    """Return the Dice of each class that is annotated in an image and spoken of.

    Args:
        prediction: of the image.
        sample: the image, annotated.
        labels: the classes.
        placement: counts the classes' pixels.
    """
    found, truth = binary_masks(prediction, labels), truth_masks(sample, labels)
    spoken = labels.names if prediction.classes is None else prediction.classes
    placement.add({name: found[name] for name in spoken}, truth, sample.size_hw)
    there = [name for name in spoken if name in truth and truth[name].area]
    return [dice(found[name], truth[name]) for name in there]


def _numbers(data: DataSource, own: LabelSpace) -> dict[int, str]:
    """The numbers of the data set's classes, as other programs write them."""
    if data.format == "yolo":
        return dict(YoloConfig.load(data.path).names)
    return dict(enumerate(own.names))


def _count(prediction: Prediction) -> int:
    for label, found in prediction.masks.items():
        if len(found) > _MOST:
            raise ValueError(
                f"expected at most {_MOST} objects of a class, found {len(found)}: {label}"
            )
    return sum(map(len, prediction.masks.values()))


def _tell_scores(
    found: WrittenPredictions,
    scores: Sequence[float],
    labels: LabelSpace,
    say: Callable[[str], None],
) -> None:
    unsure = sum(score < LEAST_SCORE for score in scores)
    if not found.has_scores:
        say(f"no scores are read of {found.form}: each object counts as sure")
    elif not found.gives_scores:
        say("no scores are given: each object counts as sure")
    elif all(score == 1 for score in scores):
        say("all scores are 1: each object counts as sure")
    elif unsure and not labels.once:
        say(
            f"{unsure} of {len(scores)} objects have a score below {LEAST_SCORE:g}: they stay in "
            "the store, and count as not found where a class may occur several times"
        )


def _check_counts(path: Path, counts: Sequence[int], say: Callable[[str], None]) -> None:
    empty = counts.count(0)
    if empty == len(counts):
        raise ValueError(
            f"{path}: expected an object in one of these {empty} images at least, found none: are "
            "they the ones that were predicted?"
        )
    if empty:
        say(f"{empty} of {len(counts)} images have no object: nothing was found there")


def _covered(
    path: Path,
    found: WrittenPredictions,
    wanted: Sequence[str] | None,
    say: Callable[[str], None],
) -> list[str]:
    """The images of which the store is to speak, in order."""
    named = set(found.keys)
    if wanted is None:
        keys = sorted(named)
        if not keys:
            raise ValueError(f"{path}: expected predictions of the data set's images, found none")
        if not found.names_all:
            say(
                f"{len(keys)} images are named; {found.form} name no image without an object: "
                "--split, and --fold, say which others were predicted"
            )
        return keys
    if found.names_all and (lacking := [key for key in wanted if key not in named]):
        raise ValueError(
            f"{path}: expected predictions of the {len(wanted)} held-out images, found none of "
            f"{len(lacking)}, such as '{lacking[0]}'"
        )
    if others := len(named.difference(wanted)):
        say(f"left out {others} images that are not held out")
    return list(wanted)
