"""Fused masks as the labels of a data set: pseudo labels, and drafts for people to correct."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import converters
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
