"""Which images are worth correcting: ranked, and written with fused masks as drafts.

The worth of a class on an image is the Dice that its fused mask is expected to lack
(`fusion.metrics.expected`), that of an image the mean over its classes: by so much its mean Dice is
expected to rise where a person makes it right. Of the classes of an image those count that a source
speaks of.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from converters import load_format, written_formats
from converters.files.provenance import atomic_write_text, check_place, result_folder
from converters.masks import EMPTY, CropMask, encode_rle, tight_box, union_box
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.metrics.expected import expected_dice
from fusion.metrics.scores import dice
from fusion.objects import split_masks
from fusion.rules.flagged import flags_of
from fusion.sources.ensemble import Ensemble
from fusion.sources.submission import RleRow
from fusion.types import Prediction, Rule, Window
from zoo.progress import Report
from zoo.results import chunks
from zoo.results.chunks import Chunk, Executor
from zoo.results.disagreement import difference
from zoo.results.fused_objects import write_labels
from zoo.results.sources import open_fusion
from zoo.source import DataSource

KIND, DRAFTS, TABLE, README = "review", "drafts", "review.csv", "README.txt"
# What CVAT imports as annotations of a task or as a data set of a project.
CVAT = {"cvat": "datumaro"}
HEADER = (
    *("rank", "image", "image_worth", "class", "worth", "draft_px", "differing_px"),
    *("x", "y", "width", "height", "farthest_source", "its_dice", "flags"),
)
_NAMED = 3


@dataclass(frozen=True)
class ObjectWorth:
    """Why one class of an image is worth a look.

    Attributes:
        label: the class.
        worth: Dice that the draft is expected to lack, 0 to 1.
        draft_px: pixels of the draft.
        differing_px: pixels that a source and the draft do not share, of all sources together.
        box_xywh: around the largest connected part of these; around the draft where there are none.
        farthest: the source whose mask is least like the draft.
        its_dice: Dice of that mask and the draft.
        flags: what the rule finds odd about the object.
    """

    label: str
    worth: float
    draft_px: int
    differing_px: int
    box_xywh: Window
    farthest: str
    its_dice: float
    flags: str = ""


@dataclass(frozen=True)
class ImageWorth:
    """What a correction of an image is expected to be worth.

    Attributes:
        key: the image.
        worth: mean over its classes of what they are worth, 0 to 1.
        objects: its classes, the most valuable first.
        rows: the drafts.
    """

    key: str
    worth: float
    objects: tuple[ObjectWorth, ...]
    rows: tuple[RleRow, ...] = field(repr=False)

    @property
    def order(self) -> tuple[float, int, str]:
        """What images are sorted by: worth, then pixels that differ, then name."""
        return -self.worth, -sum(one.differing_px for one in self.objects), self.key


def weigh_image(
    predictions: Sequence[Prediction],
    rule: Rule,
    labels: LabelSpace,
    names: Sequence[str],
    classes: Sequence[str],
) -> ImageWorth:
    """Fuse an image's predictions, and say what a correction of the result would be worth.

    Args:
        predictions: one a source.
        rule: fuses them.
        labels: the classes.
        names: of the sources.
        classes: those that get a draft; the background is none to correct.
    """
    fused = rule(predictions, labels)
    drafts = binary_masks(fused, labels)
    masks = [binary_masks(prediction, labels) for prediction in predictions]
    odd: dict[str, list[str]] = {}
    for flag in flags_of(rule, fused, labels):
        odd.setdefault(flag.label, []).append(flag.text)
    objects = []
    for label in classes:
        heard = {
            name: found.get(label, EMPTY)
            for name, prediction, found in zip(names, predictions, masks, strict=True)
            if prediction.speaks_of(label)
        }
        if label != labels.background and heard:
            expected = expected_dice(
                fused, label, drafts[label], tuple(heard.values()), once=labels.once
            )
            texts = "; ".join(odd.get(label, ()))
            objects.append(_weigh(label, 1 - expected, drafts[label], heard, texts))
    objects.sort(key=lambda one: (-one.worth, -one.differing_px, labels.index[one.label]))
    worth = sum(one.worth for one in objects) / max(len(objects), 1)
    apart = split_masks(drafts, predictions, labels)
    rows = (
        RleRow(fused.key, label, encode_rle(mask, fused.size_hw))
        for label in classes
        for mask in apart.get(label, ())
    )
    return ImageWorth(fused.key, worth, tuple(objects), tuple(rows))


def _weigh(
    label: str, worth: float, draft: CropMask, heard: Mapping[str, CropMask], flags: str
) -> ObjectWorth:
    differing = [d for mask in heard.values() if (d := difference(draft, mask)).area]
    alike = {name: dice(mask, draft) for name, mask in heard.items()}
    farthest = min(alike, key=lambda name: (alike[name], name))
    return ObjectWorth(
        label,
        worth,
        draft.area,
        sum(mask.area for mask in differing),
        _largest_part(differing) if differing else tight_box(draft),
        farthest,
        alike[farthest],
        flags,
    )


def _largest_part(masks: Sequence[CropMask]) -> Window:
    """The box of the most pixels that hang together (8 neighbours) where masks lie together."""
    box = union_box(masks)
    together = np.zeros((box[3], box[2]), np.uint8)
    for mask in masks:
        together |= mask.window(box)
    _, _, stats, _ = cv2.connectedComponentsWithStats(together)
    parts = np.asarray(stats)[1:]
    x, y, width, height, _ = parts[parts[:, cv2.CC_STAT_AREA].argmax()].tolist()
    return box[0] + x, box[1] + y, width, height


def _weigh_chunk(
    rule: Rule,
    labels: LabelSpace,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    top: int,
    chunk: Chunk,
) -> list[ImageWorth]:
    each = (weigh_image(p, rule, labels, names, classes) for p in zip(*chunk.parts, strict=True))
    return sorted(each, key=lambda image: image.order)[:top]


def rank_images(
    ensemble: Ensemble, rule: Rule, top: int, executor: Executor, report: Report
) -> list[ImageWorth]:
    """Return the images that are worth most, best first; others do not stay in memory.

    Args:
        ensemble: the sources, in the order of the rule.
        rule: fuses them.
        top: how many images.
        executor: does the work; the result does not depend on it.
        report: for a progress bar.
    """
    names = tuple(source.name for source in ensemble.sources)
    work = partial(_weigh_chunk, rule, ensemble.labels, names, ensemble.classes, top)
    tasks = chunks.cut(ensemble, range(chunks.count(ensemble)), list(ensemble.images))
    best: list[ImageWorth] = []
    total = len(ensemble.images)
    for done, few in enumerate(executor.map(work, tasks, ensemble), start=1):
        best = sorted(chain(best, few), key=lambda image: image.order)[:top]
        report(min(total, done * chunks.IMAGES), total, "")
    return best


@dataclass(frozen=True)
class Review:
    """What was written for people to correct.

    Attributes:
        images: those that were chosen, best first.
        of: how many there were.
        annotated: how many of the chosen ones have annotations already.
        loss: what the format could not hold, in words.
        data_format: of the drafts.
    """

    images: Sequence[ImageWorth]
    of: int
    annotated: int
    loss: str
    data_format: str

    def describe(self, out: Path) -> str:
        """Return it as lines for a terminal."""
        expected = sum(image.worth for image in self.images) / len(self.images)
        lines = [
            f"{out / DRAFTS}: {len(self.images)} of {self.of} images with drafts; mean Dice is "
            f"expected to rise by {expected:.4f} on these where they are made right"
        ]
        if self.annotated:
            lines.append(
                f"{self.annotated} of them have annotations: drafts are the fused masks, not these"
            )
        for number, image in enumerate(self.images[:_NAMED], start=1):
            worst = ", ".join(f"{one.label} {one.worth:.3f}" for one in image.objects[:_NAMED])
            lines.append(f"  {number}. {image.key}: {image.worth:.4f} ({worst})")
        lines.append(f"{out / TABLE}: why each was chosen: which classes, and where")
        lines.append(f"{out / README}: how corrections come back")
        return "\n".join([*lines, *([self.loss] if self.loss else [])])


def review(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    *,
    method: str | None = None,
    config: Path | None = None,
    to: str = "cvat",
    top: int = 10,
    subset: str = "all",
    labels_name: str | None = None,
    jobs: int = 1,
    command: Sequence[str],
    report: Report,
) -> Review:
    """Write the images that are worth most to correct, with drafts, whole or not at all.

    Args:
        paths: prediction stores and submissions.
        data: the data set with the images.
        out: the folder to write: drafts, the table, and how corrections come back.
        method: a rule with its usual options; or give `config`.
        config: a fusion config, by file or shipped name.
        to: `cvat`, or a data set format that can be written.
        top: how many images.
        subset: of the data set.
        labels_name: label space of submissions.
        jobs: processes; the result does not depend on their number.
        command: what the user called, for the record.
        report: for a progress bar.

    Raises:
        ValueError: rule, sources and data set do not fit together, or the result cannot be written.
    """
    data_format = CVAT.get(to, to)
    _check(out, data_format, top)
    rule, ensemble, samples = open_fusion(paths, method, config, data, subset, labels_name)
    best = rank_images(ensemble, rule, top, Executor(jobs), report)
    chosen = {image.key: (samples or {})[image.key] for image in best}
    sources = [str(source.path) for source in ensemble.sources]
    record = {
        "command": list(command),
        "config": {"rule": repr(rule), "sources": sources, "top": top},
    }
    with result_folder(out, KIND, record) as folder:
        loss = write_labels(
            (row for image in best for row in image.rows),
            chosen,
            ensemble.labels.only(ensemble.classes),
            folder / DRAFTS,
            data_format,
            jobs=jobs,
            provenance=record,
            report=report,
        )
        atomic_write_text(folder / TABLE, table(best))
        atomic_write_text(folder / README, _instructions(out, data, to))
    annotated = sum(bool(sample.instances) for sample in chosen.values())
    return Review(best, len(ensemble.images), annotated, loss, data_format)


def _check(out: Path, data_format: str, top: int) -> None:
    if top < 1:
        raise ValueError(f"--top: expected 1 or more, found {top}")
    if not hasattr(load_format(data_format), "write"):
        known = ", ".join(written_formats())
        raise ValueError(f"--to {data_format}: expected a format that can be written: {known}")
    check_place(out, KIND)


def table(images: Sequence[ImageWorth]) -> str:
    """Return why images were chosen as CSV: a row a class whose masks are not all the same."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(images))
    return text.getvalue()


