"""Each class from the source, or from the rule over some sources, that knows it best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from converters.types import LabelSpace
from fusion.rules.base import (
    ClassRule,
    FusionRule,
    Verdict,
    assemble,
    check_classes,
    check_names,
    check_sources,
)
from fusion.types import Prediction, Rule


@dataclass(frozen=True)
class Classwise(FusionRule):
    """Takes each class from a chosen source, or from another rule over chosen sources.

    Where those who are chosen for a class abstain, as a source that sees a part of the image does
    on an object that the part's edge cuts, the class comes from the rest.

    Attributes:
        sources: names of the sources in the order of the predictions. Left out, those that the
            choices name.
        classes: class or group -> a source, or a rule with its own sources (without any, all of
            them). A class's entry is stronger than its group's.
        rest: source or rule for all other classes.

    Raises:
        ValueError: a choice names a source that is not among `sources`.
    """

    classes: Mapping[str, str | Rule] = field(default_factory=dict)
    rest: str | Rule | None = None

    def __post_init__(self) -> None:
        named = [name for choice in self._choices() for name in _sources_of(choice)]
        object.__setattr__(self, "sources", check_names("classwise", self.sources, named))

    @property
    def is_pixelwise(self) -> bool:
        """Whether all the rules that classes come from look at one pixel at a time."""
        return all(isinstance(c, str) or c.is_pixelwise for c in self._choices())

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`.

        Raises:
            ValueError: predictions of different images, none, or another number than of sources;
                a choice for a class that the label space does not have; a class without a choice.
        """
        check_sources("classwise", self.sources, predictions)
        check_classes("classwise", list(self.classes), labels)
        asked = {id(c): self._panel(c, predictions, labels) for c in self._choices()}
        verdicts = {}
        for label in labels.names:
            panels = [asked[id(choice)] for choice in self._for(label, labels)]
            found = (panel(label) for panel in panels)
            verdicts[label] = next((v for v in found if v is not None), None)
        return assemble(predictions, verdicts)

    def _choices(self) -> Iterator[str | Rule]:
        yield from self.classes.values()
        if self.rest is not None:
            yield self.rest

    def _for(self, label: str, labels: LabelSpace) -> list[str | Rule]:
        """The choices for a class, the first one first; what abstains is followed by the rest."""
        group = labels.group_of(label) or ""
        chosen = self.classes.get(label, self.classes.get(group))
        found = [choice for choice in (chosen, self.rest) if choice is not None]
        if not found:
            expected = "expected a source for it, for its group, or for the rest in a fusion config"
            raise ValueError(f"classwise: '{label}': {expected}")
        return found

    def _panel(
        self, choice: str | Rule, predictions: Sequence[Prediction], labels: LabelSpace
    ) -> _Panel:
        named = _sources_of(choice)
        chosen = [predictions[self.sources.index(n)] for n in named] if named else predictions
        if isinstance(choice, ClassRule):
            choice.check(chosen, labels)
        return _Panel(choice, chosen, labels)


@dataclass(frozen=True)
class _Panel:
    """A choice and the predictions that it gets. A rule that is not by class is asked once."""

    choice: str | Rule
    predictions: Sequence[Prediction]
    labels: LabelSpace
    answer: list[Prediction] = field(default_factory=list)

    def __call__(self, label: str) -> Verdict:
        """Return what is said of a class."""
        if isinstance(self.choice, ClassRule):
            return self.choice.decide(self.predictions, label, self.labels)
        if not any(p.speaks_of(label) for p in self.predictions):
            return None
        if isinstance(self.choice, str):
            found = self.predictions[0].evidence(label, self.labels.once)
            return (found,) if found else ()
        if not self.answer:
            self.answer.append(self.choice(self.predictions, self.labels))
        return self.answer[0].masks.get(label, ())


def _sources_of(choice: str | Rule) -> tuple[str, ...]:
    return (choice,) if isinstance(choice, str) else choice.sources
