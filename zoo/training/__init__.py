"""The trainer of our own networks: a Lightning loop, scores, and a run to continue."""

from __future__ import annotations

from zoo.training.loop import fit_network, is_finished, seed_everything
from zoo.training.module import Batch, NetworkModule, SemanticModule
from zoo.training.recorder import Recorder

__all__ = [
    "Batch",
    "NetworkModule",
    "Recorder",
    "SemanticModule",
    "fit_network",
    "is_finished",
    "seed_everything",
]
