"""SegFormer, whose data set is converted first or read as it is, with metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_weights import differing_weights

import converters
from converters.splits.split import VERSION, Split
from converters.types import Sample
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families.segformer.config import SegFormerConfig
from zoo.families.segformer.family import FAMILY
from zoo.metadata.columns import Columns
from zoo.run_files.checkpoints import LAST

pytestmark = pytest.mark.slow

TINY = {
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "decoder_hidden_size": 16,
}


@pytest.fixture
def config(configure: Callable[..., Any]) -> SegFormerConfig:
    raw = {
        **{"labels": configure().labels.record(), "size": [64, 64], "epochs": 1, "batch": 4},
        **{"network": TINY, "device": "cpu"},
        "metadata": {"columns": ["age", "sex"], "use": "both"},
    }
    return check_config(SegFormerConfig, raw, "test")


def test_a_data_set_that_is_read_as_it_is_gives_the_same_run(
    config: SegFormerConfig,
    job: Callable[..., Any],
    people: list[Sample],
    tmp_path: Path,
) -> None:
    keys = tuple(sample.key for sample in people)
    split = Split(VERSION, 0, "given", (keys[8:], keys[:8]), {key: key for key in keys})
    given: Any = {"format": "segformer", "labels": config.labels, "split": split}
    converters.write(people, tmp_path / "hf", **given)
    converted = job("converted")
    FAMILY.train(config, converted)
    direct = replace(job("direct", train=(), val=()), data=tmp_path / "hf", data_format="segformer")
    FAMILY.train(config, direct)
    assert Columns.load(direct.out) == Columns.load(converted.out)
    # Of the eight that are learned from: two each of 20, 70, 50 and 30 years.
    assert Columns.load(direct.out).columns[0].mean == pytest.approx(42.5)
    assert not differing_weights(direct.out, converted.out, LAST)
    # Where the network's dimensions lie in the run, its columns do, too.
    found = list(FAMILY.predict(direct.out, config, people[8:], PredictOptions(device="cpu")))
    assert [prediction.key for prediction in found] == list(keys[8:])
