"""Data sets that are learned from beside the folds and never held out, such as pseudo labels.

Pseudo labels are what networks say of images without annotations, taken for truth where it is sure
(Lee 2013, "Pseudo-Label"; Xie et al. 2020, "Noisy Student", section 2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from converters.errors import DataError
from converters.types import LabelSpace, Sample, digest_samples
from zoo.source import DataSource


def read_further(
    sources: Sequence[DataSource], labels: LabelSpace, known: Sequence[Sample]
) -> list[Sample]:
    """Read data sets that are learned from beside another one.

    Args:
        sources: the further data sets; their train part is read, and where they have test images
            alone, as pseudo labels of these have, these.
        labels: the classes of the other one: what is of no class of these is left out, and said.
        known: the other data set's samples, to learn from and held out.

    Returns:
        Samples with keys that none of `known` has.

    Raises:
        ValueError: a data set without a class of `labels`, or an image that is among `known`.
    """
    by_name = defaultdict(list)
    for sample in known:
        by_name[sample.image.name].append(sample)
    found: list[Sample] = []
    for number, source in enumerate(sources, start=1):
        for sample in _learned(source, labels):
            for other in by_name[sample.image.name]:
                if sample.image.read_bytes() == other.image.read_bytes():
                    raise ValueError(
                        f"--also {source.path}: expected images beside those of the data set, "
                        f"found '{sample.key}', which is '{other.key}' there: an image that is "
                        "held out is not learned from"
                    )
            # Others count their images from 1, too; and what was a test image is none here.
            found.append(replace(sample, key=f"also-{number}/{sample.key}"))
    return found


def _learned(source: DataSource, labels: LabelSpace) -> list[Sample]:
    """Read what a data set has to learn from.

    Raises:
        ValueError: there is nothing.
    """
    refused: ValueError | None = None
    found: list[Sample] = []
    try:
        found = source.read(labels)
    except DataError:
        raise
    except ValueError as error:  # some formats refuse where there are none
        refused = error
    if not found and source.list_part("test", labels):
        found = source.read(labels, "test")
    if not found:
        raise refused or source.nothing_in("all")
    return found


def digest_of(samples: Sequence[Sample]) -> str | None:
    """Return what tells samples and their outlines from others; None for none of them."""
    return digest_samples(samples) if samples else None
