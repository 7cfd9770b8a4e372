"""Rules whose results are checked: flags say where a person has to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.checks.adjacency import Adjacency, Flag
from fusion.rules.base import WrappedRule
from fusion.types import Prediction, Rule


@dataclass(frozen=True)
class FlaggedRule(WrappedRule):
    """A rule of which it is known how its structures lie to each other.

    The result is the rule's own: flags tell a person where to look, they change nothing.

    Attributes:
        adjacency: how the structures lie to each other.
    """

    adjacency: Adjacency

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions."""
        return self.rule(predictions, labels)


def flags_of(rule: Rule, prediction: Prediction, labels: LabelSpace) -> list[Flag]:
    """Return what looks wrong about a rule's result; nothing where nothing checks it."""
    if not isinstance(rule, FlaggedRule):
        return []
    masks = binary_masks(prediction, labels.only(prediction.masks)) if prediction.masks else {}
    return rule.adjacency.check(masks)
