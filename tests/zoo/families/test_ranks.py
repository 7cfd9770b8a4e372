"""Every family whose networks find instances, trained by two processes on the CPU."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from zoo.contract import PredictOptions
from zoo.families import load_family
from zoo.run_files.checkpoints import BEST, LAST, read_weights
from zoo.runs.ranks import all_ranks

pytestmark = [pytest.mark.slow, pytest.mark.long]
Make = Callable[..., Any]


@pytest.mark.parametrize("name", ["maskrcnn", "mask2former", "oneformer", "eomt", "rfdetr"])
@pytest.mark.parametrize("once", [True, False])
def test_two_processes_train_one_network(
    configure: Make, make_job: Make, label_file: Make, name: str, once: bool
) -> None:
    family = load_family(name)
    labels = label_file(of_toys=True, once=once)
    config = configure(name, batch=1, devices=2, device="cpu", conf=0.0, labels=labels)
    job = replace(make_job(), labels=config.labels)
    with all_ranks(name, config, job):
        family.train(config, job)
    with (job.out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    # Four images, two processes of one at a time: two steps an epoch.
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
    assert read_weights(job.out / BEST).keys() == read_weights(job.out / LAST).keys()
    assert len(list(family.predict(job.out, config, job.val, PredictOptions()))) == 2
