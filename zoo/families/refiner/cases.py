"""Images that a refiner learns from, is scored on, or predicts, with what sources say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from converters.types import LabelSpace, Sample
from fusion.metrics.annotated import truth_masks
from fusion.types import Rule
from zoo.data.cases import Case
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.refining import LookCase
from zoo.families.refiner.start import Sources, Start


def read_cases(
    samples: Sequence[Sample],
    sources: Sources,
    rules: Start | Rule,
    config: RefinerConfig,
    labels: LabelSpace,
    with_truth: bool,
) -> Iterator[LookCase]:
    """Yield images with what is said of them, one in memory at a time.

    Args:
        samples: which.
        sources: what is said.
        rules: what fuses it: the same rule for all, or one a patient that has not seen them.
        config: how they are looked at.
        labels: the classes.
        with_truth: whether their truth is looked at, too.
    """
    keys = [sample.key for sample in samples]
    for sample, predictions in zip(samples, sources.read(keys), strict=True):
        rule = rules.of(sample.patient) if isinstance(rules, Start) else rules
        truth = truth_masks(sample, labels) if with_truth else None
        yield LookCase.of(sample, predictions, rule, labels, config, truth)


@dataclass(frozen=True)
class LookCases:
    """Images to score on; read and fused anew each time, so that none stays in memory.

    What is looked at knows nothing of the truth.
    """

    samples: Sequence[Sample]
    sources: Sources
    rule: Rule
    config: RefinerConfig
    labels: LabelSpace

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def read(self, numbers: Iterable[int]) -> Iterator[Case]:
        """Yield the samples of these numbers, in order."""
        chosen = [self.samples[number] for number in numbers]
        cases = read_cases(chosen, self.sources, self.rule, self.config, self.labels, False)
        for sample, case in zip(chosen, cases, strict=True):
            yield replace(case, truth=truth_masks(sample, self.labels))
