"""What fusion rules have in common, and rules around a rule; rules that fuse class by class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converters.masks import enclose
from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.rules.evidence import check_same_image
from fusion.types import Evidence, Prediction, Rule, SoftMask, Window, evidence_at_pixels, soft_mask

Verdict = tuple[Evidence, ...] | None
"""A class's fused evidence: empty where there is no such object, None where nobody speaks of it."""


@dataclass(frozen=True)
class FusionRule(ABC):
    """A rule that fuses the sources' predictions of one image.

    Attributes:
        sources: names of the sources in the order of the predictions; empty where the rule treats
            all alike.
    """

    sources: tuple[str, ...] = ()

    @property
    def is_pixelwise(self) -> bool:
        """Whether it looks at one pixel at a time, so that it need not know an image's size."""
        return False

    def innermost(self) -> Rule:
        """Return the rule itself: there is nothing around it."""
        return self

    @abstractmethod
    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`.

        Raises:
            ValueError: predictions of different images, none, or another number than of sources;
                or options that do not fit the sources or the classes.
        """


@dataclass(frozen=True)
class WrappedRule(ABC):
    """A rule around a rule: it does something to what the inner one has fused.

    Attributes:
        rule: fuses.
    """

    rule: Rule

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that the rule expects, in order; empty if it takes any."""
        return self.rule.sources

    @property
    def is_pixelwise(self) -> bool:
        """Whether it looks at one pixel at a time: what is done to whole objects does not."""
        return False

    def innermost(self) -> Rule:
        """Return the rule inside all that is around it."""
        return self.rule.innermost()

    @abstractmethod
    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`."""


def layers(rule: Rule) -> Iterator[Rule]:
    """Yield a rule, and what it is around, from the outside to the innermost one."""
    while isinstance(rule, WrappedRule):
        yield rule
        rule = rule.rule
    yield rule


@dataclass(frozen=True)
class ClassVotes:
    """What the sources that speak of one class say of it in one image.

    Attributes:
        label: class name.
        size_hw: height and width of the image in pixels.
        masks: the source's place among the sources -> its mask; None: it has looked, and found
            nothing. Sources that abstain are absent.
    """

    label: str
    size_hw: tuple[int, int]
    masks: Mapping[int, SoftMask | None]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], label: str, once: bool) -> ClassVotes:
        """Ask one image's sources about a class; `once`: it occurs at most once in an image."""
        masks = {}
        for place, prediction in enumerate(predictions):
            if prediction.speaks_of(label):
                found = prediction.evidence(label, once)
                masks[place] = found[1] if found else None
        return cls(label, predictions[0].size_hw, masks)

    def window(self, level: int) -> Window:
        """Return the smallest window of the image with all cells of at least `level`."""
        cut = (soft_mask(m.prob, m.box_xywh, level) for m in self.masks.values() if m)
        return enclose(m.window(self.size_hw) for m in cut if m)

    def layers(self, window: Window) -> Iterator[tuple[int, Bytes]]:
        """Yield place and probability, uint8 (h, w), of each source that has found something."""
        for place, mask in self.masks.items():
            if mask:
                yield place, mask.render(window)


@dataclass(frozen=True)
class ClassRule(FusionRule):
    """A rule that fuses each class by itself, whatever is said of the others."""

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions, given in the order of `sources`.

        Raises:
            ValueError: as `FusionRule`.
        """
        self.check(predictions, labels)
        return assemble(predictions, {n: self.decide(predictions, n, labels) for n in labels.names})

    def check(self, predictions: Sequence[Prediction], labels: LabelSpace) -> None:
        """Raise ValueError where the rule does not fit these predictions and classes."""
        check_sources(type(self).__name__.lower(), self.sources, predictions)

    def decide(self, predictions: Sequence[Prediction], label: str, labels: LabelSpace) -> Verdict:
        """Fuse one class of one image; predictions, labels and options have been checked."""
        votes = ClassVotes.of(predictions, label, labels.once)
        if not votes.masks:
            return None
        window, prob = self.fuse(votes, labels)
        return evidence_at_pixels(window, prob) if prob.any() else ()

    @abstractmethod
    def fuse(self, votes: ClassVotes, labels: LabelSpace) -> tuple[Window, Bytes]:
        """Return a window of the image and the class's probability there, uint8 (h, w)."""


def check_sources(rule: str, sources: Sequence[str], predictions: Sequence[Prediction]) -> None:
    """Raise ValueError where predictions are not of one image, or not one a source.

    Args:
        rule: its name, for the message.
        sources: names; none where any number will do.
        predictions: one image's.
    """
    check_same_image(predictions)
    if sources and len(predictions) != len(sources):
        expected = f"{len(sources)} sources ({', '.join(sources)})"
        raise ValueError(f"{rule}: expected {expected}, found {len(predictions)}")


def check_names(rule: str, sources: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
    """Return the sources; where they are left out, those that the rule's options name.

    Args:
        rule: its name, for the message.
        sources: as given.
        named: by the options, in the order in which they come; may come twice.

    Raises:
        ValueError: a source comes twice, or the options name one that is not there.
    """
    found = tuple(sources) or tuple(dict.fromkeys(named))
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"{rule}: expected each source once, found twice: {', '.join(twice)}")
    if unknown := [name for name in dict.fromkeys(named) if name not in found]:
        expected = f"sources of {', '.join(found)}"
        raise ValueError(f"{rule}: expected {expected}; found {', '.join(unknown)}")
    return found


def check_classes(rule: str, named: Sequence[str], labels: LabelSpace) -> None:
    """Raise ValueError where an option is of neither a class nor a group of the label space."""
    known = {*labels.names, *labels.groups}
    if unknown := [name for name in named if name not in known]:
        expected = f"classes or groups of '{labels.name}'"
        raise ValueError(f"{rule}: expected {expected}, found {', '.join(unknown)}")


def assemble(predictions: Sequence[Prediction], verdicts: Mapping[str, Verdict]) -> Prediction:
    """Make one image's prediction of the verdicts on all its classes."""
    first = predictions[0]
    masks = {label: found for label, found in verdicts.items() if found}
    known = frozenset(label for label, found in verdicts.items() if found is not None)
    classes = None if len(known) == len(verdicts) else known
    return Prediction(first.key, first.size_hw, "semantic", masks, classes)
