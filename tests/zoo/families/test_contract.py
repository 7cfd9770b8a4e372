"""A family that has what the contract asks for, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import converters
from converters.splits.split import Split
from converters.types import Sample
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.config import RunConfig
from zoo.contract import Family, PredictOptions, TrainJob
from zoo.families import FAMILIES
from zoo.families.outlines import OUTLINES, load_outline
from zoo.run_files.metrics import MetricsFile
from zoo.runs.memory import advise_before
from zoo.runs.predict import predict
from zoo.runs.run import Run
from zoo.runs.train import train
from zoo.source import DataSource


class ShiftConfig(RunConfig):
    shift_px: int = 1
    device: str = "cuda"


class ShiftFamily:
    """Knows the truth, and predicts it some pixels to the right."""

    kind, Config = "semantic", ShiftConfig

    def __init__(self, shift_truth: Callable[[Sample, int], Prediction]) -> None:
        self.shift_truth = shift_truth

    def train(self, config: ShiftConfig, job: TrainJob) -> None:
        MetricsFile(job.out / "metrics.csv", ("epoch", "val_dice")).append(
            {"epoch": 1, "val_dice": 1 - config.shift_px / 10}
        )

    def predict(
        self, run: Path, config: ShiftConfig, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        for sample in samples:
            yield self.shift_truth(sample, config.shift_px)


@pytest.fixture
def shift(
    shift_truth: Callable[[Sample, int], Prediction], monkeypatch: pytest.MonkeyPatch
) -> ShiftFamily:
    module: Any = ModuleType("shift_family")
    module.FAMILY = ShiftFamily(shift_truth)
    monkeypatch.setitem(sys.modules, "shift_family", module)
    monkeypatch.setitem(FAMILIES, "shift", "shift_family")
    return module.FAMILY


def test_four_names_are_all_that_a_family_needs() -> None:
    public = {name for name in (*vars(Family), *Family.__annotations__) if name[0] != "_"}
    assert public == {"kind", "Config", "train", "predict"}


def test_it_trains_and_predicts(
    shift: ShiftFamily, toys: Any, cut_toys: Callable[[int], Split], tmp_path: Path
) -> None:
    converters.write(toys.samples, tmp_path / "data", format="coco", labels=toys.labels)
    cut_toys(2).save(tmp_path / "split.json")
    (tmp_path / "shift.yaml").write_text(f"labels: {toys.labels_file}\nshift_px: 2\n")
    data = DataSource.open(tmp_path / "data")
    said: list[str] = []
    scores = train(
        "shift",
        str(tmp_path / "shift.yaml"),
        data,
        tmp_path / "run",
        split_path=tmp_path / "split.json",
        fold=0,
        changes=["shift_px=3"],
        command=["zoo", "train"],
        report=lambda done, total, note: None,
        say=said.append,
    )
    assert (float(scores["val_dice"]), said) == (0.7, [])
    run = Run.load(tmp_path / "run")
    assert run.config == ShiftConfig(labels=str(toys.labels_file), shift_px=3)
    predict(
        run,
        data,
        tmp_path / "store",
        subset="val",
        options=PredictOptions(),
        command=["zoo", "predict"],
        report=lambda done, total, note: None,
    )
    found = {p.key: p for p in PredictionStore(tmp_path / "store")}
    assert found.keys() == {sample.key for sample in toys.samples[:2]}


def test_it_gets_no_estimate_of_memory(shift: ShiftFamily) -> None:
    assert load_outline("shift") is None
    assert advise_before(ShiftConfig(), "shift") == ("", "")


def test_outlines_are_of_families() -> None:
    assert set(OUTLINES) <= set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTLINES)
def test_an_outline_has_all_that_the_estimate_asks(name: str) -> None:
    outline = load_outline(name)
    for part in ("build", "without_weights", "blocks", "training_step"):
        assert callable(getattr(outline, part))
