"""A config's augmentation, looked at and written to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import converters
from converters.files.atomic import clear_leftovers, unfinished, workplace
from converters.files.images import Pixels
from converters.files.outputs import check_file
from converters.files.provenance import made_of
from converters.masks import unpack_labels
from converters.parallel import map_ordered
from converters.pictures.colors import class_colors
from converters.pictures.drawing import View, draw_masks
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from zoo.augmentation.instances import pack_instances, unpack_instances
from zoo.augmentation.pipeline import Augmentation
from zoo.config import RunConfig, load_run_config
from zoo.data.items import Items, SampleItems
from zoo.data.reading import read_image, resize_image, resize_packed
from zoo.data.training_set import other_index
from zoo.progress import Report
from zoo.source import DataSource

VERSIONS = 4
# Of a picture on the contact sheet, and of the gap between two.
_HEIGHT_PX, _GAP_PX = 420, 6
_GROUND = 24
# By this text in it a contact sheet is recognised.
_SHEET = "maskzoo contact sheet"


class AugmentPlan(NamedTuple):
    """What a config says about augmentation.

    Attributes:
        steps: its `augment`.
        labels: the classes.
        size_hw: at which the network is trained.
    """

    steps: Sequence[Mapping[str, Any]]
    labels: LabelSpace
    size_hw: tuple[int, int]


def plan(
    kind: type[RunConfig], family: str, config: str, changes: Sequence[str], data: DataSource
) -> AugmentPlan:
    """Read what a config says about augmentation.

    Raises:
        ValueError: a bad config, or one that augments nothing.
    """
    loaded: Any = load_run_config(kind, family, config, changes, data)
    if not loaded.augment:
        raise ValueError(f"{family} config '{config}': expected 'augment' with steps, found none")
    return AugmentPlan(loaded.augment, loaded.labels, loaded.size)


def preview(
    steps: Sequence[Mapping[str, Any]],
    labels: LabelSpace,
    size_hw: tuple[int, int],
    data: DataSource,
    out: Path,
    count: int = 4,
    seed: int = 0,
) -> int:
    """Draw a contact sheet: a row a sample, first as it is, then augmented, with outlines.

    The versions are those that training with this seed would see at its first epochs, for samples
    in this order.

    Args:
        steps: the config's `augment`.
        labels: the classes.
        size_hw: at which the network is trained.
        data: where the samples are taken from.
        out: PNG to write.
        count: samples, spread over the data set.
        seed: of the augmentation.

    Returns:
        How many samples are on the sheet.

    Raises:
        ValueError: a bad step, `count` below 1, or no annotated images.
    """
    check_file(out, "a contact sheet", lambda text: _SHEET in text)
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
    augment = Augmentation(steps, labels)
    samples = list(data.annotated(labels, "train").values())
    items = SampleItems(samples, labels, _channels(data))
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int)).tolist()
    rows = [_row(items, index, size_hw, augment, labels, seed) for index in chosen]
    marked = PngInfo()
    marked.add_text("Software", _SHEET)
    with unfinished(out) as place:
        Image.fromarray(_stack(rows, axis=0)[..., ::-1]).save(place, "PNG", pnginfo=marked)
    return len(rows)


def _read(items: Items, index: int, size_hw: tuple[int, int]) -> tuple[Pixels, Pixels]:
    item = items[index]
    return resize_image(item.image, size_hw), resize_packed(item.packed, size_hw)


def _row(
    items: Items,
    index: int,
    size_hw: tuple[int, int],
    augment: Augmentation,
    labels: LabelSpace,
    seed: int,
) -> Pixels:
    def others(generator: np.random.Generator) -> tuple[Pixels, Pixels]:
        return _read(items, other_index(len(items), index, generator), size_hw)

    image, packed = _read(items, index, size_hw)
    pairs = [(image, packed)]
    pairs += [augment(image, packed, (seed, i, index), others) for i in range(VERSIONS)]
    return _stack([_draw(*pair, labels) for pair in pairs], axis=1)


def _draw(image: Pixels, packed: Pixels, labels: LabelSpace) -> Pixels:
    height, width = image.shape[:2]
    view = View((0, 0, width, height), (_HEIGHT_PX, max(1, round(width * _HEIGHT_PX / height))))
    way = cv2.INTER_AREA if view.scale < 1 else cv2.INTER_LINEAR
    ground = cv2.resize(image, view.size_hw[::-1], interpolation=way).astype(np.float32) / 255
    # In OpenCV's order, as everything that is drawn.
    ground = np.repeat(ground[..., None], 3, axis=2) if image.ndim == 2 else ground[..., ::-1]
    drawn = draw_masks(ground, unpack_labels(packed, labels), view, class_colors(labels.names))
    return np.rint(drawn[..., ::-1] * 255).astype(np.uint8)


def _stack(pictures: Sequence[Pixels], axis: int) -> Pixels:
    width = [(0, 0)] * 3
    width[axis] = (0, _GAP_PX)
    padded = [np.pad(picture, width, constant_values=_GROUND) for picture in pictures]
    return np.concatenate(padded, axis=axis)


# --- to disk


def write(
    steps: Sequence[Mapping[str, Any]],
    labels: LabelSpace,
    data: DataSource,
    out: Path,
    *,
    copies: int,
    data_format: str,
    split_path: Path | None = None,
    fold: int = 0,
    seed: int = 0,
    jobs: int = 1,
    command: Sequence[str],
    report: Report,
) -> tuple[int, str]:
    """Write a data set of the train images and augmented copies of them.

    A copy of `KEY` is `KEY-aug1`, `KEY-aug2`, ..., of the original's group and at the original's
    size; a parameter that counts pixels counts those of the original. With a split, only what the
    fold learns from is copied, and what it holds out stays as it is: training has copies,
    validation has none. The split that the result carries (`split.json`) has each copy in its
    original's fold, so that no fold learns from copies of what it holds out; it is made for this
    fold, and others would score on copies.

    Args:
        steps: the config's `augment`.
        labels: the classes.
        data: what is augmented.
        out: the result's folder; a previous result of this format is replaced.
        copies: of each image.
        data_format: of the result.
        split_path: folds; None copies every image, and holds out none.
        fold: the fold that is held out.
        seed: of the augmentation.
        jobs: processes; the result does not depend on their number.
        command: what the user called.
        report: progress.

    Returns:
        How many images were written, and what the format lost, in words.

    Raises:
        ValueError: a bad step, no copies, unreadable data, or a split of other images.
    """
    if copies < 1:
        raise ValueError(f"copies: expected at least 1, found {copies}")
    Augmentation(steps, labels)
    samples = data.read(labels)
    split = Split.load(split_path) if split_path else None
    if split:
        split.check(samples, data.excluded)
    held_out = set(split.val(fold)) if split else set()
    learned = [sample for sample in samples if sample.key not in held_out]
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out.parent, out.name)
    with workplace(out) as folder:
        how = copies, seed, _channels(data)
        make = partial(_make_copies, steps, labels, learned, *how, folder)
        made: list[Sample] = []
        for done, few in enumerate(map_ordered(make, range(len(learned)), jobs), 1):
            made += few
            report(done, len(learned), "augmenting")
        _check_new(made, samples)
        loss = converters.write(
            [*samples, *made],
            out,
            format=data_format,
            labels=labels,
            split=_extended(split, made) if split else None,
            fold=fold,
            excluded=data.excluded,
            jobs=jobs,
            provenance={
                **_provenance(steps, copies, seed, data, command),
                **made_of(out, data.path),
            },
            progress=lambda done, total: report(done, total, "writing"),
        )
    return len(samples) + len(made), loss.describe()


def _make_copies(
    steps: Sequence[Mapping[str, Any]],
    labels: LabelSpace,
    samples: Sequence[Sample],
    copies: int,
    seed: int,
    channels: int,
    folder: Path,
    index: int,
) -> list[Sample]:
    """Augment one sample; its copies' images go to a folder."""
    augment = Augmentation(steps, labels)
    # Bits are objects, so that several of a class stay apart, but where samples are mixed: there
    # the bits of both have to mean the same.
    read = _read_classes if augment.mixes else _read_objects

    def others(generator: np.random.Generator) -> tuple[Pixels, Pixels]:
        other = samples[other_index(len(samples), index, generator)]
        image, mask, _ = read(other, labels, channels)
        size_hw = samples[index].size_hw
        return resize_image(image, size_hw), resize_packed(mask, size_hw)

    sample = samples[index]
    image, mask, names = read(sample, labels, channels)
    classes = tuple(labels.index[name] for name in names)
    made = []
    for number in range(1, copies + 1):
        new, bits = augment(image, mask, (seed, number, index), others, classes)
        path = folder / str(index) / f"{sample.image.stem}-aug{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            cv2.imencode(".png", new if new.ndim == 2 else new[..., ::-1])[1].tobytes()
        )
        made.append(_copy(sample, number, path, unpack_instances(bits, names)))
    return made


