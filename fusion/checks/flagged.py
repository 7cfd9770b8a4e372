"""Rules whose results are looked over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.types import LabelSpace
from fusion.checks.adjacency import Adjacency, Flag
from fusion.types import Prediction, Rule


@dataclass(frozen=True)
class Watched:
    """A rule of which it is known how its bones lie to each other.

    The result is the rule's own: flags tell a person where to look, they change nothing.

    Attributes:
        rule: fuses.
        adjacency: how the bones lie to each other.
    """

    rule: Rule
    adjacency: Adjacency

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that the rule expects, in order; empty if it takes any."""
        return tuple(getattr(self.rule, "sources", ()))

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions."""
        return self.rule(predictions, labels)


def flags_of(rule: Rule, prediction: Prediction, labels: LabelSpace) -> list[Flag]:
    """Return what looks wrong about a rule's result; nothing where nothing watches over it."""
    if not isinstance(rule, Watched):
        return []
    masks = {name: prediction.binary(name, once=labels.once) for name in prediction.masks}
    return rule.adjacency.check(masks)
