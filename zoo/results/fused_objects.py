"""Fused objects as files: the labels of a data set, or COCO's results.

Labels are pseudo labels, and drafts for people to correct; results are what pycocotools scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

import converters
from converters.files.atomic import unfinished
from converters.formats.coco.documents import is_results
from converters.formats.coco.result_ids import ResultIds
from converters.masks import decode_rle, outline
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.submission import RleRow
from zoo.progress import Report


def write_labels(
    rows: Iterable[RleRow],
    samples: Mapping[str, Sample],
    labels: LabelSpace,
    out: Path,
    data_format: str,
    *,
    layout: str = "",
    jobs: int,
    provenance: Mapping[str, Any],
    report: Report,
) -> str:
    """Write rows as the annotations of a data set's images; return what was lost, in words.

    Args:
        rows: an object each, image by image; each names its image by the sample's key.
        samples: key -> sample, of every image that is written, in the rows' order.
        labels: the classes.
        out: the data set's folder.
        data_format: of the data set.
        layout: of the format; "" is its first.
        jobs: processes.
        provenance: command and config for `provenance.json`.
        report: for a progress bar.

    Raises:
        ValueError: a mask or a data set that cannot be written.
    """
    drawn: dict[str, list[Instance]] = {key: [] for key in samples}
    for row in rows:
        mask = decode_rle(row.rle, samples[row.image_name].size_hw)
        drawn[row.image_name].append(Instance(row.label, outline(mask)))
    loss = converters.write(
        [replace(samples[key], instances=tuple(found)) for key, found in drawn.items()],
        out,
        format=data_format,
        labels=labels,
        layout=layout,
        jobs=jobs,
        provenance=provenance,
        progress=lambda done, total: report(done, total, "writing"),
    )
    return loss.describe()


def write_results(
    rows: Iterable[tuple[RleRow, float]],
    sizes_hw: Mapping[str, tuple[int, int]],
    out: Path,
    ids: ResultIds,
) -> int:
    """Write objects as a JSON list of detections, whole or not at all; return their number.

    Args:
        rows: an object each, and its score; each names its image by the sample's key.
        sizes_hw: height and width of the images, by their keys.
        out: the file.
        ids: of images and classes.
    """
    count = 0
    with unfinished(out) as place, place.open("wb") as file:
        for row, score in rows:
            size_hw = sizes_hw[row.image_name]
            mask = decode_rle(row.rle, size_hw)
            file.write(b",\n" if count else b"[\n")
            file.write(
                msgspec.json.encode(ids.entry(row.image_name, row.label, score, mask, size_hw))
            )
            count += 1
        file.write(b"\n]\n" if count else b"[]\n")
    return count


def are_results(text: str) -> bool:
    """Tell whether a file's text is a list of results, which may be replaced."""
    try:
        content = msgspec.json.decode(text)
    # msgspec's are no ValueError before 0.20.
    except (ValueError, msgspec.MsgspecError):
        return False
    return content == [] or is_results(content)