def _channels(data: DataSource) -> int:
    return 3 if data.is_colored else 1


def _read_objects(
    sample: Sample, labels: LabelSpace, channels: int
) -> tuple[Pixels, Pixels, tuple[str, ...]]:
    names = sample.labels
    packed = pack_instances(sample.instances, sample.size_hw)
    return read_image(sample, channels), packed, names


def _read_classes(
    sample: Sample, labels: LabelSpace, channels: int
) -> tuple[Pixels, Pixels, tuple[str, ...]]:
    item = SampleItems([sample], labels, channels)[0]
    return item.image, item.packed, labels.names


def _copy(sample: Sample, number: int, path: Path, instances: tuple[Any, ...]) -> Sample:
    frame = replace(sample.frame, is_stored=True) if sample.frame else None
    return replace(
        sample,
        key=f"{sample.key}-aug{number}",
        image=path,
        instances=instances,
        attributes={**sample.attributes, "augmented_from": sample.key},
        frame=frame,
    )


def _check_new(made: Sequence[Sample], samples: Sequence[Sample]) -> None:
    known = {sample.key for sample in samples}
    if taken := [sample.key for sample in made if sample.key in known]:
        raise ValueError(
            f"'{taken[0]}': expected a data set without augmented copies, found one with them"
        )


def _extended(split: Split, made: Sequence[Sample]) -> Split:
    """The split with each copy in its original's fold and group."""
    copies: dict[str, list[str]] = {}
    for sample in made:
        copies.setdefault(sample.attributes["augmented_from"], []).append(sample.key)
    folds = tuple(
        tuple(new for key in keys for new in (key, *copies.get(key, ()))) for keys in split.folds
    )
    groups = {new: split.groups[key] for key in split.groups for new in (key, *copies.get(key, ()))}
    return replace(split, folds=folds, groups=groups)


def _provenance(
    steps: Sequence[Mapping[str, Any]],
    copies: int,
    seed: int,
    data: DataSource,
    command: Sequence[str],
) -> dict[str, Any]:
    config = {"augment": [dict(step) for step in steps], "copies": copies}
    record: dict[str, Any] = {"command": list(command), "config": config, "seed": seed}
    if data.edits:
        record["edits"] = data.edits.digest
    return record
