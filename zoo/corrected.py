"""Corrected images as corrections: what `zoo review` gave to people, and got back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import converters
from converters.edits.entries import subset_of
from converters.errors import DataError, Problem
from converters.types import LabelSpace, Sample, digest_samples, with_drawn
from zoo.progress import note


@dataclass(frozen=True)
class CorrectedImages:
    """A data set whose annotations take the place of another one's, image by image.

    Of an image that it has, the objects of its classes are the corrected ones; those of classes
    that it does not have stay, and so do patients and attributes. It corrects as
    `converters.edits.edits.Edits` do, so that the data set itself stays as it is.

    Attributes:
        path: the folder.
        format: the format's name.
        excluded: none; corrected images are all there.
    """

    path: Path
    format: str
    excluded: frozenset[str] = frozenset()

    @classmethod
    def open(cls, path: Path) -> CorrectedImages:
        """Find out the format.

        Raises:
            ValueError: a folder in no known format.
        """
        return cls(path, converters.recognise(path))

    @cached_property
    def _own(self) -> LabelSpace:
        return converters.label_space(self.path, format=self.format)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of keys and objects, in hexadecimal digits."""
        return digest_samples(self._read(self._own))

    def _read(self, labels: LabelSpace) -> list[Sample]:
        return converters.read(
            self.path, format=self.format, subset="all", labels=labels, note=note
        )

    def apply(
        self,
        samples: Sequence[Sample],
        *,
        subset: str,
        labels: LabelSpace,
        problems: Collection[Problem] = (),
    ) -> list[Sample]:
        """Return the samples with the corrected objects.

        Args:
            samples: what was read.
            subset: which part of the data set that is: `train`, `test` or `all`.
            labels: the classes that may occur.
            problems: what is wrong with the data set; an image that cannot be read is not
                corrected.

        Raises:
            DataError: a corrected image that the data set does not have, or has in another size.
            ValueError: the corrected images cannot be read, or have none of the classes.
        """
        corrected = {sample.key: sample for sample in self._read(labels)}
        known = {sample.key: sample for sample in samples}
        broken = {problem.key for problem in problems}
        found = []
        for key, sample in corrected.items():
            if key in known and known[key].size_hw != sample.size_hw:
                found.append(
                    f"'{key}': expected {known[key].size_hw} pixels (height, width) as in the data "
                    f"set, found {sample.size_hw}"
                )
            elif key not in known and key not in broken and subset in ("all", subset_of(key)):
                found.append(f"expected an image of the data set, found '{key}', not in it")
        if found:
            raise DataError(self.path, found)
        named = {name for own in self._own.names if (name := labels.canonical(own))}
        return [
            _correct(sample, corrected[sample.key], named, labels)
            if sample.key in corrected
            else sample
            for sample in samples
        ]


def _correct(
    sample: Sample, corrected: Sample, named: Collection[str], labels: LabelSpace
) -> Sample:
    kept = [one for one in with_drawn(sample.instances) if one.label not in named]
    instances = [*kept, *with_drawn(corrected.instances)]
    instances.sort(key=lambda instance: labels.index.get(instance.label, len(labels)))
    return replace(sample, instances=tuple(instances))
