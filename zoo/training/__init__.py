"""The trainer that all semantic families share: a Lightning loop, scores, and a run to continue."""

from __future__ import annotations

from zoo.training.loop import fit_semantic, is_finished, seed_everything
from zoo.training.module import Batch, SemanticModule
from zoo.training.recorder import Recorder

__all__ = [
    "Batch",
    "Recorder",
    "SemanticModule",
    "fit_semantic",
    "is_finished",
    "seed_everything",
]
