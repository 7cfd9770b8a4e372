"""Fused masks as the labels of a data set: pseudo labels, and drafts for people to correct."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import converters
from converters.masks import decode_rle, outline
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.submission import RleRow
from zoo.progress import Report


def objects(row: RleRow, size_hw: tuple[int, int], labels: LabelSpace) -> Iterator[Instance]:
    """Yield the objects of which a row's mask consists.

    A fusion gives one mask a class. Where a class occurs once in an image, that is one object, with
    all its parts and holes. Otherwise each connected part (8 neighbours) is one: two that touch are
    one then, and one that another object cuts in two is two. The class of what no object covers is
    none.

    Args:
        row: an image's mask of one class.
        size_hw: the image's height and width.
        labels: the classes.
    """
    mask = decode_rle(row.rle, size_hw)
    if not mask.area or row.label == labels.background:
        return
    whole = Instance(row.label, outline(mask))
    if labels.once:
        yield whole
    else:
        yield from (Instance(row.label, part) for part in whole.parts)


def write_labels(
    rows: Iterable[RleRow],
    samples: Mapping[str, Sample],
    labels: LabelSpace,
    out: Path,
    data_format: str,
    *,
    jobs: int,
    provenance: Mapping[str, Any],
    report: Report,
) -> str:
    """Write rows as the annotations of a data set's images; return what was lost, in words.

    Args:
        rows: masks, image by image; each names its image by the sample's key.
        samples: key -> sample, of every image that is written, in the rows' order.
        labels: the classes.
        out: the data set's folder.
        data_format: of the data set.
        jobs: processes.
        provenance: command and config for `provenance.json`.
        report: for a progress bar.

    Raises:
        ValueError: a mask or a data set that cannot be written.
    """
    drawn: dict[str, list[Instance]] = {key: [] for key in samples}
    for row in rows:
        drawn[row.image_name] += objects(row, samples[row.image_name].size_hw, labels)
    loss = converters.write(
        [replace(samples[key], instances=tuple(found)) for key, found in drawn.items()],
        out,
        format=data_format,
        labels=labels,
        jobs=jobs,
        provenance=provenance,
        progress=lambda done, total: report(done, total, "writing"),
    )
    return loss.describe()
