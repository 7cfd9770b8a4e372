"""What every fit of a fusion rule is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from converters.parallel import IN_PROCESS, Workers
from converters.types import LabelSpace
from fusion.fit.counted import Counted, CountedImage, Seen
from fusion.fit.report import ClassReport
from fusion.types import Rule

Tell = Callable[[str], None]
RuleT = TypeVar("RuleT", bound=Rule)
RuleT_co = TypeVar("RuleT_co", bound=Rule, covariant=True)


def quiet(note: str) -> None:
    """Hear what is being done, and say nothing."""


@dataclass(frozen=True)
class Fit(Generic[RuleT_co]):
    """A fitted rule and why it is as it is.

    Attributes:
        rule: the rule, fitted on all images.
        plain_name: how people call the same rule without a fit.
        plain: that rule: what the fitted one has to beat.
        held_out: patient -> the rule as fitted without the images of that patient: for whatever is
            judged or chosen next, on images that the rule has not seen.
        images: how many were fitted on.
        patients: how many they are of.
        report: class name -> what cross-validation said, where the fit needs to know.
        takes: class name -> the source from which it comes, where that is a single one.
        can_lose: whether it is of interest what the rule loses without a source.
        note: why it is this fit, where it was chosen among several.
    """

    rule: RuleT_co
    plain_name: str
    plain: Rule
    held_out: Mapping[str, RuleT_co]
    images: int
    patients: int
    report: Mapping[str, ClassReport] = field(default_factory=dict)
    takes: Mapping[str, str] = field(default_factory=dict)
    can_lose: bool = False
    note: str = ""

    def notes(self) -> dict[str, str]:
        """One comment a class, for the rule's file."""
        return {label: r.note() for label, r in self.report.items()}


class Fitting(Protocol):
    """A way to fit a rule: images are counted one by one, and the rule is fitted to the counts."""

    def count(self, seen: Seen, labels: LabelSpace) -> CountedImage:
        """Return what the fit keeps of an image; pure, so that it can run in any process."""

    def solve(
        self,
        counted: Counted,
        sources: Sequence[str],
        labels: LabelSpace,
        tell: Tell = quiet,
        workers: Workers = IN_PROCESS,
    ) -> Fit[Rule]:
        """Fit the rule, on all images and on those of every fold.

        Args:
            counted: the images.
            sources: the sources' names, in the order of the counts.
            labels: the classes.
            tell: told what is being done.
            workers: fit the folds; their number does not change the result.
        """
