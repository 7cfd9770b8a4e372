"""Every family learns in bfloat16 on a processor: `precision: auto` takes it where it is fast."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest
import torch
from run_weights import differing_weights

import configs
from zoo.config import load_config
from zoo.contract import PredictOptions
from zoo.families import FAMILIES, load_family
from zoo.run_files.checkpoints import LAST, read_weights

pytestmark = pytest.mark.slow

# The refiner looks at the predictions of others.
NAMES = [name for name in FAMILIES if name != "refiner"]


def _train(name: str, job: Any, toys: Any) -> Any:
    family = load_family(name)
    given: dict[str, Any] = {"labels": toys.labels_file, "precision": "bf16-mixed", "batch": 2}
    given |= {"epochs": 2, "validate_every": 1}
    given |= {"imgsz": 64} if name == "yolo" else {"size": [128, 128]}
    words = [f"{key}={value}".replace(" ", "") for key, value in given.items()]
    config = load_config(family.Config, name, "laptop", words, None)
    family.train(config, job)
    return family, config


@pytest.mark.parametrize("name", NAMES)
def test_a_small_network_learns_and_predicts(name: str, make_job: Any, toys: Any) -> None:
    if name == "yolo":
        pytest.importorskip("ultralytics")
    assert "laptop" in configs.names(name)
    job = make_job()
    family, config = _train(name, job, toys)
    weights = read_weights(job.out / LAST)
    assert torch.bfloat16 not in {weight.dtype for weight in weights.values()}
    assert all(torch.isfinite(w).all() for w in weights.values())
    with (job.out / "metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    found = list(family.predict(job.out, config, toys.samples[:1], PredictOptions(device="cpu")))
    assert [p.key for p in found] == [toys.samples[0].key]


@pytest.mark.parametrize("name", ["smp", "yolo"])
def test_the_same_seed_gives_the_same_weights(name: str, make_job: Any, toys: Any) -> None:
    if name == "yolo":
        pytest.importorskip("ultralytics")
    jobs = make_job("first"), make_job("again")
    for job in jobs:
        _train(name, job, toys)
    assert not differing_weights(*(job.out for job in jobs))
