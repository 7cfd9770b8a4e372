"""What each source contributes to each class by a hybrid's weights, as a heat map by zone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.types import LabelSpace
from fusion.rules.evidence import ZONES
from fusion.rules.hybrid import Hybrid
from zoo.report.sections import by_group

POOLED_MEAN = "their mean"


@dataclass(frozen=True)
class WeightShare:
    """One source in one zone of one class.

    Attributes:
        share: its weight over the sum of all weights there, 0..1.
        weight: as the rule has it.
        tint: strength of the shading, 0..1.
    """

    share: float
    weight: float
    tint: float


@dataclass(frozen=True)
class WeightRow:
    """One class: a share a zone and source, its bias, and the source that it keeps, if any."""

    name: str
    zones: tuple[tuple[WeightShare, ...], ...]
    bias: float
    keeps: str


@dataclass(frozen=True)
class WeightTable:
    """The weights of all classes.

    Attributes:
        zones: alone, shared, outline.
        columns: the sources, and their mean where the rule has a weight for it.
        sections: group -> classes.
        kept: source -> the classes that keep it.
    """

    zones: tuple[str, ...]
    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[WeightRow, ...]], ...]
    kept: tuple[tuple[str, tuple[str, ...]], ...]


def weight_table(hybrid: Hybrid, labels: LabelSpace) -> WeightTable | None:
    """Return the weights that a fit has found; None of a rule without any."""
    fitted = {name: hybrid.classes[name] for name in labels.names if name in hybrid.classes}
    if not fitted:
        return None
    pools = [row for w in fitted.values() if not w.keeps for row in w.weights.values()]
    top = max((share for row in pools for share in _parts(row)), default=1.0)
    rows = {
        name: WeightRow(name, tuple(_shares(w.weights[z], top) for z in ZONES), w.bias, w.keeps)
        for name, w in fitted.items()
    }
    width = max(len(zone) for row in rows.values() for zone in row.zones)
    columns = (*hybrid.sources, POOLED_MEAN)[:width]
    kept = [
        (source, tuple(name for name, w in fitted.items() if w.keeps == source))
        for source in hybrid.sources
    ]
    return WeightTable(
        tuple(ZONES), columns, tuple(by_group(rows, labels)), tuple(k for k in kept if k[1])
    )


def _shares(weights: Sequence[float], top: float) -> tuple[WeightShare, ...]:
    # Squared, so that shares that are nearly equal can be told apart.
    return tuple(
        WeightShare(part, weight, (part / top) ** 2 if top else 0.0)
        for part, weight in zip(_parts(weights), weights, strict=True)
    )


def _parts(weights: Sequence[float]) -> list[float]:
    total = sum(abs(w) for w in weights)
    return [abs(w) / total if total else 0.0 for w in weights]
