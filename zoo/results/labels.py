"""Fused masks as the labels of a data set: pseudo labels, and drafts for people to correct."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import converters
from converters.masks import decode_rle, outline
from converters.types import Instance, LabelSpace
from fusion.sources.submission import RleRow
from zoo.progress import Report

if TYPE_CHECKING:
    from zoo.results.job import Job


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


def write_labels(job: Job, rows: Iterable[RleRow], report: Report) -> str:
    """Write rows as the annotations of the data set's images; return what was lost, in words."""
    samples, labels = job.samples or {}, job.ensemble.labels
    found: dict[str, list[Instance]] = {key: [] for key in job.ensemble.images}
    for row in rows:
        found[row.image_name] += objects(row, samples[row.image_name].size_hw, labels)
    labelled = [replace(samples[key], instances=tuple(seen)) for key, seen in found.items()]
    sources = [os.fspath(source.path) for source in job.ensemble.sources]
    loss = converters.write(
        *(labelled, job.out),
        format=job.format,
        labels=labels,
        jobs=job.jobs,
        provenance={
            "command": list(job.command),
            "config": {"rule": repr(job.rule), "sources": sources, "floor": job.floor},
        },
        progress=lambda done, total: report(done, total, "writing"),
    )
    return loss.describe()
