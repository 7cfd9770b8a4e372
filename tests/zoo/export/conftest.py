"""Runs that need no training: networks of random weights that are sure of what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from converters.files.provenance import write_provenance
from converters.splits.split import Split
from zoo.config import check_config
from zoo.families import load_family
from zoo.run_files.checkpoints import BEST, save_weights
from zoo.run_files.licences import WeightSource, write_licences

TINY = {
    "size": [64, 64],
    "epochs": 1,
    "batch": 2,
    "encoder": "tu-lcnet_035",
    "options": {"decoder_channels": [16, 16, 8, 8, 8]},
}
# So much surer than a network that has learned nothing.
SURE = 30


@pytest.fixture(scope="session")
def make_run(toys: Any) -> Callable[..., Path]:
    """Return a function: write a run folder with random weights."""

    def make(
        path: Path,
        *,
        seed: int = 0,
        split: Split | None = None,
        fold: int = 0,
        family: str = "smp",
        labels: Any = None,
        licence: WeightSource | None = None,
        **changes: Any,
    ) -> Path:
        raw = {"labels": labels or toys.labels.record(), **TINY, "seed": seed} | changes
        config = check_config(load_family(family).Config, raw, "test")
        torch.manual_seed(seed)
        network = load_family(family).build(config, len(config.labels)).eval()
        with torch.no_grad():
            list(network.parameters())[-2].mul_(SURE)
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump({"family": family, **raw}))
        save_weights(network, path / BEST)
        write_licences(path, [licence] if licence else [])
        if split:
            split.save(path / "split.json")
            write_provenance(path, "test", {"fold": fold}, seed, split.digest)
        return path

    return make
