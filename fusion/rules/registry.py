"""The rules by name: a rule is a module here and a line in `FUSIONS`."""

from __future__ import annotations

from fusion.rules.base import FusionRule
from fusion.rules.classwise import Classwise
from fusion.rules.hybrid import Hybrid
from fusion.rules.pooling import Max, Mean, Weighted
from fusion.rules.staple import Staple
from fusion.rules.voting import Vote

FUSIONS: dict[str, type[FusionRule]] = {
    "mean": Mean,
    "weighted": Weighted,
    "vote": Vote,
    "max": Max,
    "classwise": Classwise,
    "staple": Staple,
    "hybrid": Hybrid,
}