def _rows(images: Sequence[ImageWorth]) -> Iterator[tuple[object, ...]]:
    for rank, image in enumerate(images, start=1):
        for one in image.objects:
            if one.worth > 0 or one.differing_px or one.flags:
                numbers = f"{image.worth:.6f}", one.label, f"{one.worth:.6f}"
                pixels = one.draft_px, one.differing_px, *one.box_xywh
                farthest = one.farthest, f"{one.its_dice:.6f}", one.flags
                yield rank, image.key, *numbers, *pixels, *farthest


def _instructions(out: Path, data: DataSource, to: str) -> str:
    drafts = out / DRAFTS
    steps = [
        f"{DRAFTS}/ is a data set; {TABLE} says for each image which classes to look at, and where",
        "(x, y, width and height in pixels of the image).",
        "",
    ]
    if to in CVAT:
        steps += [
            f"There: zip the content of {DRAFTS}/ and import it into a CVAT project as a data set",
            'in format "Datumaro 1.0".',
            'Back: export the project in format "Datumaro 1.0" (images are not needed) and put its',
            f"annotations/ in the place of {DRAFTS}/annotations/. Keep {DRAFTS}/images.json and",
            f"{DRAFTS}/images/.",
        ]
    else:
        steps += [f"Correct the annotations in {DRAFTS}/ and save them there, under their names."]
    place, drafts_text = shlex.quote(str(data.path)), shlex.quote(str(drafts))
    source = f"--data {place} --edits {drafts_text}"
    steps += [
        "",
        "What the corrections do to scores, before and after:",
        f"    zoo evaluate PREDICTIONS {source}",
        "Every command that takes --edits reads them in the place of the data set's annotations:",
        f"    zoo train FAMILY {source}",
        f"    zoo convert {place} --edits {drafts_text} --to FORMAT --out CORRECTED",
    ]
    return "\n".join(steps) + "\n"
